"""From a request to a verified one: the only door to the handlers.

`Authenticator.authenticate` proves who asks (or that nobody claims to) and finds the operation;
`access` then decides what it may do.  Handlers take a `VerifiedRequest`, which only this module makes, so a
handler that forgets to check a signature cannot be written.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping, Sequence

import msgspec

from holdfast_server.auth.failure_limits import FailureLimits
from holdfast_server.auth.principal import ANONYMOUS, Credentials, Principal
from holdfast_server.s3 import operations, sigv2
from holdfast_server.s3.control import is_control, match_control
from holdfast_server.s3.errors import S3Error
from holdfast_server.s3.operations import Operation
from holdfast_server.s3.request import Request, Target, parse_query, parse_target, virtual_host_bucket
from holdfast_server.s3.sigv4 import Claim, SigningContext, Verifier, anonymous_context, parse_claim

Lookup = Callable[[str, str], Credentials | None]
"""(access key, session token or empty) → what is known of it; answers from memory.  Raises S3Error about the token."""

_SIGNATURE_PARAMETERS = frozenset(
    {
        "x-amz-algorithm",
        "x-amz-credential",
        "x-amz-date",
        "x-amz-expires",
        "x-amz-signature",
        "x-amz-signedheaders",
        "x-amz-security-token",
        "x-amz-content-sha256",
    }
)
_NOT_HOISTED = ("x-amz-checksum-", "x-amz-sdk-checksum-", "x-amz-trailer", "x-amz-decoded-")
"""About the body, which is not known when a URL is presigned: boto3 puts the checksum of an empty one there."""
_ABOUT_UPLOADS = frozenset({"x-amz-checksum-algorithm", "x-amz-checksum-type"})
"""These are not: they say what an upload that is begun will have."""


LINK, FORM = "REST-QUERY-STRING", "POST"
"""How a request may be signed beside its head, in the words of `s3:authType`."""


class TooManyFailures(S3Error):
    """Of the same source, before this request."""

    def __init__(self) -> None:
        super().__init__("SlowDown", "Too many requests from this address failed to authenticate; try again later.")


FAILURES = frozenset({"InvalidAccessKeyId", "InvalidToken", "SignatureDoesNotMatch"})
"""Codes of errors that count as failed authentications; each names its `AWSAccessKeyId`."""


class Identity(msgspec.Struct, frozen=True):
    """Who asks, and what the signature says about the body."""

    principal: Principal
    context: SigningContext
    proved_with: int = 0
    """0: the secret key; n: the n-th of those before it."""
    session_token: str = ""


class VerifiedRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request whose sender is known (or known to be anonymous) and whose operation is found."""

    request: Request
    principal: Principal
    context: SigningContext
    operation: Operation
    target: Target
    query: Mapping[str, str]
    """Decoded parameters."""
    headers: Mapping[str, str]
    """The request's headers; of a presigned URL with the `x-amz-*` parameters that stand for headers."""
    request_tags: Mapping[str, str] | None = None
    """The tags that its document asks for, once that was read; else those of its header count."""
    auth_type: str = ""
    """How it was signed, in the words of `s3:authType`."""

    @property
    def bucket(self) -> str:
        return self.target.bucket

    @property
    def key(self) -> str:
        return self.target.key


class Authenticator:
    """Turns requests into verified ones.  Owns the cache of signing keys; one per event loop."""

    def __init__(
        self,
        lookup: Lookup,
        domains: Callable[[], Sequence[str]] = tuple,
        verifier: Verifier | None = None,
        limits: FailureLimits | None = None,
        monotonic: Callable[[], float] = lambda: 0.0,
    ) -> None:
        """`domains` is asked for each request.  `limits`: what sources may fail, by a clock in seconds; who counts
        failures is the caller, who may look an unknown key up first."""
        self._limits = limits or FailureLimits()
        self._monotonic = monotonic
        self._lookup = lookup
        self._domains = domains
        self._verifier = verifier or Verifier()

    def identify(self, request: Request, query: Mapping[str, str], now_ms: int) -> Identity:
        """Check the signature alone (for the admin API, which has no S3 operations).  Raises S3Error."""
        claim = sigv2.parse_presigned(request, query, now_ms) or parse_claim(request, query, now_ms)
        if claim is None:
            return Identity(ANONYMOUS, anonymous_context(request))
        return self._identity(request, query, now_ms, claim)

    def identify_call(self, request: Request, service: str, body_hash: str, now_ms: int) -> Identity:
        """Check the signature of a call of another service of AWS's: its signers do not send the hash of the body,
        which is in what they sign all the same.  Raises S3Error; AccessDenied where the head holds no signature."""
        claim = parse_claim(request, {}, now_ms, service=service, body_hash=body_hash)
        if claim is None:
            raise S3Error("AccessDenied", "The request must be signed.")
        return self._identity(request, {}, now_ms, claim)

    def _identity(
        self, request: Request, query: Mapping[str, str], now_ms: int, claim: sigv2.PresignedClaim | Claim
    ) -> Identity:
        if not self._limits.admits(request.remote, claim.access_key, self._monotonic()):
            raise TooManyFailures
        known = self._lookup(claim.access_key, claim.session_token)
        if known is None:
            raise S3Error("InvalidAccessKeyId", AWSAccessKeyId=claim.access_key)
        context, proved_with = self._verify(request, query, claim, known)
        if not _equal(claim.session_token, known.session_token):
            raise S3Error("InvalidToken", AWSAccessKeyId=claim.access_key)
        self._limits.succeeded(request.remote, claim.access_key)
        if 0 < known.expires_ms <= now_ms:
            raise S3Error("ExpiredToken")
        return Identity(known.principal, context, proved_with, claim.session_token)

    def _verify(
        self, request: Request, query: Mapping[str, str], claim: sigv2.PresignedClaim | Claim, known: Credentials
    ) -> tuple[SigningContext, int]:
        """With the secret key, or with one of those before it.  Raises what the first of them raises."""
        try:
            return self._verify_with(request, query, claim, known.secret_key), 0
        except S3Error as error:
            if error.code != "SignatureDoesNotMatch":
                raise
            for index, former in enumerate(known.former_secret_keys, 1):
                try:
                    return self._verify_with(request, query, claim, former), index
                except S3Error:
                    continue
            raise

    def _verify_with(
        self, request: Request, query: Mapping[str, str], claim: sigv2.PresignedClaim | Claim, secret_key: str
    ) -> SigningContext:
        if isinstance(claim, sigv2.PresignedClaim):
            return sigv2.verify(request, query, claim, secret_key, virtual_host_bucket(request, self._domains()))
        return self._verifier.verify(request, claim, secret_key)

    def authenticate(self, request: Request, now_ms: int) -> VerifiedRequest:
        """`now_ms` is the pod's clock, milliseconds since the epoch.

        Raises S3Error: a bad address, an unknown operation, or any fault of the signature.
        """
        query = parse_query(request.raw_query)
        if is_control(request):
            identity = self.identify(request, query, now_ms)
            operation, target = match_control(request)
            return VerifiedRequest(
                request=request,
                principal=identity.principal,
                context=identity.context,
                operation=operation,
                target=target,
                query=query,
                headers=request.headers,
                auth_type=LINK if identity.context.presigned else "REST-HEADER",
            )
        target = parse_target(request, self._domains())
        identity = self.identify(request, query, now_ms)
        headers = _with_hoisted(request.headers, query) if identity.context.presigned else request.headers
        return VerifiedRequest(
            request=request,
            principal=identity.principal,
            context=identity.context,
            operation=operations.match(request.method, target.level, query, headers),
            target=target,
            query=query,
            headers=headers,
            auth_type=LINK if identity.context.presigned else "REST-HEADER",
        )


def _equal(sent: str, known: str) -> bool:
    """In constant time.  What was sent may be no text at all: bytes that are not UTF-8 come as lone surrogates."""
    return hmac.compare_digest(sent.encode("utf-8", "surrogateescape"), known.encode())


def _with_hoisted(headers: Mapping[str, str], query: Mapping[str, str]) -> dict[str, str]:
    """Headers with those that presigning moved into the (signed) query; a real header wins."""
    hoisted = {
        lowered: value
        for name, value in query.items()
        if (lowered := name.lower()).startswith("x-amz-")
        and lowered not in _SIGNATURE_PARAMETERS
        and (lowered in _ABOUT_UPLOADS or not lowered.startswith(_NOT_HOISTED))
    }
    return {**hoisted, **headers}
