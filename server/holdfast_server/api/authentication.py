"""Counting failed authentications, wherever a signature is checked: in a request's head, or in a form's fields.

A failure counts once it is final: a key that this pod did not know yet was looked up before.
"""

from __future__ import annotations

from holdfast_server.api.services import Services
from holdfast_server.auth.verified import FAILURES, TooManyFailures
from holdfast_server.s3.errors import S3Error
from holdfast_server.s3.request import Request


def admit(services: Services, request: Request, access_key: str) -> None:
    """Raises TooManyFailures where nothing of this source is looked at for now."""
    if not services.failures.admits(request.remote, access_key, services.clock.monotonic_seconds()):
        raise TooManyFailures


def note_failure(services: Services, error: S3Error, request: Request) -> None:
    if isinstance(error, TooManyFailures):
        services.metrics.authentication_throttled.inc()
    elif error.code in FAILURES:
        services.metrics.authentication_failed(error.code)
        access_key = str(error.extra.get("AWSAccessKeyId", ""))
        services.failures.failed(request.remote, access_key, services.clock.monotonic_seconds())
