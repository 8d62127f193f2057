"""Targets: the address of a request and its signature.

The promise behind signatures is checked as it stands: of a signed request that was changed on its way, whatever passes
the door asks for the same thing of the same place as what was signed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple
from urllib.parse import quote, unquote_to_bytes

from hypothesis import assume
from hypothesis import strategies as st

from holdfast_server.auth.principal import Credentials, Principal
from holdfast_server.auth.request_values import condition_values
from holdfast_server.auth.verified import Authenticator, VerifiedRequest
from holdfast_server.s3 import sigv2
from holdfast_server.s3.errors import S3Error
from holdfast_server.s3.payload import payload_of
from holdfast_server.s3.request import Request, fold_headers, parse_query, parse_target
from holdfast_server.s3.signing import KeyPair, encode_path, presign_query, sign_headers
from holdfast_server.testing.fuzzing.damage import damaged_text
from holdfast_server.testing.fuzzing.target import Target, pure

_NOW_MS = 1_767_323_045_000
_PAIR = KeyPair("key/with+slash", "secret")
_ROOT = Principal(access_key=_PAIR.access_key, user_name="root", is_root=True)
_SIGNATURE = frozenset(
    {
        *("X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Date", "X-Amz-Expires", "X-Amz-Signature"),
        *("X-Amz-SignedHeaders", "Signature", "Expires", "AWSAccessKeyId"),
    }
)
_PATH_TOKENS = [
    "/", "//", "%2F", "%2f", "%", "%zz", "%00", "\x00", "..", "+", "%20", "%C3%BC", "%ff", "\udcff", "é", "?",
]  # fmt: skip
_QUERY_TOKENS = [
    "&", "=", "uploads", "versionId=a", "partNumber=1", "X-Amz-Signature=", "X-Amz-Expires=9", "%", "+", "&&", "%3D",
    "%26", "x-amz-acl=private", "Signature=a", "AWSAccessKeyId=key", "\udcff", "X-Amz-Date=", "acl", "Expires=1",
    "X-Amz-Algorithm=AWS4-HMAC-SHA256",
]  # fmt: skip
_HEADER_TOKENS = [
    "\udcff", ",", "=", "Credential=", "Signature=", "SignedHeaders=", "/", ";", " ", "\t", "é", "AWS4-HMAC-SHA256",
]  # fmt: skip
_TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=5)
_NAMES = [
    "uploads", "versionId", "partNumber", "prefix", "x-amz-acl", "a b", "ü", "acl", "tagging", "uploadId",
]  # fmt: skip


def _request(method: str, path: str, query: str, headers: Mapping[str, str]) -> Request:
    return Request(
        method=method, raw_path=path, raw_query=query, headers=headers, remote="10.0.0.1", received_ms=_NOW_MS,
        secure=False,
    )  # fmt: skip


# --- addresses


class Address(NamedTuple):
    path: str
    query: str
    host: str


_HOSTS = [
    "localhost:9000", "bucket.s3.example.com", "s3.example.com:9000", "[::1]:9000", ".s3.example.com", "", "a:b:c",
]  # fmt: skip
_ADDRESSES = st.builds(
    Address,
    damaged_text(
        st.just("/bucket/a/key") | st.text(max_size=12).map(lambda key: encode_path("bucket", key)), _PATH_TOKENS
    ),
    damaged_text(st.sampled_from(["", "uploads", "list-type=2&prefix=a%20b", "a=b&a=c"]), _QUERY_TOKENS),
    damaged_text(st.sampled_from(_HOSTS), ["."]),
)


def _decoded(text: str) -> str | None:
    """As any library would; None where S3 refuses."""
    data = text.encode("utf-8", "surrogateescape")
    pieces = data.split(b"%")[1:]
    if not all(len(piece) >= 2 and piece[:2].isalnum() and _is_hex(piece[:2]) for piece in pieces):
        return None
    try:
        found = unquote_to_bytes(data).decode()
    except UnicodeDecodeError:
        return None
    return None if "\x00" in found else found


def _is_hex(text: bytes) -> bool:
    return all(sign in b"0123456789abcdefABCDEF" for sign in text)


def check_address(address: Address) -> None:
    request = _request("GET", address.path, address.query, {"host": address.host})
    try:
        query = parse_query(address.query)
    except S3Error:
        query = {}
    for name, value in query.items():
        assert parse_query(f"{quote(name, safe='')}={quote(value, safe='')}") == {name: value}
    for domains in ((), ("s3.example.com",)):
        try:
            target = parse_target(request, domains)
        except S3Error:
            continue
        if not domains:
            bucket, _, key = address.path.removeprefix("/").partition("/")
            assert (target.bucket, target.key) == (_decoded(bucket), _decoded(key))
        if "/" not in target.bucket and target.bucket:
            again = _request("GET", encode_path(target.bucket, target.key), "", {"host": "localhost"})
            assert parse_target(again) == target


# --- signatures


class Signed(NamedTuple):
    """A request as it was meant, and as it came."""

    meant: Request
    came: Request


_SENT_HEADERS = ["x-amz-meta-a", "x-amz-acl", "content-type", "range", "x-amz-security-token"]
_METHODS = ["GET", "PUT", "POST", "DELETE", "HEAD"]


@st.composite
def _signed(draw: Callable[..., Any]) -> Signed:
    method = draw(st.sampled_from(_METHODS))
    path = encode_path("bucket", draw(st.sampled_from(["", "key", "a//b/../c", "ü é", "a+b%"]) | _TEXT))
    names = draw(st.lists(st.sampled_from(_NAMES), unique=True, max_size=3))
    query = "&".join(f"{quote(name)}={quote(draw(_TEXT))}" for name in names)
    headers = {"host": "store:9000"}
    for name in draw(st.lists(st.sampled_from(_SENT_HEADERS), unique=True)):
        headers[name] = draw(st.sampled_from(["a", "public-read", "a b", "bytes=0-1", "", "\udcff"]))
    how = draw(st.sampled_from(["header", "header", "presigned", "presigned 2"]))
    if how == "header":
        headers = sign_headers(_PAIR, method, path, query, headers, _NOW_MS)
    elif how == "presigned":
        query = presign_query(_PAIR, method, path, query, headers, _NOW_MS, 600)
    else:
        query = _presigned_2(method, path, query, headers)
    meant = _request(method, path, query, headers)
    return Signed(meant, _changed(draw, meant))


def _presigned_2(method: str, path: str, query: str, headers: Mapping[str, str]) -> str:
    expires = str(_NOW_MS // 1000 + 600)
    text = sigv2.string_to_sign(method, headers, parse_query(query), expires, path)
    signature = quote(sigv2.sign(text, _PAIR.secret_key), safe="")
    added = f"AWSAccessKeyId={quote(_PAIR.access_key, safe='')}&Expires={expires}&Signature={signature}"
    return f"{query}&{added}" if query else added


def _changed(draw: Callable[..., Any], meant: Request) -> Request:
    """Somebody on the way has touched one or two things, or none."""
    method, path, query, headers = meant.method, meant.raw_path, meant.raw_query, dict(meant.headers)
    for what in draw(st.lists(st.sampled_from(["method", "path", "query", "header", "new header"]), max_size=2)):
        if what == "method":
            method = draw(st.sampled_from(_METHODS))
        elif what == "path":
            path = draw(damaged_text(st.just(path), _PATH_TOKENS))
        elif what == "query":
            query = draw(damaged_text(st.just(query), _QUERY_TOKENS))
        else:
            ours = [*sorted(headers), *["authorization"] * 4 * ("authorization" in headers)]
            name = draw(st.sampled_from(ours if what == "header" else ["x-amz-copy-source", "if-match"]))
            value = draw(damaged_text(st.just(headers.get(name, "a")), _HEADER_TOKENS))
            assume(not any(sign in value for sign in "\r\n\x00"))
            headers[name] = value
    return _request(method, path, query, fold_headers(headers.items()))


def _authenticator() -> Authenticator:
    known = {_PAIR.access_key: Credentials(secret_key=_PAIR.secret_key, principal=_ROOT)}
    return Authenticator(lambda key, _: known.get(key))


def check_signed(signed: Signed) -> None:
    meant = _authenticator().authenticate(signed.meant, _NOW_MS) if _is_operation(signed.meant) else None
    try:
        came = _authenticator().authenticate(signed.came, _NOW_MS + 1)
    except S3Error:
        return
    _use(came)
    if came.principal.is_anonymous:
        return
    assert meant is not None, "what nobody signed was let in"
    assert _meaning(came) == _meaning(meant), (_meaning(came), _meaning(meant))


def _is_operation(request: Request) -> bool:
    try:
        _authenticator().authenticate(request, _NOW_MS)
    except S3Error as error:
        if error.code in ("SignatureDoesNotMatch", "AccessDenied"):
            raise AssertionError(f"what was signed well is refused: {error}") from error
        return False
    return True


def _meaning(verified: VerifiedRequest) -> tuple[object, ...]:
    """What a signature covers: of version 2 a little less than of version 4."""
    version_2 = verified.context.version == sigv2.SIGNATURE_VERSION
    query = {name: value for name, value in verified.query.items() if name not in _SIGNATURE}
    if version_2:
        query = {name: value for name, value in query.items() if name in sigv2.RESOURCE_PARAMETERS}
    covered = ("x-amz-", "content-type", "content-md5") if version_2 else ("x-amz-",)
    headers = {name: _folded(value) for name, value in verified.headers.items() if name.startswith(covered)}
    if version_2:
        headers = {name: value for name, value in headers.items() if value or name.startswith("x-amz-")}
    return verified.request.method, verified.target, verified.operation.name, query, headers


def _folded(value: str) -> str:
    """Signatures do not tell one blank from several."""
    return " ".join(value.replace("\t", " ").split(" ")) if value.strip() == "" else " ".join(_words(value))


def _words(value: str) -> Iterable[str]:
    return (word for word in value.replace("\t", " ").split(" ") if word)


def _use(verified: VerifiedRequest) -> None:
    """What every handler does first."""
    condition_values(verified, "000000000000")
    try:
        payload_of(verified.headers, verified.context)
    except S3Error:
        pass


TARGETS = [
    Target("addresses", _ADDRESSES, pure(check_address)),
    Target("signatures", _signed(), pure(check_signed)),
]
