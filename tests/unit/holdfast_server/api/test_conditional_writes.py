"""Writes and deletes under conditions: boto3 against the whole API, over objects in memory."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from botocore.exceptions import ClientError

from holdfast_server.testing.boto import refusal, served_client
from holdfast_server.testing.memory_services import memory_services

BUCKET = "conditions"
LONG_AGO = datetime(2015, 1, 1, tzinfo=UTC)


@pytest.fixture
def s3() -> Iterator[Any]:
    with served_client(memory_services(), BUCKET) as client:
        yield client


def refused(ask: Any, **asked: Any) -> str:
    return refusal(ask, Bucket=BUCKET, Key="k", **asked)


def keep_versions(s3: Any) -> None:
    s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})


def complete(s3: Any, **condition: Any) -> Any:
    upload = s3.create_multipart_upload(Bucket=BUCKET, Key="k")["UploadId"]
    etag = s3.upload_part(Bucket=BUCKET, Key="k", UploadId=upload, PartNumber=1, Body=b"part")["ETag"]
    parts = {"Parts": [{"PartNumber": 1, "ETag": etag}]}
    return s3.complete_multipart_upload(Bucket=BUCKET, Key="k", UploadId=upload, MultipartUpload=parts, **condition)


@pytest.mark.parametrize("versions", [False, True])
def test_a_put_goes_by_the_etag_of_the_current_version(s3: Any, versions: bool) -> None:
    if versions:
        keep_versions(s3)
    assert refused(s3.put_object, Body=b"0", IfMatch="*") == "NoSuchKey"
    first = s3.put_object(Bucket=BUCKET, Key="k", Body=b"1", IfNoneMatch='"anything"')["ETag"]
    assert refused(s3.put_object, Body=b"2", IfNoneMatch=first) == "PreconditionFailed"
    second = s3.put_object(Bucket=BUCKET, Key="k", Body=b"2", IfNoneMatch='"anything"')["ETag"]
    assert refused(s3.put_object, Body=b"3", IfMatch=first) == "PreconditionFailed"
    s3.put_object(Bucket=BUCKET, Key="k", Body=b"3", IfNoneMatch=first, IfMatch=second)
    assert s3.get_object(Bucket=BUCKET, Key="k")["Body"].read() == b"3"
    s3.delete_object(Bucket=BUCKET, Key="k")
    assert refused(s3.put_object, Body=b"4", IfMatch="*") == "NoSuchKey"


def test_completing_an_upload_goes_by_it_too(s3: Any) -> None:
    first = complete(s3, IfNoneMatch='"anything"')["ETag"]
    for condition in ({"IfNoneMatch": first}, {"IfNoneMatch": "*"}, {"IfMatch": '"anything"'}):
        with pytest.raises(ClientError, match="PreconditionFailed"):
            complete(s3, **condition)
    complete(s3, IfMatch=first)


def test_a_delete_goes_by_etag_time_and_size(s3: Any) -> None:
    etag = s3.put_object(Bucket=BUCKET, Key="k", Body=b"123")["ETag"]
    written = s3.head_object(Bucket=BUCKET, Key="k")["LastModified"]
    for wrong in ({"IfMatch": '"x"'}, {"IfMatchLastModifiedTime": LONG_AGO}, {"IfMatchSize": 4}):
        assert refused(s3.delete_object, **wrong) == "PreconditionFailed"
        assert refused(s3.delete_object, **{"IfMatch": etag, **wrong}) == "PreconditionFailed"
    s3.delete_object(Bucket=BUCKET, Key="k", IfMatch=etag, IfMatchLastModifiedTime=written, IfMatchSize=3)
    assert refused(s3.get_object) == "NoSuchKey"


def test_of_what_is_not_there_an_etag_is_missed_and_a_size_is_not(s3: Any) -> None:
    assert refused(s3.delete_object, IfMatch="*") == "NoSuchKey"
    s3.delete_object(Bucket=BUCKET, Key="k", IfMatchSize=4)
    keep_versions(s3)
    s3.delete_object(Bucket=BUCKET, Key="k", IfMatchSize=4)
    assert "DeleteMarkers" not in s3.list_object_versions(Bucket=BUCKET)


def test_no_condition_holds_of_a_delete_marker(s3: Any) -> None:
    keep_versions(s3)
    version = s3.put_object(Bucket=BUCKET, Key="k", Body=b"")["VersionId"]
    s3.delete_object(Bucket=BUCKET, Key="k")
    for condition in ({"IfMatch": "*"}, {"IfMatchSize": 0}):
        assert refused(s3.delete_object, **condition) == "PreconditionFailed"
    assert len(s3.list_object_versions(Bucket=BUCKET)["DeleteMarkers"]) == 1
    assert refused(s3.delete_object, VersionId=version, IfMatchSize=1) == "PreconditionFailed"
    s3.delete_object(Bucket=BUCKET, Key="k", VersionId=version, IfMatchSize=0)
    assert "Versions" not in s3.list_object_versions(Bucket=BUCKET)


def test_each_key_of_a_multi_delete_has_conditions_of_its_own(s3: Any) -> None:
    etag = s3.put_object(Bucket=BUCKET, Key="k", Body=b"123")["ETag"]
    asked = [
        {"Key": "k", "ETag": '"x"'},
        {"Key": "k", "Size": 4},
        {"Key": "k", "LastModifiedTime": LONG_AGO},
        {"Key": "absent", "ETag": etag},
        {"Key": "absent", "Size": 1},
    ]
    answer = s3.delete_objects(Bucket=BUCKET, Delete={"Objects": asked})
    codes = sorted((error["Key"], error["Code"]) for error in answer["Errors"])
    assert codes == [("absent", "NoSuchKey"), *[("k", "PreconditionFailed")] * 3]
    assert [deleted["Key"] for deleted in answer["Deleted"]] == ["absent"]
    answer = s3.delete_objects(Bucket=BUCKET, Delete={"Objects": [{"Key": "k", "ETag": etag, "Size": 3}]})
    assert "Errors" not in answer
