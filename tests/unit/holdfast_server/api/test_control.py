"""Tags of buckets by S3 Control, with boto3's own client for it: what Terraform's provider asks of every bucket."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from holdfast_server.auth.principal import ACCOUNT_ID
from holdfast_server.testing.boto import client_of
from holdfast_server.testing.memory_services import Endpoint, memory_services, served

BUCKET = "tagged"
ARN = f"arn:aws:s3:::{BUCKET}"
OURS = {"AccountId": ACCOUNT_ID, "ResourceArn": ARN}


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with served(memory_services()) as found:
        client_of(found).create_bucket(Bucket=BUCKET)
        yield found


def control_of(endpoint: Endpoint, *keys: str) -> Any:
    client = client_of(endpoint, *keys, service="s3control")
    client.meta.events.register("before-sign.s3-control", _to_the_endpoint)
    return client


def _to_the_endpoint(request: Any, **_: Any) -> None:
    """The account stands in front of the Host, which is no name here."""
    request.url = re.sub(r"://[0-9]{12}\.", "://", request.url)


def code_of(call: Any, **arguments: Any) -> str:
    with pytest.raises(ClientError) as raised:
        call(**arguments)
    return str(raised.value.response["Error"]["Code"])


def test_tags_of_a_bucket_are_shown_added_and_taken_away(endpoint: Endpoint) -> None:
    control, s3 = control_of(endpoint), client_of(endpoint)
    assert control.list_tags_for_resource(**OURS)["Tags"] == []
    s3.put_bucket_tagging(Bucket=BUCKET, Tagging={"TagSet": [{"Key": "a", "Value": "1"}]})
    control.tag_resource(**OURS, Tags=[{"Key": "b c", "Value": "ü"}, {"Key": "d", "Value": ""}])
    shown = [{"Key": "a", "Value": "1"}, {"Key": "b c", "Value": "ü"}, {"Key": "d", "Value": ""}]
    assert control.list_tags_for_resource(**OURS)["Tags"] == shown
    assert s3.get_bucket_tagging(Bucket=BUCKET)["TagSet"] == shown
    control.untag_resource(**OURS, TagKeys=["a", "b c"])
    assert control.list_tags_for_resource(**OURS)["Tags"] == shown[2:]


def test_refusals_are_told_as_clients_of_it_read_them(endpoint: Endpoint) -> None:
    control = control_of(endpoint)
    asked = {"AccountId": ACCOUNT_ID, "ResourceArn": "arn:aws:s3:::absent-bucket"}
    assert code_of(control.list_tags_for_resource, **asked) == "NoSuchBucket"
    other = {"AccountId": "123456789012", "ResourceArn": ARN}
    assert code_of(control.list_tags_for_resource, **other) == "AccessDenied"
    assert code_of(control.list_access_points, AccountId=ACCOUNT_ID) == "MethodNotAllowed"
    many = [{"Key": f"k{number}", "Value": ""} for number in range(50)]
    control.tag_resource(**OURS, Tags=many)
    assert code_of(control.tag_resource, **OURS, Tags=[{"Key": "one more", "Value": ""}]) == "InvalidTag"


def test_each_takes_a_permission_of_its_own(endpoint: Endpoint) -> None:
    iam = client_of(endpoint, service="iam")
    iam.create_user(UserName="ann")
    row = {"Effect": "Allow", "Action": "s3:ListTagsForResource", "Resource": ARN}
    iam.put_user_policy(UserName="ann", PolicyName="p", PolicyDocument=json.dumps({"Statement": [row]}))
    key = iam.create_access_key(UserName="ann")["AccessKey"]
    ann = control_of(endpoint, key["AccessKeyId"], key["SecretAccessKey"])
    assert ann.list_tags_for_resource(**OURS)["Tags"] == []
    assert code_of(ann.tag_resource, **OURS, Tags=[{"Key": "a", "Value": ""}]) == "AccessDenied"
    assert code_of(ann.untag_resource, **OURS, TagKeys=["a"]) == "AccessDenied"
