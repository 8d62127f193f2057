"""Storage classes: REDUCED_REDUNDANCY is taken, told and kept with full redundancy; there are no others."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from holdfast_server.testing.boto import served_client
from holdfast_server.testing.memory_services import memory_services

BUCKET = "classes"
REDUCED = "REDUCED_REDUNDANCY"


@pytest.fixture
def s3() -> Iterator[Any]:
    with served_client(memory_services(), BUCKET, parameter_validation=False) as client:
        yield client


def header_of(s3: Any, key: str) -> str | None:
    told = {s3.head_object(Bucket=BUCKET, Key=key).get("StorageClass")}
    told.add(s3.get_object(Bucket=BUCKET, Key=key).get("StorageClass"))
    (one,) = told
    return one


def listed(s3: Any) -> dict[str, str]:
    return {entry["Key"]: entry["StorageClass"] for entry in s3.list_objects_v2(Bucket=BUCKET)["Contents"]}


def test_a_class_is_told_where_it_is_not_the_ordinary_one(s3: Any) -> None:
    s3.put_object(Bucket=BUCKET, Key="plain", Body=b"x")
    s3.put_object(Bucket=BUCKET, Key="named", Body=b"x", StorageClass="STANDARD")
    s3.put_object(Bucket=BUCKET, Key="reduced", Body=b"x", StorageClass=REDUCED)
    upload = s3.create_multipart_upload(Bucket=BUCKET, Key="parts", StorageClass=REDUCED)["UploadId"]
    part = s3.upload_part(Bucket=BUCKET, Key="parts", UploadId=upload, PartNumber=1, Body=b"x")
    assert s3.list_multipart_uploads(Bucket=BUCKET)["Uploads"][0]["StorageClass"] == REDUCED
    assert s3.list_parts(Bucket=BUCKET, Key="parts", UploadId=upload)["StorageClass"] == REDUCED
    parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
    s3.complete_multipart_upload(Bucket=BUCKET, Key="parts", UploadId=upload, MultipartUpload=parts)
    assert [header_of(s3, key) for key in ("plain", "named", "reduced", "parts")] == [None, None, REDUCED, REDUCED]
    assert listed(s3) == {"plain": "STANDARD", "named": "STANDARD", "reduced": REDUCED, "parts": REDUCED}
    attributes = s3.get_object_attributes(Bucket=BUCKET, Key="reduced", ObjectAttributes=["StorageClass"])
    assert attributes["StorageClass"] == REDUCED


def test_a_copy_has_the_class_it_is_asked_to_have(s3: Any) -> None:
    s3.put_object(Bucket=BUCKET, Key="k", Body=b"x", StorageClass=REDUCED)
    source = {"Bucket": BUCKET, "Key": "k"}
    s3.copy_object(Bucket=BUCKET, Key="copy", CopySource=source)
    s3.copy_object(Bucket=BUCKET, Key="k", CopySource=source, StorageClass="STANDARD")
    assert listed(s3) == {"k": "STANDARD", "copy": "STANDARD"}


@pytest.mark.parametrize("name", ["STANDARD_IA", "GLACIER", "INTELLIGENT_TIERING", "reduced_redundancy", "BEST"])
def test_other_classes_are_refused_and_nothing_is_stored(s3: Any, name: str) -> None:
    for ask, more in ((s3.put_object, {"Body": b"x"}), (s3.create_multipart_upload, {})):
        with pytest.raises(ClientError, match="InvalidStorageClass"):
            ask(Bucket=BUCKET, Key="k", StorageClass=name, **more)
    assert "Contents" not in s3.list_objects_v2(Bucket=BUCKET)


def test_an_error_says_what_was_asked_for_and_by_which_request(s3: Any) -> None:
    with pytest.raises(ClientError) as raised:
        s3.get_object(Bucket=BUCKET, Key="absent key")
    answer = raised.value.response
    headers = answer["ResponseMetadata"]["HTTPHeaders"]
    assert answer["Error"]["Resource"] == f"/{BUCKET}/absent%20key"
    assert answer["Error"]["Key"] == "absent key"
    assert answer["ResponseMetadata"]["RequestId"] == headers["x-amz-request-id"]
    assert answer["ResponseMetadata"]["HostId"] == headers["x-amz-id-2"]
