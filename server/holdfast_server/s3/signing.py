"""Making signatures: for the admin command line, for presigned links and for tests.

The same canonical form as in verification, so that there is one description of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote

import msgspec

from holdfast_server.s3 import canonical
from holdfast_server.s3.sigv4 import ALGORITHM, SigningKey, format_timestamp, string_to_sign

_UNSIGNED = frozenset({"authorization", "connection", "expect", "transfer-encoding", "user-agent"})
"""Headers that proxies and HTTP libraries change on the way."""


class KeyPair(msgspec.Struct, frozen=True):
    """An access key with its secret, and the scope's region and service."""

    access_key: str
    secret_key: str
    region: str = "us-east-1"
    service: str = "s3"
    session_token: str = ""

    def scope(self, timestamp: str) -> str:
        return f"{timestamp[:8]}/{self.region}/{self.service}/aws4_request"

    def signing_key(self, timestamp: str) -> SigningKey:
        """The derived key of that day; it signs chunks too."""
        return SigningKey(self.secret_key, timestamp[:8], self.region, self.service)


def encode_path(bucket: str, key: str = "") -> str:
    """The path-style path of a bucket or object, percent-encoded as it is sent and signed."""
    path = f"/{bucket}/{key}" if key else f"/{bucket}"
    return quote(path, safe="/-_.~", errors="surrogatepass")


def sign_headers(
    pair: KeyPair,
    method: str,
    raw_path: str,
    raw_query: str,
    headers: Mapping[str, str],
    now_ms: int,
    payload_hash: str = canonical.UNSIGNED_PAYLOAD,
) -> dict[str, str]:
    """`headers` (lower-case names, `host` among them) with those that sign the request added."""
    timestamp = format_timestamp(now_ms)
    signed = {**headers, "x-amz-date": timestamp, "x-amz-content-sha256": payload_hash}
    if pair.session_token:
        signed["x-amz-security-token"] = pair.session_token
    names = sorted(name for name in signed if name not in _UNSIGNED)
    form = canonical.canonical_request(
        method,
        canonical.canonical_path(raw_path),
        canonical.canonical_query(raw_query),
        canonical.canonical_headers(signed, names),
        ";".join(names),
        payload_hash,
    )
    scope = pair.scope(timestamp)
    signature = pair.signing_key(timestamp).sign(string_to_sign(timestamp, scope, form))
    signed["authorization"] = (
        f"{ALGORITHM} Credential={pair.access_key}/{scope}, SignedHeaders={';'.join(names)}, Signature={signature}"
    )
    return signed


def presign_query(
    pair: KeyPair,
    method: str,
    raw_path: str,
    raw_query: str,
    headers: Mapping[str, str],
    now_ms: int,
    expires_seconds: int,
) -> str:
    """The whole query of a presigned URL; `headers` (with `host`) must then be sent as given."""
    timestamp = format_timestamp(now_ms)
    scope = pair.scope(timestamp)
    names = sorted(headers)
    parameters = {
        "X-Amz-Algorithm": ALGORITHM,
        "X-Amz-Credential": f"{pair.access_key}/{scope}",
        "X-Amz-Date": timestamp,
        "X-Amz-Expires": str(expires_seconds),
        "X-Amz-SignedHeaders": ";".join(names),
    }
    if pair.session_token:
        parameters["X-Amz-Security-Token"] = pair.session_token
    added = "&".join([f"{name}={canonical.encode_component(value)}" for name, value in parameters.items()])
    query = canonical.canonical_query(f"{raw_query}&{added}" if raw_query else added)
    form = canonical.canonical_request(
        method,
        canonical.canonical_path(raw_path),
        query,
        canonical.canonical_headers(headers, names),
        ";".join(names),
        canonical.UNSIGNED_PAYLOAD,
    )
    signature = pair.signing_key(timestamp).sign(string_to_sign(timestamp, scope, form))
    return f"{query}&X-Amz-Signature={signature}"
