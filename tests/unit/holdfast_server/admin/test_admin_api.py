"""The admin API end to end: signed JSON over HTTP; users and policies take effect at once."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator

import pytest
from botocore.exceptions import ClientError

from holdfast_server.contract import names
from holdfast_server.s3.signing import KeyPair, sign_headers
from holdfast_server.testing import boto
from holdfast_server.testing.memory_services import Endpoint, memory_services, served

SECRET = "a-secret-key"
ROOT = KeyPair("holdfast-root", "holdfast-root-password")
LOKI_POLICY = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Action": ["s3:*"],
            "Resource": ["arn:aws:s3:::loki-chunks", "arn:aws:s3:::loki-chunks/*"],
        }
    ],
}


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Endpoint]:
    with served(memory_services()) as served_endpoint:
        yield served_endpoint


def ask(endpoint: Endpoint, pair: KeyPair | None, method: str, path: str, value: object = None):
    body = json.dumps(value).encode() if value is not None else b""
    raw_path = names.ADMIN_PREFIX + path
    headers = {"host": f"{endpoint.host}:{endpoint.port}", "content-length": str(len(body))}
    if pair is not None:
        headers = sign_headers(pair, method, raw_path, "", headers, int(time.time() * 1000))
    connection = http.client.HTTPConnection(endpoint.host, endpoint.port, timeout=60)
    connection.request(method, raw_path, body, headers)
    response = connection.getresponse()
    text = response.read()
    connection.close()
    return response.status, json.loads(text) if text else None


def client_of(endpoint: Endpoint, access_key: str, secret_key: str = SECRET):
    return boto.client_of(endpoint, access_key, secret_key)


def test_a_user_with_a_policy_works_at_once_and_only_there(endpoint: Endpoint) -> None:
    root = client_of(endpoint, ROOT.access_key, ROOT.secret_key)
    for bucket in ("loki-chunks", "others"):
        root.create_bucket(Bucket=bucket)
    assert ask(endpoint, ROOT, "PUT", "/policies/loki", LOKI_POLICY)[0] == 200
    spec = {"secretKey": SECRET, "name": "loki", "policies": ["loki"]}
    for _ in range(2):
        assert ask(endpoint, ROOT, "PUT", "/users/lokikey", spec)[0] == 200
    loki = client_of(endpoint, "lokikey")
    loki.put_object(Bucket="loki-chunks", Key="k", Body=b"1")
    assert loki.get_object(Bucket="loki-chunks", Key="k")["Body"].read() == b"1"
    assert [bucket["Name"] for bucket in loki.list_buckets()["Buckets"]] == ["loki-chunks"]
    for call in (
        lambda: loki.put_object(Bucket="others", Key="k", Body=b"1"),
        lambda: loki.list_objects_v2(Bucket="others"),
        lambda: loki.create_bucket(Bucket="of-my-own"),
        lambda: loki.copy_object(Bucket="loki-chunks", Key="c", CopySource={"Bucket": "others", "Key": "k"}),
    ):
        with pytest.raises(ClientError) as raised:
            call()
        assert raised.value.response["Error"]["Code"] == "AccessDenied"
    answer = loki.delete_objects(Bucket="others", Delete={"Objects": [{"Key": "k"}]})
    assert answer["Errors"][0]["Code"] == "AccessDenied"
    infos = ask(endpoint, ROOT, "GET", "/users")[1]
    info = {"accessKey": "lokikey", "name": "loki", "policies": ["loki"], "enabled": True, "account": ""}
    assert any(info.items() <= told.items() for told in infos)
    assert SECRET not in json.dumps(infos)
    assert ask(endpoint, ROOT, "PUT", "/users/lokikey", {**spec, "enabled": False})[0] == 200
    with pytest.raises(ClientError) as raised:
        loki.get_object(Bucket="loki-chunks", Key="k")
    assert raised.value.response["Error"]["Code"] == "InvalidAccessKeyId"
    for _ in range(2):
        assert ask(endpoint, ROOT, "DELETE", "/users/lokikey")[0] == 204


def test_who_may_not_list_is_not_told_which_keys_are_absent(endpoint: Endpoint) -> None:
    client_of(endpoint, ROOT.access_key, ROOT.secret_key).create_bucket(Bucket="secrets")
    for key, policies, code in (("reader", ["readonly"], "AccessDenied"), ("owner", ["readwrite"], "NoSuchKey")):
        assert ask(endpoint, ROOT, "PUT", f"/users/{key}", {"secretKey": SECRET, "policies": policies})[0] == 200
        with pytest.raises(ClientError) as raised:
            client_of(endpoint, key).get_object(Bucket="secrets", Key="absent")
        assert raised.value.response["Error"]["Code"] == code


def test_only_root_and_console_admins_may(endpoint: Endpoint) -> None:
    for key, policies in (("plainuser", ["readwrite"]), ("adminuser", ["consoleAdmin"])):
        assert ask(endpoint, ROOT, "PUT", f"/users/{key}", {"secretKey": SECRET, "policies": policies})[0] == 200
    assert ask(endpoint, KeyPair("plainuser", SECRET), "GET", "/users")[0] == 403
    assert ask(endpoint, KeyPair("adminuser", SECRET), "GET", "/users")[0] == 200
    assert ask(endpoint, None, "GET", "/info")[0] == 403
    assert ask(endpoint, KeyPair("adminuser", "wrong-secret"), "GET", "/info")[0] == 403
    assert ask(endpoint, ROOT, "GET", "/info")[1]["healthy"] is True


@pytest.mark.parametrize(
    ("path", "value", "field"),
    [
        ("/users/ab", {"secretKey": SECRET}, "accessKey"),
        ("/users/holdfast-root", {"secretKey": SECRET}, "root"),
        ("/users/good", {"secretKey": "short"}, "secretKey"),
        ("/users/good", {}, "secretKey"),
        ("/users/good", {"secretKey": SECRET, "policies": "readonly"}, "policies"),
        ("/users/a%2Fb", {"secretKey": SECRET}, "accessKey"),
        ("/policies/p", {"Statement": [{"Effect": "Perhaps"}]}, "Effect"),
        ("/policies/readonly", LOKI_POLICY, "built in"),
    ],
)
def test_a_bad_body_is_told_with_its_field(endpoint: Endpoint, path: str, value: object, field: str) -> None:
    status, answer = ask(endpoint, ROOT, "PUT", path, value)
    assert status == 400
    assert field in answer["message"]
    assert "good" not in [user["accessKey"] for user in ask(endpoint, ROOT, "GET", "/users")[1]]


def test_policies_are_listed_with_the_built_in_ones(endpoint: Endpoint) -> None:
    assert ask(endpoint, ROOT, "PUT", "/policies/mine", LOKI_POLICY)[0] == 200
    assert {"mine", "readonly", "consoleAdmin"} <= set(ask(endpoint, ROOT, "GET", "/policies")[1])
    for _ in range(2):
        assert ask(endpoint, ROOT, "DELETE", "/policies/mine")[0] == 204
    assert ask(endpoint, ROOT, "POST", "/policies")[0] == 405
