"""A body is accepted only when everything its head and trailer promise is true."""

import base64
import hashlib
import tracemalloc

import pytest

from holdfast_server.s3.checksums import ALGORITHMS, encode_checksum
from holdfast_server.s3.errors import S3Error
from holdfast_server.s3.payload import payload_of, verify_small_body
from holdfast_server.s3.sigv4 import SigningContext

BODY = b"The quick brown fox" * 100
UNSIGNED = SigningContext("UNSIGNED-PAYLOAD")
TRAILER_MODE = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"


def checksum_of(name: str, data: bytes) -> str:
    digest = ALGORITHMS[name].new()
    digest.update(data)
    return encode_checksum(digest.digest())


def run(headers: dict[str, str], body: bytes = BODY, context: SigningContext = UNSIGNED, piece: int = 100):
    payload = payload_of({"content-length": str(len(body)), **headers}, context)
    for start in range(0, len(body), piece):
        for view in payload.decode(body[start : start + piece]):
            payload.update(view)
    return payload.finish()


def code_of(*arguments, **keywords) -> str:
    try:
        run(*arguments, **keywords)
    except S3Error as error:
        return error.code
    return "accepted"


def test_a_plain_body_yields_size_and_md5():
    result = run({})
    assert (result.size_bytes, result.md5_hex) == (len(BODY), hashlib.md5(BODY).hexdigest())
    assert result.checksum == ""
    empty = run({}, b"")
    assert empty.md5_hex == "d41d8cd98f00b204e9800998ecf8427e"


def test_a_signed_body_must_have_the_signed_sha256():
    right = SigningContext(hashlib.sha256(BODY).hexdigest())
    assert code_of({}, context=right) == "accepted"
    assert code_of({}, BODY[:-1] + b"!", right) == "XAmzContentSHA256Mismatch"
    assert code_of({}, context=SigningContext("nonsense")) == "InvalidArgument"
    assert code_of({}, context=SigningContext("STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD")) == "NotImplemented"


def test_length_must_be_declared_and_kept():
    assert code_of({"content-length": str(len(BODY) + 1)}) == "IncompleteBody"
    assert code_of({"content-length": str(len(BODY) - 1)}) == "IncompleteBody"
    assert code_of({"content-length": "-1"}) == "InvalidArgument"
    with pytest.raises(S3Error, match="MissingContentLength"):
        payload_of({}, UNSIGNED)
    with pytest.raises(S3Error, match="MissingContentLength"):
        payload_of({"transfer-encoding": "gzip"}, UNSIGNED)
    with pytest.raises(S3Error, match="MissingContentLength"):
        payload_of({"content-length": "9"}, SigningContext(TRAILER_MODE))
    with pytest.raises(S3Error, match="EntityTooLarge"):
        payload_of({"content-length": str((5 << 30) + 1)}, UNSIGNED)


def test_a_body_of_unknown_length_is_bounded_all_the_same():
    payload = payload_of({"transfer-encoding": "chunked"}, UNSIGNED, max_size_bytes=len(BODY))
    assert (payload.size_bytes, payload.max_size_bytes) == (None, len(BODY))
    payload.update(payload.decode(BODY)[0])
    assert payload.finish().size_bytes == len(BODY)
    with pytest.raises(S3Error, match="EntityTooLarge"):
        payload.decode(b"!")


def test_content_md5_is_checked():
    right = base64.b64encode(hashlib.md5(BODY).digest()).decode()
    assert code_of({"content-md5": right}) == "accepted"
    assert code_of({"content-md5": base64.b64encode(bytes(16)).decode()}) == "BadDigest"
    assert code_of({"content-md5": "YWJj"}) == "InvalidDigest"
    assert code_of({"content-md5": "é"}) == "InvalidDigest"
    assert code_of({"content-md5": ""}) == "InvalidDigest"


@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_checksum_in_the_head_is_checked_and_kept(name):
    header = ALGORITHMS[name].header
    right, wrong = checksum_of(name, BODY), checksum_of(name, b"other")
    result = run({header: right, "x-amz-sdk-checksum-algorithm": name})
    assert (result.checksum_algorithm, result.checksum) == (name, right)
    assert code_of({header: wrong}) == "BadDigest"
    assert code_of({header: right[:-4]}) == "InvalidRequest"
    assert code_of({header: right, "x-amz-sdk-checksum-algorithm": "CRC9"}) == "InvalidRequest"


@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_checksum_in_the_trailer_is_checked_and_kept(name):
    header = ALGORITHMS[name].header
    headers = {"x-amz-trailer": header, "x-amz-decoded-content-length": str(len(BODY))}
    context = SigningContext(TRAILER_MODE)

    def wire(trailer: str) -> bytes:
        return b"%x\r\n%s\r\n0\r\n%s\r\n\r\n" % (len(BODY), BODY, trailer.encode())

    right = checksum_of(name, BODY)
    result = run(headers, wire(f"{header}:{right}"), context, piece=7)
    assert (result.checksum_algorithm, result.checksum, result.size_bytes) == (name, right, len(BODY))
    assert code_of(headers, wire(f"{header}:{checksum_of(name, b'no')}"), context) == "BadDigest"
    assert code_of(headers, wire("x-amz-other:1"), context) == "MalformedTrailerError"
    assert code_of(headers, wire(""), context) == "MalformedTrailerError"
    del headers["x-amz-trailer"]
    assert code_of(headers, wire(f"{header}:{right}"), context) == "MalformedTrailerError"
    assert code_of({**headers, header: right}, wire("x-amz-other:1"), context) == "MalformedTrailerError"
    assert code_of(headers, wire(""), context) == "accepted"


def test_contradicting_checksum_headers_are_refused():
    crc = {"x-amz-checksum-crc32": checksum_of("CRC32", BODY)}
    assert code_of({**crc, "x-amz-checksum-sha1": checksum_of("SHA1", BODY)}) == "InvalidRequest"
    assert code_of({**crc, "x-amz-sdk-checksum-algorithm": "SHA1"}) == "InvalidRequest"
    assert code_of({"x-amz-sdk-checksum-algorithm": "SHA1"}) == "InvalidRequest"
    assert code_of({"x-amz-trailer": "x-amz-checksum-crc32"}) == "InvalidRequest"
    assert code_of({"x-amz-trailer": "x-other"}) == "InvalidRequest"


def test_one_digest_serves_two_purposes():
    context = SigningContext(hashlib.sha256(BODY).hexdigest())
    headers = {"x-amz-checksum-sha256": checksum_of("SHA256", BODY), "content-length": str(len(BODY))}
    assert len(payload_of(headers, context).digests) == 2


def test_small_documents_are_verified_at_once():
    assert verify_small_body({}, UNSIGNED, b"<a/>", 100) == b"<a/>"
    with pytest.raises(S3Error, match="BadDigest"):
        verify_small_body({"content-md5": base64.b64encode(bytes(16)).decode()}, UNSIGNED, b"<a/>", 100)
    with pytest.raises(S3Error, match="MaxMessageLengthExceeded"):
        verify_small_body({}, UNSIGNED, b"<a/>" * 100, 100)
    headers = {"x-amz-decoded-content-length": "4"}
    assert verify_small_body(headers, SigningContext(TRAILER_MODE), b"4\r\n<a/>\r\n0\r\n\r\n", 9) == b"<a/>"


def test_a_small_document_in_tiny_chunks_takes_no_more_memory_than_it_has():
    document = b"ab" * 30_000
    wire = b"2\r\nab\r\n" * 30_000 + b"0\r\n\r\n"
    headers = {"x-amz-decoded-content-length": str(len(document))}
    tracemalloc.start()
    try:
        decoded = verify_small_body(headers, SigningContext(TRAILER_MODE), wire, len(document))
        _, most_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert decoded == document
    assert most_bytes < 3 << 20
