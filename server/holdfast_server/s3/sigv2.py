"""AWS Signature Version 2 in presigned URLs, verified; the one place where ordinary clients still use it.

boto3 makes such links unless it is told otherwise, and with it `aws s3 presign` (version 1), s3fs and Django's
storages; `s3cmd signurl` knows no other.  The rules are those of "Signing and authenticating REST requests
(AWS signature version 2)": an HMAC-SHA1 over method, Content-MD5, Content-Type, expiry, every `x-amz-*` header
and the resource with its sub-resources.

Invariants: whatever can change the operation is covered: `x-amz-*` values count wherever they stand, as
headers or as parameters, and every sub-resource of the operation table does, also those younger than the rules.

Not here: version 2 in the Authorization header (refused by `sigv4.parse_claim`, as AWS does), and a limit to a
link's life: these links name only the moment of their end.
"""

from __future__ import annotations

import base64
import hmac
from collections.abc import Iterable, Iterator, Mapping

import msgspec

from holdfast_server.s3.canonical import UNSIGNED_PAYLOAD, canonical_path
from holdfast_server.s3.errors import S3Error
from holdfast_server.s3.operations import SUB_RESOURCES
from holdfast_server.s3.request import Request
from holdfast_server.s3.sigv4 import SigningContext, format_timestamp

SIGNATURE_VERSION = "AWS"
"""What the condition key `s3:signatureversion` calls it."""

_MAX_EXPIRES_DIGITS = 12
_RESPONSE_OVERRIDES = frozenset(
    {
        "response-cache-control",
        "response-content-disposition",
        "response-content-encoding",
        "response-content-language",
        "response-content-type",
        "response-expires",
    }
)
RESOURCE_PARAMETERS = (SUB_RESOURCES | _RESPONSE_OVERRIDES | {"versionId"}) - {"list-type"}
"""`list-type` chooses between two forms of one listing, and no signer of version 2 knows it."""


class PresignedClaim(msgspec.Struct, frozen=True):
    """What a presigned URL says about its signature; nothing of it is proved yet."""

    access_key: str
    signature: str
    expires: str
    session_token: str = ""


def parse_presigned(request: Request, query: Mapping[str, str], now_ms: int) -> PresignedClaim | None:
    """The claim of a URL presigned by version 2, None of any other request.

    Raises AccessDenied where it has expired or its expiry is no time, InvalidArgument with two mechanisms at once.
    """
    access_key, signature = query.get("AWSAccessKeyId"), query.get("Signature")
    if not access_key or not signature:
        return None
    if "authorization" in request.headers or "X-Amz-Algorithm" in query:
        raise S3Error(
            "InvalidArgument",
            "Only one auth mechanism allowed; only the X-Amz-Algorithm query parameter, Signature query string "
            "parameter or the Authorization header should be specified",
            ArgumentName="Authorization",
        )
    expires = query.get("Expires", "")
    if not (expires.isascii() and expires.isdigit() and len(expires) <= _MAX_EXPIRES_DIGITS):
        raise S3Error("AccessDenied", f"Invalid date (should be seconds since epoch): {expires}")
    if now_ms > int(expires) * 1000:
        raise S3Error("AccessDenied", "Request has expired", Expires=expires, ServerTime=format_timestamp(now_ms))
    token = query.get("x-amz-security-token") or request.headers.get("x-amz-security-token", "")
    return PresignedClaim(access_key, signature, expires, token)


def verify(
    request: Request, query: Mapping[str, str], claim: PresignedClaim, secret_key: str, bucket: str
) -> SigningContext:
    """The context for the body.  `bucket` is the one a virtual-host address names, else empty.

    Raises SignatureDoesNotMatch.
    """
    given = claim.signature.encode()
    for path in _signed_paths(request.raw_path, path_style=not bucket):
        resource = f"/{bucket}{path}" if bucket else path
        expected = sign(string_to_sign(request.method, request.headers, query, claim.expires, resource), secret_key)
        if hmac.compare_digest(expected.encode(), given):
            payload_hash = request.headers.get("x-amz-content-sha256") or UNSIGNED_PAYLOAD
            return SigningContext(payload_hash, presigned=True, version=SIGNATURE_VERSION)
    raise S3Error("SignatureDoesNotMatch", AWSAccessKeyId=claim.access_key)


def _signed_paths(raw_path: str, path_style: bool) -> Iterable[str]:
    """How signers write the path of a request: as on the wire, in canonical form, a bucket with its slash
    (boto3, which does not send that slash).  All of them name the same resource."""
    paths = [raw_path, canonical_path(raw_path)]
    if path_style and raw_path.count("/") == 1 and len(raw_path) > 1:
        paths.append(raw_path + "/")
    return dict.fromkeys(paths)


def sign(text: bytes, secret_key: str) -> str:
    """The signature, base64."""
    return base64.b64encode(hmac.digest(secret_key.encode(), text, "sha1")).decode()


def string_to_sign(
    method: str, headers: Mapping[str, str], query: Mapping[str, str], expires: str, resource: str
) -> bytes:
    """What is signed.  `resource` is the path with its bucket, encoded; sub-resources are added here."""
    amz = {name: value for name, value in _lowered(query) if name.startswith("x-amz-")}
    amz.update((name, value) for name, value in headers.items() if name.startswith("x-amz-"))
    content = dict(_lowered(query))
    lines = [
        method,
        headers.get("content-md5") or content.get("content-md5", ""),
        headers.get("content-type") or content.get("content-type", ""),
        expires,
        *(f"{name}:{amz[name]}" for name in sorted(amz)),
        resource + _sub_resources(query),
    ]
    return "\n".join(lines).encode("utf-8", "surrogateescape")


def _lowered(query: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    return ((name.lower(), value) for name, value in query.items())


def _sub_resources(query: Mapping[str, str]) -> str:
    names = sorted(name for name in query if name in RESOURCE_PARAMETERS)
    parts = [f"{name}={query[name]}" if query[name] else name for name in names]
    return "?" + "&".join(parts) if parts else ""
