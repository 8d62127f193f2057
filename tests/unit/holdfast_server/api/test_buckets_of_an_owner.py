"""ListBuckets by pages, and buckets that are created again: boto3 against the whole API, over objects in memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from holdfast_server.api.services import Services, Told
from holdfast_server.testing.boto import client_of, served_client
from holdfast_server.testing.memory_services import memory_services, served


@pytest.fixture
def services() -> Services:
    return dataclasses.replace(memory_services(), told=lambda: Told(object_ownership=""))


@pytest.fixture
def s3(services: Services) -> Iterator[Any]:
    with served_client(services, parameter_validation=False) as client:
        yield client


def names_of(page: Any) -> list[str]:
    return [bucket["Name"] for bucket in page["Buckets"]]


def test_buckets_are_listed_by_pages_and_prefixes(s3: Any) -> None:
    expected = [f"b-{number:02}" for number in range(5)]
    for name in [*expected, "other"]:
        s3.create_bucket(Bucket=name)
    found, asked = [], {}
    while True:
        page = s3.list_buckets(MaxBuckets=2, Prefix="b-", **asked)
        assert page["Prefix"] == "b-"
        assert len(page["Buckets"]) <= 2
        found += names_of(page)
        if "ContinuationToken" not in page:
            break
        asked = {"ContinuationToken": page["ContinuationToken"]}
    assert found == expected
    assert names_of(s3.list_buckets()) == [*expected, "other"]
    assert "ContinuationToken" not in s3.list_buckets(MaxBuckets=6)


@pytest.mark.parametrize("wrong", [{"MaxBuckets": 0}, {"MaxBuckets": 10001}, {"ContinuationToken": "no"}])
def test_what_no_page_can_be_is_refused(s3: Any, wrong: dict[str, Any]) -> None:
    with pytest.raises(ClientError, match="InvalidArgument"):
        s3.list_buckets(**wrong)


def test_a_bucket_may_be_created_again_as_it_is(s3: Any) -> None:
    s3.create_bucket(Bucket="mine")
    s3.put_object(Bucket="mine", Key="k", Body=b"x")
    created = s3.list_buckets()["Buckets"][0]["CreationDate"]
    s3.create_bucket(Bucket="mine")
    assert s3.list_buckets()["Buckets"][0]["CreationDate"] == created
    assert s3.get_object(Bucket="mine", Key="k")["Body"].read() == b"x"


@pytest.mark.parametrize("other", [{"ACL": "public-read"}, {"ObjectOwnership": "BucketOwnerEnforced"}])
def test_but_not_as_another(s3: Any, other: dict[str, str]) -> None:
    s3.create_bucket(Bucket="mine")
    with pytest.raises(ClientError, match="BucketAlreadyExists"):
        s3.create_bucket(Bucket="mine", **other)
    assert len(s3.get_bucket_acl(Bucket="mine")["Grants"]) == 1


def test_nor_as_a_new_one_once_it_has_grants(s3: Any) -> None:
    s3.create_bucket(Bucket="mine", ACL="public-read")
    with pytest.raises(ClientError, match="BucketAlreadyOwnedByYou"):
        s3.create_bucket(Bucket="mine")
    assert len(s3.get_bucket_acl(Bucket="mine")["Grants"]) == 2


def test_in_other_regions_creating_again_is_a_conflict(services: Services) -> None:
    with served(dataclasses.replace(services, told=lambda: Told(region="eu-central-1"))) as endpoint:
        client = client_of(endpoint, attempts=2, region="eu-central-1")
        where = {"LocationConstraint": "eu-central-1"}
        client.create_bucket(Bucket="mine", CreateBucketConfiguration=where)
        with pytest.raises(ClientError, match="BucketAlreadyOwnedByYou"):
            client.create_bucket(Bucket="mine", CreateBucketConfiguration=where)


def test_an_empty_continuation_token_is_none(s3: Any) -> None:
    s3.create_bucket(Bucket="mine")
    s3.put_object(Bucket="mine", Key="k", Body=b"x")
    page = s3.list_objects_v2(Bucket="mine", ContinuationToken="")
    assert [entry["Key"] for entry in page["Contents"]] == ["k"]
    assert page["ContinuationToken"] == ""
