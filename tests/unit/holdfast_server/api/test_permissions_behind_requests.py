"""Permissions that a request needs beside that of its operation, and what policies see of it: users made through IAM,
boto3 against the whole API, over objects in memory."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from holdfast_server.testing.boto import client_of
from holdfast_server.testing.memory_services import Endpoint, memory_services, served

MINE, OTHER = "mine", "other"
Statement = dict[str, Any]


def allow(*actions: str, bucket: str = "*", key: str = "", **more: Any) -> Statement:
    resource = f"arn:aws:s3:::{bucket}" + (f"/{key}" if key else "")
    return {"Effect": "Allow", "Action": [f"s3:{action}" for action in actions], "Resource": resource, **more}


def deny(*actions: str, **more: Any) -> Statement:
    return {**allow(*actions, **more), "Effect": "Deny"}


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with served(memory_services()) as found:
        yield found


@pytest.fixture
def root(endpoint: Endpoint) -> Any:
    client = client_of(endpoint)
    for name in (MINE, OTHER):
        client.create_bucket(Bucket=name)
    return client


@pytest.fixture
def user(endpoint: Endpoint, root: Any) -> Callable[..., Any]:
    """Makes a user with these statements; its client."""
    iam = client_of(endpoint, service="iam")
    names = iter(f"user-{number}" for number in range(100))

    def make(*statements: Statement) -> Any:
        name = next(names)
        iam.create_user(UserName=name)
        iam.put_user_policy(UserName=name, PolicyName="p", PolicyDocument=json.dumps({"Statement": list(statements)}))
        key = iam.create_access_key(UserName=name)["AccessKey"]
        return client_of(endpoint, key["AccessKeyId"], key["SecretAccessKey"])

    return make


def refused(ask: Any, **asked: Any) -> str:
    with pytest.raises(ClientError) as error:
        ask(**asked)
    return str(error.value.response["Error"]["Code"])


# -------------------------------------------------------------------- copies


def test_that_a_source_is_not_there_is_told_to_who_may_list_where_it_would_be(user: Callable[..., Any]) -> None:
    copying = allow("GetObject", "PutObject", key="*")
    asked = {"Bucket": MINE, "Key": "k", "CopySource": {"Bucket": OTHER, "Key": "absent"}}
    lists_source = user(copying, allow("ListBucket", bucket=OTHER))
    lists_target = user(copying, allow("ListBucket", bucket=MINE))
    assert refused(lists_source.copy_object, **asked) == "NoSuchKey"
    assert refused(lists_target.copy_object, **asked) == "AccessDenied"
    for client, code in ((lists_source, "NoSuchKey"), (lists_target, "AccessDenied")):
        upload = client.create_multipart_upload(Bucket=MINE, Key="k")["UploadId"]
        assert refused(client.upload_part_copy, **asked, UploadId=upload, PartNumber=1) == code


def test_tags_of_a_version_take_the_permission_to_read_those_of_versions(root: Any, user: Callable[..., Any]) -> None:
    root.put_bucket_versioning(Bucket=OTHER, VersioningConfiguration={"Status": "Enabled"})
    version = root.put_object(Bucket=OTHER, Key="k", Body=b"x", Tagging="a=1")["VersionId"]
    asked = {"Bucket": MINE, "Key": "k", "CopySource": {"Bucket": OTHER, "Key": "k", "VersionId": version}}
    copying = allow("GetObjectVersion", "PutObject", "PutObjectTagging", key="*")
    assert refused(user(copying, allow("GetObjectTagging", key="*")).copy_object, **asked) == "AccessDenied"
    user(copying, allow("GetObjectVersionTagging", key="*")).copy_object(**asked)
    assert root.get_object_tagging(Bucket=MINE, Key="k")["TagSet"] == [{"Key": "a", "Value": "1"}]
