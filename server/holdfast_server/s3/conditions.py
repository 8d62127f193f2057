"""Conditional requests (RFC 9110, section 13) with S3's precedence.

Reads: If-Match, when given, hides If-Unmodified-Since; If-None-Match hides If-Modified-Since.
Writes: If-None-Match (with `*`: create only) and If-Match (replace only this one).
Deletes: If-Match, and the size and time of directory buckets, which no bucket here passes over.
Copies: the `x-amz-copy-source-if-*` headers, which answer 412 where a read answers 304.
Times are compared in whole seconds, for that is what clients were told.
Evaluating a write's condition and writing must be one step; that is the object layer's duty.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from holdfast_server.s3.errors import S3Error
from holdfast_server.s3.headers import parse_http_date, unquote_etag

COPY_SOURCE_PREFIX = "x-amz-copy-source-"


_MODIFIED_HEADER, _SIZE_HEADER = "x-amz-if-match-last-modified-time", "x-amz-if-match-size"


class WriteCondition(msgspec.Struct, frozen=True):
    """What must hold of the current version for a write to go ahead."""

    if_match: str | None = None
    """ETags as the client wrote them, or `*` for any existing version; None where not asked for."""
    if_none_match: str | None = None

    @property
    def names_etags(self) -> bool:
        """Whether its outcome says what the current version's ETag is, and not just that there is one."""
        return any(header is not None and names_etags(header) for header in (self.if_match, self.if_none_match))

    def check(self, current_etag: str | None) -> None:
        """`current_etag` is bare, None where the key does not exist.

        Raises PreconditionFailed, and NoSuchKey for If-Match on an absent key, as S3 does.
        """
        if self.if_match is not None:
            if current_etag is None:
                raise S3Error("NoSuchKey")
            if not _matches(self.if_match, current_etag):
                raise S3Error("PreconditionFailed", Condition="If-Match")
        if self.if_none_match is not None and current_etag is not None and _matches(self.if_none_match, current_etag):
            raise S3Error("PreconditionFailed", Condition="If-None-Match")


class DeleteCondition(msgspec.Struct, frozen=True):
    """What must hold of the version for it to be deleted.  S3 has the last two in directory buckets alone."""

    if_match: str | None = None
    if_modified_ms: int | None = None
    """Whole seconds."""
    if_size_bytes: int | None = None

    def check(self, etag: str, modified_ms: int, size_bytes: int) -> None:
        """Raises PreconditionFailed."""
        if self.if_match is not None and not _matches(self.if_match, etag):
            raise S3Error("PreconditionFailed", Condition="If-Match")
        if self.if_modified_ms is not None and self.if_modified_ms != modified_ms // 1000 * 1000:
            raise S3Error("PreconditionFailed", Condition=_MODIFIED_HEADER)
        if self.if_size_bytes is not None and self.if_size_bytes != size_bytes:
            raise S3Error("PreconditionFailed", Condition=_SIZE_HEADER)


def parse_write_condition(headers: Mapping[str, str]) -> WriteCondition | None:
    """The condition of a PutObject, CompleteMultipartUpload or CopyObject; None without one.

    S3 takes no If-None-Match but `*`; with ETags it means here what RFC 9110 says.
    """
    condition = WriteCondition(headers.get("if-match"), headers.get("if-none-match"))
    return condition if condition != WriteCondition() else None


def parse_delete_condition(headers: Mapping[str, str]) -> DeleteCondition | None:
    """The condition of a DeleteObject; None without one.

    Raises InvalidArgument, and NotImplemented for a condition that deletes do not have: going ahead without it could
    delete what the client meant to keep.
    """
    if "if-none-match" in headers:
        raise S3Error("NotImplemented", "A delete has no If-None-Match.", Header="If-None-Match")
    return delete_condition(headers.get("if-match"), headers.get(_MODIFIED_HEADER), headers.get(_SIZE_HEADER))


def delete_condition(if_match: str | None, modified: str | None, size: str | None) -> DeleteCondition | None:
    """From what a client wrote; None where it asked for nothing.  Raises InvalidArgument."""
    modified_ms, size_bytes = None, None
    if modified is not None:
        modified_ms = parse_http_date(modified)
        if modified_ms is None:
            raise S3Error("InvalidArgument", "Not a date", ArgumentName=_MODIFIED_HEADER, ArgumentValue=modified)
    if size is not None:
        if not (size.isascii() and size.isdigit() and len(size) <= 19):
            raise S3Error("InvalidArgument", "Not a size", ArgumentName=_SIZE_HEADER, ArgumentValue=size)
        size_bytes = int(size)
    condition = DeleteCondition(if_match, modified_ms, size_bytes)
    return condition if condition != DeleteCondition() else None


def check_read(headers: Mapping[str, str], etag: str, modified_ms: int) -> None:
    """For GET and HEAD.  Raises PreconditionFailed (412) or NotModified (304, sent without a body)."""
    _check(headers, "", etag, modified_ms, "NotModified")


def check_copy_source(headers: Mapping[str, str], etag: str, modified_ms: int) -> None:
    """For the source of CopyObject and UploadPartCopy.  Raises PreconditionFailed."""
    _check(headers, COPY_SOURCE_PREFIX, etag, modified_ms, "PreconditionFailed")


def _check(headers: Mapping[str, str], prefix: str, etag: str, modified_ms: int, unchanged: str) -> None:
    seconds = modified_ms // 1000
    if_match = headers.get(f"{prefix}if-match")
    if if_match is not None:
        if not _matches(if_match, etag):
            raise S3Error("PreconditionFailed", Condition=f"{prefix}If-Match")
    else:
        since = _seconds(headers.get(f"{prefix}if-unmodified-since"))
        if since is not None and seconds > since:
            raise S3Error("PreconditionFailed", Condition=f"{prefix}If-Unmodified-Since")
    if_none_match = headers.get(f"{prefix}if-none-match")
    if if_none_match is not None:
        if _matches(if_none_match, etag):
            raise S3Error(unchanged, Condition=f"{prefix}If-None-Match")
    else:
        since = _seconds(headers.get(f"{prefix}if-modified-since"))
        if since is not None and seconds <= since:
            raise S3Error(unchanged, Condition=f"{prefix}If-Modified-Since")


def names_etags(header: str) -> bool:
    """Whether a list of ETags is more than `*`."""
    return any(candidate.strip() != "*" for candidate in header.split(","))


def _matches(header: str, etag: str) -> bool:
    """Whether a list of ETags, or `*`, names this one."""
    return any(candidate.strip() == "*" or unquote_etag(candidate) == etag for candidate in header.split(","))


def _seconds(text: str | None) -> int | None:
    milliseconds = parse_http_date(text) if text else None
    return None if milliseconds is None else milliseconds // 1000
