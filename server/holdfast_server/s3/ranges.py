"""The Range header of a GET or HEAD (RFC 9110, section 14), for one range, and the If-Range that it hangs on.

Several ranges, another unit or bad syntax are ignored, as the RFC allows and S3 does: the whole object is
sent.  Only a well-formed range that begins behind the end is refused.  A last byte beyond the end means the end, and
one beyond 64 bits, too.
"""

from __future__ import annotations

import re

import msgspec

from holdfast_server.s3.errors import S3Error
from holdfast_server.s3.headers import parse_http_date

_ETAG = re.compile(r'"[^"]*"').fullmatch
_RANGE = re.compile(r"bytes=(\d{0,100})-(\d{0,100})", re.IGNORECASE | re.ASCII)


class ByteRange(msgspec.Struct, frozen=True):
    """`length` bytes from offset `start`; `length` is at least 1."""

    start: int
    length: int

    def content_range(self, size_bytes: int) -> str:
        """The Content-Range header of the answer."""
        return f"bytes {self.start}-{self.start + self.length - 1}/{size_bytes}"


def parse_range(text: str | None, size_bytes: int) -> ByteRange | None:
    """What to send of an object of that size; None means all of it.  Raises InvalidRange."""
    match = _RANGE.fullmatch(text) if text else None
    if match is None:
        return None
    first, last = match.groups()
    if first:
        start = int(first)
        if last and int(last) < start:
            return None
        end = min(int(last), size_bytes - 1) if last else size_bytes - 1
    elif last:
        start, end = max(size_bytes - int(last), 0), size_bytes - 1
        if int(last) == 0:
            start = size_bytes
        elif size_bytes == 0:
            return None  # satisfiable, says the RFC, but no Content-Range can tell of no bytes
    else:
        return None
    if start >= size_bytes:
        raise S3Error("InvalidRange", RangeRequested=text, ActualObjectSize=size_bytes)
    return ByteRange(start, end - start + 1)


def still_meant(if_range: str | None, etag: str, modified_ms: int) -> bool:
    """Whether a Range counts: If-Range names the object that the client has a part of, by its ETag or its date.

    Sent the rest of another object, the client would put two of them together.  A weak ETag never names bytes.
    """
    if if_range is None:
        return True
    if _ETAG(if_range):
        return if_range[1:-1] == etag
    since_ms = None if if_range.startswith("W/") else parse_http_date(if_range)
    return since_ms is not None and since_ms == modified_ms // 1000 * 1000


def parse_copy_range(text: str, size_bytes: int) -> ByteRange:
    """`x-amz-copy-source-range`: `bytes=first-last`, both given.  Raises InvalidArgument."""
    match = _RANGE.fullmatch(text)
    if match is None or not all(match.groups()) or int(match[2]) < int(match[1]):
        raise S3Error(
            "InvalidArgument",
            "The x-amz-copy-source-range value must be of the form bytes=first-last where first and last are the "
            "zero-based offsets of the first and last bytes to copy",
            ArgumentName="x-amz-copy-source-range",
            ArgumentValue=text,
        )
    start, end = int(match[1]), int(match[2])
    if end >= size_bytes:
        raise S3Error(
            "InvalidArgument",
            f"Range specified is not valid for source object of size: {size_bytes}",
            ArgumentName="x-amz-copy-source-range",
            ArgumentValue=text,
        )
    return ByteRange(start, end - start + 1)
