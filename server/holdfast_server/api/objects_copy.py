"""CopyObject and UploadPartCopy: from a reader to a write, through this pod, never through the client."""

from __future__ import annotations

from holdfast_server.api.access import check_expected_owner, with_acl
from holdfast_server.api.call import Call
from holdfast_server.api.encryption import seal_of_new_object, seal_of_part, unlock_source
from holdfast_server.api.lifecycle import expiry_of
from holdfast_server.api.long_answers import QUIET_SECONDS, answer_patiently
from holdfast_server.api.new_object import new_object_acl, require_tagging
from holdfast_server.api.object_lock import lock_headers
from holdfast_server.api.objects_put import write_condition
from holdfast_server.api.payload_body import CopyBody
from holdfast_server.api.reading_again import starting_again
from holdfast_server.api.redundancy import redundancy_of
from holdfast_server.api.stored_headers import (
    STORAGE_CLASS_HEADER,
    TAG_COUNT_HEADER,
    TAGS,
    algorithm_of,
    checksum_elements,
    headers_to_keep,
    object_tags,
    shown_headers,
    with_tags,
)
from holdfast_server.api.uploads import open_upload, upload_algorithm, upload_id_of
from holdfast_server.api.version_ids import parse_version_id, present, refuse_version, version_id, written_headers
from holdfast_server.objects.port import Reader, Record
from holdfast_server.s3.checksums import ALGORITHMS, Algorithm, find_algorithm
from holdfast_server.s3.conditions import check_copy_source
from holdfast_server.s3.documents_out import copy_object_xml, copy_part_xml
from holdfast_server.s3.encryption import COPY_SOURCE_PREFIX, CUSTOMER_PREFIX, HEADER
from holdfast_server.s3.errors import S3Error
from holdfast_server.s3.headers import copy_directive
from holdfast_server.s3.names import MAX_PUT_SIZE_BYTES, CopySource, parse_copy_source, parse_part_number
from holdfast_server.s3.ranges import ByteRange, parse_copy_range
from holdfast_server.s3.request import Response
from holdfast_server.s3.tags import decode_tags

_ILLEGAL = (
    "This copy request is illegal because it is trying to copy an object to itself without changing the object's "
    "metadata, storage class, website redirect location or encryption attributes."
)
_TOO_LARGE = (
    f"The specified copy source is larger than the maximum allowable size for a copy source: {MAX_PUT_SIZE_BYTES}"
)


_CHANGES = frozenset({
    STORAGE_CLASS_HEADER, "x-amz-website-redirect-location", HEADER, f"{CUSTOMER_PREFIX}algorithm",
    f"{COPY_SOURCE_PREFIX}algorithm",
})  # fmt: skip
"""Headers that make a copy onto itself one that changes something; the last by taking a customer's key away."""
_MARKER = "The source of a copy request may not specifically refer to a delete marker by version id."


class NoSuchSource(S3Error):
    """To who may list the source's bucket; what the target's lets be known does not count."""

    def __init__(self, key: str) -> None:
        super().__init__("NoSuchKey", Key=key)


async def copy_object(call: Call) -> Response:
    refuse_version(call.query)
    return await answer_patiently(call, starting_again(lambda: _copy_object(call)), QUIET_SECONDS)


async def upload_part_copy(call: Call) -> Response:
    return await answer_patiently(call, starting_again(lambda: _upload_part_copy(call)), QUIET_SECONDS)


async def _copy_object(call: Call) -> Response:
    source = parse_copy_source(call.headers["x-amz-copy-source"])
    directive = copy_directive(call.headers, "metadata")
    copy_directive(call.headers, "tagging")
    async with call.writing() as lease:
        _refuse_copy_onto_itself(call, source, directive)
        reader = await _open_source(call, source)
        headers = _copied_headers(call, reader.record, directive)
        if TAGS in headers and copy_directive(call.headers, "tagging") == "COPY":
            from_bucket = await call.services.buckets.get(source.bucket)
            action = "s3:GetObjectVersionTagging" if source.version_id else "s3:GetObjectTagging"
            call.require_of(from_bucket, reader.record, action, source.key, _named(source))
        require_tagging(call, headers)
        headers = lock_headers(call, lease.bucket, headers, has_body=False)
        headers = with_acl(headers, lease.bucket, new_object_acl(call, lease.bucket, call.headers))
        condition = await write_condition(call, lease.bucket)
        algorithm = _checksum_of_copy(call, reader.record)
        size_bytes = _copied_size(reader.record.size_bytes)
        seal, sealed = await seal_of_new_object(call, lease.bucket, reader.record.sealing)
        redundancy = await redundancy_of(call, lease.bucket, headers)
        body = CopyBody(reader, 0, size_bytes, lease, headers, algorithm, seal)
        await call.ticket.copy(size_bytes)
        record = await call.objects.put_object(lease.bucket.id, call.key, body, condition, seal, redundancy)
    copied = copy_object_xml(record.etag, record.modified_ms, checksum_elements(record.checksums))
    told = {**written_headers(record), **expiry_of(lease.bucket, call.key, record), **sealed}
    return call.xml(copied, **told, **_source_headers(reader.record))


async def _upload_part_copy(call: Call) -> Response:
    source = parse_copy_source(call.headers["x-amz-copy-source"])
    number = parse_part_number(call.query["partNumber"])
    upload_id = upload_id_of(call.query)
    async with call.writing() as lease:
        upload = await open_upload(call, lease.bucket, upload_id)
        seal, sealed = seal_of_part(call, lease.bucket, upload)
        reader = await _open_source(call, source)
        text = call.headers.get("x-amz-copy-source-range")
        size_bytes = reader.record.size_bytes
        span = parse_copy_range(text, size_bytes) if text else ByteRange(0, size_bytes)
        body = CopyBody(reader, span.start, _copied_size(span.length), lease, {}, upload_algorithm(upload), seal)
        await call.ticket.copy(span.length)
        record = await call.objects.put_part(lease.bucket.id, call.key, upload_id, number, body, seal)
    elements = checksum_elements(record.checksums)
    elements.pop("ChecksumType", None)
    copied = copy_part_xml(record.etag, record.modified_ms, elements)
    return call.xml(copied, **sealed, **_source_headers(reader.record))


def _source_headers(source: Record) -> dict[str, str]:
    return {} if source.version is None else {"x-amz-copy-source-version-id": version_id(source)}


def _refuse_copy_onto_itself(call: Call, source: CopySource, directive: str) -> None:
    same = (source.bucket, source.key, source.version_id) == (call.bucket_name, call.key, "")
    changes = directive == "REPLACE" or not _CHANGES.isdisjoint(call.headers)
    if same and not changes:
        raise S3Error("InvalidRequest", _ILLEGAL)


async def _open_source(call: Call, source: CopySource) -> Reader:
    version = parse_version_id(source.version_id) if source.version_id else None
    bucket = await call.services.buckets.get(source.bucket)
    check_expected_owner(call.headers.get("x-amz-source-expected-bucket-owner"), bucket)
    reader = await call.objects.open_object(bucket.id, source.key, version)
    found = reader.record if reader is not None and reader.record.live else None
    action = "s3:GetObject" if version is None else "s3:GetObjectVersion"
    call.require_of(bucket, found, action, source.key, _named(source))
    if reader is not None and reader.record.marker and version is not None:
        raise S3Error("InvalidRequest", _MARKER)
    try:
        present(reader.record if reader is not None else None, bucket, source.key, version)
    except S3Error as error:
        if error.code != "NoSuchKey":
            raise
        if not call.may_in(bucket, "s3:ListBucket", {"s3:prefix": (source.key,)}):
            raise S3Error("AccessDenied") from error
        raise NoSuchSource(source.key).with_headers(error.headers) from error
    assert reader is not None
    unlock_source(call, bucket, source.key, reader)
    check_copy_source(call.headers, reader.record.etag, reader.record.modified_ms)
    return reader


def _named(source: CopySource) -> dict[str, tuple[str, ...]]:
    """The version, as policies see it: that of the source, and not what the query names."""
    return {"s3:versionid": (source.version_id,) if source.version_id else ()}


def _copied_size(size_bytes: int) -> int:
    if size_bytes > MAX_PUT_SIZE_BYTES:
        raise S3Error("InvalidRequest", _TOO_LARGE)
    return size_bytes


def _copied_headers(call: Call, source: Record, directive: str) -> dict[str, str]:
    """REPLACE takes the request's headers; COPY the source's, but for storage class and redirect, which are
    always the request's.  Tags go by a directive of their own."""
    asked = headers_to_keep(call.headers)
    replaced_tags = copy_directive(call.headers, "tagging") == "REPLACE"
    tags = decode_tags(asked.pop(TAGS, "")) if replaced_tags else object_tags(source)
    if directive == "REPLACE":
        return with_tags(asked, tags)
    own = (STORAGE_CLASS_HEADER, "x-amz-website-redirect-location")
    kept = {name: value for name, value in shown_headers(source).items() if name not in (*own, TAG_COUNT_HEADER)}
    return with_tags({**kept, **{name: asked[name] for name in own if name in asked}}, tags)


def _checksum_of_copy(call: Call, source: Record) -> Algorithm | None:
    wanted = call.headers.get("x-amz-checksum-algorithm")
    if wanted:
        return find_algorithm(wanted)
    name = algorithm_of(source.checksums)
    return ALGORITHMS[name] if name else None
