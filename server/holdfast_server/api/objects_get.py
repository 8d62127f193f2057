"""GetObject and HeadObject: conditions, ranges, parts, header overrides.

The first bytes are read before the response begins, so that everything which can be said with a status is.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping

from holdfast_server.api.bucket_record import BucketRecord
from holdfast_server.api.call import Call
from holdfast_server.api.encryption import check_key, unlock
from holdfast_server.api.lifecycle import expiry_of
from holdfast_server.api.object_lock import shown_lock
from holdfast_server.api.reading_again import starting_again
from holdfast_server.api.stored_headers import (
    TAG_COUNT_HEADER,
    checksum_headers,
    part_checksum_headers,
    shown_headers,
    validators,
)
from holdfast_server.api.version_ids import asked_version, present, version_headers
from holdfast_server.objects.port import Objects, Reader, Record, Unavailable
from holdfast_server.s3.conditions import check_read
from holdfast_server.s3.errors import S3Error
from holdfast_server.s3.headers import response_overrides
from holdfast_server.s3.names import parse_part_number
from holdfast_server.s3.ranges import ByteRange, parse_range, still_meant
from holdfast_server.s3.request import BodyStream, Response

WHOLE_SIZE_BYTES = 64 * 1024
"""Up to this size the answer is put together before it is sent."""


async def get_object(call: Call) -> Response:
    return await starting_again(lambda: _get_object(call))


def _check_part_number(query: Mapping[str, str]) -> None:
    """Before anything is looked up.  Raises InvalidArgument."""
    if query.get("partNumber"):
        parse_part_number(query["partNumber"])


async def _get_object(call: Call) -> Response:
    _check_part_number(call.query)
    bucket = await call.bucket()
    reader = await open_version(call.objects, bucket, call.key, asked_version(call.query))
    sealed = unlock(call, bucket, reader)
    answer = _answer(call, reader.record, bucket)
    if isinstance(answer, Response):
        return answer
    status, headers, span = answer
    headers.update(sealed)
    if not span.length:
        return Response(status=status, headers=headers, body=b"")
    if span.length <= WHOLE_SIZE_BYTES:
        # One write to the socket, and every byte is verified before the status is out.
        body = b"".join([chunk async for chunk in reader.chunks(span.start, span.length)])
        if len(body) != span.length:
            raise Unavailable(f"{len(body)} bytes were read of {span.length}")
        return Response(status=status, headers=headers, body=body)
    await call.ticket.stream(span.length)
    pieces = await _begun(reader, span)
    return Response(status=status, headers=headers, body=BodyStream(pieces=pieces, size_bytes=span.length))


async def head_object(call: Call) -> Response:
    version = asked_version(call.query)
    _check_part_number(call.query)
    bucket = await call.bucket()
    record = present(await call.objects.head_object(bucket.id, call.key, version), bucket, call.key, version)
    sealed = check_key(call, bucket, record)
    answer = _answer(call, record, bucket)
    if isinstance(answer, Response):
        return answer
    status, headers, span = answer
    headers.update(sealed)
    headers["content-length"] = str(span.length)
    return Response(status=status, headers=headers)


async def open_version(objects: Objects, bucket: BucketRecord, key: str, version: bytes | None) -> Reader:
    """Raises NoSuchKey, NoSuchVersion, and what S3 says of delete markers."""
    reader = await objects.open_object(bucket.id, key, version)
    present(reader.record if reader is not None else None, bucket, key, version)
    assert reader is not None
    return reader


async def _begun(reader: Reader, span: ByteRange) -> AsyncIterator[bytes | memoryview]:
    """The range's bytes, of which the first are here already."""
    chunks = reader.chunks(span.start, span.length)
    return _Begun(await anext(chunks), chunks)


class _Begun:
    """The first piece, then the others.  No generator: closing one that was never begun would not close `chunks`,
    and what they hold of the budget."""

    def __init__(self, first: bytes | memoryview, chunks: AsyncIterator[bytes | memoryview]) -> None:
        self._first: bytes | memoryview | None = first
        self._chunks = chunks

    def __aiter__(self) -> AsyncIterator[bytes | memoryview]:
        return self

    async def __anext__(self) -> bytes | memoryview:
        first, self._first = self._first, None
        return await anext(self._chunks) if first is None else first

    async def aclose(self) -> None:
        self._first = None
        closing = getattr(self._chunks, "aclose", None)
        if closing is not None:
            await closing()


def _answer(call: Call, record: Record, bucket: BucketRecord) -> Response | tuple[int, dict[str, str], ByteRange]:
    """Status, headers and the bytes to send; a finished Response where nothing is to be sent."""
    try:
        check_read(call.headers, record.etag, record.modified_ms)
    except S3Error as error:
        if error.code != "NotModified":
            raise
        return Response(status=304, headers={**_cache_headers(record), **version_headers(record, bucket)})
    overrides = response_overrides(call.query)
    if overrides and call.verified.principal.is_anonymous:
        # Whoever can write a link could have a public object served as a page of the store's own.
        raise S3Error("InvalidRequest", "Request specific response headers cannot be used for anonymous GET requests.")
    headers = {**_object_headers(record), **version_headers(record, bucket), **overrides}
    if TAG_COUNT_HEADER in headers:
        action = "s3:GetObjectVersionTagging" if "versionId" in call.query else "s3:GetObjectTagging"
        if not call.may_of(bucket, record, action, call.key):
            del headers[TAG_COUNT_HEADER]
    if bucket.object_lock:
        headers.update(shown_lock(call, bucket, record))
    if bucket.lifecycle and "versionId" not in call.query:
        headers.update(expiry_of(bucket, call.key, record))
    part = call.query.get("partNumber")
    span: ByteRange | None
    if part:
        if "range" in call.headers:
            raise S3Error("InvalidRequest", "Cannot specify both Range header and partNumber query parameter")
        span = _part_range(record, parse_part_number(part))
        checked = call.headers.get("x-amz-checksum-mode", "").upper() == "ENABLED"
        if record.parts:
            headers["x-amz-mp-parts-count"] = str(len(record.parts))
            if checked:
                headers.update(part_checksum_headers(record, parse_part_number(part)))
        elif checked:
            headers.update(checksum_headers(record.checksums))
    else:
        meant = still_meant(call.headers.get("if-range"), record.etag, record.modified_ms)
        span = parse_range(call.headers.get("range"), record.size_bytes) if meant else None
    if span is None:
        if call.headers.get("x-amz-checksum-mode", "").upper() == "ENABLED":
            headers.update(checksum_headers(record.checksums))
        return 200, headers, ByteRange(0, record.size_bytes)
    if span.length:
        headers["content-range"] = span.content_range(record.size_bytes)
    return 206, headers, span


def _object_headers(record: Record) -> dict[str, str]:
    return {**shown_headers(record), **validators(record), "accept-ranges": "bytes"}


def _cache_headers(record: Record) -> dict[str, str]:
    kept = {name: value for name, value in record.headers.items() if name in ("cache-control", "expires")}
    return {**validators(record), **kept}


def _part_range(record: Record, number: int) -> ByteRange:
    """Where a part lies in the object.  Raises InvalidPartNumber."""
    if not record.parts:
        if number == 1:
            return ByteRange(0, record.size_bytes)
        raise S3Error("InvalidPartNumber", PartNumberRequested=number, ActualPartCount=1)
    start = 0
    for part in record.parts:
        if part.number == number:
            return ByteRange(start, part.size_bytes)
        start += part.size_bytes
    raise S3Error("InvalidPartNumber", PartNumberRequested=number, ActualPartCount=len(record.parts))
