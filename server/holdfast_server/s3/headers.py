"""The headers of objects: which are kept, how they are checked, how dates and ETags are written.

An object keeps its content headers and its `x-amz-meta-*`; everything else of a request is about the request.
Values are kept as they came; bytes beyond ASCII are kept too (HTTP hands them on undecoded).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from holdfast_server.s3.errors import S3Error, invalid_argument

DEFAULT_CONTENT_TYPE = "binary/octet-stream"
MAX_METADATA_SIZE_BYTES = 2048
"""S3's bound on the user metadata of an object: names without their prefix, and values."""
MAX_CONTENT_HEADERS_SIZE_BYTES = 8192
"""Bound on the other kept headers together, so that a record stays small."""
METADATA_PREFIX = "x-amz-meta-"
REDUCED_REDUNDANCY = "REDUCED_REDUNDANCY"
STORAGE_CLASSES = frozenset({"STANDARD", REDUCED_REDUNDANCY})
"""Accepted and kept as given."""

_REDIRECT = "x-amz-website-redirect-location"
_KEPT = (
    "content-type",
    "cache-control",
    "content-disposition",
    "content-encoding",
    "content-language",
    "expires",
    _REDIRECT,
)
_OVERRIDES = {
    "response-content-type": "content-type",
    "response-content-language": "content-language",
    "response-expires": "expires",
    "response-cache-control": "cache-control",
    "response-content-disposition": "content-disposition",
    "response-content-encoding": "content-encoding",
}
_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+").fullmatch
"""What HTTP lets a header be called.  Names come from forms and from parameters of presigned URLs, too, which may hold
anything; sent back as they are, they would end a header, or all of them, for whoever reads the object."""
_WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def object_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers to keep with an object, in lower case: content headers and `x-amz-meta-*`.

    Raises MetadataTooLarge, InvalidRedirectLocation, and InvalidArgument for control characters and names that no
    header can have.
    """
    kept = {"content-type": headers.get("content-type") or DEFAULT_CONTENT_TYPE}
    for name in _KEPT[1:]:
        value = headers.get(name)
        if name == "content-encoding" and value:
            value = _without_aws_chunked(value)
        if value:
            kept[name] = value
    if sum(map(_size_bytes, kept.values())) > MAX_CONTENT_HEADERS_SIZE_BYTES:
        raise S3Error("MetadataTooLarge", MaxSizeAllowed=MAX_CONTENT_HEADERS_SIZE_BYTES)
    if not kept.get(_REDIRECT, "/").startswith(("/", "http://", "https://")):
        raise S3Error("InvalidRedirectLocation")
    metadata_size_bytes = 0
    for name, value in headers.items():
        if name.startswith(METADATA_PREFIX):
            metadata_size_bytes += _size_bytes(name) - len(METADATA_PREFIX) + _size_bytes(value)
            kept[name] = value
    if metadata_size_bytes > MAX_METADATA_SIZE_BYTES:
        raise S3Error("MetadataTooLarge", Size=metadata_size_bytes, MaxSizeAllowed=MAX_METADATA_SIZE_BYTES)
    for name, value in kept.items():
        if not _NAME(name):
            raise S3Error("InvalidArgument", "Not the name of a header", ArgumentName=name)
        if not value.isprintable() and any((ord(char) < 32 and char != "\t") or char == "\x7f" for char in value):
            raise S3Error("InvalidArgument", "Control characters in a header", ArgumentName=name)
    return kept


def _size_bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogateescape"))


def _without_aws_chunked(value: str) -> str:
    """Content-Encoding without the transfer's own framing, which is no property of the object; else as it came."""
    if "aws-chunked" not in value.lower():
        return value
    return ", ".join([part.strip() for part in value.split(",") if part.strip().lower() not in ("aws-chunked", "")])


def storage_class(headers: Mapping[str, str]) -> str:
    """The storage class asked for, `STANDARD` by default.  Raises InvalidStorageClass."""
    wanted = headers.get("x-amz-storage-class") or "STANDARD"
    if wanted not in STORAGE_CLASSES:
        raise S3Error("InvalidStorageClass")
    return wanted


def copy_directive(headers: Mapping[str, str], about: str) -> str:
    """`COPY` or `REPLACE`, about a copy's `metadata` (all its headers) or `tagging`.  Raises InvalidArgument."""
    name = f"x-amz-{about}-directive"
    directive = headers.get(name) or "COPY"
    if directive not in ("COPY", "REPLACE"):
        raise invalid_argument(f"Unknown {about} directive.", name, directive)
    return directive


def response_overrides(query: Mapping[str, str]) -> dict[str, str]:
    """Headers that `response-*` parameters of a GET replace.  Raises InvalidArgument on line breaks.

    The caller refuses them on anonymous requests, as S3 does.
    """
    overrides = {header: query[name] for name, header in _OVERRIDES.items() if query.get(name)}
    for name, value in overrides.items():
        if any(ord(char) < 32 or ord(char) == 127 for char in value):
            raise S3Error("InvalidArgument", "Header value is not valid", ArgumentName=f"response-{name}")
    return overrides


def content_length(headers: Mapping[str, str]) -> int | None:
    """Content-Length in bytes, None where absent.  Raises InvalidArgument where it is no number."""
    text = headers.get("content-length")
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 19):
        raise S3Error("InvalidArgument", "Content-Length is not a number", ArgumentName="Content-Length")
    return int(text)


def http_date(milliseconds: int) -> str:
    """`Fri, 24 May 2013 00:00:00 GMT`, from milliseconds since the epoch (cut to seconds)."""
    when = datetime.fromtimestamp(milliseconds // 1000, UTC)
    return (
        f"{_WEEKDAYS[when.weekday()]}, {when.day:02} {_MONTHS[when.month - 1]} {when.year:04} "
        f"{when.hour:02}:{when.minute:02}:{when.second:02} GMT"
    )


def parse_http_date(text: str) -> int | None:
    """Milliseconds since the epoch, or None where the text is no date (such headers are ignored)."""
    try:
        when = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    try:
        return int(when.timestamp()) * 1000
    except (OverflowError, ValueError):
        return None


def iso_date(milliseconds: int) -> str:
    """`2013-05-24T00:00:00.000Z`, as S3's documents have it, from milliseconds since the epoch."""
    seconds, rest = divmod(milliseconds, 1000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:03}Z"


def quote_etag(etag: str) -> str:
    """An ETag as a header value; ETags are stored without quotes."""
    return f'"{etag}"'


def unquote_etag(text: str) -> str:
    """The bare ETag of a client's quoted, weak (`W/"…"`), unquoted or half quoted one, as S3 takes them."""
    bare = text.strip()
    if bare.startswith("W/"):
        bare = bare[2:]
    return bare.removeprefix('"').removesuffix('"')
