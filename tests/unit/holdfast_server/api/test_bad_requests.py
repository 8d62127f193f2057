"""Bad requests on a raw socket, plain and with TLS: the right code, nothing changed, the connection usable or closed,
pod alive."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import time
from collections.abc import Iterator

import pytest

from holdfast_server.api.services import Limits
from holdfast_server.s3.canonical import UNSIGNED_PAYLOAD
from holdfast_server.testing.memory_services import Endpoint, served

IDLE_SECONDS = 0.5
PUT = ("PUT", "/bucket/key")


@pytest.fixture(scope="module", params=["plain", "TLS"])
def endpoint(services, make_wire, tls_contexts, request: pytest.FixtureRequest) -> Iterator[Endpoint]:
    """Patient, as it is by default; see `impatient`."""
    with served(services, tls=tls_contexts if request.param == "TLS" else None) as endpoint:
        with make_wire(endpoint) as wire:
            assert wire.ask("PUT", "/bucket").status == 200
        yield endpoint


@pytest.fixture
def impatient(services, endpoint: Endpoint, tls_contexts) -> Iterator[Endpoint]:
    """Another server of the same objects."""
    limits = Limits(read_idle_seconds=IDLE_SECONDS, write_idle_seconds=IDLE_SECONDS)
    with served(dataclasses.replace(services, limits=limits), tls=tls_contexts if endpoint.trust else None) as found:
        yield found


@pytest.fixture(autouse=True)
def pod_alive(connect):
    """After every test the pod still serves, and no test has left an object behind."""
    yield
    with connect() as wire:
        assert wire.ask("GET", "/bucket").body.count(b"<Contents>") == 0
        wire.send(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
        assert wire.read().status == 200


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"secret_key": "wrong-secret-key"}, "SignatureDoesNotMatch"),
        ({"access_key": "NOBODY"}, "InvalidAccessKeyId"),
        ({"skew_seconds": -1000}, "RequestTimeTooSkewed"),
        ({"skew_seconds": 1000}, "RequestTimeTooSkewed"),
    ],
)
def test_bad_signatures_are_refused_and_the_connection_goes_on(wire, options: dict, code: str) -> None:
    answer = wire.ask(*PUT, b"body", **options)
    assert (answer.status, answer.code) == (403, code)
    assert answer.headers["x-amz-request-id"].encode() in answer.body
    assert wire.ask("GET", "/bucket/key").code == "NoSuchKey"


def test_an_expired_presigned_url_is_refused(wire, endpoint) -> None:
    from holdfast_server.s3.signing import KeyPair, presign_query

    pair = KeyPair(endpoint.access_key, endpoint.secret_key)
    host = f"{endpoint.host}:{endpoint.port}"
    query = presign_query(pair, "GET", "/bucket/key", "", {"host": host}, int(time.time() * 1000) - 60_000, 30)
    wire.send(f"GET /bucket/key?{query} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    answer = wire.read()
    assert (answer.status, answer.code) == (403, "AccessDenied")
    assert b"expired" in answer.body


def test_anonymous_requests_are_refused(wire) -> None:
    wire.send(b"GET /bucket/key HTTP/1.1\r\nHost: x\r\n\r\n")
    assert wire.read().code == "AccessDenied"
    wire.send(b"GET /no-bucket/key HTTP/1.1\r\nHost: x\r\n\r\n")
    assert wire.read().code == "NoSuchBucket"
    wire.send(b"PUT /bucket HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
    assert wire.read().code == "AccessDenied"
    wire.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert b"<Buckets></Buckets>" in wire.read().body


def test_a_refused_upload_costs_its_head_only(wire) -> None:
    """With Expect, the body is not asked for; what follows is never taken for a body or a request."""
    wire.send(wire.head(*PUT, {"content-length": "5000000000", "expect": "100-continue"}, secret_key="wrong-secret"))
    answer = wire.read()
    assert answer.code == "SignatureDoesNotMatch"
    assert answer.headers["connection"] == "close"
    assert wire.closed()


def test_an_accepted_upload_is_told_to_go_on(wire) -> None:
    wire.send(wire.head("PUT", "/bucket/gone-on", {"content-length": "4", "expect": "100-continue"}))
    assert wire.read().status == 100
    wire.send(b"body")
    assert wire.read().status == 200
    assert wire.ask("DELETE", "/bucket/gone-on").status == 204


def test_a_refused_upload_without_expect_gets_its_answer_and_is_cut(wire) -> None:
    wire.send(wire.head(*PUT, {"content-length": str(8 << 20)}, secret_key="wrong-secret") + bytes(1 << 20))
    answer = wire.read()
    assert answer.code == "SignatureDoesNotMatch"
    assert answer.headers["connection"] == "close"


def test_a_truncated_body_is_refused(wire) -> None:
    wire.send(wire.head(*PUT, {"content-length": "1000"}) + bytes(400))
    wire.end_sending()
    answer = wire.read()
    assert (answer.status, answer.code) == (400, "IncompleteBody")
    assert wire.closed()


def test_clients_that_break_off_leave_no_trace_in_the_log(connect, caplog: pytest.LogCaptureFixture) -> None:
    """A stack trace each would let anybody fill the disk that logs go to."""
    for path in ("/bucket/key", "/no-bucket/key"):
        for ending in ("end_sending", "__exit__"):
            with connect() as wire:
                wire.send(wire.head("PUT", path, {"content-length": "1000"}) + bytes(400))
                if ending == "end_sending":
                    wire.end_sending()
                    assert wire.read().status >= 400
                    assert wire.closed()
    assert "Traceback" not in caplog.text


def test_a_client_that_vanishes_leaves_nothing(connect) -> None:
    with connect() as wire:
        wire.send(wire.head(*PUT, {"content-length": "1000000"}) + bytes(400_000))


def test_a_client_that_takes_nothing_is_cut_off(connect, impatient: Endpoint, make_wire) -> None:
    size = 32 << 20
    with make_wire(impatient) as wire, connect() as other:
        assert other.ask("PUT", "/bucket/large", bytes(size)).status == 200
        wire.send(wire.head("GET", "/bucket/large"))
        assert b" 200 " in wire.reader.readline()
        while in_flight(other):
            time.sleep(0.05)
        taken = 0
        try:
            while piece := wire.reader.read(1 << 20):
                taken += len(piece)
        except OSError:
            pass
        assert taken < size
        assert other.ask("DELETE", "/bucket/large").status == 204


def in_flight(wire) -> bool:
    wire.send(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
    return b"\nholdfast_s3_requests_in_flight 0.0\n" not in wire.read().body


def test_a_client_that_stalls_is_told_and_cut(impatient: Endpoint, make_wire) -> None:
    with make_wire(impatient) as wire:
        wire.send(wire.head(*PUT, {"content-length": "1000"}) + bytes(400))
        answer = wire.read()
    assert (answer.status, answer.code) == (400, "RequestTimeout")
    assert answer.headers["connection"] == "close"


@pytest.mark.parametrize(
    ("headers", "payload_hash", "code"),
    [
        ({"content-md5": base64.b64encode(bytes(16)).decode()}, UNSIGNED_PAYLOAD, "BadDigest"),
        ({"content-md5": "short"}, UNSIGNED_PAYLOAD, "InvalidDigest"),
        ({"x-amz-checksum-crc32": "AAAAAA=="}, UNSIGNED_PAYLOAD, "BadDigest"),
        ({}, hashlib.sha256(b"other").hexdigest(), "XAmzContentSHA256Mismatch"),
        ({}, "STREAMING-UNSIGNED-PAYLOAD-TRAILER", "MissingContentLength"),
        (
            {"x-amz-decoded-content-length": "9", "x-amz-trailer": "x-amz-checksum-crc32"},
            "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
            "IncompleteBody",
        ),
        ({"x-amz-meta-long": "v" * 3000}, UNSIGNED_PAYLOAD, "MetadataTooLarge"),
    ],
)
def test_bodies_that_break_their_promise_are_refused(wire, headers: dict, payload_hash: str, code: str) -> None:
    answer = wire.ask(*PUT, b"some body", headers, payload_hash=payload_hash)
    assert answer.code == code
    assert wire.ask("GET", "/bucket/key").code == "NoSuchKey"


def test_metadata_that_is_not_utf8_is_refused(wire) -> None:
    head = wire.head("PUT", "/bucket/key", {"content-length": "0", "x-amz-meta-a": "MARK"})
    wire.send(head.replace(b"MARK", b"\xff\xfe"))
    assert wire.read().status in (400, 403)


def test_put_without_length_is_refused(wire) -> None:
    wire.send(wire.head(*PUT))
    answer = wire.read()
    assert (answer.status, answer.code) == (411, "MissingContentLength")


CHUNKED = {"transfer-encoding": "chunked"}


def test_a_body_of_unknown_length_is_taken_and_verified(wire) -> None:
    body = b"some body" * 50_000
    framed = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (body[:7], body[7:])) + b"0\r\n\r\n"
    for payload_hash in (UNSIGNED_PAYLOAD, hashlib.sha256(body).hexdigest()):
        wire.send(wire.head("PUT", "/bucket/chunked", CHUNKED, payload_hash=payload_hash) + framed)
        assert wire.read().status == 200
        assert wire.ask("GET", "/bucket/chunked").body == body
        assert wire.ask("DELETE", "/bucket/chunked").status == 204
    for headers, payload_hash, code in (
        (CHUNKED, hashlib.sha256(b"other").hexdigest(), "XAmzContentSHA256Mismatch"),
        ({**CHUNKED, "content-md5": base64.b64encode(bytes(16)).decode()}, UNSIGNED_PAYLOAD, "BadDigest"),
    ):
        wire.send(wire.head("PUT", "/bucket/chunked", headers, payload_hash=payload_hash) + framed)
        assert wire.read().code == code
    assert wire.ask("GET", "/bucket/chunked").code == "NoSuchKey"


@pytest.mark.parametrize("sent", [b"9\r\nsome body\r\n", b"9\r\nsome", b"9\r\nsome body\r\n0\r\n", b"9\r\nsome bodyX"])
def test_a_body_of_unknown_length_that_does_not_end_is_never_stored(connect, sent: bytes) -> None:
    with connect() as wire:
        wire.send(wire.head("PUT", "/bucket/half", CHUNKED) + sent)
        wire.end_sending()
        assert wire.read().status == 400
        assert wire.closed()
    with connect() as wire:
        wire.send(wire.head("PUT", "/bucket/half", CHUNKED) + sent)
    with connect() as wire:
        assert wire.ask("GET", "/bucket/half").code == "NoSuchKey"


def test_an_absent_bucket_is_told_before_the_body_is_asked_for(wire) -> None:
    wire.send(wire.head("PUT", "/absent-bucket/key", {"content-length": "9", "expect": "100-continue"}))
    assert wire.read().code == "NoSuchBucket"


@pytest.mark.parametrize(
    ("path", "query", "body"),
    [
        ("/bucket", "delete", b"<Delete><Object>"),
        ("/bucket", "delete", b"not xml"),
        ("/bucket", "delete", b"<!DOCTYPE x [<!ENTITY a 'b'>]><Delete><Object><Key>&a;</Key></Object></Delete>"),
        ("/bucket/key", "uploadId=AAAAAAAAAAAAAAAAAAAAAA", b"<CompleteMultipartUpload>"),
    ],
)
def test_malformed_xml_is_told(wire, path: str, query: str, body: bytes) -> None:
    md5 = base64.b64encode(hashlib.md5(body).digest()).decode()
    assert wire.ask("POST", path, body, {"content-md5": md5}, query=query).code == "MalformedXML"
    assert wire.ask("GET", "/bucket/key").code == "NoSuchKey"


def test_an_endless_document_is_not_read(wire) -> None:
    wire.send(wire.head("POST", "/bucket", {"content-length": str(1 << 30), "content-md5": "x"}, query="delete"))
    assert wire.read().code == "MaxMessageLengthExceeded"


def test_six_megabytes_of_headers_are_refused(wire) -> None:
    wire.send(b"GET /bucket/key HTTP/1.1\r\nHost: x\r\n")
    try:
        for number in range(6):
            wire.send(b"x-amz-meta-a%d: " % number + b"v" * (1 << 20) + b"\r\n")
        wire.send(b"\r\n")
    except (BrokenPipeError, ConnectionResetError):
        pass
    answer = wire.read()
    assert (answer.status, answer.code) == (400, "RequestHeaderSectionTooLarge")
    assert wire.closed()


def test_too_many_headers_are_refused(wire) -> None:
    wire.send(b"GET / HTTP/1.1\r\nHost: x\r\n" + b"".join([b"a%d: b\r\n" % number for number in range(500)]) + b"\r\n")
    answer = wire.read()
    assert (answer.status, answer.code) == (400, "RequestHeaderSectionTooLarge")


@pytest.mark.parametrize(
    "data",
    [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/1.1\r\nbad header\r\n\r\n"],
)
def test_what_is_no_http_is_told_so(wire, data: bytes) -> None:
    wire.send(data)
    answer = wire.read()
    assert (answer.status, answer.code) == (400, "InvalidRequest")
    assert wire.closed()


@pytest.mark.parametrize(
    ("path", "code"), [("/bucket/%zz", "InvalidURI"), ("/bucket/%ff", "InvalidURI"), ("//key", "InvalidBucketName")]
)
def test_bad_addresses_are_told(wire, path: str, code: str) -> None:
    assert wire.ask("GET", path).code == code


def test_a_key_that_is_too_long_is_told(wire) -> None:
    assert wire.ask("GET", "/bucket/" + "k" * 1025).code == "KeyTooLongError"


def test_unknown_methods_are_told(wire) -> None:
    answer = wire.ask("PATCH", "/bucket/key")
    assert (answer.status, answer.code) == (405, "MethodNotAllowed")


def test_head_errors_have_no_body_and_the_connection_goes_on(wire) -> None:
    assert wire.ask("HEAD", "/bucket/key").status == 404
    assert wire.ask("HEAD", "/bucket").status == 200
    assert wire.ask("GET", "/bucket/key").code == "NoSuchKey"


def test_requests_may_follow_each_other_without_waiting(wire) -> None:
    wire.send(wire.head("GET", "/bucket/a") + wire.head("GET", "/bucket/b") + wire.head("HEAD", "/bucket"))
    assert [wire.read().code, wire.read().code, wire.read("HEAD").status] == ["NoSuchKey", "NoSuchKey", 200]


def test_a_delete_under_a_condition_nobody_checks_is_refused(wire) -> None:
    wire.ask("PUT", "/bucket/kept", b"x")
    answer = wire.ask("DELETE", "/bucket/kept", headers={"if-none-match": '"x"'})
    assert (answer.status, answer.code) == (501, "NotImplemented")
    answer = wire.ask("DELETE", "/bucket/kept", headers={"x-amz-if-match-size": "two"})
    assert (answer.status, answer.code) == (400, "InvalidArgument")
    body = b"<Delete><Object><Key>kept</Key><Size>two</Size></Object></Delete>"
    digest = base64.b64encode(hashlib.md5(body).digest()).decode()
    answer = wire.ask("POST", "/bucket", body, query="delete=", headers={"content-md5": digest})
    assert (answer.status, answer.code) == (400, "InvalidArgument")
    assert wire.ask("GET", "/bucket/kept").body == b"x"
    assert wire.ask("DELETE", "/bucket/kept").status == 204
