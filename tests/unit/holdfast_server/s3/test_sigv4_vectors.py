"""The examples AWS publishes, byte for byte (tests/golden/s3/sigv4.json)."""

import json
from pathlib import Path

import pytest

from holdfast_server.s3.errors import S3Error
from holdfast_server.s3.payload import payload_of
from holdfast_server.s3.request import Request, fold_headers, parse_query
from holdfast_server.s3.signing import KeyPair, presign_query
from holdfast_server.s3.sigv4 import Verifier, parse_claim, parse_timestamp

GOLDEN = json.loads((Path(__file__).parents[3] / "golden/s3/sigv4.json").read_text())
SECRET = GOLDEN["secretKey"]
NOW_MS = parse_timestamp(GOLDEN["timestamp"])
KEY_PAIR = KeyPair(GOLDEN["accessKey"], SECRET)


def _request(method: str, path: str, query: str, headers: dict[str, str]) -> Request:
    return Request(
        method=method,
        raw_path=path,
        raw_query=query,
        headers=fold_headers(headers.items()),
        remote="192.0.2.1",
        received_ms=NOW_MS,
        secure=False,
    )


def _verify(request: Request, secret: str = SECRET):
    claim = parse_claim(request, parse_query(request.raw_query), NOW_MS)
    assert claim is not None
    return Verifier().verify(request, claim, secret)


@pytest.mark.parametrize("vector", GOLDEN["header"], ids=lambda vector: vector["name"])
def test_published_header_signature_is_accepted(vector):
    request = _request(vector["method"], vector["path"], vector["query"], vector["headers"])
    assert _verify(request).seed_signature in vector["headers"]["Authorization"]


@pytest.mark.parametrize("vector", GOLDEN["header"], ids=lambda vector: vector["name"])
def test_any_change_of_a_published_request_is_refused(vector):
    def refused(method=vector["method"], path=vector["path"], query=vector["query"], headers=None, secret=SECRET):
        with pytest.raises(S3Error) as caught:
            _verify(_request(method, path, query, headers or vector["headers"]), secret)
        assert caught.value.code == "SignatureDoesNotMatch"

    refused(method="DELETE")
    refused(path=vector["path"] + "x")
    refused(query="acl")
    refused(headers={**vector["headers"], "Host": "other.s3.amazonaws.com"})
    refused(headers={**vector["headers"], "x-amz-content-sha256": "0" * 64})
    refused(secret="another")


def test_published_presigned_url_is_accepted_and_made():
    vector = GOLDEN["presigned"]
    headers = {"host": vector["host"]}
    request = _request(vector["method"], vector["path"], vector["query"], headers)
    context = _verify(request)
    assert context.presigned
    assert context.payload_hash == "UNSIGNED-PAYLOAD"
    assert presign_query(KEY_PAIR, "GET", vector["path"], "", headers, NOW_MS, 86400) == vector["query"]


def chunked_body(vector) -> bytes:
    sizes = [65536, 1024, 0]
    body = b""
    for size_bytes, signature in zip(sizes, vector["chunkSignatures"], strict=True):
        body += f"{size_bytes:x};chunk-signature={signature}\r\n".encode() + b"a" * size_bytes
        body += b"\r\n" if size_bytes else b""
    if "trailer" in vector:
        body += f"{vector['trailer']}\r\nx-amz-trailer-signature:{vector['trailerSignature']}\r\n".encode()
    return body + b"\r\n"


@pytest.mark.parametrize("vector", GOLDEN["chunked"], ids=lambda vector: vector["name"])
def test_published_chunked_upload_is_decoded_and_verified(vector):
    request = _request("PUT", vector["path"], "", vector["headers"])
    payload = payload_of(request.headers, _verify(request))
    for view in payload.decode(chunked_body(vector)):
        payload.update(view)
    result = payload.finish()
    assert result.size_bytes == 66560
    assert result.checksum_algorithm == ("CRC32C" if "trailer" in vector else "")


@pytest.mark.parametrize("vector", GOLDEN["chunked"], ids=lambda vector: vector["name"])
def test_a_published_chunked_upload_with_one_flipped_bit_is_refused(vector):
    request = _request("PUT", vector["path"], "", vector["headers"])
    body = bytearray(chunked_body(vector))
    body[1000] ^= 1
    payload = payload_of(request.headers, _verify(request))
    with pytest.raises(S3Error) as caught:
        payload.decode(body)
    assert caught.value.code == "SignatureDoesNotMatch"


def test_a_forged_trailer_is_refused():
    vector = GOLDEN["chunked"][1]
    request = _request("PUT", vector["path"], "", vector["headers"])
    body = chunked_body(vector).replace(b"sOO8/Q==", b"sOO8/A==")
    payload = payload_of(request.headers, _verify(request))
    for view in payload.decode(body):
        payload.update(view)
    with pytest.raises(S3Error) as caught:
        payload.finish()
    assert caught.value.code == "SignatureDoesNotMatch"
