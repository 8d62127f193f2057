"""Tags of objects and of buckets."""

from __future__ import annotations

import msgspec

from holdfast_server.api.bucket_settings import change_bucket, current_bucket
from holdfast_server.api.call import Call
from holdfast_server.api.stored_headers import object_tags, with_tags
from holdfast_server.api.version_ids import amended, asked_version, present, version_headers
from holdfast_server.objects.port import Record
from holdfast_server.s3.errors import S3Error
from holdfast_server.s3.request import Response
from holdfast_server.s3.tags import (
    MAX_BUCKET_TAGS,
    MAX_OBJECT_TAGS,
    MAX_TAGGING_SIZE_BYTES,
    Tags,
    parse_tagging,
    tagging_xml,
)


async def get_object_tagging(call: Call) -> Response:
    """An object without tags has an empty set."""
    version = asked_version(call.query)
    bucket = await call.bucket()
    record = present(await call.objects.head_object(bucket.id, call.key, version), bucket, call.key, version)
    return call.xml(tagging_xml(object_tags(record)), **version_headers(record, bucket))


async def put_object_tagging(call: Call) -> Response:
    tags = parse_tagging(await call.small_body(MAX_TAGGING_SIZE_BYTES), MAX_OBJECT_TAGS)
    # Policies may ask which tags: those of the document, whatever a header says.
    asked = msgspec.structs.replace(call, verified=msgspec.structs.replace(call.verified, request_tags=tags))
    await asked.require_operation(await call.bucket())
    return Response(status=200, headers=await _tag_object(call, tags))


async def delete_object_tagging(call: Call) -> Response:
    return Response(status=204, headers=await _tag_object(call, {}))


async def _tag_object(call: Call, tags: Tags) -> dict[str, str]:
    """What the answer says of the version."""
    version = asked_version(call.query)

    def tagged(record: Record) -> dict[str, str]:
        return with_tags(record.headers, tags)

    async with call.writing() as lease:
        lease.confirm()
        method = call.verified.request.method
        record = await amended(call.objects, lease.bucket, call.key, tagged, version, method)
    return version_headers(record, lease.bucket)


async def get_bucket_tagging(call: Call) -> Response:
    bucket = await current_bucket(call)
    if not bucket.tags:
        raise S3Error("NoSuchTagSet", BucketName=bucket.name)
    return call.xml(tagging_xml(bucket.tags))


async def put_bucket_tagging(call: Call) -> Response:
    """200, as AWS's reference has it (one of its examples says 204)."""
    tags = parse_tagging(await call.small_body(MAX_TAGGING_SIZE_BYTES), MAX_BUCKET_TAGS)
    await change_bucket(call, lambda bucket: msgspec.structs.replace(bucket, tags=tags))
    return Response(status=200)


async def delete_bucket_tagging(call: Call) -> Response:
    await change_bucket(call, lambda bucket: msgspec.structs.replace(bucket, tags={}))
    return Response(status=204)
