"""DeleteObject and DeleteObjects.

Like any write a delete is done under a lease on its bucket: by what was known before the bucket began to keep versions,
it would remove one.
"""

from __future__ import annotations

import asyncio

from holdfast_server.api.buckets_cache import WriteLease
from holdfast_server.api.call import Call
from holdfast_server.api.failures import to_s3_error
from holdfast_server.api.object_lock import bypasses
from holdfast_server.api.version_ids import (
    VERSION_ID_HEADER,
    asked_version,
    parse_version_id,
    version_headers,
    version_id,
)
from holdfast_server.auth.conditions import Values
from holdfast_server.objects.port import NULL_VERSION, Condition, Record, Versioning
from holdfast_server.s3.conditions import DeleteCondition, names_etags, parse_delete_condition
from holdfast_server.s3.documents_in import MAX_DELETE_SIZE_BYTES, DeleteEntry, parse_delete
from holdfast_server.s3.documents_out import DeletedObject, DeleteFailure, delete_objects_xml
from holdfast_server.s3.errors import S3Error
from holdfast_server.s3.payload import carries_integrity
from holdfast_server.s3.request import Response

DELETES_AT_ONCE = 16
"""Of one DeleteObjects."""
FORCE_DELETE_HEADER = "x-minio-force-delete"
"""MinIO's: the key is a prefix, and everything below it goes.  204 for the key alone would be taken for that."""


async def delete_object(call: Call) -> Response:
    """204, also where there was nothing."""
    version = asked_version(call.query)
    if call.headers.get(FORCE_DELETE_HEADER, "").lower() == "true":
        raise S3Error("NotImplemented", "Deleting a prefix with all its versions in one request is not implemented.")
    condition = parse_delete_condition(call.headers)
    async with call.writing() as lease:
        deleted = await _delete(call, lease, call.key, version, condition)
    headers: dict[str, str] = {}
    if version is not None and lease.bucket.versioning:
        headers[VERSION_ID_HEADER] = call.query["versionId"]
    if deleted is not None and (deleted.marker or version is not None):
        headers.update(version_headers(deleted))
    return Response(status=204, headers=headers)


class _Absent(Exception):
    """A condition was set on what is not there."""


async def _delete(
    call: Call,
    lease: WriteLease,
    key: str,
    version: bytes | None,
    condition: DeleteCondition | None,
    named: Values | None = None,
) -> Record | None:
    """What was deleted, if that is known; the delete marker, where one was made.  `named`: what policies see of it
    beside the request.  Raises AccessDenied: who asks whether an ETag is right must be allowed to read the object."""
    if condition is not None and condition.if_match is not None and names_etags(condition.if_match):
        await call.require_reading(lease.bucket, key, version, named)
    await lease.renew()
    lease.confirm()
    keeps = lease.keeps
    if keeps is Versioning.OFF and version == NULL_VERSION:
        version = None
    try:
        if version is None:
            return await call.objects.delete_object(lease.bucket.id, key, _object_condition(condition), keeps)
        if keeps is Versioning.OFF:
            raise _Absent
        bypass = bypasses(call, key)
        return await call.objects.delete_version(lease.bucket.id, key, version, _object_condition(condition), bypass)
    except _Absent:
        if condition is not None:
            await _refuse_absent(call, lease, key, version, condition)
        return None


def _object_condition(wanted: DeleteCondition | None) -> Condition | None:
    if wanted is None:
        return None

    def check(current: Record | None) -> None:
        if current is None or not current.live:
            raise _Absent
        wanted.check(current.etag, current.modified_ms, current.size_bytes)

    return check


async def _refuse_absent(
    call: Call, lease: WriteLease, key: str, version: bytes | None, condition: DeleteCondition
) -> None:
    """No condition holds of a delete marker.  Where there is nothing, If-Match fails as S3 has it, and the conditions
    of directory buckets are met by there being nothing left to do."""
    there = await call.objects.head_object(lease.bucket.id, key, version)
    if there is not None and there.marker:
        raise S3Error("PreconditionFailed", Condition="If-Match")
    if condition.if_match is not None:
        raise S3Error("NoSuchKey" if version is None else "NoSuchVersion", Key=key)


async def delete_objects(call: Call) -> Response:
    """One row per key; a key that fails does not stop the others."""
    _require_integrity(call)
    request = parse_delete(await call.small_body(MAX_DELETE_SIZE_BYTES))
    slots = asyncio.Semaphore(DELETES_AT_ONCE)
    async with call.writing() as lease, asyncio.TaskGroup() as group:
        tasks = [group.create_task(_delete_one(call, lease, entry, slots)) for entry in request.entries]
    outcomes = [task.result() for task in tasks]
    deleted = [outcome for outcome in outcomes if isinstance(outcome, DeletedObject)]
    failures = [outcome for outcome in outcomes if isinstance(outcome, DeleteFailure)]
    return call.xml(delete_objects_xml(deleted, failures, request.quiet))


def _require_integrity(call: Call) -> None:
    if not carries_integrity(call.headers):
        raise S3Error("InvalidRequest", "Missing required header for this request: Content-MD5 OR x-amz-checksum-*")


async def _delete_one(
    call: Call, lease: WriteLease, entry: DeleteEntry, slots: asyncio.Semaphore
) -> DeletedObject | DeleteFailure:
    async with slots:
        try:
            named = _named(entry)
            call.require(_action(entry), call.bucket_name, entry.key, named)
            version = parse_version_id(entry.version_id) if entry.version_id else None
            deleted = await _delete(call, lease, entry.key, version, entry.condition, named)
        except Exception as error:
            told = to_s3_error(error)
            if told.code == "NoSuchKey" and not call.may_know_absence(entry.key):
                told = S3Error("AccessDenied")
            return DeleteFailure(entry.key, told.code, told.message, entry.version_id)
    marker = version_id(deleted) if deleted is not None and deleted.marker else ""
    return DeletedObject(entry.key, entry.version_id, marker)


def _named(entry: DeleteEntry) -> Values:
    """What policies see of an entry, and not of the request's query and head, which are about no key."""
    if_match = entry.condition.if_match if entry.condition is not None else None
    return {
        "s3:versionid": (entry.version_id,) if entry.version_id else (),
        "s3:if-match": (if_match,) if if_match is not None else (),
        "s3:if-none-match": (),
    }


def _action(entry: DeleteEntry) -> str:
    return "s3:DeleteObjectVersion" if entry.version_id else "s3:DeleteObject"
