"""What a client asks for is done or refused: boto3 against the whole API, over objects in memory.

Each of these was once passed over in silence, or refused by another name than AWS's.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
from botocore.exceptions import ClientError

from holdfast_server.auth.principal import ACCOUNT_ID
from holdfast_server.clock.system import SystemClock
from holdfast_server.s3.signing import KeyPair, presign_query
from holdfast_server.testing.boto import refusal, served_client
from holdfast_server.testing.memory_services import ROOT_PASSWORD, ROOT_USER, memory_services

BUCKET = "asked"
EMPTY_SHA256 = base64.b64encode(hashlib.sha256().digest()).decode()


@pytest.fixture
def s3() -> Iterator[Any]:
    with served_client(memory_services(), BUCKET) as client:
        yield client


def refused(ask: Any, **asked: Any) -> str:
    return refusal(ask, **{"Bucket": BUCKET, **asked})


# -------------------------------------------------------------------- buckets


def test_a_bucket_is_made_with_its_tags(s3: Any) -> None:
    tags = [{"Key": "team", "Value": "logs"}, {"Key": "cost center", "Value": ""}]
    s3.create_bucket(Bucket="tagged", CreateBucketConfiguration={"Tags": tags})
    assert s3.get_bucket_tagging(Bucket="tagged")["TagSet"] == tags
    again = {"Bucket": "tagged", "CreateBucketConfiguration": {"Tags": tags[:1]}}
    assert refused(s3.create_bucket, **again) == "BucketAlreadyExists"
    s3.create_bucket(Bucket="tagged", CreateBucketConfiguration={"Tags": tags})
    twice = {"Bucket": "untagged", "CreateBucketConfiguration": {"Tags": [tags[0], tags[0]]}}
    assert refused(s3.create_bucket, **twice) == "InvalidTag"
    with pytest.raises(ClientError, match="404"):
        s3.head_bucket(Bucket="untagged")


def test_a_bucket_is_of_the_namespace_that_is_asked_for(s3: Any) -> None:
    """`aws s3 mb` asks for the account's own for every name that ends in -an."""
    ours, others = f"logs-{ACCOUNT_ID}-us-east-1-an", "logs-123456789012-us-east-1-an"
    regional, plain = {"BucketNamespace": "account-regional"}, {"BucketNamespace": "global"}
    for name in ("logs-an", "logs", others, f"logs-{ACCOUNT_ID}-us-west-1-an"):
        assert refused(s3.create_bucket, Bucket=name, **regional) == "InvalidBucketNamespace"
    for name in (ours, others):
        assert refused(s3.create_bucket, Bucket=name) == "InvalidBucketName"
        assert refused(s3.create_bucket, Bucket=name, **plain) == "InvalidBucketName"
    assert refused(s3.create_bucket, Bucket="logs", BucketNamespace="mine") == "InvalidArgument"
    s3.create_bucket(Bucket=ours, **regional)
    s3.create_bucket(Bucket="logs-an", **plain)
    assert {ours, "logs-an"} <= {one["Name"] for one in s3.list_buckets()["Buckets"]}


def test_buckets_of_another_region_are_not_listed(s3: Any) -> None:
    assert [one["Name"] for one in s3.list_buckets(BucketRegion="us-east-1")["Buckets"]] == [BUCKET]
    assert s3.list_buckets(BucketRegion="eu-west-1")["Buckets"] == []


@pytest.mark.parametrize("verb", ["put_object", "copy_object", "create_multipart_upload"])
def test_no_write_is_of_a_version_that_is_there(s3: Any, verb: str) -> None:
    """Who names one believes that it is replaced."""
    s3.put_object(Bucket=BUCKET, Key="source")

    def with_version(request: Any, **_: Any) -> None:
        request.url += "&versionId=null" if "?" in request.url else "?versionId=null"

    s3.meta.events.register("before-sign.s3", with_version)
    more = {"CopySource": f"{BUCKET}/source"} if verb == "copy_object" else {}
    assert refused(getattr(s3, verb), Key="k", **more) == "InvalidArgument"


# -------------------------------------------------------------------- uploads


def begin(s3: Any, **asked: Any) -> tuple[str, dict[str, Any]]:
    """An upload with one part, and the arguments that complete it."""
    upload = s3.create_multipart_upload(Bucket=BUCKET, Key="k", **asked)["UploadId"]
    algorithm = {name: value for name, value in asked.items() if name == "ChecksumAlgorithm"}
    part = s3.upload_part(Bucket=BUCKET, Key="k", UploadId=upload, PartNumber=1, Body=b"part", **algorithm)
    named = {name: value for name, value in part.items() if name == "ETag" or name.startswith("ChecksumC")}
    return upload, {"Key": "k", "UploadId": upload, "MultipartUpload": {"Parts": [{"PartNumber": 1, **named}]}}


def test_a_completion_names_the_type_of_the_checksum(s3: Any) -> None:
    _, completing = begin(s3, ChecksumAlgorithm="CRC32", ChecksumType="FULL_OBJECT")
    complete = s3.complete_multipart_upload
    assert refused(complete, **completing, ChecksumType="COMPOSITE") == "BadDigest"
    assert refused(complete, **completing, ChecksumType="neither") == "InvalidRequest"
    done = complete(Bucket=BUCKET, **completing, ChecksumType="FULL_OBJECT")
    assert done["ChecksumType"] == "FULL_OBJECT"


def test_a_checksum_that_cannot_be_compared_is_refused(s3: Any) -> None:
    _, completing = begin(s3, ChecksumAlgorithm="CRC32")
    complete = s3.complete_multipart_upload
    assert refused(complete, **completing, ChecksumSHA256=EMPTY_SHA256) == "InvalidRequest"
    assert refused(complete, **completing, ChecksumCRC32="no base64") == "InvalidRequest"
    parts = completing["MultipartUpload"]["Parts"]
    other = {"Parts": [{**parts[0], "ChecksumSHA256": EMPTY_SHA256}]}
    assert refused(complete, **{**completing, "MultipartUpload": other}) == "BadDigest"
    below = {"Parts": [{**parts[0], "PartNumber": -1}]}
    assert refused(complete, **{**completing, "MultipartUpload": below}) == "InvalidArgument"
    complete(Bucket=BUCKET, **completing)
    _, without = begin(s3)
    complete(Bucket=BUCKET, **without, ChecksumCRC64NVME="AAAAAAAAAAA=")
    assert "ChecksumCRC64NVME" not in s3.head_object(Bucket=BUCKET, Key="k", ChecksumMode="ENABLED")


def test_an_upload_is_aborted_if_it_was_begun_then(s3: Any) -> None:
    upload, completing = begin(s3)
    begun = s3.list_multipart_uploads(Bucket=BUCKET)["Uploads"][0]["Initiated"]
    asked = {"Key": "k", "UploadId": upload}
    abort = s3.abort_multipart_upload
    assert refused(abort, **asked, IfMatchInitiatedTime=begun - timedelta(seconds=1)) == "PreconditionFailed"
    assert s3.list_parts(Bucket=BUCKET, **asked)["Parts"]
    abort(Bucket=BUCKET, **asked, IfMatchInitiatedTime=begun)
    assert refused(abort, **asked, IfMatchInitiatedTime=begun) == "NoSuchUpload"
    assert refused(s3.complete_multipart_upload, **completing) == "NoSuchUpload"


def test_a_marker_that_is_no_upload_is_a_bad_argument(s3: Any) -> None:
    assert refused(s3.list_multipart_uploads, KeyMarker="k", UploadIdMarker="no upload") == "InvalidArgument"


# -------------------------------------------------------------------- objects


@pytest.mark.parametrize("header", ["x-amz-checksum-crc16", "x-amz-checksum-"])
def test_a_checksum_of_no_known_algorithm_is_refused(s3: Any, header: str) -> None:
    def add(request: Any, **_: Any) -> None:
        request.headers[header] = "AAAA"

    s3.meta.events.register("before-sign.s3.PutObject", add)
    assert refused(s3.put_object, Key="k", Body=b"x") == "InvalidRequest"
    assert "Contents" not in s3.list_objects_v2(Bucket=BUCKET)


def test_minios_delete_of_a_prefix_is_not_taken_for_that_of_a_key(s3: Any) -> None:
    def add(request: Any, **_: Any) -> None:
        request.headers["x-minio-force-delete"] = "true"

    s3.put_object(Bucket=BUCKET, Key="k", Body=b"x")
    s3.meta.events.register("before-sign.s3.DeleteObject", add)
    assert refused(s3.delete_object, Key="k") == "NotImplemented"
    assert s3.head_object(Bucket=BUCKET, Key="k")["ContentLength"] == 1


def test_a_part_number_is_judged_before_anything_is_looked_up(s3: Any) -> None:
    for number in (-3, 0, 10_001):
        assert refused(s3.get_object, Key="absent", PartNumber=number) == "InvalidArgument"
        assert refused(s3.head_object, Key="absent", PartNumber=number) == "400"


@pytest.mark.parametrize("body", [b"", b"some"])
def test_the_first_part_of_an_object_without_parts_has_its_checksum(s3: Any, body: bytes) -> None:
    put = s3.put_object(Bucket=BUCKET, Key="k", Body=body, ChecksumAlgorithm="SHA256")
    for ask in (s3.get_object, s3.head_object):
        found = ask(Bucket=BUCKET, Key="k", PartNumber=1, ChecksumMode="ENABLED")
        assert found["ChecksumSHA256"] == put["ChecksumSHA256"]


def test_the_last_bytes_of_nothing_are_nothing(s3: Any) -> None:
    """RFC 9110, 14.1.2: a suffix is satisfiable unless it asks for no bytes."""
    s3.put_object(Bucket=BUCKET, Key="k", Body=b"")
    found = s3.get_object(Bucket=BUCKET, Key="k", Range="bytes=-8")
    assert (found["ResponseMetadata"]["HTTPStatusCode"], found["Body"].read()) == (200, b"")
    assert refused(s3.get_object, Key="k", Range="bytes=-0") == "InvalidRange"
    assert refused(s3.get_object, Key="k", Range="bytes=0-0") == "InvalidRange"


def test_a_range_of_an_object_is_copied_into_a_part_alone(s3: Any) -> None:
    """Passed over, it made a copy of the whole."""
    s3.put_object(Bucket=BUCKET, Key="source", Body=b"0123456789")

    def with_range(params: dict[str, Any], **_: Any) -> None:
        params["headers"]["x-amz-copy-source-range"] = "bytes=0-4"

    s3.meta.events.register("before-call.s3.CopyObject", with_range)
    assert refused(s3.copy_object, Key="k", CopySource=f"{BUCKET}/source") == "NotImplemented"
    assert [one["Key"] for one in s3.list_objects_v2(Bucket=BUCKET)["Contents"]] == ["source"]


def test_a_directive_that_is_none_is_named_before_the_copy_is(s3: Any) -> None:
    s3.put_object(Bucket=BUCKET, Key="k", Body=b"x")
    copy = {"Key": "k", "CopySource": f"{BUCKET}/k"}
    assert refused(s3.copy_object, **copy, TaggingDirective="invalid") == "InvalidArgument"


def test_attributes_of_an_object_have_to_be_named(s3: Any) -> None:
    s3.put_object(Bucket=BUCKET, Key="k", Body=b"x")
    assert refused(s3.get_object_attributes, Key="k", ObjectAttributes=[]) == "InvalidRequest"
    assert refused(s3.get_object_attributes, Key="k", ObjectAttributes=["Colour"]) == "InvalidArgument"


def test_a_link_that_begins_an_upload_says_which_checksum_it_has(s3: Any) -> None:
    """SDKs that put headers into the link (JavaScript's) have it among the link's parameters."""
    query = "uploads&x-amz-checksum-algorithm=CRC32C&x-amz-checksum-type=FULL_OBJECT"
    endpoint = urlsplit(s3.meta.endpoint_url)
    signed = presign_query(
        KeyPair(ROOT_USER, ROOT_PASSWORD),
        "POST",
        f"/{BUCKET}/k",
        query,
        {"host": endpoint.netloc},
        SystemClock().now_ms(),
        60,
    )
    answer = requests.post(f"{s3.meta.endpoint_url}/{BUCKET}/k?{signed}", timeout=30)
    assert (answer.status_code, answer.headers.get("x-amz-checksum-algorithm")) == (200, "CRC32C")
    assert answer.headers["x-amz-checksum-type"] == "FULL_OBJECT"
