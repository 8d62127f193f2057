"""The tags of buckets by S3 Control (`s3.control`): the same tags as GetBucketTagging shows."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

import msgspec

from holdfast_server.api.access import check_expected_owner
from holdfast_server.api.bucket_record import BucketRecord
from holdfast_server.api.bucket_settings import change_bucket, current_bucket
from holdfast_server.api.call import Call
from holdfast_server.s3.control import ACCOUNT_HEADER, parse_tag_keys, parse_tag_resource, tags_xml
from holdfast_server.s3.request import Response
from holdfast_server.s3.tags import MAX_BUCKET_TAGS, MAX_TAGGING_SIZE_BYTES, check_tags


async def list_tags_for_resource(call: Call) -> Response:
    """A bucket without tags has none, where GetBucketTagging says NoSuchTagSet."""
    bucket = await current_bucket(call)
    check_expected_owner(call.headers[ACCOUNT_HEADER], bucket)
    return call.xml(tags_xml(bucket.tags))


async def tag_resource(call: Call) -> Response:
    """Beside the tags that are there."""
    more = parse_tag_resource(await call.small_body(MAX_TAGGING_SIZE_BYTES))
    check_expected_owner(call.headers[ACCOUNT_HEADER], await call.bucket())

    def tagged(bucket: BucketRecord) -> BucketRecord:
        tags = check_tags([*{**bucket.tags, **more}.items()], MAX_BUCKET_TAGS)
        return msgspec.structs.replace(bucket, tags=tags)

    await change_bucket(call, tagged)
    return Response(status=204)


async def untag_resource(call: Call) -> Response:
    gone = parse_tag_keys(call.verified.request.raw_query)
    check_expected_owner(call.headers[ACCOUNT_HEADER], await call.bucket())

    def untagged(bucket: BucketRecord) -> BucketRecord:
        return msgspec.structs.replace(bucket, tags={k: v for k, v in bucket.tags.items() if k not in gone})

    await change_bucket(call, untagged)
    return Response(status=204)


CONTROL_HANDLERS: Mapping[str, Callable[[Call], Awaitable[Response]]] = {
    "ListTagsForResource": list_tags_for_resource,
    "TagResource": tag_resource,
    "UntagResource": untag_resource,
}
