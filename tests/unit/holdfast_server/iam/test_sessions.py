"""Temporary credentials with boto3: roles, session policies, who may assume what, and how sessions end."""

from __future__ import annotations

import base64
import dataclasses
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any
from xml.etree import ElementTree

import msgspec
import pytest

from holdfast_server.admin.client import AdminClient
from holdfast_server.api.services import Services
from holdfast_server.auth.principal import account_id
from holdfast_server.clock.system import SystemClock
from holdfast_server.contract.admin import UserSpec
from holdfast_server.s3.signing import KeyPair, sign_headers
from holdfast_server.testing import boto
from holdfast_server.testing.boto import refusal
from holdfast_server.testing.memory_services import Endpoint, memory_services, served

SECRET = "a-secret-of-enough-length"


class AheadClock(SystemClock):
    """Runs as far ahead as it is told to."""

    ahead_ms = 0

    def now_ms(self) -> int:
        return super().now_ms() + self.ahead_ms


@pytest.fixture
def clock() -> AheadClock:
    return AheadClock()


@pytest.fixture
def endpoint(clock: AheadClock) -> Iterator[Endpoint]:
    services = with_clock(memory_services(), clock)
    with served(services) as found:
        admin = AdminClient(found.url, KeyPair(found.access_key, found.secret_key))
        for account in ("main", "alt"):
            admin.put_user(
                f"{account}-root-key-00000",
                UserSpec(secret_key=SECRET, name=f"{account}-root", account=account, account_root=True),
            )
        admin.put_policy("assume", allow("sts:AssumeRole").encode())
        for name, policies in (("ann", ["readwrite", "assume"]), ("otto", ["readwrite"])):
            spec = UserSpec(secret_key=SECRET, name=name, account="main", policies=policies)
            admin.put_user(f"{name}-key-000000000000", spec)
        yield found


def with_clock(services: Services, clock: AheadClock) -> Services:
    """The same, as far as they tell the time of requests."""
    services.identities._clock = clock
    return dataclasses.replace(services, clock=clock)


def client(endpoint: Endpoint, service: str, keys: Any) -> Any:
    if isinstance(keys, str):
        keys = {"AccessKeyId": keys, "SecretAccessKey": SECRET}
    return boto.client_of(
        endpoint,
        keys["AccessKeyId"],
        keys["SecretAccessKey"],
        service=service,
        session_token=keys.get("SessionToken", ""),
        signature_version="v4",
    )


def allow(action: Any, resource: Any = "*", effect: str = "Allow", **more: Any) -> str:
    return json.dumps({"Statement": [{"Effect": effect, "Action": action, "Resource": resource, **more}]})


def trust(principal: Any, **more: Any) -> str:
    return json.dumps(
        {"Statement": [{"Effect": "Allow", "Principal": {"AWS": principal}, "Action": "sts:AssumeRole", **more}]}
    )


def code_at(endpoint: Endpoint, keys: Any, path: str, now_ms: int) -> str:
    """What a client that is at this time is told; empty where it is let in."""
    host = endpoint.url.removeprefix("http://")
    pair = KeyPair(keys["AccessKeyId"], keys["SecretAccessKey"], session_token=keys["SessionToken"])
    headers = sign_headers(pair, "GET", path, "", {"host": host}, now_ms)
    try:
        urllib.request.urlopen(urllib.request.Request(endpoint.url + path, headers=headers)).close()
    except urllib.error.HTTPError as error:
        with error:
            return str(ElementTree.fromstring(error.read()).findtext("Code"))
    return ""


def make_role(endpoint: Endpoint, account: str, principal: Any, policy: str = "", **more: Any) -> str:
    iam = client(endpoint, "iam", f"{account}-root-key-00000")
    role = iam.create_role(RoleName="r", Path="/p/", AssumeRolePolicyDocument=trust(principal, **more))["Role"]["Arn"]
    if policy:
        iam.put_role_policy(RoleName="r", PolicyName="p", PolicyDocument=policy)
    return str(role)


def arn(account: str, rest: str) -> str:
    return f"arn:aws:iam::{account_id(account)}:{rest}"


def test_a_role_gives_what_the_role_may_and_nothing_of_the_users(endpoint: Endpoint) -> None:
    role = make_role(endpoint, "alt", arn("main", "user/ann"), allow("s3:CreateBucket"))
    sts = client(endpoint, "sts", "ann-key-000000000000")
    got = sts.assume_role(RoleArn=role, RoleSessionName="work")
    assert got["AssumedRoleUser"]["Arn"] == f"arn:aws:sts::{account_id('alt')}:assumed-role/r/work"
    s3 = client(endpoint, "s3", got["Credentials"])
    s3.create_bucket(Bucket="by-role")
    assert refusal(s3.put_object, Bucket="by-role", Key="k") == "AccessDenied"
    who = client(endpoint, "sts", got["Credentials"]).get_caller_identity()
    assert (who["Arn"], who["Account"]) == (got["AssumedRoleUser"]["Arn"], account_id("alt"))
    buckets = client(endpoint, "s3", "alt-root-key-00000").list_buckets()["Buckets"]
    assert [bucket["Name"] for bucket in buckets] == ["by-role"], "it is the role's account's"


def test_who_may_assume_a_role(endpoint: Endpoint) -> None:
    iam = client(endpoint, "iam", "main-root-key-00000")
    sts = client(endpoint, "sts", "otto-key-000000000000")

    def refused(arn: str) -> bool:
        return refusal(sts.assume_role, RoleArn=arn, RoleSessionName="work") == "AccessDenied"

    role = make_role(endpoint, "main", arn("main", "root"))
    assert refused(role), "its account alone is named"
    iam.update_assume_role_policy(RoleName="r", PolicyDocument=trust(arn("main", "user/otto")))
    sts.assume_role(RoleArn=role, RoleSessionName="work")
    iam.update_assume_role_policy(RoleName="r", PolicyDocument=trust(arn("main", "root")))
    iam.put_user_policy(UserName="otto", PolicyName="may", PolicyDocument=allow("sts:AssumeRole", role))
    sts.assume_role(RoleArn=role, RoleSessionName="work")
    assert refused(make_role(endpoint, "alt", arn("main", "user/otto"))), "its own account has not allowed it"
    assert refused(role + "x")
    assert refused("arn:aws:iam::123456789012:role/r")
    iam.put_user_policy(UserName="otto", PolicyName="no", PolicyDocument=allow("sts:*", effect="Deny"))
    assert refused(role)


def test_an_account_is_a_confused_deputy_without_the_external_id(endpoint: Endpoint) -> None:
    condition = {"StringEquals": {"sts:ExternalId": "ours"}}
    role = make_role(endpoint, "alt", arn("main", "user/ann"), Condition=condition)
    sts = client(endpoint, "sts", "ann-key-000000000000")
    assert refusal(sts.assume_role, RoleArn=role, RoleSessionName="work") == "AccessDenied"
    assert refusal(sts.assume_role, RoleArn=role, RoleSessionName="work", ExternalId="theirs") == "AccessDenied"
    sts.assume_role(RoleArn=role, RoleSessionName="work", ExternalId="ours")


def test_a_session_policy_takes_away_and_never_gives(endpoint: Endpoint) -> None:
    sts = client(endpoint, "sts", "ann-key-000000000000")
    own = client(endpoint, "s3", "ann-key-000000000000")
    own.create_bucket(Bucket="bucket-a")
    own.create_bucket(Bucket="bucket-b")
    policy = allow(["s3:PutObject", "iam:*", "admin:*"], ["arn:aws:s3:::bucket-a/*", "arn:aws:iam::*"])
    got = sts.assume_role(RoleArn="arn:xxx:xxx:xxx:xxxx", RoleSessionName="anything", Policy=policy)["Credentials"]
    s3 = client(endpoint, "s3", got)
    s3.put_object(Bucket="bucket-a", Key="k", Body=b"")
    for call, arguments in (
        (s3.put_object, {"Bucket": "bucket-b", "Key": "k"}),
        (s3.get_object, {"Bucket": "bucket-a", "Key": "k"}),
        (s3.list_objects_v2, {"Bucket": "bucket-a"}),
        (client(endpoint, "iam", got).list_users, {}),
        (client(endpoint, "sts", got).get_session_token, {}),
    ):
        assert refusal(call, **arguments) == "AccessDenied"
    # Not even a bucket's policy lets it do more.
    everybody = {"Effect": "Allow", "Principal": {"AWS": arn("main", "user/ann")}, "Action": "s3:*",
                 "Resource": ["arn:aws:s3:::bucket-b", "arn:aws:s3:::bucket-b/*"]}  # fmt: skip
    own.put_bucket_policy(Bucket="bucket-b", Policy=json.dumps({"Statement": [everybody]}))
    assert refusal(s3.list_objects_v2, Bucket="bucket-b") == "AccessDenied"
    managed = sts.assume_role(
        RoleArn="arn:xxx:xxx:xxx:xxxx",
        RoleSessionName="anything",
        PolicyArns=[{"arn": "arn:aws:iam::aws:policy/AmazonS3ReadOnlyAccess"}],
    )["Credentials"]
    client(endpoint, "s3", managed).get_object(Bucket="bucket-a", Key="k")
    assert refusal(client(endpoint, "s3", managed).put_object, Bucket="bucket-a", Key="k") == "AccessDenied"


def test_roots_session_with_a_policy_may_no_more_than_that(endpoint: Endpoint) -> None:
    keys = {"AccessKeyId": endpoint.access_key, "SecretAccessKey": endpoint.secret_key}
    sts = client(endpoint, "sts", keys)
    got = sts.assume_role(RoleArn="arn:xxx:xxx:xxx:xxxx", RoleSessionName="xx", Policy=allow("s3:ListAllMyBuckets"))[
        "Credentials"
    ]
    client(endpoint, "s3", got).list_buckets()
    assert refusal(client(endpoint, "s3", got).create_bucket, Bucket="of-root") == "AccessDenied"
    pair = KeyPair(got["AccessKeyId"], got["SecretAccessKey"], session_token=got["SessionToken"])
    with pytest.raises(Exception, match="AccessDenied"):
        AdminClient(endpoint.url, pair).users()


@pytest.mark.parametrize("key", ["main-root-key-00000", ""])
def test_sessions_of_a_root_last_an_hour_at_most(endpoint: Endpoint, clock: AheadClock, key: str) -> None:
    """However they are asked for."""
    keys = key or {"AccessKeyId": endpoint.access_key, "SecretAccessKey": endpoint.secret_key}
    sts = client(endpoint, "sts", keys)
    until_ms = clock.now_ms() + 3_600_000
    asked = {"DurationSeconds": 43_200}
    for got in (sts.get_session_token(**asked), sts.assume_role(RoleArn="x" * 20, RoleSessionName="xx", **asked)):
        assert abs(got["Credentials"]["Expiration"].timestamp() * 1000 - until_ms) < 60_000


def test_a_session_expires(endpoint: Endpoint, clock: AheadClock) -> None:
    got = client(endpoint, "sts", "ann-key-000000000000").get_session_token(DurationSeconds=900)["Credentials"]
    client(endpoint, "s3", got).create_bucket(Bucket="in-time")
    for ahead_ms, code in ((800_000, ""), (910_000, "ExpiredToken")):
        clock.ahead_ms = ahead_ms
        assert code_at(endpoint, got, "/in-time", clock.now_ms()) == code
    stranger = {**got, "SecretAccessKey": "x"}
    assert code_at(endpoint, stranger, "/in-time", clock.now_ms()) == "SignatureDoesNotMatch", "told to its owner alone"


def test_what_belongs_to_another_session_or_was_touched_is_refused(endpoint: Endpoint) -> None:
    sts = client(endpoint, "sts", "ann-key-000000000000")
    one, two = sts.get_session_token()["Credentials"], sts.get_session_token()["Credentials"]
    client(endpoint, "s3", one).create_bucket(Bucket="by-session")

    def ask(**changed: str) -> str:
        return refusal(client(endpoint, "s3", {**one, **changed}).list_objects_v2, Bucket="by-session")

    assert ask(SessionToken=two["SessionToken"]) == "InvalidToken"
    assert ask(AccessKeyId=two["AccessKeyId"]) == "InvalidToken"
    assert ask(SecretAccessKey=two["SecretAccessKey"]) == "SignatureDoesNotMatch"
    assert ask(SessionToken="x" * 200) == "InvalidToken"
    assert ask(SessionToken="é") == "InvalidToken"
    assert refusal(
        client(endpoint, "s3", {k: v for k, v in one.items() if k != "SessionToken"}).list_buckets
    ) == "InvalidAccessKeyId"  # fmt: skip
    with_long_keys = {"AccessKeyId": "ann-key-000000000000", "SecretAccessKey": SECRET}
    got = client(endpoint, "s3", {**with_long_keys, "SessionToken": one["SessionToken"]})
    assert refusal(got.list_buckets) == "InvalidToken"
    raw = bytearray(base64.urlsafe_b64decode(one["SessionToken"] + "=="))
    for place in range(0, len(raw), len(raw) // 8):
        raw[place] ^= 1
        assert ask(SessionToken=base64.urlsafe_b64encode(bytes(raw)).decode().rstrip("=")) == "InvalidToken"
        raw[place] ^= 1


def test_sessions_end_with_the_key_they_were_asked_for_with(endpoint: Endpoint) -> None:
    admin = AdminClient(endpoint.url, KeyPair(endpoint.access_key, endpoint.secret_key))
    role = make_role(endpoint, "alt", [arn("main", "user/ann"), arn("alt", "role/p/r")], allow(["s3:*", "sts:*"]))
    sts = client(endpoint, "sts", "ann-key-000000000000")
    sessions = {
        "user's": sts.get_session_token()["Credentials"],
        "role's": sts.assume_role(RoleArn=role, RoleSessionName="one")["Credentials"],
    }
    sessions["role's role's"] = client(endpoint, "sts", sessions["role's"]).assume_role(
        RoleArn=role, RoleSessionName="two"
    )["Credentials"]
    for keys in sessions.values():
        client(endpoint, "s3", keys).list_buckets()
    spec = UserSpec(secret_key=SECRET, name="ann", account="main", policies=["readwrite", "assume"])
    for change in (
        lambda: admin.put_user("ann-key-000000000000", msgspec.structs.replace(spec, enabled=False)),
        lambda: admin.put_user("ann-key-000000000000", msgspec.structs.replace(spec, secret_key="a-new-secret-0")),
        lambda: admin.remove_user("ann-key-000000000000"),
    ):
        change()
        for what, keys in sessions.items():
            assert refusal(client(endpoint, "s3", keys).list_buckets) == "InvalidAccessKeyId", what
            assert refusal(client(endpoint, "sts", keys).get_caller_identity) == "InvalidClientTokenId", what
        admin.put_user("ann-key-000000000000", spec)
        for keys in sessions.values():
            client(endpoint, "s3", keys).list_buckets()


def test_a_roles_sessions_end_with_the_role_and_change_with_it(endpoint: Endpoint) -> None:
    role = make_role(endpoint, "main", arn("main", "user/ann"), allow("s3:*"))
    got = client(endpoint, "sts", "ann-key-000000000000").assume_role(RoleArn=role, RoleSessionName="me")["Credentials"]
    s3, iam = client(endpoint, "s3", got), client(endpoint, "iam", "main-root-key-00000")
    s3.create_bucket(Bucket="by-role")
    iam.put_role_policy(RoleName="r", PolicyName="p", PolicyDocument=allow("s3:ListBucket"))
    assert refusal(s3.put_object, Bucket="by-role", Key="k") == "AccessDenied"
    iam.delete_role_policy(RoleName="r", PolicyName="p")
    iam.delete_role(RoleName="r")
    assert refusal(s3.list_objects_v2, Bucket="by-role") == "InvalidAccessKeyId"
    make_role(endpoint, "main", arn("main", "user/ann"), allow("s3:*"))
    assert refusal(s3.list_objects_v2, Bucket="by-role") == "InvalidAccessKeyId", "another role of the same name"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ({"DurationSeconds": 901, "RoleSessionName": "a b"}, "ValidationError"),
        ({"DurationSeconds": 43201, "RoleSessionName": "ab"}, "ValidationError"),
        ({"RoleSessionName": "ab", "Policy": "{}"}, "MalformedPolicyDocument"),
        ({"RoleSessionName": "ab", "Tags": [{"Key": "a", "Value": "b"}]}, "ValidationError"),
        ({"RoleSessionName": "ab", "PolicyArns": [{"arn": "arn:aws:iam::aws:policy/none"}]}, "MalformedPolicyDocument"),
    ],
)
def test_what_cannot_be_is_refused(endpoint: Endpoint, arguments: dict[str, Any], code: str) -> None:
    sts = client(endpoint, "sts", "ann-key-000000000000")
    assert refusal(sts.assume_role, RoleArn="arn:xxx:xxx:xxx:xxxx", **arguments) == code


def test_presigned_links_of_a_session_carry_its_token(endpoint: Endpoint) -> None:
    got = client(endpoint, "sts", "ann-key-000000000000").get_session_token()["Credentials"]
    s3 = client(endpoint, "s3", got)
    s3.create_bucket(Bucket="linked")
    s3.put_object(Bucket="linked", Key="k", Body=b"content")
    link = s3.generate_presigned_url("get_object", Params={"Bucket": "linked", "Key": "k"})
    assert urllib.request.urlopen(link).read() == b"content"
    AdminClient(endpoint.url, KeyPair(endpoint.access_key, endpoint.secret_key)).remove_user("ann-key-000000000000")
    with pytest.raises(urllib.error.HTTPError) as raised:
        urllib.request.urlopen(link)
    assert raised.value.code == 403
    raised.value.close()
