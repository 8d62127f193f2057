"""What there is not: features that are off answer as S3 does where they were never configured, all else is 501."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

import pytest

from holdfast_server.s3.operations import OPERATIONS, Operation
from holdfast_server.testing.boto import refusal, served_client
from holdfast_server.testing.memory_services import memory_services

BUCKET = "b01"
Ask = Callable[..., Any]


@pytest.fixture(scope="module")
def s3() -> Iterator[Any]:
    with served_client(memory_services(), BUCKET) as client:
        yield client


def said(ask: Ask, **asked: Any) -> dict[str, Any]:
    answer = ask(Bucket=BUCKET, **asked)
    return {name: value for name, value in answer.items() if name != "ResponseMetadata"}


def refused(ask: Ask, **asked: Any) -> str:
    return refusal(ask, Bucket=BUCKET, **asked)


def test_features_that_are_off_say_so_as_s3_does(s3: Any) -> None:
    assert said(s3.get_bucket_logging) == {}
    assert said(s3.get_bucket_notification_configuration) == {}
    assert said(s3.get_bucket_accelerate_configuration) == {}
    assert said(s3.get_bucket_request_payment) == {"Payer": "BucketOwner"}
    assert refused(s3.get_object_lock_configuration) == "ObjectLockConfigurationNotFoundError"
    assert refused(s3.get_bucket_website) == "NoSuchWebsiteConfiguration"
    assert refused(s3.get_bucket_replication) == "ReplicationConfigurationNotFoundError"


def test_switching_them_on_is_refused_and_changes_nothing(s3: Any) -> None:
    logging = {"LoggingEnabled": {"TargetBucket": BUCKET, "TargetPrefix": "log/"}}
    website = {"IndexDocument": {"Suffix": "index.html"}}
    assert refused(s3.put_bucket_logging, BucketLoggingStatus=logging) == "NotImplemented"
    assert refused(s3.put_bucket_website, WebsiteConfiguration=website) == "NotImplemented"
    assert (
        refused(s3.put_bucket_request_payment, RequestPaymentConfiguration={"Payer": "Requester"}) == "NotImplemented"
    )
    assert refused(s3.put_bucket_notification_configuration, NotificationConfiguration={}) == "NotImplemented"
    accelerate = {"Status": "Enabled"}
    assert refused(s3.put_bucket_accelerate_configuration, AccelerateConfiguration=accelerate) == "NotImplemented"
    assert said(s3.get_bucket_logging) == {}


def test_a_bucket_forgets_its_ownership_controls(s3: Any) -> None:
    rules = {"Rules": [{"ObjectOwnership": "BucketOwnerPreferred"}]}
    s3.put_bucket_ownership_controls(Bucket=BUCKET, OwnershipControls=rules)
    assert s3.get_bucket_ownership_controls(Bucket=BUCKET)["OwnershipControls"] == rules
    s3.delete_bucket_ownership_controls(Bucket=BUCKET)
    assert refused(s3.get_bucket_ownership_controls) == "OwnershipControlsNotFoundError"


def test_a_bucket_keeps_shows_and_forgets_lifecycle_rules(s3: Any) -> None:
    rule = {"ID": "old", "Status": "Enabled", "Filter": {"Prefix": "log/"}, "Expiration": {"Days": 3}}
    s3.put_bucket_lifecycle_configuration(Bucket=BUCKET, LifecycleConfiguration={"Rules": [rule]})
    assert s3.get_bucket_lifecycle_configuration(Bucket=BUCKET)["Rules"] == [rule]
    s3.delete_bucket_lifecycle(Bucket=BUCKET)
    assert refused(s3.get_bucket_lifecycle_configuration) == "NoSuchLifecycleConfiguration"


@pytest.mark.parametrize(
    "row", [row for row in OPERATIONS if not row.implemented], ids=lambda row: f"{row.name}-{row.level}"
)
async def test_every_operation_that_is_not_implemented_says_so(unserved_api: Any, row: Operation) -> None:
    assert (await unserved_api.ask("PUT", f"/{BUCKET}")).status == 200
    assert (await unserved_api.ask("PUT", f"/{BUCKET}/k", b"1")).status == 200
    path = {"service": "/", "bucket": f"/{BUCKET}", "object": f"/{BUCKET}/k"}[row.level]
    query = "&".join(f"{quote(part.partition('=')[0])}={part.partition('=')[2]}" for part in row.query)
    answer = await unserved_api.ask(row.method, path, query=query, **dict.fromkeys(row.headers, "x"))
    assert (answer.status, row.name in answer.body.decode()) == (501, True)
    assert b"<Code>NotImplemented</Code>" in answer.body
    assert (await unserved_api.ask("HEAD", f"/{BUCKET}/k")).status == 200
