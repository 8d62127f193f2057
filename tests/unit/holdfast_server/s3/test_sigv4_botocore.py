"""botocore as an independent signer: what it signs, we accept; and odd keys come out as they went in."""

from datetime import UTC, datetime
from urllib.parse import quote, urlsplit

import botocore.auth
import pytest
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast_server.s3.errors import S3Error
from holdfast_server.s3.request import Request, fold_headers, parse_query, parse_target
from holdfast_server.s3.signing import KeyPair, encode_path, presign_query, sign_headers
from holdfast_server.s3.sigv4 import MAX_SKEW_MS, Verifier, parse_claim

ACCESS_KEY, SECRET_KEY = "AKIDEXAMPLE/with/slashes", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
ODD_KEYS = [
    "plain.txt",
    "fake/5f3a/18c2:18c3:9d1f",
    "with space",
    " leading and trailing ",
    "index=table_19000/plus+plus",
    "percent%20literal",
    "100%",
    "ünïcode/日本語/🙂",
    "a//b",
    "/leading/slash",
    "trailing/slash/",
    "../up/./and/../down",
    "quote'\"&<>;?#@!$(),*~-_.",
    "tab\tnew\nline",
    "k" * 1024,
]
QUERIES = [
    "",
    "uploads",
    "location=",
    "delimiter=&list-type=2&prefix=",
    "delimiter=%2F&encoding-type=url&fetch-owner=true&list-type=2&prefix=a%20b%2F%3D%2B",
    "versionId=null&a-b=2&a=1&a%2Ba=3",
]


def _request(method: str, path: str, query: str, headers, now_ms: int) -> Request:
    return Request(
        method=method,
        raw_path=path,
        raw_query=query,
        headers=fold_headers(headers),
        remote="192.0.2.1",
        received_ms=now_ms,
        secure=True,
    )


def _now_ms() -> int:
    return int(datetime.now(UTC).timestamp() * 1000)


def _verify(request: Request, secret: str = SECRET_KEY, now_ms: int | None = None):
    now_ms = request.received_ms if now_ms is None else now_ms
    claim = parse_claim(request, parse_query(request.raw_query), now_ms)
    assert claim is not None
    assert claim.access_key == ACCESS_KEY
    return Verifier().verify(request, claim, secret)


def _signed_by_botocore(signer, method, path, query, headers):
    url = f"http://127.0.0.1:9000{path}" + (f"?{query}" if query else "")
    aws_request = AWSRequest(method=method, url=url, headers={"Host": "127.0.0.1:9000", **headers}, data=b"")
    signer.add_auth(aws_request)
    split = urlsplit(aws_request.url)
    # urlsplit drops nothing of what is encoded; keys hold no raw `?` or `#`.
    return _request(method, split.path, split.query, list(aws_request.headers.items()), _now_ms())


@pytest.mark.parametrize("query", QUERIES)
@pytest.mark.parametrize("key", ODD_KEYS)
def test_header_signatures_of_botocore_are_accepted(key, query):
    signer = botocore.auth.S3SigV4Auth(Credentials(ACCESS_KEY, SECRET_KEY), "s3", "dummy")
    headers = {"x-amz-meta-note": "  two   blanks ", "Content-Type": "text/plain", "Content-MD5": "x"}
    request = _signed_by_botocore(signer, "PUT", encode_path("bucket", key), query, headers)
    _verify(request)
    assert parse_target(request).key == key
    with pytest.raises(S3Error, match="SignatureDoesNotMatch"):
        _verify(request, "another secret")


@pytest.mark.parametrize("query", QUERIES)
@pytest.mark.parametrize("key", ODD_KEYS)
def test_presigned_urls_of_botocore_are_accepted(key, query):
    signer = botocore.auth.S3SigV4QueryAuth(Credentials(ACCESS_KEY, SECRET_KEY), "s3", "eu-west-1", expires=60)
    request = _signed_by_botocore(signer, "GET", encode_path("bucket", key), query, {})
    assert _verify(request).presigned
    with pytest.raises(S3Error, match="expired"):
        _verify(request, now_ms=request.received_ms + 62_000)
    with pytest.raises(S3Error, match="not valid yet"):
        _verify(request, now_ms=request.received_ms - MAX_SKEW_MS - 5000)


@pytest.mark.parametrize("query", ["", "delimiter=&encoding-type=url&fetch-owner=true&list-type=2&prefix="])
def test_a_bucket_with_a_trailing_slash_verifies(query):
    signer = botocore.auth.S3SigV4Auth(Credentials(ACCESS_KEY, SECRET_KEY), "s3", "us-east-1")
    request = _signed_by_botocore(signer, "GET", "/bucket/", query, {})
    _verify(request)
    assert parse_target(request).level == "bucket"


def test_session_tokens_are_part_of_the_claim():
    signer = botocore.auth.S3SigV4Auth(Credentials(ACCESS_KEY, SECRET_KEY, "the token"), "s3", "us-east-1")
    request = _signed_by_botocore(signer, "GET", "/bucket", "", {})
    claim = parse_claim(request, {}, request.received_ms)
    assert claim is not None
    assert claim.session_token == "the token"


def test_a_query_left_unencoded_by_the_signer_is_accepted_as_it_was_sent():
    signer = botocore.auth.S3SigV4Auth(Credentials(ACCESS_KEY, SECRET_KEY), "s3", "us-east-1")
    request = _signed_by_botocore(signer, "GET", "/bucket", "prefix=a:b=c/d+e", {})
    _verify(request)
    assert parse_query(request.raw_query) == {"prefix": "a:b=c/d e"}


@settings(max_examples=60, deadline=None)
@given(
    key=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=60),
    prefix=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20),
)
def test_what_we_sign_we_verify(key, prefix):
    pair = KeyPair(ACCESS_KEY, SECRET_KEY, region="eu-central-1")
    now_ms = _now_ms()
    path = encode_path("bucket", key)
    query = "prefix=" + quote(prefix, safe="")
    headers = sign_headers(pair, "GET", path, query, {"host": "127.0.0.1:9000"}, now_ms)
    _verify(_request("GET", path, query, headers.items(), now_ms))
    presigned = presign_query(pair, "GET", path, query, {"host": "127.0.0.1:9000"}, now_ms, 60)
    request = _request("GET", path, presigned, [("host", "127.0.0.1:9000")], now_ms)
    _verify(request)
    assert parse_target(request).key == key
    assert parse_query(request.raw_query)["prefix"] == prefix
