"""Tags of objects and of buckets."""

from __future__ import annotations

import msgspec

from holdfast_server.api.bucket_settings import change_bucket, current_bucket
from holdfast_server.api.call import Call
from holdfast_server.api.objects_get import check_version
from holdfast_server.api.stored_headers import object_tags, with_tags
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
    check_version(call)
    bucket = await call.bucket()
    record = await call.objects.head_object(bucket.id, call.key)
    if record is None:
        raise S3Error("NoSuchKey", Key=call.key)
    return call.xml(tagging_xml(object_tags(record)))


async def put_object_tagging(call: Call) -> Response:
    tags = parse_tagging(await call.small_body(MAX_TAGGING_SIZE_BYTES), MAX_OBJECT_TAGS)
    await _tag_object(call, tags)
    return Response(status=200)


async def delete_object_tagging(call: Call) -> Response:
    await _tag_object(call, {})
    return Response(status=204)


async def _tag_object(call: Call, tags: Tags) -> None:
    check_version(call)

    def tagged(record: Record) -> dict[str, str]:
        return with_tags(record.headers, tags)

    async with call.writing() as lease:
        lease.confirm()
        if await call.objects.amend_object(lease.bucket.id, call.key, tagged) is None:
            raise S3Error("NoSuchKey", Key=call.key)


async def get_bucket_tagging(call: Call) -> Response:
    bucket = await current_bucket(call)
    if not bucket.tags:
        raise S3Error("NoSuchTagSet", BucketName=bucket.name)
    return call.xml(tagging_xml(bucket.tags))


async def put_bucket_tagging(call: Call) -> Response:
    """AWS answers 204 here too."""
    tags = parse_tagging(await call.small_body(MAX_TAGGING_SIZE_BYTES), MAX_BUCKET_TAGS)
    await change_bucket(call, lambda bucket: msgspec.structs.replace(bucket, tags=tags))
    return Response(status=204)


async def delete_bucket_tagging(call: Call) -> Response:
    await change_bucket(call, lambda bucket: msgspec.structs.replace(bucket, tags={}))
    return Response(status=204)
