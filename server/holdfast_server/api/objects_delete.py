"""DeleteObject and DeleteObjects.

Like any write a delete is done under a lease on its bucket: by what was known before the bucket began to keep versions,
it would remove one.
"""

from __future__ import annotations

import asyncio

from holdfast_server.api.buckets_cache import WriteLease
from holdfast_server.api.call import Call
from holdfast_server.api.failures import to_s3_error
from holdfast_server.api.objects_put import object_condition
from holdfast_server.api.version_ids import (
    VERSION_ID_HEADER,
    asked_version,
    parse_version_id,
    version_headers,
    version_id,
)
from holdfast_server.objects.port import NULL_VERSION, Condition, Record, Versioning
from holdfast_server.s3.conditions import WriteCondition, parse_write_condition, unsupported_condition
from holdfast_server.s3.documents_in import MAX_DELETE_SIZE_BYTES, DeleteEntry, parse_delete
from holdfast_server.s3.documents_out import DeletedObject, DeleteFailure, delete_objects_xml
from holdfast_server.s3.errors import S3Error
from holdfast_server.s3.request import Response

DELETES_AT_ONCE = 16
"""Of one DeleteObjects."""


async def delete_object(call: Call) -> Response:
    """204, also where there was nothing."""
    version = asked_version(call.query)
    condition = object_condition(parse_write_condition(call.headers))
    async with call.writing() as lease:
        deleted = await _delete(call, lease, call.key, version, condition)
    headers: dict[str, str] = {}
    if version is not None and lease.bucket.versioning:
        headers[VERSION_ID_HEADER] = call.query["versionId"]
    if deleted is not None and (deleted.marker or version is not None):
        headers.update(version_headers(deleted))
    return Response(status=204, headers=headers)


async def _delete(
    call: Call, lease: WriteLease, key: str, version: bytes | None, condition: Condition | None
) -> Record | None:
    """What was deleted, if that is known; the delete marker, where one was made."""
    await lease.renew()
    lease.confirm()
    bucket_id, keeps = lease.bucket.id, lease.keeps
    if version is None or (keeps is Versioning.OFF and version == NULL_VERSION):
        return await call.objects.delete_object(bucket_id, key, condition, keeps)
    if keeps is Versioning.OFF:
        return None
    return await call.objects.delete_version(bucket_id, key, version, condition)


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
    names = call.headers.keys()
    if "content-md5" not in names and not any(
        name.startswith("x-amz-checksum-") or name in ("x-amz-sdk-checksum-algorithm", "x-amz-trailer")
        for name in names
    ):
        raise S3Error("InvalidRequest", "Missing required header for this request: Content-MD5 OR x-amz-checksum-*")


async def _delete_one(
    call: Call, lease: WriteLease, entry: DeleteEntry, slots: asyncio.Semaphore
) -> DeletedObject | DeleteFailure:
    async with slots:
        try:
            call.require(_action(entry), call.bucket_name, entry.key)
            version = parse_version_id(entry.version_id) if entry.version_id else None
            if entry.unsupported_condition:
                raise unsupported_condition(entry.unsupported_condition)
            condition = object_condition(WriteCondition(False, entry.if_etag) if entry.if_etag else None)
            deleted = await _delete(call, lease, entry.key, version, condition)
        except Exception as error:
            told = to_s3_error(error)
            return DeleteFailure(entry.key, told.code, told.message, entry.version_id)
    marker = version_id(deleted) if deleted is not None and deleted.marker else ""
    return DeletedObject(entry.key, entry.version_id, marker)


def _action(entry: DeleteEntry) -> str:
    return "s3:DeleteObjectVersion" if entry.version_id else "s3:DeleteObject"
