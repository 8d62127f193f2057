"""From a request to a verified one: the only door to the handlers.

`Authenticator.authenticate` proves who asks (or that nobody claims to) and finds the operation;
`authorize` then asks the policies.  Handlers take a `VerifiedRequest`, which only this module makes, so a
handler that forgets to check a signature cannot be written.

Order of authority: root may everything; otherwise a Deny in any of the user's policies or in the bucket's
wins, then an Allow in any of them; anonymous requests have the bucket's policy alone.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping, Sequence

import msgspec

from holdfast_server.auth.conditions import Values
from holdfast_server.auth.policy import ALLOW, DENY, S3_ARN_PREFIX, Policy, Question
from holdfast_server.auth.principal import ACCOUNT_ID, ANONYMOUS, Credentials, Principal
from holdfast_server.s3 import operations, sigv2
from holdfast_server.s3.errors import S3Error
from holdfast_server.s3.operations import Operation
from holdfast_server.s3.request import Request, Target, parse_query, parse_target, virtual_host_bucket
from holdfast_server.s3.sigv4 import Claim, SigningContext, Verifier, anonymous_context, format_timestamp, parse_claim

Lookup = Callable[[str], Credentials | None]
"""access key → what is known of it; answers from memory."""

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


class Identity(msgspec.Struct, frozen=True):
    """Who asks, and what the signature says about the body."""

    principal: Principal
    context: SigningContext


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

    @property
    def bucket(self) -> str:
        return self.target.bucket

    @property
    def key(self) -> str:
        return self.target.key


class Authenticator:
    """Turns requests into verified ones.  Owns the cache of signing keys; one per event loop."""

    def __init__(self, lookup: Lookup, domains: Sequence[str] = (), verifier: Verifier | None = None) -> None:
        self._lookup = lookup
        self._domains = tuple(domains)
        self._verifier = verifier or Verifier()

    def identify(self, request: Request, query: Mapping[str, str], now_ms: int) -> Identity:
        """Check the signature alone (for the admin API, which has no S3 operations).  Raises S3Error."""
        claim = sigv2.parse_presigned(request, query, now_ms) or parse_claim(request, query, now_ms)
        if claim is None:
            return Identity(ANONYMOUS, anonymous_context(request))
        known = self._lookup(claim.access_key)
        if known is None:
            raise S3Error("InvalidAccessKeyId", AWSAccessKeyId=claim.access_key)
        context = self._verify(request, query, claim, known)
        if not hmac.compare_digest(claim.session_token.encode(), known.session_token.encode()):
            raise S3Error("InvalidToken")
        return Identity(known.principal, context)

    def _verify(
        self, request: Request, query: Mapping[str, str], claim: sigv2.PresignedClaim | Claim, known: Credentials
    ) -> SigningContext:
        """With the secret key, or with one of those before it.  Raises what the first of them raises."""
        try:
            return self._verify_with(request, query, claim, known.secret_key)
        except S3Error as error:
            if error.code != "SignatureDoesNotMatch":
                raise
            for former in known.former_secret_keys:
                try:
                    return self._verify_with(request, query, claim, former)
                except S3Error:
                    continue
            raise

    def _verify_with(
        self, request: Request, query: Mapping[str, str], claim: sigv2.PresignedClaim | Claim, secret_key: str
    ) -> SigningContext:
        if isinstance(claim, sigv2.PresignedClaim):
            return sigv2.verify(request, query, claim, secret_key, virtual_host_bucket(request, self._domains))
        return self._verifier.verify(request, claim, secret_key)

    def authenticate(self, request: Request, now_ms: int) -> VerifiedRequest:
        """`now_ms` is the pod's clock, milliseconds since the epoch.

        Raises S3Error: a bad address, an unknown operation, or any fault of the signature.
        """
        query = parse_query(request.raw_query)
        target = parse_target(request, self._domains)
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
        )


def _with_hoisted(headers: Mapping[str, str], query: Mapping[str, str]) -> dict[str, str]:
    """Headers with those that presigning moved into the (signed) query; a real header wins."""
    hoisted = {
        lowered: value
        for name, value in query.items()
        if (lowered := name.lower()).startswith("x-amz-")
        and lowered not in _SIGNATURE_PARAMETERS
        and not lowered.startswith(_NOT_HOISTED)
    }
    return {**hoisted, **headers}


def resource_arn(bucket: str, key: str = "") -> str:
    """The resource policies speak about; the bare prefix for the service."""
    return f"{S3_ARN_PREFIX}{bucket}/{key}" if key else S3_ARN_PREFIX + bucket


def is_allowed(
    verified: VerifiedRequest, action: str, bucket: str, key: str = "", bucket_policy: Policy | None = None
) -> bool:
    """Whether the sender may do `action` (`s3:ListBucket`) there; for filters and second checks."""
    principal = verified.principal
    if principal.is_root:
        return True
    cached: list[Values] = []

    def values() -> Values:
        if not cached:
            cached.append(condition_values(verified))
        return cached[0]

    names: tuple[str, ...] = ()
    if not principal.is_anonymous:
        names = (principal.arn, principal.user_name, ACCOUNT_ID, f"arn:aws:iam::{ACCOUNT_ID}:root")
    question = Question(action=action, resource=resource_arn(bucket, key), principal_names=names, values=values)
    decisions = [policy.decide(question) for policy in principal.policies]
    if bucket_policy is not None:
        decisions.append(bucket_policy.decide(question))
    return DENY not in decisions and ALLOW in decisions


def authorize(
    verified: VerifiedRequest,
    bucket: str,
    key: str = "",
    bucket_policy: Policy | None = None,
    action: str | None = None,
) -> None:
    """Raises AccessDenied unless the sender may do the operation's action (or `action`) there."""
    wanted = verified.operation.action_for(verified.query) if action is None else action
    if not is_allowed(verified, wanted, bucket, key, bucket_policy):
        raise S3Error("AccessDenied")


def condition_values(verified: VerifiedRequest) -> Values:
    """The request's values that policies may ask for, under lower-case names."""
    request, principal = verified.request, verified.principal
    values: dict[str, str] = {
        "aws:sourceip": request.remote,
        "aws:securetransport": "true" if request.secure else "false",
        "aws:currenttime": _iso(request.received_ms),
        "aws:epochtime": str(request.received_ms // 1000),
        "aws:principaltype": "Anonymous" if principal.is_anonymous else "User",
    }
    if not principal.is_anonymous:
        values["aws:username"] = values["aws:userid"] = principal.user_name
        values["aws:principalarn"] = principal.arn
        values["s3:authtype"] = "REST-QUERY-STRING" if verified.context.presigned else "REST-HEADER"
        values["s3:signatureversion"] = verified.context.version
    for header, name in (("referer", "aws:referer"), ("user-agent", "aws:useragent")):
        if header in request.headers:
            values[name] = request.headers[header]
    for parameter in ("prefix", "delimiter", "max-keys"):
        if parameter in verified.query:
            values[f"s3:{parameter}"] = verified.query[parameter]
    if "versionId" in verified.query:
        values["s3:versionid"] = verified.query["versionId"]
    for name, value in verified.headers.items():
        if name.startswith("x-amz-"):
            values[f"s3:{name}"] = value
    values["s3:x-amz-content-sha256"] = verified.context.payload_hash
    return {name: (value,) for name, value in values.items()}


def _iso(milliseconds: int) -> str:
    text = format_timestamp(milliseconds)
    return f"{text[:4]}-{text[4:6]}-{text[6:11]}:{text[11:13]}:{text[13:]}"
