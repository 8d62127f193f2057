"""Conditional requests (RFC 9110, section 13) with S3's precedence.

Reads: If-Match, when given, hides If-Unmodified-Since; If-None-Match hides If-Modified-Since.
Writes: If-None-Match `*` (create only) and If-Match (replace only this one).
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


DIRECTORY_BUCKET_CONDITIONS = ("x-amz-if-match-last-modified-time", "x-amz-if-match-size")
"""Conditions of a delete that S3 knows in directory buckets alone."""


class WriteCondition(msgspec.Struct, frozen=True):
    """What must hold of the current version for a write to go ahead."""

    if_absent: bool = False
    """If-None-Match: `*`."""
    if_etag: str = ""
    """If-Match, bare; `*` means any existing version; empty where not asked for."""

    def check(self, current_etag: str | None) -> None:
        """`current_etag` is bare, None where the key does not exist.

        Raises PreconditionFailed, and NoSuchKey for If-Match on an absent key, as S3 does.
        """
        if self.if_absent and current_etag is not None:
            raise S3Error("PreconditionFailed", Condition="If-None-Match")
        if self.if_etag:
            if current_etag is None:
                raise S3Error("NoSuchKey")
            if not _matches(self.if_etag, current_etag):
                raise S3Error("PreconditionFailed", Condition="If-Match")


def parse_write_condition(headers: Mapping[str, str]) -> WriteCondition | None:
    """The condition of a PutObject, CompleteMultipartUpload, CopyObject or DeleteObject; None without one.

    Raises NotImplemented for an If-None-Match other than `*`, as S3 does, and for conditions that nobody would
    check here: going ahead without them could delete what the client meant to keep.
    """
    for name in DIRECTORY_BUCKET_CONDITIONS:
        if name in headers:
            raise unsupported_condition(name)
    if_none_match = headers.get("if-none-match")
    if_match = headers.get("if-match")
    if if_none_match is None and if_match is None:
        return None
    if if_none_match is not None and (if_none_match.strip() != "*" or if_match is not None):
        raise unsupported_condition("If-None-Match")
    return WriteCondition(if_none_match is not None, if_match or "")


def unsupported_condition(header: str) -> S3Error:
    """What a condition is answered with that cannot be checked."""
    return S3Error(
        "NotImplemented", "A header you provided implies functionality that is not implemented", Header=header
    )


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


def _matches(header: str, etag: str) -> bool:
    """Whether a list of ETags, or `*`, names this one."""
    return any(candidate.strip() == "*" or unquote_etag(candidate) == etag for candidate in header.split(","))


def _seconds(text: str | None) -> int | None:
    milliseconds = parse_http_date(text) if text else None
    return None if milliseconds is None else milliseconds // 1000
