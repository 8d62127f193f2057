"""ListObjects, versions 1 and 2."""

from __future__ import annotations

from holdfast_server.api.access import object_acl
from holdfast_server.api.bucket_record import BucketRecord
from holdfast_server.api.call import Call, owner_element
from holdfast_server.api.stored_headers import ACL, TYPE, algorithm_of, record_storage_class
from holdfast_server.objects.port import Listing
from holdfast_server.objects.record import Record
from holdfast_server.s3.checksums import FULL_OBJECT
from holdfast_server.s3.documents_out import ListedObject, ObjectPage, Owner, list_objects_v1_xml, list_objects_v2_xml
from holdfast_server.s3.names import decode_token, encode_token, parse_count, parse_encoding_type
from holdfast_server.s3.request import Response


async def list_objects_v1(call: Call) -> Response:
    marker = call.query.get("marker", "")
    bucket, page, next_after = await _page(call, marker, with_owner=True)
    return call.xml(list_objects_v1_xml(page, marker, next_after or ""), **_region(bucket))


async def list_objects_v2(call: Call) -> Response:
    token = call.query.get("continuation-token")
    start_after = call.query.get("start-after", "")
    # An empty token is no token: that of the first page.
    after = decode_token(token) if token else start_after
    with_owner = call.query.get("fetch-owner", "").lower() == "true"
    bucket, page, next_after = await _page(call, after, with_owner)
    next_token = encode_token(next_after) if next_after is not None else ""
    return call.xml(list_objects_v2_xml(page, token, next_token, start_after), **_region(bucket))


async def _page(call: Call, after: str, with_owner: bool) -> tuple[BucketRecord, ObjectPage, str | None]:
    query = call.query
    max_keys = parse_count(query)
    encoding_type = parse_encoding_type(query)
    prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
    bucket = await call.bucket()
    await call.page(max_keys)
    listing = Listing([], [], None)
    if max_keys:
        listing = await call.objects.list_objects(
            bucket.id, prefix=prefix, delimiter=delimiter, after=after, limit=max_keys
        )
    page = ObjectPage(
        bucket=call.bucket_name,
        prefix=prefix,
        delimiter=delimiter,
        max_keys=max_keys,
        encoding_type=encoding_type,
        objects=[listed_object(entry.key, entry.record, bucket) for entry in listing.entries],
        common_prefixes=listing.prefixes,
        is_truncated=listing.next_after is not None,
        owner=owner_element(bucket.account) if with_owner else None,
    )
    return bucket, page, listing.next_after


def listed_object(key: str, record: Record, bucket: BucketRecord) -> ListedObject:
    algorithm = algorithm_of(record.checksums)
    return ListedObject(
        key=key,
        modified_ms=record.modified_ms,
        etag=record.etag,
        size_bytes=record.size_bytes,
        storage_class=record_storage_class(record),
        checksum_algorithm=algorithm,
        checksum_type=record.checksums.get(TYPE, FULL_OBJECT) if algorithm else "",
        owner=other_owner(bucket, record),
    )


def other_owner(bucket: BucketRecord, record: Record) -> Owner | None:
    """Whose the object or upload is, where it is not the bucket owner's."""
    if ACL not in record.headers:
        return None  # as nearly all are
    account = object_acl(bucket, record.headers).owner
    return None if account == bucket.account else owner_element(account)


def _region(bucket: BucketRecord) -> dict[str, str]:
    return {"x-amz-bucket-region": bucket.region}
