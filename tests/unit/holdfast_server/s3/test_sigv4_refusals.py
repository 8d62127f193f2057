"""What is wrong with a signature, and the error that says so."""

import pytest

from holdfast_server.s3.errors import S3Error
from holdfast_server.s3.request import Request, fold_headers, parse_query
from holdfast_server.s3.signing import KeyPair, presign_query, sign_headers
from holdfast_server.s3.sigv4 import MAX_SKEW_MS, SigningKey, Verifier, parse_claim

NOW_MS = 1_763_676_000_000
PAIR = KeyPair("AKID", "secret")
HOST = {"host": "s3.example.com:9000"}


def _request(headers=(), query: str = "", method: str = "GET", path: str = "/bucket/key") -> Request:
    return Request(
        method=method,
        raw_path=path,
        raw_query=query,
        headers=fold_headers(headers),
        remote="192.0.2.1",
        received_ms=NOW_MS,
        secure=False,
    )


def _signed(**extra: str) -> dict[str, str]:
    return sign_headers(PAIR, "GET", "/bucket/key", "", {**HOST, **extra}, NOW_MS)


def _code(request: Request, now_ms: int = NOW_MS) -> str:
    try:
        claim = parse_claim(request, parse_query(request.raw_query), now_ms)
        assert claim is not None
        Verifier().verify(request, claim, "secret")
    except S3Error as error:
        return error.code
    return "accepted"


def test_a_request_without_a_signature_is_anonymous():
    assert parse_claim(_request(HOST.items()), {}, NOW_MS) is None


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda h: h.replace("AWS4-HMAC-SHA256 ", "AWS "), "InvalidRequest"),
        (lambda h: "AWS AKID:c2lnbmF0dXJl", "InvalidRequest"),
        (lambda h: "Bearer abc", "InvalidArgument"),
        (lambda h: h.replace("AWS4-HMAC-SHA256", "AWS2-HMAC-SHA1"), "InvalidArgument"),
        (lambda h: h.replace("Signature=", "Sig="), "AuthorizationHeaderMalformed"),
        (lambda h: h.replace("SignedHeaders=", "Signed="), "AuthorizationHeaderMalformed"),
        (lambda h: h.replace("/s3/", "/ec2/"), "AuthorizationHeaderMalformed"),
        (lambda h: h.replace("/aws4_request", "/aws3_request"), "AuthorizationHeaderMalformed"),
        (lambda h: h.replace("/aws4_request", ""), "AuthorizationHeaderMalformed"),
        (lambda h: h.replace("AKID/2025", "AKID/2024"), "AuthorizationHeaderMalformed"),
        (lambda h: h.replace("us-east-1", "us-\udcff-1"), "AuthorizationHeaderMalformed"),
        (lambda h: h.replace("AKID/2025", "AKID/205"), "AuthorizationHeaderMalformed"),
        (lambda h: h[:-1], "AuthorizationHeaderMalformed"),
        (lambda h: h[:-1] + ("0" if h[-1] != "0" else "1"), "SignatureDoesNotMatch"),
        (lambda h: h.replace("host;", "host;x-absent;"), "SignatureDoesNotMatch"),
        (lambda h: h.replace("host;", ""), "AccessDenied"),
        (lambda h: h.replace("host;", "host;host;"), "AuthorizationHeaderMalformed"),
        (lambda h: h.replace("/us-east-1/", f"/{'r' * 65}/"), "AuthorizationHeaderMalformed"),
    ],
)
def test_a_broken_authorization_header_names_its_fault(change, code):
    headers = _signed()
    headers["authorization"] = change(headers["authorization"])
    assert _code(_request(headers.items())) == code


def test_a_parameter_without_a_name_is_signed_like_any_other():
    assert _code(_request(_signed().items(), query="=added")) == "SignatureDoesNotMatch"
    assert _code(_request(_signed().items(), query="&")) == "accepted"


def test_fields_in_another_order_and_without_blanks_are_read():
    headers = _signed()
    scheme, _, fields = headers["authorization"].partition(" ")
    headers["authorization"] = scheme + " " + ",".join(reversed(fields.split(", ")))
    claim = parse_claim(_request(headers.items()), {}, NOW_MS)
    assert claim is not None
    Verifier().verify(_request(headers.items()), claim, "secret")


def test_a_clock_off_by_more_than_fifteen_minutes_is_refused():
    request = _request(_signed().items())
    assert _code(request, NOW_MS + MAX_SKEW_MS + 1000) == "RequestTimeTooSkewed"
    assert _code(request, NOW_MS - MAX_SKEW_MS - 1000) == "RequestTimeTooSkewed"
    assert parse_claim(request, {}, NOW_MS + MAX_SKEW_MS - 1000) is not None


def test_an_amz_header_added_behind_the_signature_is_refused():
    headers = {**_signed(), "x-amz-acl": "public-read"}
    assert _code(_request(headers.items())) == "AccessDenied"


def test_a_repeated_signed_header_cannot_be_slipped_in():
    items = [*_signed(**{"x-amz-meta-a": "1"}).items(), ("X-Amz-Meta-A", "2")]
    assert _code(_request(items)) == "SignatureDoesNotMatch"


def test_a_missing_payload_hash_or_date_is_named():
    headers = _signed()
    del headers["x-amz-content-sha256"]
    assert _code(_request(headers.items())) == "InvalidRequest"
    headers = _signed()
    del headers["x-amz-date"]
    assert _code(_request(headers.items())) == "AccessDenied"
    headers["x-amz-date"] = "20251320T000000Z"
    assert _code(_request(headers.items())) in ("AccessDenied", "AuthorizationHeaderMalformed")


def test_the_date_header_serves_where_x_amz_date_is_missing():
    scope = "20251120/us-east-1/s3/aws4_request"
    headers = {**HOST, "date": "Thu, 20 Nov 2025 22:00:00 GMT", "x-amz-content-sha256": "UNSIGNED-PAYLOAD"}
    headers["authorization"] = (
        f"AWS4-HMAC-SHA256 Credential=AKID/{scope}, SignedHeaders=date;host, Signature={'0' * 64}"
    )
    claim = parse_claim(_request(headers.items()), {}, NOW_MS)
    assert claim is not None
    assert claim.timestamp == "20251120T220000Z"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda q: q.replace("X-Amz-Expires=60", "X-Amz-Expires=604801"), "AuthorizationQueryParametersError"),
        (lambda q: q.replace("X-Amz-Expires=60", "X-Amz-Expires=-1"), "AuthorizationQueryParametersError"),
        (lambda q: q.replace("X-Amz-Expires=60", "X-Amz-Expires=soon"), "AuthorizationQueryParametersError"),
        (lambda q: q.replace("X-Amz-Expires=60", "X-Amz-Expires=61"), "SignatureDoesNotMatch"),
        (lambda q: q.replace("X-Amz-Expires=60&", ""), "AuthorizationQueryParametersError"),
        (lambda q: q.replace("AWS4-HMAC-SHA256", "AWS4-ECDSA-P256-SHA256"), "AuthorizationQueryParametersError"),
        (lambda q: q.replace("X-Amz-Date=2025", "X-Amz-Date=2024"), "AuthorizationQueryParametersError"),
        (lambda q: q.replace("X-Amz-Date=2025", "X-Amz-Date=yyyy"), "AuthorizationQueryParametersError"),
        (lambda q: q.replace("SignedHeaders=host", "SignedHeaders=range"), "AccessDenied"),
        (lambda q: q.replace("SignedHeaders=host", "SignedHeaders=host%3Bhost"), "AuthorizationQueryParametersError"),
        (lambda q: q + "&response-content-type=text%2Fhtml", "SignatureDoesNotMatch"),
    ],
)
def test_a_broken_presigned_url_names_its_fault(change, code):
    query = presign_query(PAIR, "GET", "/bucket/key", "", HOST, NOW_MS, 60)
    assert _code(_request(HOST.items(), change(query))) == code


def test_two_ways_of_signing_at_once_are_refused():
    query = presign_query(PAIR, "GET", "/bucket/key", "", HOST, NOW_MS, 60)
    assert _code(_request(_signed().items(), query)) == "InvalidArgument"


def test_the_cache_of_signing_keys_is_bounded_and_follows_the_secret():
    verifier = Verifier(max_cached_keys=3)
    for region in ("a", "b", "c", "d", "e"):
        headers = sign_headers(KeyPair("AKID", "secret", region), "GET", "/bucket/key", "", HOST, NOW_MS)
        request = _request(headers.items())
        claim = parse_claim(request, {}, NOW_MS)
        assert claim is not None
        verifier.verify(request, claim, "secret")
        with pytest.raises(S3Error):
            verifier.verify(request, claim, "rotated")
    assert len(verifier._keys) == 3


def test_signing_key_equals_plain_hmac():
    import hmac

    key = b"AWS4secret"
    for part in (b"20251120", b"us-east-1", b"s3", b"aws4_request"):
        key = hmac.digest(key, part, "sha256")
    expected = hmac.digest(key, b"text", "sha256").hex()
    assert SigningKey("secret", "20251120", "us-east-1", "s3").sign(b"text") == expected
