"""What other layers raise, as S3 names it.  The only place where a domain error becomes an S3 error."""

from __future__ import annotations

import asyncio
import logging

from holdfast_server.api.bucket_record import BucketDocumentError, LaterFormat
from holdfast_server.api.buckets_cache import BucketBusy, BucketGone
from holdfast_server.memory.budget import Overloaded
from holdfast_server.objects.port import (
    Conflict,
    Crossed,
    Locked,
    Missing,
    ObjectError,
    OutOfSpace,
    TooSlow,
    Unavailable,
)
from holdfast_server.s3.errors import S3Error

log = logging.getLogger(__name__)

RETRY_AFTER_SECONDS = 1


def to_s3_error(error: BaseException) -> S3Error:
    """Every exception a handler may end with, but for a client that went away.

    What is not known is our mistake: it is logged with its traceback and told as InternalError.
    """
    if isinstance(error, S3Error):
        return error
    if isinstance(error, BaseExceptionGroup):
        return _of_group(error)
    if isinstance(error, Crossed):
        log.info("answered SlowDown: %s", error)  # nothing to see to: clients that write one key at once
        return S3Error("SlowDown", "Other writes of this key are under way. Please retry.")
    if isinstance(error, Unavailable | TimeoutError | asyncio.TimeoutError):
        log.warning("answered SlowDown: %s", str(error) or type(error).__name__)
        return S3Error("SlowDown", "Too few drives answered in time. Nothing wrong was answered; please retry.")
    if isinstance(error, Overloaded):
        return S3Error("SlowDown", "The server has more to do than it can. Please reduce your request rate.")
    if isinstance(error, TooSlow):
        return S3Error("RequestTimeout")
    if isinstance(error, BucketBusy):
        # Undecided, and decided soon; 503 is what clients retry by themselves.
        return S3Error("SlowDown", "The bucket is being deleted. Please try again.", BucketName=str(error))
    if isinstance(error, BucketGone):
        return S3Error("NoSuchBucket", BucketName=str(error))
    if isinstance(error, Locked):
        return S3Error("AccessDenied", "Access Denied because object protected by object lock.")
    if isinstance(error, OutOfSpace):
        return S3Error("InsufficientStorage")
    if isinstance(error, Conflict):
        return S3Error("ConditionalRequestConflict")
    if isinstance(error, Missing):
        return S3Error("NoSuchUpload")
    if isinstance(error, LaterFormat):
        # Clients come again, and may meet a pod that has been rolled already.
        log.warning("answered ServiceUnavailable: %s", error)
        return S3Error(
            "ServiceUnavailable",
            "A later release wrote this bucket, and this pod does not know what it means. Please retry.",
            BucketName=error.bucket.name,
        )
    if isinstance(error, BucketDocumentError | ObjectError):
        log.error("answered InternalError: %s", error)
        return S3Error("InternalError")
    log.error("answered InternalError", exc_info=error)
    return S3Error("InternalError")


def _of_group(group: BaseExceptionGroup[BaseException]) -> S3Error:
    """A task group's failure is that of its first member that says something to the client."""
    members = [to_s3_error(member) for member in group.exceptions if not isinstance(member, asyncio.CancelledError)]
    telling = [member for member in members if member.code != "InternalError"]
    return (telling or members or [S3Error("InternalError")])[0]
