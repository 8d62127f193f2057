"""The request and response values that handlers see, and how a request's address becomes bucket and key.

Nothing here knows a web framework: a front end fills in a `Request` with the path and query *as they came on
the wire* (signatures are over those bytes) and sends a `Response`.  Decoding is exact: what a client put in
by percent-encoding comes out byte for byte, or the request is refused with InvalidURI; nothing is normalised,
so `a//b` and `a/../b` are keys of their own.
Header names are lower case, repeated headers are joined by commas (as HTTP and SigV4 define them).
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from urllib.parse import unquote_to_bytes

import msgspec

from holdfast_server.contract import names
from holdfast_server.s3.errors import S3Error

MAX_QUERY_PARAMETERS = 256
"""More than any S3 operation takes by far; bounds the work a request can cause before it is verified."""

_BAD_ESCAPE = re.compile("%(?![0-9A-Fa-f]{2})")


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """One HTTP request without its body."""

    method: str
    raw_path: str
    """Undecoded, with its leading slash, without the query."""
    raw_query: str
    """Undecoded, without the question mark; empty where there is none."""
    headers: Mapping[str, str]
    """From `fold_headers`."""
    remote: str
    """The client's address, for policies and audit."""
    received_ms: int
    """Milliseconds since the epoch at which the head was read."""
    secure: bool
    """True when it came over TLS."""

    def header(self, name: str) -> str | None:
        """The value of a header (name in lower case), or None."""
        return self.headers.get(name)


class BodyStream(msgspec.Struct, kw_only=True):
    """A response body that is produced while it is sent."""

    pieces: AsyncIterator[bytes | memoryview]
    size_bytes: int | None
    """Becomes Content-Length; None sends chunked transfer encoding."""


class Response(msgspec.Struct, kw_only=True):
    """What the front end sends.  `body` bytes get their Content-Length from the front end."""

    status: int
    headers: dict[str, str] = {}
    body: bytes | BodyStream = b""


class Target(msgspec.Struct, frozen=True):
    """What a request is about: service (both empty), bucket (key empty) or object."""

    bucket: str
    key: str

    @property
    def level(self) -> str:
        if self.key:
            return "object"
        return "bucket" if self.bucket else "service"


def fold_headers(items: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Lower-cased names; surrounding blanks removed; repeated headers joined by commas in their order."""
    folded: dict[str, str] = {}
    for name, value in items:
        lowered = name.lower()
        stripped = value.strip(" \t")
        if lowered in folded:
            folded[lowered] = f"{folded[lowered]},{stripped}"
        else:
            folded[lowered] = stripped
    return folded


def percent_decode(text: str) -> str:
    """The characters that percent-encoding stands for.

    Raises InvalidURI on a broken escape, on bytes that are not UTF-8, and on NUL.
    """
    if "%" not in text and text.isascii():
        if "\x00" in text:
            raise S3Error("InvalidURI")
        return text
    if _BAD_ESCAPE.search(text):
        raise S3Error("InvalidURI")
    try:
        decoded = unquote_to_bytes(text.encode("utf-8", "surrogateescape")).decode()
    except UnicodeError as error:
        raise S3Error("InvalidURI") from error
    if "\x00" in decoded:
        raise S3Error("InvalidURI")
    return decoded


def parse_query(raw_query: str) -> dict[str, str]:
    """Decoded parameters in order; a bare name (`?uploads`) has the empty value, the first of equals wins.

    A plus sign stands for a space, as S3 reads it.  Raises InvalidURI.
    """
    if not raw_query:
        return {}
    parts = raw_query.split("&")
    if len(parts) > MAX_QUERY_PARAMETERS:
        raise S3Error("InvalidURI")
    query: dict[str, str] = {}
    for part in parts:
        if part:
            name, _, value = part.partition("=")
            query.setdefault(percent_decode(name.replace("+", " ")), percent_decode(value.replace("+", " ")))
    return query


def parse_target(request: Request, domains: Sequence[str] = ()) -> Target:
    """Bucket and key of a request.

    With `domains`, a Host of `bucket.domain` names the bucket (virtual-host style); any other Host means
    path style.  Raises InvalidURI, InvalidBucketName, and KeyTooLongError above 1,024 bytes.
    """
    path = request.raw_path
    if not path.startswith("/"):
        raise S3Error("InvalidURI")
    bucket = virtual_host_bucket(request, domains)
    if bucket:
        if not (bucket.isascii() and bucket.isprintable()):
            raise S3Error("InvalidBucketName", BucketName=bucket)  # of a Host that no client makes
        raw_key = path[1:]
    else:
        raw_bucket, _, raw_key = path[1:].partition("/")
        bucket = percent_decode(raw_bucket)
        if not bucket and raw_key:
            raise S3Error("InvalidBucketName", BucketName="")
    return Target(bucket, check_key(percent_decode(raw_key)))


def check_key(key: str) -> str:
    """The key itself; raises KeyTooLongError above the limit."""
    if len(key) * 4 > names.MAX_KEY_SIZE_BYTES:
        size_bytes = len(key.encode("utf-8", "surrogatepass"))
        if size_bytes > names.MAX_KEY_SIZE_BYTES:
            raise S3Error("KeyTooLongError", Size=size_bytes, MaxSizeAllowed=names.MAX_KEY_SIZE_BYTES)
    return key


def virtual_host_bucket(request: Request, domains: Sequence[str]) -> str:
    """The bucket a Host of `bucket.domain` names; empty in path style.  Of domains within each other the longest that
    fits counts."""
    name = request.headers.get("host", "").lower() if domains else ""
    if not name.endswith("]"):
        name = name.rpartition(":")[0] or name
    found = ""
    for domain in domains:
        lowered = domain.lower()
        if name == lowered:
            return ""
        bucket = name.removesuffix("." + lowered)
        if bucket != name and bucket and (not found or len(bucket) < len(found)):
            found = bucket
    return found
