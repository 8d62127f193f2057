"""AWS Signature Version 4, verified and made: in the Authorization header and in presigned URLs.

`parse_claim` reads what a request claims (without any key), `Verifier.verify` checks the claim with the
key's secret.  Both raise the S3 error a client expects; comparison is in constant time.  Rules: any region
in the scope is accepted (clients without one sign with a made-up one); `host` and every `x-amz-*` header that
was sent must be signed; the clock may be 15 minutes off; presigned URLs live at most seven days.
A signing key is derived by four HMACs per day, region and secret; its inner and outer hash states are cached
per Verifier, which makes the check 4–5 µs instead of 20.

Not here: who owns the key (`auth/`), and the body: the payload hash claimed in the head is checked by
`payload`, chunk signatures by `chunked`, both from the `SigningContext` this returns.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache

import msgspec

from holdfast_server.s3 import canonical
from holdfast_server.s3.canonical import UNSIGNED_PAYLOAD
from holdfast_server.s3.errors import S3Error
from holdfast_server.s3.headers import parse_http_date
from holdfast_server.s3.request import Request

ALGORITHM = "AWS4-HMAC-SHA256"
MAX_SKEW_MS = 15 * 60 * 1000
MAX_EXPIRES_SECONDS = 7 * 24 * 3600
MAX_CACHED_KEYS = 4096
"""Signing keys kept by a Verifier: one per access key, day and region in use."""
MAX_REGION_LENGTH = 64
KEPT_TIMESTAMPS = 256
"""Requests of the same second bear the same."""
SERVICE = "s3"

_TIMESTAMP = re.compile(r"\d{8}T\d{6}Z", re.ASCII)
_SHOWN_CHARACTERS = 64
"""Of a scheme that is none, in the error."""
_SIGNATURE = re.compile(r"[0-9a-f]{64}")
_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256[ \t]+Credential=([^,\s]+)\s*,\s*SignedHeaders=([^,\s]+)\s*,\s*Signature=([^,\s]+)\s*"
)
_UNSIGNED_ALLOWED = frozenset({"x-amz-content-sha256"})
"""Its value is part of the canonical request by itself."""


class SigningKey:
    """A derived signing key with the two hash states of its HMAC precomputed."""

    __slots__ = ("_inner", "_outer")

    def __init__(self, secret_key: str, date: str, region: str, service: str) -> None:
        key = ("AWS4" + secret_key).encode()
        for part in (date, region, service, "aws4_request"):
            key = hmac.digest(key, part.encode(), "sha256")
        padded = key.ljust(64, b"\0")
        self._inner = hashlib.sha256(bytes([byte ^ 0x36 for byte in padded]))
        self._outer = hashlib.sha256(bytes([byte ^ 0x5C for byte in padded]))

    def sign(self, string_to_sign: bytes) -> str:
        """The signature in lower-case hex."""
        inner = self._inner.copy()
        inner.update(string_to_sign)
        outer = self._outer.copy()
        outer.update(inner.digest())
        return outer.hexdigest()


class Claim(msgspec.Struct, frozen=True):
    """What a signed request says about its signature; nothing of it is proved yet."""

    access_key: str
    date: str
    region: str
    service: str
    signed_headers: tuple[str, ...]
    signature: str
    timestamp: str
    """`20130524T000000Z`."""
    presigned: bool
    payload_hash: str
    """What stands for the payload in the canonical request."""
    session_token: str = ""

    @property
    def scope(self) -> str:
        return f"{self.date}/{self.region}/{self.service}/aws4_request"


class SigningContext(msgspec.Struct, frozen=True):
    """What later stages need of a verified signature: the payload's claim, and the chain for chunks."""

    payload_hash: str
    key: SigningKey | None = None
    seed_signature: str = ""
    timestamp: str = ""
    scope: str = ""
    presigned: bool = False
    version: str = ALGORITHM
    """What policies see as `s3:signatureversion`."""


def anonymous_context(request: Request) -> SigningContext:
    """The context of an unsigned request: its payload hash, if it sent one, is still checked."""
    return SigningContext(request.headers.get("x-amz-content-sha256") or UNSIGNED_PAYLOAD)


def parse_claim(
    request: Request, query: Mapping[str, str], now_ms: int, service: str = SERVICE, body_hash: str = ""
) -> Claim | None:
    """The claim of a signed request, None of an anonymous one.

    Checks form, date, age and that everything which must be signed is.  Raises S3Error.
    `service`: of the scope.  `body_hash`: the SHA-256 of the body in hex, which counts as its hash then.
    """
    authorization = request.headers.get("authorization")
    presigned = "X-Amz-Algorithm" in query
    if authorization is not None:
        if presigned:
            raise S3Error(
                "InvalidArgument",
                "Only one auth mechanism allowed; only the X-Amz-Algorithm query parameter, Signature query string "
                "parameter or the Authorization header should be specified",
                ArgumentName="Authorization",
            )
        claim = _parse_header(request, authorization, service, body_hash)
        _check_skew(claim.timestamp, now_ms)
    elif presigned:
        claim = _parse_presigned(request, query)
        _check_expiry(claim.timestamp, query, now_ms)
    else:
        return None
    _check_signed_headers(request.headers, claim)
    return claim


def _unsupported_mechanism() -> S3Error:
    return S3Error(
        "InvalidRequest",
        "The authorization mechanism you have provided is not supported. Please use AWS4-HMAC-SHA256.",
    )


def _parse_header(request: Request, authorization: str, service: str, body_hash: str) -> Claim:
    if not authorization.startswith(ALGORITHM):
        if authorization.startswith("AWS "):
            raise _unsupported_mechanism()
        raise S3Error(
            "InvalidArgument",
            "Unsupported Authorization Type",
            ArgumentName="Authorization",
            ArgumentValue=authorization.partition(" ")[0][:_SHOWN_CHARACTERS],
        )
    match = _AUTHORIZATION.fullmatch(authorization)
    if match is None:
        return _parse_header_in_any_order(request, authorization, service, body_hash)
    credential, signed_headers, signature = match.groups()
    return _header_claim(request, credential, signed_headers, signature, service, body_hash)


def _parse_header_in_any_order(request: Request, authorization: str, service: str, body_hash: str) -> Claim:
    """The three fields may come in any order and without blanks; only then is the header malformed."""
    fields: dict[str, str] = {}
    for part in authorization.removeprefix(ALGORITHM).split(","):
        name, _, value = part.strip().partition("=")
        fields[name] = value.strip()
    for name in ("Credential", "SignedHeaders", "Signature"):
        if not fields.get(name):
            raise S3Error(
                "AuthorizationHeaderMalformed",
                f"The authorization header is malformed; the {name} field is missing or empty.",
            )
    return _header_claim(
        request, fields["Credential"], fields["SignedHeaders"], fields["Signature"], service, body_hash
    )


def _header_claim(
    request: Request, credential: str, signed_headers: str, signature: str, wanted_service: str, body_hash: str
) -> Claim:
    code = "AuthorizationHeaderMalformed"
    access_key, date, region, service = _parse_credential(credential, code, wanted_service)
    if not _SIGNATURE.fullmatch(signature):
        raise S3Error(code, "The authorization header is malformed; Signature must be 64 lower-case hex digits.")
    payload_hash = body_hash or request.headers.get("x-amz-content-sha256")
    if not payload_hash:
        raise S3Error("InvalidRequest", "Missing required header for this request: x-amz-content-sha256")
    timestamp = _header_timestamp(request.headers)
    if timestamp[:8] != date:
        raise S3Error(
            code,
            f'The authorization header is malformed; Invalid credential date "{date}". This date is not the same as '
            f'X-Amz-Date: "{timestamp[:8]}".',
        )
    return Claim(
        access_key,
        date,
        region,
        service,
        tuple(signed_headers.split(";")),
        signature,
        timestamp,
        False,
        payload_hash,
        request.headers.get("x-amz-security-token", ""),
    )


def _header_timestamp(headers: Mapping[str, str]) -> str:
    timestamp = headers.get("x-amz-date")
    if timestamp is None:
        milliseconds = parse_http_date(headers.get("date", ""))
        if milliseconds is None:
            raise S3Error("AccessDenied", "AWS authentication requires a valid Date or x-amz-date header")
        return format_timestamp(milliseconds)
    if not _TIMESTAMP.fullmatch(timestamp):
        raise S3Error("AccessDenied", "AWS authentication requires a valid Date or x-amz-date header")
    return timestamp


def _parse_credential(credential: str, code: str, wanted_service: str = SERVICE) -> tuple[str, str, str, str]:
    """Access key (which may contain slashes), date, region (empty where a client has none), service."""
    parts = credential.rsplit("/", 4)
    if len(parts) != 5 or not parts[0]:
        raise S3Error(
            code,
            f'The Credential is malformed; expecting "<YOUR-AKID>/YYYYMMDD/REGION/SERVICE/aws4_request", '
            f'got "{credential}".',
        )
    access_key, date, region, service, terminator = parts
    if not (region.isascii() and region.isprintable() and len(region) <= MAX_REGION_LENGTH):
        # It is part of what the key is derived from, and kept with it.
        raise S3Error(code, f'Invalid region "{region[:_SHOWN_CHARACTERS]}".')
    if not (len(date) == 8 and date.isascii() and date.isdigit()):
        raise S3Error(code, f'Invalid credential date "{date}"; expecting YYYYMMDD.')
    if service != wanted_service:
        raise S3Error(code, f'Incorrect service "{service}". This endpoint belongs to "{wanted_service}".')
    if terminator != "aws4_request":
        raise S3Error(code, f'Incorrect terminal "{terminator}"; expecting "aws4_request".')
    return access_key, date, region, service


def _parse_presigned(request: Request, query: Mapping[str, str]) -> Claim:
    code = "AuthorizationQueryParametersError"
    if query["X-Amz-Algorithm"] != ALGORITHM:
        raise S3Error(code, f'X-Amz-Algorithm only supports "{ALGORITHM}"')
    for name in ("X-Amz-Credential", "X-Amz-Signature", "X-Amz-Date", "X-Amz-SignedHeaders", "X-Amz-Expires"):
        if not query.get(name):
            raise S3Error(
                code,
                "Query-string authentication version 4 requires the X-Amz-Algorithm, X-Amz-Credential, "
                f"X-Amz-Signature, X-Amz-Date, X-Amz-SignedHeaders, and X-Amz-Expires parameters; {name} is missing.",
            )
    access_key, date, region, service = _parse_credential(query["X-Amz-Credential"], code)
    timestamp, signature = query["X-Amz-Date"], query["X-Amz-Signature"]
    if not _TIMESTAMP.fullmatch(timestamp):
        raise S3Error(code, "X-Amz-Date must be in the ISO8601 Long Format \"yyyyMMdd'T'HHmmss'Z'\"")
    if timestamp[:8] != date:
        raise S3Error(code, f'Invalid credential date "{date}". This date is not the same as X-Amz-Date.')
    if not _SIGNATURE.fullmatch(signature):
        raise S3Error(code, "X-Amz-Signature must be 64 lower-case hex digits.")
    return Claim(
        access_key,
        date,
        region,
        service,
        tuple(query["X-Amz-SignedHeaders"].split(";")),
        signature,
        timestamp,
        True,
        query.get("X-Amz-Content-Sha256") or request.headers.get("x-amz-content-sha256") or UNSIGNED_PAYLOAD,
        query.get("X-Amz-Security-Token", ""),
    )


def _check_signed_headers(headers: Mapping[str, str], claim: Claim) -> None:
    signed = frozenset(claim.signed_headers)
    if len(signed) != len(claim.signed_headers):
        # What is signed would be a header of 16 kB thousands of times.
        code = "AuthorizationQueryParametersError" if claim.presigned else "AuthorizationHeaderMalformed"
        raise S3Error(code, "SignedHeaders names a header twice.")
    unsigned = [
        name for name in headers if name.startswith("x-amz-") and name not in signed and name not in _UNSIGNED_ALLOWED
    ]
    if "host" not in signed:
        unsigned.append("host")
    if unsigned:
        raise S3Error(
            "AccessDenied",
            "There were headers present in the request which were not signed",
            HeadersNotSigned=", ".join(unsigned),
        )


def _check_skew(timestamp: str, now_ms: int) -> None:
    signed_ms = parse_timestamp(timestamp)
    if abs(signed_ms - now_ms) > MAX_SKEW_MS:
        raise S3Error(
            "RequestTimeTooSkewed",
            RequestTime=timestamp,
            ServerTime=format_timestamp(now_ms),
            MaxAllowedSkewMilliseconds=MAX_SKEW_MS,
        )


def _check_expiry(timestamp: str, query: Mapping[str, str], now_ms: int) -> None:
    code = "AuthorizationQueryParametersError"
    text = query["X-Amz-Expires"]
    if not (text.isascii() and text.removeprefix("-").isdigit() and len(text) < 12):
        raise S3Error(code, "X-Amz-Expires should be a number")
    expires_seconds = int(text)
    if expires_seconds < 0:
        raise S3Error(code, "X-Amz-Expires must be non-negative")
    if expires_seconds > MAX_EXPIRES_SECONDS:
        raise S3Error(
            code,
            "X-Amz-Expires must be less than a week (in seconds); that is, the given X-Amz-Expires must be less than "
            f"{MAX_EXPIRES_SECONDS} seconds",
        )
    signed_ms = parse_timestamp(timestamp)
    if signed_ms - now_ms > MAX_SKEW_MS:
        raise S3Error("AccessDenied", "Request is not valid yet", ServerTime=format_timestamp(now_ms))
    if now_ms > signed_ms + expires_seconds * 1000:
        raise S3Error(
            "AccessDenied",
            "Request has expired",
            **{"X-Amz-Expires": text},
            Expires=format_timestamp(signed_ms + expires_seconds * 1000),
            ServerTime=format_timestamp(now_ms),
        )


def format_timestamp(milliseconds: int) -> str:
    """`20130524T000000Z` from milliseconds since the epoch."""
    return f"{datetime.fromtimestamp(milliseconds // 1000, UTC):%Y%m%dT%H%M%SZ}"


@lru_cache(maxsize=KEPT_TIMESTAMPS)
def parse_timestamp(text: str) -> int:
    """Milliseconds since the epoch from `20130524T000000Z`.  Raises AccessDenied where it is no time."""
    try:
        when = datetime(
            int(text[:4]), int(text[4:6]), int(text[6:8]), int(text[9:11]), int(text[11:13]), int(text[13:15]),
            tzinfo=UTC,
        )  # fmt: skip
    except ValueError as error:
        raise S3Error("AccessDenied", "AWS authentication requires a valid Date or x-amz-date header") from error
    return int(when.timestamp()) * 1000


def string_to_sign(timestamp: str, scope: str, canonical_request: bytes) -> bytes:
    """What is signed: the request's time, its scope and the hash of its canonical form."""
    return f"{ALGORITHM}\n{timestamp}\n{scope}\n{hashlib.sha256(canonical_request).hexdigest()}".encode()


class Verifier:
    """Checks claims; owns the bounded cache of signing keys.  Use one per event loop or thread."""

    def __init__(self, max_cached_keys: int = MAX_CACHED_KEYS) -> None:
        self._keys: dict[tuple[str, str, str, str], SigningKey] = {}
        self._max_cached_keys = max_cached_keys

    def verify(self, request: Request, claim: Claim, secret_key: str) -> SigningContext:
        """The context for the body.  Raises SignatureDoesNotMatch."""
        key = self._signing_key(secret_key, claim)
        without = "X-Amz-Signature" if claim.presigned else ""
        path = canonical.canonical_path(request.raw_path)
        query = canonical.canonical_query(request.raw_query, without)
        if not self._signed(request, claim, key, path, query):
            # Some signers take path and query as they are on the wire, where the rules would encode them
            # otherwise.  Both forms decode to the same request, so either proves the same intent.
            wire = (request.raw_path, canonical.sort_query(request.raw_query, without))
            if wire == (path, query) or not self._signed(request, claim, key, *wire):
                raise S3Error("SignatureDoesNotMatch", AWSAccessKeyId=claim.access_key)
        return SigningContext(claim.payload_hash, key, claim.signature, claim.timestamp, claim.scope, claim.presigned)

    def _signed(self, request: Request, claim: Claim, key: SigningKey, path: str, query: str) -> bool:
        try:
            headers = canonical.canonical_headers(request.headers, claim.signed_headers)
        except KeyError:
            return False
        form = canonical.canonical_request(
            request.method, path, query, headers, ";".join(claim.signed_headers), claim.payload_hash
        )
        return hmac.compare_digest(key.sign(string_to_sign(claim.timestamp, claim.scope, form)), claim.signature)

    def _signing_key(self, secret_key: str, claim: Claim) -> SigningKey:
        parts = (secret_key, claim.date, claim.region, claim.service)
        key = self._keys.get(parts)
        if key is None:
            key = SigningKey(*parts)
            while len(self._keys) >= self._max_cached_keys:
                self._keys.pop(next(iter(self._keys)))
            self._keys[parts] = key
        return key
