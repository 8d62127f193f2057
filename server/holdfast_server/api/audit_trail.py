"""What is noted of one request on its way, and the audit line that is made of it at the end.

A `Trail` exists only while the audit log is switched on; without one nothing here is called.  Who asked for what is
taken from the verified request; where there is none (a bad signature, overload), bucket and key are read from the
address as it came, and the account stays empty.

Not told: the single keys of DeleteObjects, and failures inside an answer that began with 200.
"""

from __future__ import annotations

import msgspec

from holdfast_server.audit.record import (
    MAX_KEY_SIZE,
    MAX_NAME_SIZE,
    MAX_USER_AGENT_SIZE,
    AuditRecord,
    claimed_access_key,
    encode_line,
    shortened,
    timestamp,
    told_parameters,
)
from holdfast_server.auth.principal import Principal
from holdfast_server.auth.verified import VerifiedRequest
from holdfast_server.contract import names
from holdfast_server.contract.admin import AdminError
from holdfast_server.s3.errors import S3Error
from holdfast_server.s3.request import Request, Response, parse_query, parse_target

ADMIN = "Admin"


class Trail:
    """Filled in by the dispatcher and the front end."""

    __slots__ = ("claimed", "cut", "error", "key", "principal", "request", "sent_bytes", "started_ms", "verified")

    def __init__(self, started_ms: int) -> None:
        self.started_ms = started_ms
        self.request: Request | None = None
        self.verified: VerifiedRequest | None = None
        self.principal: Principal | None = None
        """Once the signature has proven it."""
        self.claimed = ""
        """The access key of a form."""
        self.key = ""
        """Likewise."""
        self.error = ""
        self.sent_bytes = 0
        self.cut = False

    def authenticated(self, verified: VerifiedRequest) -> None:
        self.verified, self.principal = verified, verified.principal

    def form(self, key: str, access_key: str) -> None:
        """What a form is for, and who it says signed it, if anybody: nothing is proven yet."""
        self.key, self.claimed = key, access_key
        if access_key:
            self.principal = None


def audit_line(
    trail: Trail,
    request: Request,
    operation: str,
    response: Response,
    *,
    pod: str,
    request_id: str,
    domains: tuple[str, ...],
    received_bytes: int,
    seconds: float,
) -> bytes:
    """The line; raises nothing that a client could bring about."""
    bucket, key, parameters = _address(trail, request, operation, domains)
    principal = trail.principal
    record = AuditRecord(
        time=timestamp(trail.started_ms),
        request_id=request_id,
        pod=pod,
        remote=request.remote,
        secure=request.secure,
        access_key=principal.access_key if principal else _claimed(trail, request),
        account=principal.user_name if principal else "",
        method=shortened(request.method, MAX_NAME_SIZE),
        operation=operation,
        bucket=shortened(bucket, MAX_NAME_SIZE),
        key=shortened(key, MAX_KEY_SIZE),
        source=shortened(request.headers.get("x-amz-copy-source", ""), MAX_KEY_SIZE),
        parameters=parameters,
        status=response.status,
        error=trail.error or _admin_error(operation, response),
        cut=trail.cut,
        received_bytes=received_bytes,
        sent_bytes=trail.sent_bytes,
        duration_ms=round(seconds * 1000, 3),
        user_agent=shortened(request.headers.get("user-agent", ""), MAX_USER_AGENT_SIZE),
    )
    return encode_line(record)


def _claimed(trail: Trail, request: Request) -> str:
    if trail.claimed:
        return shortened(trail.claimed, MAX_NAME_SIZE)
    return claimed_access_key(request.headers.get("authorization"), request.raw_query)


def _address(
    trail: Trail, request: Request, operation: str, domains: tuple[str, ...]
) -> tuple[str, str, dict[str, str]]:
    """Bucket, key, and what may be told of the query."""
    if trail.verified is not None:
        target = trail.verified.target
        return target.bucket, target.key or trail.key, told_parameters(trail.verified.query)
    if operation == ADMIN:
        return "", request.raw_path.removeprefix(names.ADMIN_PREFIX), {}
    try:
        target = parse_target(request, domains)
        return target.bucket, target.key, told_parameters(parse_query(request.raw_query))
    except S3Error:
        return "", request.raw_path, {}


def _admin_error(operation: str, response: Response) -> str:
    """The admin API answers its failures by itself."""
    if operation != ADMIN or response.status < 400 or not isinstance(response.body, bytes):
        return ""
    try:
        return msgspec.json.decode(response.body, type=AdminError).code
    except msgspec.MsgspecError:
        return ""
