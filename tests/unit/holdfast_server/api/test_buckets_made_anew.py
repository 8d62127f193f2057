"""A request that was let into a bucket does nothing to another of its name, however long its body takes."""

from __future__ import annotations

import base64
import hashlib
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from holdfast_server.admin.client import AdminClient
from holdfast_server.contract.admin import UserSpec
from holdfast_server.s3.signing import KeyPair, sign_headers
from holdfast_server.testing import boto
from holdfast_server.testing.memory_services import Endpoint, memory_services, served

SECRET = "a-secret-of-enough-length"
FORMER, NEXT = "former-owner-key", "next-owner-key"
POLICY = b'{"Statement":[{"Effect":"Allow","Principal":"*","Action":"s3:*","Resource":"arn:aws:s3:::shared/*"}]}'
TAGGING = b"<Tagging><TagSet><Tag><Key>of</Key><Value>former</Value></Tag></TagSet></Tagging>"
DELETE = b"<Delete><Object><Key>secret</Key></Object></Delete>"
TIMEOUT_SECONDS = 60


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    """With two accounts."""
    with served(memory_services()) as found:
        admin = AdminClient(found.url, KeyPair(found.access_key, found.secret_key))
        for key in (FORMER, NEXT):
            admin.put_user(key, UserSpec(secret_key=SECRET, name=f"{key}-root", account=key, account_root=True))
        yield found


@contextmanager
def begun(endpoint: Endpoint, method: str, path: str, query: str, body: bytes) -> Iterator[Callable[[], int]]:
    """The former owner's request, of which the server waits for the body; the rest of it, and its status."""
    head = {"host": f"{endpoint.host}:{endpoint.port}", "content-length": str(len(body)), "expect": "100-continue"}
    head["content-md5"] = base64.b64encode(hashlib.md5(body).digest()).decode()
    signed = sign_headers(KeyPair(FORMER, SECRET), method, path, query, head, time.time_ns() // 1_000_000)
    lines = "".join(f"{name}: {value}\r\n" for name, value in signed.items())
    with socket.create_connection((endpoint.host, endpoint.port), TIMEOUT_SECONDS) as connection:
        connection.sendall(f"{method} {path}?{query} HTTP/1.1\r\n{lines}\r\n".encode())
        assert connection.recv(64 << 10).startswith(b"HTTP/1.1 100 ")

        def rest() -> int:
            connection.sendall(body)
            return int(connection.recv(64 << 10).split()[1])

        yield rest


@pytest.mark.parametrize(
    ("method", "path", "query", "body"),
    [
        ("PUT", "/shared", "policy=", POLICY),
        ("PUT", "/shared", "tagging=", TAGGING),
        ("PUT", "/shared/secret", "tagging=", TAGGING),
        ("PUT", "/shared/secret", "x=", b"other"),
        ("POST", "/shared", "delete=", DELETE),
    ],
    ids=["PutBucketPolicy", "PutBucketTagging", "PutObjectTagging", "PutObject", "DeleteObjects"],
)
def test_the_next_owner_of_a_name_is_left_alone(
    endpoint: Endpoint, method: str, path: str, query: str, body: bytes
) -> None:
    former, now = (boto.client_of(endpoint, key, SECRET) for key in (FORMER, NEXT))
    former.create_bucket(Bucket="shared")
    with begun(endpoint, method, path, query, body) as rest:
        former.delete_bucket(Bucket="shared")
        now.create_bucket(Bucket="shared")
        now.put_object(Bucket="shared", Key="secret", Body=b"secret")
        assert rest() == 404
    assert now.get_object(Bucket="shared", Key="secret")["Body"].read() == b"secret"
    assert now.get_object_tagging(Bucket="shared", Key="secret")["TagSet"] == []
    for of_bucket in (now.get_bucket_policy, now.get_bucket_tagging):
        with pytest.raises(now.exceptions.ClientError) as raised:
            of_bucket(Bucket="shared")
        assert raised.value.response["Error"]["Code"] in ("NoSuchBucketPolicy", "NoSuchTagSet")
