"""Identities that clients make, through four real pods: what one pod was told, the others know, and one may be lost."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from typing import Any

import boto3
import pytest
from botocore.config import Config

from holdfast_server.admin.client import AdminClient
from holdfast_server.auth.principal import account_id
from holdfast_server.contract.admin import UserSpec
from holdfast_server.s3.signing import KeyPair
from holdfast_server.testing.boto import refusal
from holdfast_server.testing.pods import PodProcesses

SERVERS = 4
PATIENCE_SECONDS = 60.0
ROOT_SECRET = "a-secret-of-an-accounts-root"
Clients = Callable[..., Any]


@pytest.fixture(scope="module")
def account(pods: PodProcesses) -> dict[str, str]:
    """The keys of an account's root."""
    admin = AdminClient(pods.endpoint(0), KeyPair(pods.access_key, pods.secret_key))
    admin.put_user("root-of-a-00000000", UserSpec(secret_key=ROOT_SECRET, name="boss", account="a", account_root=True))
    return {"AccessKeyId": "root-of-a-00000000", "SecretAccessKey": ROOT_SECRET}


@pytest.fixture
def clients(pods: PodProcesses) -> Iterator[Clients]:
    """`clients(pod, service, keys)`: as every SDK is, it asks again what ends in 503."""
    config = Config(s3={"addressing_style": "path"}, retries={"mode": "standard", "max_attempts": 10}, read_timeout=90)
    with ExitStack() as stack:

        def client(pod: int, service: str, keys: dict[str, str]) -> Any:
            made = boto3.client(
                service,
                endpoint_url=pods.endpoint(pod),
                aws_access_key_id=keys["AccessKeyId"],
                aws_secret_access_key=keys["SecretAccessKey"],
                aws_session_token=keys.get("SessionToken"),
                region_name="us-east-1",
                config=config,
            )
            return stack.enter_context(closing(made))

        yield client


def allow(action: str, resource: str = "*", effect: str = "Allow", **more: Any) -> str:
    return json.dumps({"Statement": [{"Effect": effect, "Action": action, "Resource": resource, **more}]})


def ends_in(code: str, call: Any, **arguments: Any) -> None:
    """At once where the news arrives; a pod too busy to hear of it reads everything anew a few seconds later."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while (told := refusal(call, **arguments)) != code:
        assert time.monotonic() < deadline, f"{told or 'success'} instead of {code or 'success'}"
        time.sleep(0.2)


def test_what_is_made_through_one_pod_holds_at_once_at_the_others(clients: Clients, account: dict[str, str]) -> None:
    name, bucket = f"u{uuid.uuid4().hex[:8]}", f"b-{uuid.uuid4().hex[:12]}"
    iam = [clients(pod, "iam", account) for pod in range(SERVERS)]
    iam[0].create_user(UserName=name)
    key = iam[1].create_access_key(UserName=name)["AccessKey"]
    iam[2].create_group(GroupName=name)
    iam[3].attach_group_policy(GroupName=name, PolicyArn="arn:aws:iam::aws:policy/AmazonS3FullAccess")
    iam[0].add_user_to_group(GroupName=name, UserName=name)
    ends_in("", clients(1, "s3", key).create_bucket, Bucket=bucket)
    for pod in range(SERVERS):
        ends_in("", clients(pod, "s3", key).put_object, Bucket=bucket, Key=f"{pod}", Body=b"")
    iam[2].put_user_policy(UserName=name, PolicyName="no", PolicyDocument=allow("s3:PutObject", effect="Deny"))
    for pod in range(SERVERS):
        ends_in("AccessDenied", clients(pod, "s3", key).put_object, Bucket=bucket, Key="k")
    iam[3].update_access_key(UserName=name, AccessKeyId=key["AccessKeyId"], Status="Inactive")
    for pod in range(SERVERS):
        ends_in("InvalidAccessKeyId", clients(pod, "s3", key).list_objects_v2, Bucket=bucket)


def test_a_session_is_known_to_every_pod_and_a_lost_pod_is_nothing_to_it(
    pods: PodProcesses, clients: Clients, account: dict[str, str]
) -> None:
    name, bucket = f"r{uuid.uuid4().hex[:8]}", f"b-{uuid.uuid4().hex[:12]}"
    iam = clients(0, "iam", account)
    trust = {"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"AWS": account_id("a")}}
    role = iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps({"Statement": [trust]}))["Role"]["Arn"]
    iam.put_role_policy(RoleName=name, PolicyName="may", PolicyDocument=allow("s3:*"))
    session = clients(1, "sts", account).assume_role(RoleArn=role, RoleSessionName="work")["Credentials"]
    ends_in("", clients(2, "s3", session).create_bucket, Bucket=bucket)
    pods.kill(3)
    try:
        for pod in range(3):
            ends_in("", clients(pod, "s3", session).put_object, Bucket=bucket, Key=f"{pod}", Body=b"")
        iam.put_role_policy(RoleName=name, PolicyName="may", PolicyDocument=allow("s3:ListBucket"))
        another = clients(2, "sts", account).assume_role(RoleArn=role, RoleSessionName="more")["Credentials"]
    finally:
        pods.start(3)
        asyncio.run(pods.wait_healthy())
    for keys in (session, another):
        ends_in("", clients(3, "s3", keys).list_objects_v2, Bucket=bucket)
        ends_in("AccessDenied", clients(3, "s3", keys).put_object, Bucket=bucket, Key="k")
    iam.delete_role_policy(RoleName=name, PolicyName="may")
    iam.delete_role(RoleName=name)
    for pod in range(SERVERS):
        ends_in("InvalidAccessKeyId", clients(pod, "s3", session).list_objects_v2, Bucket=bucket)
