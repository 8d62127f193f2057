"""Object lock as clients see it: boto3 against the whole API, over objects in memory."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import http.client
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import pytest
from botocore import UNSIGNED
from botocore.exceptions import ClientError

from holdfast_server.api.services import Services
from holdfast_server.clock.bounds import Reading, TimeBounds
from holdfast_server.clock.system import SystemClock
from holdfast_server.s3.lock_documents import DefaultRetention, parse_until
from holdfast_server.testing.boto import client_of, served_client
from holdfast_server.testing.memory_services import memory_services, served

BUCKET = "locked"
LATER = datetime(2140, 1, 1, tzinfo=UTC)
MUCH_LATER = datetime(2150, 1, 1, tzinfo=UTC)


@pytest.fixture
def services() -> Services:
    return memory_services()


@pytest.fixture
def client(services: Services) -> Iterator[Callable[..., Any]]:
    with served(services) as endpoint:

        def make(anonymous: bool = False, **config: Any) -> Any:
            signed = {} if not anonymous else {"signature_version": UNSIGNED}
            return client_of(endpoint, attempts=2, **signed, **config)

        yield make


@pytest.fixture
def s3(client: Callable[..., Any]) -> Any:
    return client()


@pytest.fixture
def bucket(s3: Any) -> str:
    s3.create_bucket(Bucket=BUCKET, ObjectLockEnabledForBucket=True)
    return BUCKET


def configure(s3: Any, **default: Any) -> None:
    rule = {"Rule": {"DefaultRetention": default}} if default else {}
    s3.put_object_lock_configuration(Bucket=BUCKET, ObjectLockConfiguration={"ObjectLockEnabled": "Enabled", **rule})


def put(s3: Any, key: str = "k", **more: Any) -> str:
    return str(s3.put_object(Bucket=BUCKET, Key=key, Body=b"x", **more)["VersionId"])


def retain(s3: Any, mode: str | None, until: datetime | None, **more: Any) -> None:
    retention = {} if mode is None else {"Mode": mode, "RetainUntilDate": until}
    s3.put_object_retention(Bucket=BUCKET, Key="k", Retention=retention, **more)


def refused(work: Callable[[], Any]) -> tuple[int, str]:
    with pytest.raises(ClientError) as error:
        work()
    response = error.value.response
    return response["ResponseMetadata"]["HTTPStatusCode"], response["Error"]["Code"]


def lock_of(head: dict[str, Any]) -> tuple[Any, Any, Any]:
    return (head.get("ObjectLockMode"), head.get("ObjectLockRetainUntilDate"), head.get("ObjectLockLegalHoldStatus"))


# -------------------------------------------------------------------- the bucket


def test_a_bucket_with_locking_keeps_versions_for_ever(s3: Any, bucket: str) -> None:
    assert s3.get_bucket_versioning(Bucket=bucket)["Status"] == "Enabled"
    shown = s3.get_object_lock_configuration(Bucket=bucket)["ObjectLockConfiguration"]
    assert shown == {"ObjectLockEnabled": "Enabled"}
    suspend = {"Status": "Suspended"}
    assert refused(lambda: s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration=suspend)) == (
        409, "InvalidBucketState",
    )  # fmt: skip
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    configure(s3, Mode="COMPLIANCE", Years=2)
    shown = s3.get_object_lock_configuration(Bucket=bucket)["ObjectLockConfiguration"]
    assert shown["Rule"]["DefaultRetention"] == {"Mode": "COMPLIANCE", "Years": 2}
    configure(s3)
    assert "Rule" not in s3.get_object_lock_configuration(Bucket=bucket)["ObjectLockConfiguration"]


def test_locking_is_switched_on_later_where_versions_are_kept(s3: Any) -> None:
    s3.create_bucket(Bucket=BUCKET)
    assert refused(lambda: s3.get_object_lock_configuration(Bucket=BUCKET)) == (
        404, "ObjectLockConfigurationNotFoundError",
    )  # fmt: skip
    s3.put_object(Bucket=BUCKET, Key="k", Body=b"before")
    for status in ("", "Suspended"):
        if status:
            s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": status})
        assert refused(lambda: configure(s3)) == (409, "InvalidBucketState")
    s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
    configure(s3, Mode="GOVERNANCE", Days=3)
    assert lock_of(s3.head_object(Bucket=BUCKET, Key="k")) == (None, None, None)
    retain(s3, "COMPLIANCE", LATER)
    assert refused(lambda: s3.delete_object(Bucket=BUCKET, Key="k", VersionId="null")) == (403, "AccessDenied")


@pytest.mark.parametrize(
    ("default", "code"),
    [
        ({"Mode": "GOVERNANCE", "Days": 1, "Years": 1}, "MalformedXML"),
        ({"Mode": "GOVERNANCE"}, "MalformedXML"),
        ({"Mode": "governance", "Days": 1}, "MalformedXML"),
        ({"Mode": "GOVERNANCE", "Days": 0}, "InvalidRetentionPeriod"),
        ({"Mode": "GOVERNANCE", "Years": -1}, "InvalidRetentionPeriod"),
        ({"Mode": "COMPLIANCE", "Years": 101}, "InvalidRetentionPeriod"),
        ({"Mode": "COMPLIANCE", "Days": 36_501}, "InvalidRetentionPeriod"),
    ],
)
def test_a_default_that_cannot_be_is_refused(s3: Any, bucket: str, default: dict[str, Any], code: str) -> None:
    assert refused(lambda: configure(s3, **default)) == (400, code)


def test_no_bucket_has_locking_before_every_pod_knows_of_it() -> None:
    old = dataclasses.replace(memory_services(), every_pod_keeps_locks=lambda: False)
    with served_client(old) as s3:
        create = {"Bucket": BUCKET, "ObjectLockEnabledForBucket": True}
        assert refused(lambda: s3.create_bucket(**create)) == (503, "ServiceUnavailable")
        s3.create_bucket(Bucket=BUCKET)
        s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
        assert refused(lambda: configure(s3)) == (503, "ServiceUnavailable")


# -------------------------------------------------------------------- what writes ask for


def test_a_version_is_written_with_its_lock(s3: Any, bucket: str) -> None:
    asked = {"ObjectLockMode": "GOVERNANCE", "ObjectLockRetainUntilDate": LATER, "ObjectLockLegalHoldStatus": "ON"}
    put(s3, **asked)
    assert lock_of(s3.head_object(Bucket=bucket, Key="k")) == ("GOVERNANCE", LATER, "ON")
    assert lock_of(s3.get_object(Bucket=bucket, Key="k")) == ("GOVERNANCE", LATER, "ON")
    source = {"Bucket": bucket, "Key": "k"}
    s3.copy_object(Bucket=bucket, Key="copy", CopySource=source)
    assert lock_of(s3.head_object(Bucket=bucket, Key="copy")) == (None, None, None), "a lock is not copied"
    s3.copy_object(Bucket=bucket, Key="copy", CopySource=source, **asked)
    assert lock_of(s3.head_object(Bucket=bucket, Key="copy")) == ("GOVERNANCE", LATER, "ON")
    upload = s3.create_multipart_upload(Bucket=bucket, Key="parts", **asked)["UploadId"]
    part = s3.upload_part(Bucket=bucket, Key="parts", UploadId=upload, PartNumber=1, Body=b"x")["ETag"]
    parts = {"Parts": [{"ETag": part, "PartNumber": 1}]}
    s3.complete_multipart_upload(Bucket=bucket, Key="parts", UploadId=upload, MultipartUpload=parts)
    assert lock_of(s3.head_object(Bucket=bucket, Key="parts")) == ("GOVERNANCE", LATER, "ON")


def test_a_default_counts_from_the_commit_and_gives_way(s3: Any, bucket: str) -> None:
    upload = s3.create_multipart_upload(Bucket=bucket, Key="parts")["UploadId"]
    configure(s3, Mode="GOVERNANCE", Days=2)
    put(s3)
    put(s3, "own", ObjectLockMode="COMPLIANCE", ObjectLockRetainUntilDate=LATER)
    put(s3, "held", ObjectLockLegalHoldStatus="OFF")
    part = s3.upload_part(Bucket=bucket, Key="parts", UploadId=upload, PartNumber=1, Body=b"x")["ETag"]
    parts = {"Parts": [{"ETag": part, "PartNumber": 1}]}
    s3.complete_multipart_upload(Bucket=bucket, Key="parts", UploadId=upload, MultipartUpload=parts)
    for key in ("k", "held", "parts"):
        head = s3.head_object(Bucket=bucket, Key=key)
        assert head["ObjectLockMode"] == "GOVERNANCE"
        ends = head["ObjectLockRetainUntilDate"] - head["LastModified"]
        assert timedelta(days=2) - timedelta(seconds=1) <= ends <= timedelta(days=2, minutes=5)
    assert lock_of(s3.head_object(Bucket=bucket, Key="own")) == ("COMPLIANCE", LATER, None)
    configure(s3)
    put(s3)
    assert lock_of(s3.head_object(Bucket=bucket, Key="k")) == (None, None, None)
    assert lock_of(s3.head_object(Bucket=bucket, Key="held"))[0] == "GOVERNANCE", "what is there keeps what it has"


def test_a_default_is_counted_from_the_clock_that_is_furthest_ahead(services: Services) -> None:
    clock = SystemClock()
    services.buckets.latest_ms = TimeBounds(
        clock, lambda: [Reading(parse_until("2130-01-01T00:00:00Z"), 0.0)]
    ).latest_ms
    with served_client(services) as s3:
        s3.create_bucket(Bucket=BUCKET, ObjectLockEnabledForBucket=True)
        configure(s3, Mode="GOVERNANCE", Years=1)
        put(s3)
        assert s3.head_object(Bucket=BUCKET, Key="k")["ObjectLockRetainUntilDate"] == datetime(2131, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ({"ObjectLockMode": "GOVERNANCE"}, "InvalidArgument"),
        ({"ObjectLockRetainUntilDate": LATER}, "InvalidArgument"),
        ({"ObjectLockMode": "FOREVER", "ObjectLockRetainUntilDate": LATER}, "InvalidArgument"),
        ({"ObjectLockMode": "GOVERNANCE", "ObjectLockRetainUntilDate": datetime(2020, 1, 1)}, "InvalidArgument"),
        ({"ObjectLockLegalHoldStatus": "PERHAPS"}, "InvalidArgument"),
    ],
)
def test_a_lock_that_cannot_be_is_refused(s3: Any, bucket: str, asked: dict[str, Any], code: str) -> None:
    assert refused(lambda: put(s3, **asked)) == (400, code)
    assert refused(lambda: s3.create_multipart_upload(Bucket=bucket, Key="k", **asked)) == (400, code)
    assert "Versions" not in s3.list_object_versions(Bucket=bucket)


def test_a_bucket_without_locking_takes_no_locks(s3: Any) -> None:
    s3.create_bucket(Bucket=BUCKET)
    s3.put_object(Bucket=BUCKET, Key="k", Body=b"x")
    hold = {"Status": "ON"}
    for work in (
        lambda: put(s3, ObjectLockLegalHoldStatus="ON"),
        lambda: retain(s3, "GOVERNANCE", LATER),
        lambda: s3.put_object_legal_hold(Bucket=BUCKET, Key="k", LegalHold=hold),
        lambda: s3.get_object_retention(Bucket=BUCKET, Key="k"),
        lambda: s3.get_object_legal_hold(Bucket=BUCKET, Key="k"),
    ):
        assert refused(work) == (400, "InvalidRequest")


def test_a_body_that_is_to_be_kept_comes_with_its_hash(client: Callable[..., Any], s3: Any, bucket: str) -> None:
    bare = client(request_checksum_calculation="when_required")
    locked = {"ObjectLockMode": "GOVERNANCE", "ObjectLockRetainUntilDate": LATER}
    assert put(bare)
    assert refused(lambda: put(bare, **locked)) == (400, "InvalidRequest")
    md5 = base64.b64encode(hashlib.md5(b"x", usedforsecurity=False).digest()).decode()
    assert put(bare, **locked, ContentMD5=md5)
    configure(s3, Mode="GOVERNANCE", Days=1)
    assert refused(lambda: put(bare)) == (400, "InvalidRequest")
    assert put(s3)


@pytest.mark.parametrize("asked", [{}, {"ObjectLockLegalHoldStatus": "OFF"},
                                   {"ObjectLockMode": "GOVERNANCE", "ObjectLockRetainUntilDate": LATER}])  # fmt: skip
def test_so_does_each_part(client: Callable[..., Any], s3: Any, bucket: str, asked: dict[str, Any]) -> None:
    bare = client(request_checksum_calculation="when_required")
    upload = bare.create_multipart_upload(Bucket=bucket, Key="k", **asked)["UploadId"]
    part = {"Bucket": bucket, "Key": "k", "UploadId": upload, "PartNumber": 1, "Body": b"x"}
    if not asked:
        assert bare.upload_part(**part)["ETag"], "nothing keeps it yet"
        configure(s3, Mode="GOVERNANCE", Days=1)
    assert refused(lambda: bare.upload_part(**part)) == (400, "InvalidRequest")
    md5 = base64.b64encode(hashlib.md5(b"x", usedforsecurity=False).digest()).decode()
    tag = bare.upload_part(**part, ContentMD5=md5)["ETag"]
    assert s3.upload_part(**part)["ETag"] == tag, "the client's own checksum will do"
    s3.put_object(Bucket=bucket, Key="source", Body=b"x")
    copied = bare.upload_part_copy(
        Bucket=bucket, Key="k", UploadId=upload, PartNumber=2, CopySource={"Bucket": bucket, "Key": "source"}
    )
    assert copied["CopyPartResult"]["ETag"], "a copy has no body"


# -------------------------------------------------------------------- of one version


def test_what_is_locked_is_not_deleted(s3: Any, bucket: str) -> None:
    version = put(s3)
    other = put(s3, "other")
    retain(s3, "GOVERNANCE", LATER)
    assert refused(lambda: s3.delete_object(Bucket=bucket, Key="k", VersionId=version)) == (403, "AccessDenied")
    marker = s3.delete_object(Bucket=bucket, Key="k")["VersionId"]
    assert refused(lambda: s3.delete_object(Bucket=bucket, Key="k", VersionId=version)) == (403, "AccessDenied")
    objects = [{"Key": "k", "VersionId": version}, {"Key": "other", "VersionId": other}]
    answer = s3.delete_objects(Bucket=bucket, Delete={"Objects": objects})
    assert [(row["Key"], row["Code"], row["VersionId"]) for row in answer["Errors"]] == [("k", "AccessDenied", version)]
    assert [row["Key"] for row in answer["Deleted"]] == ["other"]
    s3.delete_object(Bucket=bucket, Key="k", VersionId=marker)
    s3.put_object_legal_hold(Bucket=bucket, Key="k", LegalHold={"Status": "ON"})
    bypass = {"BypassGovernanceRetention": True}
    held = lambda: s3.delete_object(Bucket=bucket, Key="k", VersionId=version, **bypass)  # noqa: E731
    assert refused(held) == (403, "AccessDenied"), "a hold is passed over by nobody"
    assert s3.get_object_legal_hold(Bucket=bucket, Key="k")["LegalHold"] == {"Status": "ON"}
    s3.put_object_legal_hold(Bucket=bucket, Key="k", LegalHold={"Status": "OFF"})
    assert refused(lambda: s3.delete_bucket(Bucket=bucket)) == (409, "BucketNotEmpty")
    objects = [{"Key": "k", "VersionId": version}]
    assert "Errors" not in s3.delete_objects(Bucket=bucket, Delete={"Objects": objects}, **bypass)
    s3.delete_bucket(Bucket=bucket)


def test_a_retention_is_only_made_longer(s3: Any, bucket: str) -> None:
    put(s3)
    assert refused(lambda: s3.get_object_retention(Bucket=bucket, Key="k")) == (404, "NoSuchObjectLockConfiguration")
    assert refused(lambda: s3.get_object_legal_hold(Bucket=bucket, Key="k")) == (404, "NoSuchObjectLockConfiguration")
    bypass = {"BypassGovernanceRetention": True}
    retain(s3, "GOVERNANCE", MUCH_LATER)
    for mode, until in (("GOVERNANCE", LATER), (None, None), ("COMPLIANCE", MUCH_LATER)):
        assert refused(lambda m=mode, u=until: retain(s3, m, u)) == (403, "AccessDenied")  # type: ignore[misc]
    retain(s3, None, None, **bypass)
    retain(s3, "GOVERNANCE", LATER)
    retain(s3, "COMPLIANCE", LATER, **bypass)
    for mode, until in (("COMPLIANCE", LATER - timedelta(days=1)), (None, None), ("GOVERNANCE", MUCH_LATER)):
        assert refused(lambda m=mode, u=until: retain(s3, m, u, **bypass)) == (403, "AccessDenied")  # type: ignore[misc]
    retain(s3, "COMPLIANCE", MUCH_LATER)
    kept = {"Mode": "COMPLIANCE", "RetainUntilDate": MUCH_LATER}
    assert s3.get_object_retention(Bucket=bucket, Key="k")["Retention"] == kept
    assert refused(lambda: retain(s3, "COMPLIANCE", datetime(2020, 1, 1))) == (400, "InvalidArgument")
    s3.put_object_tagging(Bucket=bucket, Key="k", Tagging={"TagSet": [{"Key": "a", "Value": "b"}]})
    assert s3.get_object_retention(Bucket=bucket, Key="k")["Retention"] == kept, "other amendments leave it"


@pytest.mark.parametrize(
    "document",
    [
        "<Retention><Mode>GOVERNANCE</Mode></Retention>",
        "<Retention><Mode>governance</Mode><RetainUntilDate>2140-01-01T00:00:00Z</RetainUntilDate></Retention>",
        "<Retention><Mode>GOVERNANCE</Mode><RetainUntilDate>2140-01-01</RetainUntilDate></Retention>",
        "<Retention><Mode>GOVERNANCE</Mode><RetainUntilDate>9999-12-31T23:59:59-14:00</RetainUntilDate></Retention>",
        "<LegalHold><Status>ON</Status></LegalHold>",
    ],
)
def test_a_retention_that_is_none_is_refused(client: Callable[..., Any], s3: Any, bucket: str, document: str) -> None:
    put(s3)
    signing = client(signature_version="s3v4")
    link = signing.generate_presigned_url("put_object_retention", {"Bucket": bucket, "Key": "k"})
    address = urlsplit(link)
    connection = http.client.HTTPConnection(address.netloc, timeout=30)
    try:
        connection.request("PUT", f"{address.path}?{address.query}", document.encode())
        answer = connection.getresponse()
        assert (answer.status, b"MalformedXML" in answer.read()) == (400, True)
    finally:
        connection.close()


def test_delete_markers_have_no_lock(s3: Any, bucket: str) -> None:
    put(s3)
    marker = s3.delete_object(Bucket=bucket, Key="k")["VersionId"]
    retention = {"Mode": "GOVERNANCE", "RetainUntilDate": LATER}
    named = {"Bucket": bucket, "Key": "k", "VersionId": marker}
    assert refused(lambda: s3.put_object_retention(**named, Retention=retention))[0] in (404, 405)
    assert s3.delete_object(**named)["DeleteMarker"] is True


# -------------------------------------------------------------------- who may what


def _allow(s3: Any, *statements: dict[str, Any]) -> None:
    rows = [{"Effect": "Allow", "Principal": "*", "Resource": f"arn:aws:s3:::{BUCKET}/*", **row} for row in statements]
    s3.put_bucket_policy(Bucket=BUCKET, Policy=json.dumps({"Version": "2012-10-17", "Statement": rows}))


def test_each_step_needs_its_permission(client: Callable[..., Any], s3: Any, bucket: str) -> None:
    other = client(anonymous=True)
    locked = {"ObjectLockMode": "GOVERNANCE", "ObjectLockRetainUntilDate": LATER}
    version = put(s3, **locked, ObjectLockLegalHoldStatus="OFF")
    named = {"Bucket": bucket, "Key": "k", "VersionId": version}
    reads = ["s3:GetObject", "s3:GetObjectVersion", "s3:PutObject", "s3:DeleteObjectVersion"]
    _allow(s3, {"Action": reads})
    assert lock_of(other.head_object(Bucket=bucket, Key="k")) == (None, None, None), "who may not know is not told"
    denied = (403, "AccessDenied")
    for work in (
        lambda: other.get_object_retention(Bucket=bucket, Key="k"),
        lambda: other.get_object_legal_hold(Bucket=bucket, Key="k"),
        lambda: put(other, **locked),
        lambda: put(other, ObjectLockLegalHoldStatus="ON"),
        lambda: retain(other, "GOVERNANCE", MUCH_LATER),
        lambda: other.put_object_legal_hold(Bucket=bucket, Key="k", LegalHold={"Status": "ON"}),
        lambda: other.delete_object(**named, BypassGovernanceRetention=True),
    ):
        assert refused(work) == denied
    _allow(s3, {"Action": [*reads, "s3:GetObjectRetention", "s3:PutObjectRetention"]})
    assert lock_of(other.head_object(Bucket=bucket, Key="k")) == ("GOVERNANCE", LATER, None)
    assert refused(lambda: retain(other, "GOVERNANCE", LATER - timedelta(days=1))) == denied
    assert (
        refused(lambda: retain(other, "GOVERNANCE", LATER - timedelta(days=1), BypassGovernanceRetention=True))
        == denied
    )
    retain(other, "GOVERNANCE", MUCH_LATER)
    _allow(s3, {"Action": [*reads, "s3:BypassGovernanceRetention"]})
    assert refused(lambda: other.delete_object(**named)) == denied
    other.delete_object(**named, BypassGovernanceRetention=True)


def test_policies_speak_about_what_is_asked_for(client: Callable[..., Any], s3: Any, bucket: str) -> None:
    other = client(anonymous=True)
    soon, late = datetime.now(UTC) + timedelta(days=9), datetime.now(UTC) + timedelta(days=11)
    everything = ["s3:PutObject", "s3:PutObjectRetention", "s3:PutObjectLegalHold"]
    too_long = {"NumericGreaterThan": {"s3:object-lock-remaining-retention-days": "10"}}
    compliance = {"StringEquals": {"s3:object-lock-mode": "COMPLIANCE"}}
    lifting = {"StringEquals": {"s3:object-lock-legal-hold": "OFF"}}
    _allow(
        s3,
        {"Action": everything},
        *(
            {"Effect": "Deny", "Action": everything, "Condition": condition}
            for condition in (too_long, compliance, lifting)
        ),
    )
    put(other, ObjectLockMode="GOVERNANCE", ObjectLockRetainUntilDate=soon, ObjectLockLegalHoldStatus="ON")
    retain(other, "GOVERNANCE", soon + timedelta(hours=1))
    denied = (403, "AccessDenied")
    assert refused(lambda: put(other, ObjectLockMode="GOVERNANCE", ObjectLockRetainUntilDate=late)) == denied
    assert refused(lambda: put(other, ObjectLockMode="COMPLIANCE", ObjectLockRetainUntilDate=soon)) == denied
    assert refused(lambda: retain(other, "GOVERNANCE", late)) == denied
    lift = {"Status": "OFF"}
    assert refused(lambda: other.put_object_legal_hold(Bucket=bucket, Key="k", LegalHold=lift)) == denied
    other.put_object_legal_hold(Bucket=bucket, Key="k", LegalHold={"Status": "ON"})


# -------------------------------------------------------------------- arithmetic


def test_years_are_those_of_the_calendar() -> None:
    leap = parse_until("2028-02-29T12:00:00.250Z")
    assert DefaultRetention("GOVERNANCE", years=4).until_ms(leap) == parse_until("2032-02-29T12:00:00.250Z")
    assert DefaultRetention("GOVERNANCE", years=1).until_ms(leap) == parse_until("2029-03-01T12:00:00.250Z")
    assert DefaultRetention("GOVERNANCE", days=1).until_ms(leap) == parse_until("2028-03-01T12:00:00.250Z")


def test_a_date_is_rounded_up() -> None:
    assert parse_until("2030-01-01T00:00:00.0001Z") == parse_until("2030-01-01T00:00:00.001Z")
    assert parse_until("2030-01-01T02:00:00+02:00") == parse_until("2030-01-01T00:00:00")
