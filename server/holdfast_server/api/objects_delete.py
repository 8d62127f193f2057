"""DeleteObject and DeleteObjects.

A delete needs no lease on its bucket: in a bucket that is gone there is nothing a tombstone could hide.
"""

from __future__ import annotations

import asyncio

from holdfast_server.api.call import Call
from holdfast_server.api.failures import to_s3_error
from holdfast_server.api.objects_get import NULL_VERSION, check_version
from holdfast_server.api.objects_put import object_condition
from holdfast_server.s3.conditions import WriteCondition, parse_write_condition, unsupported_condition
from holdfast_server.s3.documents_in import MAX_DELETE_SIZE_BYTES, DeleteEntry, parse_delete
from holdfast_server.s3.documents_out import DeleteFailure, delete_objects_xml
from holdfast_server.s3.errors import S3Error
from holdfast_server.s3.request import Response

DELETES_AT_ONCE = 16
"""Of one DeleteObjects."""


async def delete_object(call: Call) -> Response:
    """204, also where there was nothing."""
    check_version(call)
    bucket = await call.bucket()
    condition = object_condition(parse_write_condition(call.headers))
    await call.objects.delete_object(bucket.id, call.key, condition)
    return Response(status=204)


async def delete_objects(call: Call) -> Response:
    """One row per key; a key that fails does not stop the others."""
    bucket = await call.bucket()
    _require_integrity(call)
    request = parse_delete(await call.small_body(MAX_DELETE_SIZE_BYTES))
    slots = asyncio.Semaphore(DELETES_AT_ONCE)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_delete_one(call, bucket.id, entry, slots)) for entry in request.entries]
    failures = [failure for task in tasks if (failure := task.result()) is not None]
    deleted = [
        (entry.key, entry.version_id)
        for entry, task in zip(request.entries, tasks, strict=True)
        if task.result() is None
    ]
    return call.xml(delete_objects_xml(deleted, failures, request.quiet))


def _require_integrity(call: Call) -> None:
    names = call.headers.keys()
    if "content-md5" not in names and not any(
        name.startswith("x-amz-checksum-") or name in ("x-amz-sdk-checksum-algorithm", "x-amz-trailer")
        for name in names
    ):
        raise S3Error("InvalidRequest", "Missing required header for this request: Content-MD5 OR x-amz-checksum-*")


async def _delete_one(
    call: Call, bucket_id: bytes, entry: DeleteEntry, slots: asyncio.Semaphore
) -> DeleteFailure | None:
    async with slots:
        try:
            call.require("s3:DeleteObject", call.bucket_name, entry.key)
            if entry.version_id not in (NULL_VERSION, ""):
                raise S3Error("NoSuchVersion")
            if entry.unsupported_condition:
                raise unsupported_condition(entry.unsupported_condition)
            condition = object_condition(WriteCondition(False, entry.if_etag) if entry.if_etag else None)
            await call.objects.delete_object(bucket_id, entry.key, condition)
        except Exception as error:
            told = to_s3_error(error)
            return DeleteFailure(entry.key, told.code, told.message, entry.version_id)
    return None
