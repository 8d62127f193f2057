"""Object Lock: retention and legal hold of versions, what writes ask for.

Whether a version may be deleted is decided with the deletion itself (`objects.object_lock`, `objects.versions`);
whether its lock may be changed, with that change: both see exactly the version that they replace.  A lock is judged by
the earliest of all pods' clocks, a default retention counted from the latest (`clock.bounds`).

A write that names no retention, in a bucket with locking, is kept with the mark `BY_DEFAULT`; when it is committed, the
lease on the bucket says what that means then (`WriteLease.kept`), so that an upload which took a week is kept from its
completion on.

Not here: a bucket's configuration (`lock_configuration`).
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from holdfast_server.api.bucket_record import ENABLED, LOCKED_FORMAT, BucketRecord, raised
from holdfast_server.api.call import Call
from holdfast_server.api.version_ids import amended, asked_version, present, version_headers
from holdfast_server.auth.request_values import lock_values
from holdfast_server.objects.amending import Change
from holdfast_server.objects.object_lock import (
    BY_DEFAULT,
    RETENTION,
    Retention,
    allows,
    legal_hold_of,
    retention_of,
    with_legal_hold,
    with_retention,
)
from holdfast_server.objects.port import Record
from holdfast_server.s3.errors import S3Error
from holdfast_server.s3.headers import iso_date
from holdfast_server.s3.lock_documents import (
    BYPASS_HEADER,
    HOLD_HEADER,
    MAX_LOCK_SIZE_BYTES,
    MODE_HEADER,
    UNTIL_HEADER,
    AskedLock,
    check_future,
    legal_hold_xml,
    lock_of_headers,
    parse_legal_hold,
    parse_retention,
    retention_xml,
)
from holdfast_server.s3.payload import carries_integrity
from holdfast_server.s3.request import Response

ENABLED_HEADER = "x-amz-bucket-object-lock-enabled"
_WITHOUT_LOCK = "Bucket is missing Object Lock Configuration"
_INTEGRITY = "Content-MD5 OR x-amz-checksum- HTTP header is required for {} requests with Object Lock parameters"


# --- a bucket with locking


def asks_for_locking(call: Call) -> bool:
    """Whether CreateBucket is to make a bucket with locking.  Raises InvalidArgument, AccessDenied,
    ServiceUnavailable."""
    text = call.headers.get(ENABLED_HEADER, "").lower()
    if text not in ("", "true", "false"):
        raise S3Error("InvalidArgument", ArgumentName=ENABLED_HEADER, ArgumentValue=text)
    if text != "true":
        return False
    for action in ("s3:PutBucketObjectLockConfiguration", "s3:PutBucketVersioning"):
        call.require(action, call.bucket_name)
    require_every_pod(call)
    return True


def with_locking(bucket: BucketRecord) -> BucketRecord:
    return msgspec.structs.replace(raised(bucket, LOCKED_FORMAT), versioning=ENABLED, object_lock=ENABLED)


def require_every_pod(call: Call) -> None:
    """Raises ServiceUnavailable."""
    if not (call.services.every_pod_keeps_versions() and call.services.every_pod_keeps_locks()):
        raise S3Error(
            "ServiceUnavailable",
            "Before a bucket has object lock, every pod must be reachable and run a release that knows of it.",
        )


# --- what writes ask for


def lock_headers(call: Call, bucket: BucketRecord, headers: Mapping[str, str], has_body: bool = True) -> dict[str, str]:
    """What an object written by this request is to remember, with what the request says of its lock.

    Raises InvalidArgument, InvalidRequest, AccessDenied.
    """
    asked = lock_of_headers(call.headers, call.services.clock.now_ms())
    if bucket.object_lock != ENABLED:
        if asked.asks:
            raise S3Error("InvalidRequest", _WITHOUT_LOCK)
        return dict(headers)
    _require_locking(call, asked)
    if has_body and (asked.asks or bucket.default_retention is not None) and not carries_integrity(call.headers):
        raise S3Error("InvalidRequest", _INTEGRITY.format("Put Object"))
    kept = {**headers, RETENTION: BY_DEFAULT}
    if asked.mode:
        kept = with_retention(headers, Retention(asked.mode, asked.until_ms))
    return kept if asked.legal_hold is None else with_legal_hold(kept, asked.legal_hold)


def require_part_integrity(call: Call, bucket: BucketRecord, upload: Record) -> None:
    """A part of what is to be kept says what it must hash to, as an object does.  Raises InvalidRequest."""
    asked = upload.headers.get(RETENTION, BY_DEFAULT) != BY_DEFAULT or legal_hold_of(upload.headers) is not None
    if (asked or bucket.default_retention is not None) and not carries_integrity(call.headers):
        raise S3Error("InvalidRequest", _INTEGRITY.format("Put Part"))


def _require_locking(call: Call, asked: AskedLock) -> None:
    if asked.mode:
        call.require("s3:PutObjectRetention", call.bucket_name, call.key)
    if asked.legal_hold is not None:
        call.require("s3:PutObjectLegalHold", call.bucket_name, call.key)


def shown_lock(call: Call, bucket: BucketRecord, record: Record) -> dict[str, str]:
    """What GET and HEAD say of a version's lock, to whom may know it."""
    shown: dict[str, str] = {}
    retention, hold = retention_of(record.headers), legal_hold_of(record.headers)
    if retention is not None and call.may("s3:GetObjectRetention", bucket.name, call.key):
        shown = {MODE_HEADER: retention.mode, UNTIL_HEADER: iso_date(retention.until_ms)}
    if hold is not None and call.may("s3:GetObjectLegalHold", bucket.name, call.key):
        shown[HOLD_HEADER] = "ON" if hold else "OFF"
    return shown


def bypasses(call: Call, key: str) -> bool:
    """Whether the request is to, and may, pass over what is retained for governance."""
    asked = call.headers.get(BYPASS_HEADER, "").lower() == "true"
    return asked and call.may("s3:BypassGovernanceRetention", call.bucket_name, key)


# --- of one version


async def get_object_retention(call: Call) -> Response:
    record, headers = await _version(call)
    retention = retention_of(record.headers)
    if retention is None:
        raise S3Error("NoSuchObjectLockConfiguration", Key=call.key)
    return call.xml(retention_xml(retention.mode, retention.until_ms), **headers)


async def get_object_legal_hold(call: Call) -> Response:
    record, headers = await _version(call)
    hold = legal_hold_of(record.headers)
    if hold is None:
        raise S3Error("NoSuchObjectLockConfiguration", Key=call.key)
    return call.xml(legal_hold_xml(hold), **headers)


async def _version(call: Call) -> tuple[Record, dict[str, str]]:
    version = asked_version(call.query)
    bucket = _with_locking(await call.bucket())
    record = present(await call.objects.head_object(bucket.id, call.key, version), bucket, call.key, version)
    return record, version_headers(record, bucket)


def _with_locking(bucket: BucketRecord) -> BucketRecord:
    if bucket.object_lock != ENABLED:
        raise S3Error("InvalidRequest", _WITHOUT_LOCK)
    return bucket


async def put_object_retention(call: Call) -> Response:
    asked = parse_retention(await call.small_body(MAX_LOCK_SIZE_BYTES))
    now_ms = call.services.clock.now_ms()
    lock = AskedLock(*asked) if asked is not None else AskedLock()
    call.require("s3:PutObjectRetention", call.bucket_name, call.key, lock_values(lock, now_ms))
    after = Retention(*asked) if asked is not None else None
    bypass = bypasses(call, call.key)

    def retained(record: Record) -> dict[str, str]:
        if not allows(retention_of(record.headers), after, call.services.bounds.earliest_ms(), bypass):
            raise S3Error("AccessDenied", "Access Denied because object protected by object lock.")
        return with_retention(record.headers, after)

    if after is not None:
        check_future(after.until_ms, now_ms)
    return await _amend(call, retained)


async def put_object_legal_hold(call: Call) -> Response:
    on = parse_legal_hold(await call.small_body(MAX_LOCK_SIZE_BYTES))
    lock = AskedLock(legal_hold=on)
    values = lock_values(lock, call.services.clock.now_ms())
    call.require("s3:PutObjectLegalHold", call.bucket_name, call.key, values)
    return await _amend(call, lambda record: with_legal_hold(record.headers, on))


async def _amend(call: Call, change: Change) -> Response:
    version = asked_version(call.query)
    async with call.writing() as lease:
        _with_locking(lease.bucket)
        lease.confirm()
        method = call.verified.request.method
        record = await amended(call.objects, lease.bucket, call.key, change, version, method)
        headers = version_headers(record, lease.bucket)
    return Response(status=200, headers=headers)
