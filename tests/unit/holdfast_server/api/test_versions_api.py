"""Versions as clients see them: boto3 against the whole API, over objects in memory."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from botocore.exceptions import ClientError

from holdfast_server.api.services import Services
from holdfast_server.testing.boto import served_client
from holdfast_server.testing.memory_services import memory_services

BUCKET = "versioned"


@pytest.fixture
def services() -> Services:
    return memory_services()


@pytest.fixture
def s3(services: Services) -> Iterator[Any]:
    with served_client(services) as client:
        yield client


@pytest.fixture
def bucket(s3: Any) -> str:
    s3.create_bucket(Bucket=BUCKET)
    switch(s3)
    return BUCKET


def switch(s3: Any, status: str = "Enabled") -> None:
    s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": status})


def put(s3: Any, body: bytes, key: str = "k", **more: Any) -> str:
    """Of `null` nothing is said."""
    return str(s3.put_object(Bucket=BUCKET, Key=key, Body=body, **more).get("VersionId", "null"))


def get(s3: Any, version: str | None = None, key: str = "k") -> tuple[str, bytes]:
    asked = {"VersionId": version} if version else {}
    answer = s3.get_object(Bucket=BUCKET, Key=key, **asked)
    return answer["VersionId"], answer["Body"].read()


def shown(s3: Any, **asked: Any) -> list[tuple[str, str, bool, bool]]:
    """Key, id, latest, marker; as ordered as two lists can be."""
    page = s3.list_object_versions(Bucket=BUCKET, **asked)
    found = [(v["Key"], v["VersionId"], v["IsLatest"], False) for v in page.get("Versions", [])]
    return found + [(v["Key"], v["VersionId"], v["IsLatest"], True) for v in page.get("DeleteMarkers", [])]


def refusal(error: pytest.ExceptionInfo[ClientError]) -> tuple[int, str, dict[str, str]]:
    response = error.value.response
    meta = response["ResponseMetadata"]
    return meta["HTTPStatusCode"], response["Error"]["Code"], meta["HTTPHeaders"]


def test_a_bucket_begins_to_keep_versions_and_never_stops_to_have_done_so(s3: Any) -> None:
    s3.create_bucket(Bucket=BUCKET)
    assert "Status" not in s3.get_bucket_versioning(Bucket=BUCKET)
    assert "VersionId" not in s3.put_object(Bucket=BUCKET, Key="before", Body=b"x")
    assert "VersionId" not in s3.get_object(Bucket=BUCKET, Key="before")
    for status in ("Enabled", "Suspended", "Enabled"):
        switch(s3, status)
        assert s3.get_bucket_versioning(Bucket=BUCKET)["Status"] == status
    assert get(s3, key="before") == ("null", b"x")
    assert shown(s3) == [("before", "null", True, False)]


@pytest.mark.parametrize(
    ("document", "code"),
    [
        ({"Status": "Sometimes"}, "MalformedXML"),
        ({"MFADelete": "Enabled", "Status": "Enabled"}, "NotImplemented"),
        ({}, "IllegalVersioningConfigurationException"),
    ],
)
def test_a_versioning_configuration_that_cannot_be_is_refused(s3: Any, document: dict[str, str], code: str) -> None:
    s3.create_bucket(Bucket=BUCKET)
    with pytest.raises(ClientError) as error:
        s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration=document)
    assert error.value.response["Error"]["Code"] == code
    assert "Status" not in s3.get_bucket_versioning(Bucket=BUCKET)


def test_no_bucket_begins_while_a_pod_may_know_nothing_of_versions() -> None:
    old = dataclasses.replace(memory_services(), every_pod_keeps_versions=lambda: False)
    with served_client(old, BUCKET) as s3:
        with pytest.raises(ClientError) as error:
            switch(s3)
        assert refusal(error)[:2] == (503, "ServiceUnavailable")
        assert "VersionId" not in s3.put_object(Bucket=BUCKET, Key="k", Body=b"x")


def test_versions_are_read_by_their_ids_and_copied_from(s3: Any, bucket: str) -> None:
    first, second = put(s3, b"first"), put(s3, b"second")
    assert get(s3) == (second, b"second")
    assert get(s3, first) == (first, b"first")
    head = s3.head_object(Bucket=bucket, Key="k", VersionId=first)
    assert (head["VersionId"], head["ContentLength"]) == (first, 5)
    source = {"Bucket": bucket, "Key": "k", "VersionId": first}
    copied = s3.copy_object(Bucket=bucket, Key="k", CopySource=source)
    assert copied["CopySourceVersionId"] == first
    assert get(s3) == (copied["VersionId"], b"first")
    assert len(shown(s3)) == 3


def test_a_version_that_is_not_there_is_named_and_an_impossible_id_is_refused(s3: Any, bucket: str) -> None:
    put(s3, b"x")
    for asked, expected in (("0123456789abcdef", (404, "NoSuchVersion")), ("what?", (400, "InvalidArgument"))):
        with pytest.raises(ClientError) as error:
            get(s3, asked)
        assert refusal(error)[:2] == expected
    s3.delete_object(Bucket=bucket, Key="k", VersionId="0123456789abcdef")
    with pytest.raises(ClientError) as error:
        s3.delete_object(Bucket=bucket, Key="k", VersionId="what?")
    assert refusal(error)[:2] == (400, "InvalidArgument")


def test_nothing_about_a_delete_marker_is_changed(s3: Any, bucket: str) -> None:
    put(s3, b"x")
    marker = s3.delete_object(Bucket=bucket, Key="k")["VersionId"]
    tags = {"TagSet": [{"Key": "a", "Value": "b"}]}
    for method, ask, more in (
        ("PUT", s3.put_object_tagging, {"Tagging": tags}), ("DELETE", s3.delete_object_tagging, {}),
    ):  # fmt: skip
        for asked, expected in ((marker, (405, "MethodNotAllowed")), ("0123456789abcdef", (404, "NoSuchVersion"))):
            with pytest.raises(ClientError) as error:
                ask(Bucket=bucket, Key="k", VersionId=asked, **more)
            assert refusal(error)[:2] == expected
            if asked == marker:
                assert error.value.response["Error"]["Method"] == method


def test_a_delete_leaves_a_marker_that_says_what_it_is(s3: Any, bucket: str) -> None:
    first = put(s3, b"first")
    deleted = s3.delete_object(Bucket=bucket, Key="k")
    marker = deleted["VersionId"]
    assert deleted["DeleteMarker"] is True
    for verb in (s3.get_object, s3.head_object):
        with pytest.raises(ClientError) as error:
            verb(Bucket=bucket, Key="k")
        status, _, headers = refusal(error)
        assert (status, headers["x-amz-delete-marker"], headers["x-amz-version-id"]) == (404, "true", marker)
        with pytest.raises(ClientError) as error:
            verb(Bucket=bucket, Key="k", VersionId=marker)
        status, _, headers = refusal(error)
        assert (status, headers["x-amz-delete-marker"], headers["allow"]) == (405, "true", "DELETE")
        assert "last-modified" in headers
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0
    assert shown(s3) == [("k", first, False, False), ("k", marker, True, True)]
    with pytest.raises(ClientError) as error:
        s3.copy_object(Bucket=bucket, Key="c", CopySource={"Bucket": bucket, "Key": "k", "VersionId": marker})
    assert refusal(error)[:2] == (400, "InvalidRequest")
    undone = s3.delete_object(Bucket=bucket, Key="k", VersionId=marker)
    assert (undone["DeleteMarker"], undone["VersionId"]) == (True, marker)
    assert get(s3) == (first, b"first")
    gone = s3.delete_object(Bucket=bucket, Key="k", VersionId=first)
    assert gone["VersionId"] == first
    assert "DeleteMarker" not in gone
    assert shown(s3) == []


def test_suspended_writes_make_the_null_version(s3: Any, bucket: str) -> None:
    first = put(s3, b"first")
    switch(s3, "Suspended")
    assert put(s3, b"null") == "null"
    assert put(s3, b"null again") == "null"
    assert s3.delete_object(Bucket=bucket, Key="k")["VersionId"] == "null"
    assert shown(s3) == [("k", first, False, False), ("k", "null", True, True)]
    s3.delete_object(Bucket=bucket, Key="k", VersionId="null")
    assert get(s3) == (first, b"first")


def test_a_null_version_that_is_not_there_is_a_missing_version_where_versions_are_kept(s3: Any, bucket: str) -> None:
    put(s3, b"first")
    asked = {"Bucket": bucket, "Key": "k", "VersionId": "null"}
    source = {"Bucket": bucket, "Key": "k", "VersionId": "null"}
    for ask in (
        partial(s3.get_object, **asked),
        partial(s3.get_object_tagging, **asked),
        partial(s3.put_object_tagging, **asked, Tagging={"TagSet": []}),
        partial(s3.copy_object, Bucket=bucket, Key="copy", CopySource=source),
    ):
        with pytest.raises(ClientError) as error:
            ask()
        assert refusal(error)[:2] == (404, "NoSuchVersion")
    s3.create_bucket(Bucket="without")
    with pytest.raises(ClientError) as error:
        s3.get_object(Bucket="without", Key="k", VersionId="null")
    assert refusal(error)[:2] == (404, "NoSuchKey")


def test_delete_objects_tells_of_versions_and_markers(s3: Any, bucket: str) -> None:
    first, second = put(s3, b"first"), put(s3, b"second", key="other")
    answer = s3.delete_objects(
        Bucket=bucket,
        Delete={"Objects": [{"Key": "k"}, {"Key": "other", "VersionId": second}, {"Key": "k", "VersionId": "?"}]},
    )
    by_key = {row["Key"]: row for row in answer["Deleted"]}
    marker = by_key["k"]["DeleteMarkerVersionId"]
    assert by_key["k"]["DeleteMarker"] is True
    assert by_key["other"] == {"Key": "other", "VersionId": second}
    assert [(row["Key"], row["VersionId"], row["Code"]) for row in answer["Errors"]] == [("k", "?", "InvalidArgument")]
    answer = s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "k", "VersionId": marker}]})
    assert answer["Deleted"] == [
        {"Key": "k", "VersionId": marker, "DeleteMarker": True, "DeleteMarkerVersionId": marker}
    ]
    assert shown(s3) == [("k", first, True, False)]


def _deny(s3: Any, action: str, version: str) -> None:
    row = {
        "Effect": "Deny", "Principal": "*", "Action": action, "Resource": f"arn:aws:s3:::{BUCKET}/*",
        "Condition": {"StringEquals": {"s3:VersionId": version}},
    }  # fmt: skip
    s3.put_bucket_policy(Bucket=BUCKET, Policy=json.dumps({"Version": "2012-10-17", "Statement": [row]}))


def test_a_policy_about_a_version_holds_where_many_are_deleted(s3: Any, bucket: str) -> None:
    first, second = put(s3, b"first"), put(s3, b"second")
    _deny(s3, "s3:DeleteObjectVersion", first)
    objects = [{"Key": "k", "VersionId": first}, {"Key": "k", "VersionId": second}]
    # What the query says is about none of them.
    s3.meta.events.register("before-sign.s3.DeleteObjects", _name_a_version_in_the_query)
    answer = s3.delete_objects(Bucket=bucket, Delete={"Objects": objects})
    assert [(row["VersionId"], row["Code"]) for row in answer["Errors"]] == [(first, "AccessDenied")]
    assert get(s3) == (first, b"first")


def _name_a_version_in_the_query(request: Any, **_: Any) -> None:
    request.url += "&versionId=0123456789abcdef"


def test_a_policy_about_a_version_holds_where_it_is_copied(s3: Any, bucket: str) -> None:
    first, second = put(s3, b"first"), put(s3, b"second")
    _deny(s3, "s3:GetObjectVersion", first)
    upload = s3.create_multipart_upload(Bucket=bucket, Key="parts")["UploadId"]
    part = {"Bucket": bucket, "Key": "parts", "UploadId": upload, "PartNumber": 1}
    for version, allowed in ((first, False), (second, True)):
        source = {"Bucket": bucket, "Key": "k", "VersionId": version}
        for work in (
            lambda s=source: s3.copy_object(Bucket=bucket, Key="copy", CopySource=s),
            lambda s=source: s3.upload_part_copy(**part, CopySource=s),
        ):
            if allowed:
                work()
                continue
            with pytest.raises(ClientError) as error:
                work()
            assert refusal(error)[:2] == (403, "AccessDenied")


def test_a_completed_upload_is_a_version(s3: Any, bucket: str) -> None:
    first = put(s3, b"first")
    upload = s3.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]
    part = s3.upload_part(Bucket=bucket, Key="k", UploadId=upload, PartNumber=1, Body=b"part")
    parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
    done = s3.complete_multipart_upload(Bucket=bucket, Key="k", UploadId=upload, MultipartUpload=parts)
    assert get(s3) == (done["VersionId"], b"part")
    assert get(s3, first) == (first, b"first")


def test_conditions_are_about_the_current_version(s3: Any, bucket: str) -> None:
    put(s3, b"first", IfNoneMatch="*")
    with pytest.raises(ClientError) as error:
        put(s3, b"second", IfNoneMatch="*")
    assert refusal(error)[:2] == (412, "PreconditionFailed")
    s3.delete_object(Bucket=bucket, Key="k")
    put(s3, b"third", IfNoneMatch="*")
    assert len(shown(s3)) == 3


def test_versions_are_listed_by_pages_prefixes_and_groups(s3: Any, bucket: str) -> None:
    expected = []
    for key in ("a&b", "d/1", "d/2", "ü"):
        versions = [put(s3, b"x", key=key) for _ in range(3)]
        expected += [(key, version) for version in reversed(versions)]
    found, asked = [], {}
    while True:
        page = s3.list_object_versions(Bucket=bucket, MaxKeys=2, **asked)
        found += [(row["Key"], row["VersionId"]) for row in page["Versions"]]
        if not page["IsTruncated"]:
            break
        asked = {"KeyMarker": page["NextKeyMarker"], "VersionIdMarker": page["NextVersionIdMarker"]}
    assert found == expected
    grouped = s3.list_object_versions(Bucket=bucket, Delimiter="/", MaxKeys=4)
    assert [row["Prefix"] for row in grouped["CommonPrefixes"]] == ["d/"]
    assert (grouped["IsTruncated"], grouped["NextKeyMarker"]) == (True, "d/")
    assert "NextVersionIdMarker" not in grouped
    behind = s3.list_object_versions(Bucket=bucket, Delimiter="/", KeyMarker="d/")
    assert {row["Key"] for row in behind["Versions"]} == {"ü"}
    assert [key for key, *_ in shown(s3, Prefix="d/2")] == ["d/2"] * 3
    assert shown(s3, MaxKeys=0) == []
    with pytest.raises(ClientError) as error:
        shown(s3, VersionIdMarker="null")
    assert refusal(error)[:2] == (400, "InvalidArgument")


def test_a_bucket_with_nothing_but_old_versions_is_not_empty(s3: Any, bucket: str) -> None:
    put(s3, b"x")
    s3.delete_object(Bucket=bucket, Key="k")
    with pytest.raises(ClientError) as error:
        s3.delete_bucket(Bucket=bucket)
    assert refusal(error)[:2] == (409, "BucketNotEmpty")
    for _, version, _, _ in shown(s3):
        s3.delete_object(Bucket=bucket, Key="k", VersionId=version)
    s3.delete_bucket(Bucket=bucket)


def test_tags_belong_to_a_version(s3: Any, bucket: str) -> None:
    first, second = put(s3, b"first"), put(s3, b"second")
    tags = {"TagSet": [{"Key": "a", "Value": "1"}]}
    answer = s3.put_object_tagging(Bucket=bucket, Key="k", VersionId=first, Tagging=tags)
    assert answer["VersionId"] == first
    assert s3.get_object_tagging(Bucket=bucket, Key="k", VersionId=first)["TagSet"] == tags["TagSet"]
    assert s3.get_object_tagging(Bucket=bucket, Key="k")["TagSet"] == []
    assert [version for _, version, _, _ in shown(s3)] == [second, first]
