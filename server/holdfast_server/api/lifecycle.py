"""A bucket's lifecycle rules: keeping them, and what answers about objects and uploads say of them.

Not here: carrying them out (`expiring`), what they mean (`s3.lifecycle`, `s3.expiry`).
"""

from __future__ import annotations

import msgspec

from holdfast_server.api.bucket_record import BucketRecord
from holdfast_server.api.bucket_settings import change_bucket, current_bucket
from holdfast_server.api.call import Call
from holdfast_server.api.stored_headers import object_tags
from holdfast_server.objects.record import Record
from holdfast_server.s3.errors import S3Error
from holdfast_server.s3.expiry import Facts, abort_headers, expiration_header
from holdfast_server.s3.lifecycle import (
    MAX_LIFECYCLE_SIZE_BYTES,
    MINIMUM_SIZE_HEADER,
    MINIMUM_SIZES,
    lifecycle_xml,
    parse_lifecycle,
    parse_minimum_size,
)
from holdfast_server.s3.request import Response

RULE_ID_SIZE_BYTES = 16


async def get_bucket_lifecycle(call: Call) -> Response:
    bucket = await current_bucket(call)
    if not bucket.lifecycle:
        raise S3Error("NoSuchLifecycleConfiguration", BucketName=bucket.name)
    return call.xml(lifecycle_xml(bucket.lifecycle), **{MINIMUM_SIZE_HEADER: bucket.lifecycle_minimum_size})


async def put_bucket_lifecycle(call: Call) -> Response:
    minimum_size = parse_minimum_size(call.headers.get(MINIMUM_SIZE_HEADER))
    clock = call.services.clock
    rules = parse_lifecycle(
        await call.small_body(MAX_LIFECYCLE_SIZE_BYTES), lambda: clock.random_bytes(RULE_ID_SIZE_BYTES).hex()
    )
    await change_bucket(
        call, lambda bucket: msgspec.structs.replace(bucket, lifecycle=rules, lifecycle_minimum_size=minimum_size)
    )
    return Response(status=200, headers={MINIMUM_SIZE_HEADER: minimum_size})


async def delete_bucket_lifecycle(call: Call) -> Response:
    """204, also where there is none."""
    await change_bucket(
        call,
        lambda bucket: msgspec.structs.replace(bucket, lifecycle=[], lifecycle_minimum_size=MINIMUM_SIZES[0]),
    )
    return Response(status=204)


def expiry_of(bucket: BucketRecord, key: str, current: Record) -> dict[str, str]:
    """What an answer about a current version says of its end."""
    if not bucket.lifecycle or current.marker:
        return {}
    return expiration_header(bucket.lifecycle, key, facts_of(current))


def abort_of(bucket: BucketRecord, key: str, begun_ms: int) -> dict[str, str]:
    """What an answer about an open upload says of its end."""
    return abort_headers(bucket.lifecycle, key, begun_ms) if bucket.lifecycle else {}


def facts_of(version: Record) -> Facts:
    return Facts(version.modified_ms, version.size_bytes, version.marker, object_tags(version))
