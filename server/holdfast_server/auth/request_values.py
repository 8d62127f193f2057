"""What a request says about itself, under the names of AWS's condition keys (lower case).

Global keys (`aws:…`) and those of Amazon S3 (`s3:…`) that can be told from a request alone; a key that is not here is
absent, and a policy that asks for it is answered so.  Every `x-amz-*` header stands for itself (`s3:x-amz-acl`).
"""

from __future__ import annotations

from collections.abc import Mapping

from holdfast_server.auth.conditions import Values
from holdfast_server.auth.principal import Principal, account_id
from holdfast_server.auth.verified import FORM, LINK, VerifiedRequest
from holdfast_server.s3.encryption import SECRET_HEADERS
from holdfast_server.s3.errors import S3Error
from holdfast_server.s3.headers import iso_date
from holdfast_server.s3.lock_documents import AskedLock, lock_of_headers
from holdfast_server.s3.names import parse_copy_source
from holdfast_server.s3.request import Request
from holdfast_server.s3.sigv4 import format_timestamp, parse_timestamp
from holdfast_server.s3.tags import TAGGING_HEADER, parse_tagging_header

DAY_MS = 24 * 3600 * 1000
_OF_HEADERS = {"referer": "aws:referer", "user-agent": "aws:useragent"}
_OF_S3_HEADERS = {"if-match": "s3:if-match", "if-none-match": "s3:if-none-match"}
_OF_PARAMETERS = {"prefix": "s3:prefix", "delimiter": "s3:delimiter", "max-keys": "s3:max-keys",
                  "versionId": "s3:versionid"}  # fmt: skip
_CREATION = "s3:objectcreationoperation"
_CREATES = {
    **dict.fromkeys(("PutObject", "CopyObject", "PostObject", "CompleteMultipartUpload"), "true"),
    **dict.fromkeys(("CreateMultipartUpload", "UploadPart", "UploadPartCopy"), "false"),
}
"""Operations with the permission to put, by name: whether an object is there afterwards."""


def global_values(request: Request, principal: Principal) -> dict[str, str]:
    """The `aws:…` keys that do not depend on what is asked for."""
    values = {
        "aws:sourceip": request.remote,
        "aws:securetransport": "true" if request.secure else "false",
        "aws:currenttime": _iso(request.received_ms),
        "aws:epochtime": str(request.received_ms // 1000),
        "aws:principaltype": "Anonymous",
    }
    if not principal.is_anonymous:
        values["aws:principaltype"] = _principal_type(principal)
        values["aws:userid"] = principal.user_id
        values["aws:principalarn"] = principal.arn
        values["aws:principalaccount"] = account_id(principal.account)
        if principal.role is None:
            values["aws:username"] = principal.user_name
        else:
            role = principal.role
            values["aws:principalarn"] = f"arn:aws:iam::{account_id(principal.account)}:role{role.path}{role.name}"
        if principal.is_temporary:
            values["aws:tokenissuetime"] = _iso(principal.issued_ms)
        values.update((f"aws:principaltag/{key}".lower(), value) for key, value in principal.tags.items())
    values.update((name, request.headers[header]) for header, name in _OF_HEADERS.items() if header in request.headers)
    return values


def _principal_type(principal: Principal) -> str:
    if principal.role is not None:
        return "AssumedRole"
    return "Account" if principal.everything_at_home else "User"


def condition_values(
    verified: VerifiedRequest, resource_account: str, object_tags: Mapping[str, str] | None = None
) -> Values:
    """`resource_account` is the number of the account that the bucket belongs to; `object_tags` those of the object
    that is there, where they were looked at."""
    request, principal = verified.request, verified.principal
    values = global_values(request, principal)
    values["aws:resourceaccount"] = values["s3:resourceaccount"] = resource_account
    if not principal.is_anonymous:
        values["s3:authtype"] = verified.auth_type
        values["s3:signatureversion"] = verified.context.version
        values.update(_signature_age(verified))
    if verified.operation.name in _CREATES:
        values[_CREATION] = _CREATES[verified.operation.name]
    values.update(
        (name, request.headers[header]) for header, name in _OF_S3_HEADERS.items() if header in request.headers
    )
    values.update((name, verified.query[query]) for query, name in _OF_PARAMETERS.items() if query in verified.query)
    told = (name for name in verified.headers if name.startswith("x-amz-") and name not in SECRET_HEADERS)
    values.update((f"s3:{name}", verified.headers[name]) for name in told)
    values["s3:x-amz-content-sha256"] = verified.context.payload_hash
    if "s3:x-amz-copy-source" in values:
        values["s3:x-amz-copy-source"] = _copy_source(values["s3:x-amz-copy-source"])
    found: dict[str, tuple[str, ...]] = {name: (value,) for name, value in values.items()}
    found.update((f"s3:existingobjecttag/{key}".lower(), (value,)) for key, value in (object_tags or {}).items())
    found.update(_header_lock_values(verified))
    asked = _request_tags(verified)
    found.update((f"s3:requestobjecttag/{key}".lower(), (value,)) for key, value in asked.items())
    if asked:
        found["s3:requestobjecttagkeys"] = tuple(asked)
    return found


def _signature_age(verified: VerifiedRequest) -> dict[str, str]:
    """In milliseconds, of links and forms; of version 2, which does not say when it was made, always 0."""
    if verified.auth_type not in (LINK, FORM):
        return {}
    context = verified.context
    since_ms = verified.request.received_ms - parse_timestamp(context.timestamp) if context.timestamp else 0
    return {"s3:signatureage": str(since_ms)}


def lock_values(asked: AskedLock, now_ms: int) -> dict[str, tuple[str, ...]]:
    """What is asked for an object's lock."""
    values: dict[str, str] = {}
    if asked.mode:
        values["s3:object-lock-mode"] = asked.mode
        values["s3:object-lock-retain-until-date"] = iso_date(asked.until_ms)
        values["s3:object-lock-remaining-retention-days"] = str(-(-(asked.until_ms - now_ms) // DAY_MS))
    if asked.legal_hold is not None:
        values["s3:object-lock-legal-hold"] = "ON" if asked.legal_hold else "OFF"
    return {name: (value,) for name, value in values.items()}


def _header_lock_values(verified: VerifiedRequest) -> dict[str, tuple[str, ...]]:
    now_ms = verified.request.received_ms
    try:
        return lock_values(lock_of_headers(verified.headers, now_ms), now_ms)
    except S3Error:
        return {}  # refused by the handler


def _request_tags(verified: VerifiedRequest) -> Mapping[str, str]:
    if verified.request_tags is not None:
        return verified.request_tags
    if verified.operation.name == "CopyObject" and verified.headers.get("x-amz-tagging-directive") != "REPLACE":
        return {}  # the header is passed over: the tags are the source's
    try:
        return parse_tagging_header(verified.headers.get(TAGGING_HEADER, ""))
    except S3Error:
        return {}  # refused by the handler


def _copy_source(text: str) -> str:
    """`bucket/key`, as policies write it."""
    try:
        source = parse_copy_source(text)
    except S3Error:
        return text
    return f"{source.bucket}/{source.key}"


def _iso(milliseconds: int) -> str:
    text = format_timestamp(milliseconds)
    return f"{text[:4]}-{text[4:6]}-{text[6:11]}:{text[11:13]}:{text[13:]}"
