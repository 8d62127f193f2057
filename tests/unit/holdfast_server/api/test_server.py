"""The front end: probes, metrics, limits, failures of the object layer, payloads as Loki's clients send them."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import socket
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import closing

import pytest

from holdfast_server.api.services import Limits
from holdfast_server.contract import names
from holdfast_server.contract.health import PodHealth
from holdfast_server.memory.limits import MemoryLimits
from holdfast_server.memory.pod_memory import PodMemory
from holdfast_server.objects.port import Conflict, OutOfSpace, Unavailable
from holdfast_server.s3.chunked import STREAMING_SIGNED, ChunkSigner
from holdfast_server.s3.signing import KeyPair
from holdfast_server.s3.sigv4 import SigningContext
from holdfast_server.testing.memory_services import Endpoint, memory_services, served

WAIT_SECONDS = 60.0


@pytest.fixture
def failing(services) -> Iterator[dict[str, Exception]]:
    """verb of the object layer → what it raises."""
    failures: dict[str, Exception] = {}

    def fail(verb: str) -> None:
        if verb in failures:
            raise failures[verb]

    services.objects.failure = fail
    yield failures
    services.objects.failure = None


@pytest.mark.parametrize("path", ["/health/live", "/minio/health/live", "/health/ready", "/minio/health/ready"])
def test_probes_answer_without_a_signature(wire, path: str) -> None:
    wire.send(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\nHEAD {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert wire.read().status == 200
    assert wire.read("HEAD").status == 200


def test_cluster_health_depends_on_maintenance(wire) -> None:
    for query, status in (("", 200), ("?maintenance=true", 503), ("?maintenance=false", 200)):
        wire.send(f"GET /health/cluster{query} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        answer = wire.read()
        assert answer.status == status
        assert json.loads(answer.body)["healthy"] == (status == 200)


def test_a_pod_that_is_not_ready_says_why(make_wire) -> None:
    services = dataclasses.replace(
        memory_services(),
        pod_health=lambda: PodHealth(ready=False, pod="p", epoch=1, version="v", message="drives are opening"),
    )
    with served(services) as endpoint, make_wire(endpoint) as wire:
        wire.send(b"GET /health/ready HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = wire.read()
    assert answer.status == 503
    assert json.loads(answer.body)["message"] == "drives are opening"


def test_metrics_count_operations_not_keys(wire) -> None:
    wire.ask("PUT", "/bucket/a-secret-name", b"12345")
    wire.ask("DELETE", "/bucket/a-secret-name")
    wire.send(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
    text = wire.read().body.decode()
    assert 'holdfast_s3_requests_total{operation="PutObject",status="2xx"}' in text
    assert "a-secret-name" not in text


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (Unavailable("below quorum"), 503, "SlowDown"),
        (OutOfSpace("full"), 507, "InsufficientStorage"),
        (Conflict("lease"), 503, "SlowDown"),
        (RuntimeError("a bug"), 500, "InternalError"),
    ],
)
def test_failures_of_the_object_layer_are_named(wire, failing, error: Exception, status: int, code: str) -> None:
    failing["put_object"] = error
    answer = wire.ask("PUT", "/bucket/failing", b"12345")
    assert (answer.status, answer.code) == (status, code)
    assert answer.headers.get("retry-after") == ("1" if status == 503 else None)
    assert b"a bug" not in answer.body
    failing.clear()
    assert wire.ask("GET", "/bucket/failing").code == "NoSuchKey"


def test_a_conflict_is_told_to_who_set_a_condition(wire, failing) -> None:
    failing["put_object"] = Conflict("lease")
    answer = wire.ask("PUT", "/bucket/failing", b"1", {"if-none-match": "*"})
    assert (answer.status, answer.code) == (409, "ConditionalRequestConflict")


def test_reads_and_lists_below_quorum_are_503(wire, failing) -> None:
    failing["open_object"] = failing["list_objects"] = failing["head_object"] = Unavailable("below quorum")
    assert wire.ask("GET", "/bucket/k").status == 503
    assert wire.ask("GET", "/bucket", query="list-type=2").status == 503
    assert wire.ask("HEAD", "/bucket/k").status == 503


class BrokenReader:
    """Fails after its first piece."""

    def __init__(self, record, first: bytes) -> None:
        self.record = record
        self._first = first

    async def chunks(self, start: int, length: int):
        if self._first:
            yield self._first
        raise Unavailable("too many shards are bad")


@pytest.mark.parametrize("first", [b"", b"begun"])
def test_a_read_that_fails_is_503_before_the_first_byte_and_a_cut_after(connect, services, monkeypatch, first) -> None:
    data = bytes(100_000)
    with connect() as wire:
        assert wire.ask("PUT", "/bucket/broken", data).status == 200
        open_object = services.objects.open_object

        async def broken(bucket_id: bytes, key: str, version: bytes | None):
            return BrokenReader((await open_object(bucket_id, key, version)).record, first)

        monkeypatch.setattr(services.objects, "open_object", broken)
        wire.send(wire.head("GET", "/bucket/broken"))
        if first:
            answer = wire.read()
            assert (answer.status, answer.headers["content-length"]) == (200, "100000")
            assert answer.body == b"begun"
            assert wire.closed()
        else:
            assert wire.read().code == "SlowDown"
    monkeypatch.undo()
    with connect() as wire:
        assert wire.ask("GET", "/bucket/broken").body == data
        wire.ask("DELETE", "/bucket/broken")


def test_a_client_that_takes_nothing_is_cut(connect, services, make_wire, until) -> None:
    with connect() as wire:
        assert wire.ask("PUT", "/bucket/large", bytes(32 << 20)).status == 200
    impatient = dataclasses.replace(services, limits=Limits(write_idle_seconds=0.5))
    with served(impatient) as endpoint, make_wire(endpoint) as wire:
        wire.send(wire.head("GET", "/bucket/large"))
        assert b" 200 " in wire.reader.readline()
        until(lambda: services.metrics.requests.in_flight == 0)
    with connect() as wire:
        wire.ask("DELETE", "/bucket/large")


def small_memory(wait_seconds: float = 0.2, **limits: int) -> PodMemory:
    return PodMemory(MemoryLimits(**limits), wait_seconds)


def test_beyond_the_limit_requests_wait_and_are_refused_and_probes_are_not(make_wire, until) -> None:
    services = memory_services(memory=small_memory(requests=1))
    with served(services) as endpoint, make_wire(endpoint) as first, make_wire(endpoint) as second:
        assert first.ask("PUT", "/bucket").status == 200
        first.send(first.head("PUT", "/bucket/k", {"content-length": "2"}) + b"1")
        until(lambda: services.memory.requests.used)
        answer = second.ask("GET", "/bucket")
        assert (answer.code, answer.headers["retry-after"]) == ("SlowDown", "1")
        second.send(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
        assert second.read().status == 200
        first.send(b"2")
        assert first.read().status == 200
        until(lambda: not services.memory.requests.used)
        assert second.ask("GET", "/bucket").status == 200


def test_signed_chunks_without_content_encoding_are_decoded(wire, endpoint: Endpoint) -> None:
    """As Loki's thanos client sends them over http."""
    data = hashlib.sha256(b"seed").digest() * 4096
    named = {"content-length": "0", "x-amz-decoded-content-length": str(len(data))}
    pair = KeyPair(endpoint.access_key, endpoint.secret_key)
    body = _framed(data, ChunkSigner(SigningContext(STREAMING_SIGNED, pair.signing_key("20260101T000000Z")), ""))
    # Only its length counts: it is signed, and the chain of chunk signatures starts from that signature.
    named["content-length"] = str(len(body))
    head = wire.head("PUT", "/bucket/chunked", named, payload_hash=STREAMING_SIGNED).decode()
    signature = head.partition("Signature=")[2].partition("\r\n")[0]
    timestamp = head.partition("x-amz-date: ")[2].partition("\r\n")[0]
    context = SigningContext(STREAMING_SIGNED, pair.signing_key(timestamp), signature, timestamp, pair.scope(timestamp))
    body = _framed(data, ChunkSigner(context, signature))
    wire.send(head.encode() + body)
    assert wire.read().status == 200
    assert wire.ask("GET", "/bucket/chunked").body == data
    wire.send(head.encode() + body.replace(data[:8], b"tampered", 1))
    assert wire.read().code == "SignatureDoesNotMatch"
    assert wire.ask("DELETE", "/bucket/chunked").status == 204


def _framed(data: bytes, signer: ChunkSigner) -> bytes:
    body = b""
    for piece in [data[at : at + 65536] for at in range(0, len(data), 65536)] + [b""]:
        body += f"{len(piece):x};chunk-signature={signer.chunk(hashlib.sha256(piece).hexdigest())}\r\n".encode()
        body += piece + b"\r\n"
    return body


def test_unsigned_trailers_are_checked(wire) -> None:
    data = b"log line\n" * 1000
    crc = base64.b64encode(zlib.crc32(data).to_bytes(4, "big")).decode()
    for trailer, status in ((crc, 200), ("AAAAAA==", 400)):
        body = f"{len(data):x}\r\n".encode() + data + f"\r\n0\r\nx-amz-checksum-crc32:{trailer}\r\n\r\n".encode()
        headers = {
            "content-encoding": "aws-chunked",
            "x-amz-decoded-content-length": str(len(data)),
            "x-amz-trailer": "x-amz-checksum-crc32",
        }
        mode = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
        assert wire.ask("PUT", "/bucket/trailer", body, headers, payload_hash=mode).status == status
    got = wire.ask("GET", "/bucket/trailer")
    assert got.body == data
    assert "content-encoding" not in got.headers
    wire.ask("DELETE", "/bucket/trailer")


def test_lokis_requests_are_understood(wire) -> None:
    path = "/bucket/fake/1a2b/18c%3A18d%3Aff"
    assert wire.ask("PUT", path, b"chunk").status == 200
    for target, query in (
        ("/bucket", "delimiter=&list-type=2&prefix="),
        ("/bucket/", "delimiter=&encoding-type=url&fetch-owner=true&list-type=2&prefix=fake%2F"),
    ):
        answer = wire.ask("GET", target, query=query)
        assert answer.status == 200
        assert b"<LastModified>" in answer.body
    assert b"<Key>fake/1a2b/18c%3A18d%3Aff</Key>" in answer.body
    assert wire.ask("GET", "/bucket/", query="location=").status == 200
    got = wire.ask("GET", path, headers={"x-amz-checksum-mode": "ENABLED"})
    assert (got.body, got.headers["content-length"]) == (b"chunk", "5")
    assert wire.ask("DELETE", path).status == 204
    assert wire.ask("DELETE", path).status == 204


def test_compressed_objects_are_stored_as_they_came(wire) -> None:
    data = zlib.compress(b"x" * 1000)
    assert wire.ask("PUT", "/bucket/z", data, {"content-encoding": "deflate"}).status == 200
    got = wire.ask("GET", "/bucket/z")
    assert (got.body, got.headers["content-encoding"]) == (data, "deflate")
    wire.ask("DELETE", "/bucket/z")


def test_virtual_host_style(make_wire) -> None:
    services = memory_services(domains=("s3.test",))
    with served(services) as endpoint, make_wire(endpoint) as wire:
        wire.ask("PUT", "/bucket")
        assert wire.ask("PUT", "/a/key", b"1", {"host": "bucket.s3.test:9000"}).status == 200
        assert wire.ask("GET", "/bucket/a/key").body == b"1"


def test_closing_lets_a_write_end(make_wire, until) -> None:
    services = memory_services()

    def is_closing() -> bool:
        with closing(socket.socket()) as another:
            return another.connect_ex((endpoint.host, endpoint.port)) != 0

    def end_the_write() -> None:
        until(is_closing)
        wire.send(b"2")

    with served(services, grace_seconds=60.0) as endpoint:
        wire = make_wire(endpoint)
        assert wire.ask("PUT", "/bucket").status == 200
        wire.send(wire.head("PUT", "/bucket/k", {"content-length": "2"}) + b"1")
        until(lambda: services.metrics.requests.in_flight)
        ending = threading.Thread(target=end_the_write)
        ending.start()
    ending.join()
    with wire:
        answer = wire.read()
    assert (answer.status, answer.headers["connection"]) == (200, "close")


def test_large_writes_wait_for_their_turn_and_small_ones_do_not(make_wire, until) -> None:
    services = memory_services(memory=small_memory(streams=1, streamed_from_bytes=10))
    with served(services) as endpoint, make_wire(endpoint) as first, make_wire(endpoint) as second:
        assert first.ask("PUT", "/bucket").status == 200
        first.send(first.head("PUT", "/bucket/k", {"content-length": "20"}) + bytes(10))
        until(lambda: services.memory.streams.used)
        assert second.ask("PUT", "/bucket/small", b"1").status == 200
        assert second.ask("PUT", "/bucket/large", bytes(20)).code == "SlowDown"
        first.send(bytes(10))
        assert first.read().status == 200
        until(lambda: not services.memory.streams.used)
        assert second.ask("PUT", "/bucket/large", bytes(20)).status == 200


def test_a_head_that_does_not_end_is_refused(make_wire) -> None:
    services = memory_services(limits=Limits(head_seconds=0.5))
    with served(services) as endpoint, make_wire(endpoint) as slow, make_wire(endpoint) as other:
        begun = time.monotonic()
        slow.send(b"GET /bucket/key HTTP/1.1\r\n")
        with pytest.raises(OSError):  # noqa: PT012
            while time.monotonic() - begun < WAIT_SECONDS:
                slow.send(b"x: y\r\n")
                time.sleep(0.05)
        assert other.ask("PUT", "/bucket").status == 200
        time.sleep(0.7)
        other.send(b"GET /")
        assert other.read().code == "RequestTimeout"
        assert other.closed()


def test_a_head_is_bounded_as_a_whole(make_wire) -> None:
    services = memory_services(limits=Limits(head_size_bytes=4096))
    with served(services) as endpoint, make_wire(endpoint) as wire:
        wire.send(b"GET /bucket/key HTTP/1.1\r\nHost: x\r\n")
        for number in range(4):
            time.sleep(0.05)
            wire.send(b"x-amz-meta-a%d: " % number + b"v" * 1000 + b"\r\n")
        assert wire.read().code == "RequestHeaderSectionTooLarge"
        assert wire.closed()
    with served(services) as endpoint, make_wire(endpoint) as wire:
        assert wire.ask("PUT", "/bucket").status == 200
        assert wire.ask("PUT", "/bucket/key", bytes(100_000)).status == 200  # the body is no head


def test_idle_connections_are_closed_in_time(make_wire) -> None:
    services = memory_services(limits=Limits(keepalive_seconds=1.5))
    with served(services) as endpoint, make_wire(endpoint) as silent, make_wire(endpoint) as resting:
        assert resting.ask("PUT", "/bucket").status == 200
        assert resting.closed()
        assert silent.closed()


def test_beyond_the_bound_an_idle_connection_gives_way(make_wire, until) -> None:
    services = memory_services(memory=small_memory(connections=2))
    with served(services) as endpoint, make_wire(endpoint) as first, make_wire(endpoint) as second:
        assert first.ask("PUT", "/bucket").status == 200
        second.send(second.head("PUT", "/bucket/k", {"content-length": "2"}) + b"1")
        until(lambda: services.metrics.requests.in_flight == 1)
        with make_wire(endpoint) as third:
            assert third.ask("HEAD", "/bucket").status == 200
            assert first.closed()
            until(lambda: services.metrics.requests.in_flight == 1)
            third.send(third.head("PUT", "/bucket/l", {"content-length": "2"}) + b"1")
            until(lambda: services.metrics.requests.in_flight == 2)
            with make_wire(endpoint) as fourth:
                answer = fourth.read()
                assert (answer.code, answer.headers["retry-after"]) == ("SlowDown", "1")
                assert fourth.closed()
            third.send(b"2")
            assert third.read().status == 200
        second.send(b"2")
        assert second.read().status == 200


def test_a_connection_with_tls_takes_the_places_of_two(make_wire, tls_contexts) -> None:
    services = memory_services(memory=small_memory(connections=3))
    with served(services, tls=tls_contexts) as endpoint, make_wire(endpoint) as first:
        assert first.ask("PUT", "/bucket").status == 200
        with make_wire(dataclasses.replace(endpoint, trust=None)) as plain:
            assert plain.ask("HEAD", "/bucket").status == 200
            assert first.ask("HEAD", "/bucket").status == 200
            with make_wire(endpoint) as second:
                assert second.ask("HEAD", "/bucket").status == 200
                assert (plain.closed(), first.closed()) == (True, True)


def test_who_waits_for_a_turn_gets_it_when_it_comes(make_wire, until) -> None:
    services = memory_services(memory=small_memory(WAIT_SECONDS, requests=1))
    with served(services) as endpoint, make_wire(endpoint) as first, make_wire(endpoint) as second:
        assert first.ask("PUT", "/bucket").status == 200
        first.send(first.head("PUT", "/bucket/k", {"content-length": "2"}) + b"1")
        until(lambda: services.memory.requests.used)
        second.send(second.head("PUT", "/bucket/l", {"content-length": "2", "expect": "100-continue"}))
        until(lambda: services.memory.requests.waiting)
        first.send(b"2")
        assert first.read().status == 200
        assert second.read().status == 100
        second.send(b"12")
        assert second.read().status == 200


def test_who_waits_to_continue_is_refused_before_it_sends(make_wire, until) -> None:
    services = memory_services(memory=small_memory(streams=1))
    with served(services) as endpoint, make_wire(endpoint) as first, make_wire(endpoint) as second:
        assert first.ask("PUT", "/bucket").status == 200
        first.send(first.head("PUT", "/bucket/k", {"content-length": "70000"}) + bytes(10))
        until(lambda: services.memory.streams.used)
        second.send(second.head("PUT", "/bucket/l", {"content-length": "5000000000", "expect": "100-continue"}))
        answer = second.read()
        assert (answer.code, answer.headers["retry-after"]) == ("SlowDown", "1")
        assert second.closed()
        first.send(bytes(69990))
        assert first.read().status == 200


def test_the_admin_api_answers_while_no_other_request_gets_a_turn(make_wire, until) -> None:
    services = memory_services(memory=small_memory(requests=1))
    with served(services) as endpoint, make_wire(endpoint) as first, make_wire(endpoint) as second:
        assert first.ask("PUT", "/bucket").status == 200
        first.send(first.head("PUT", "/bucket/k", {"content-length": "2"}) + b"1")
        until(lambda: services.memory.requests.used)
        assert second.ask("GET", names.ADMIN_PREFIX + "/users").status == 200
        assert second.ask("HEAD", "/bucket").status == 503
        first.send(b"2")
        assert first.read().status == 200


def test_everything_is_given_back_whatever_becomes_of_a_request(make_wire, until) -> None:
    services = memory_services(memory=PodMemory())
    memory = services.memory
    with served(services) as endpoint:
        with make_wire(endpoint) as wire:
            assert wire.ask("PUT", "/bucket").status == 200
            assert wire.ask("PUT", "/bucket/large", bytes(8 << 20)).status == 200
            assert wire.ask("GET", "/bucket/large").status == 200
            assert wire.ask("GET", "/bucket", query="list-type=2").status == 200
            assert wire.ask("PUT", "/bucket/copy", headers={"x-amz-copy-source": "/bucket/large"}).status == 200
            assert wire.ask("GET", "/bucket/none").status == 404
        with make_wire(endpoint) as wire:  # vanishes during a download
            wire.send(wire.head("GET", "/bucket/large"))
            wire.socket.recv(1000)
        until(lambda: not services.metrics.requests.in_flight)
        with make_wire(endpoint) as wire:  # and during an upload
            wire.send(wire.head("PUT", "/bucket/large", {"content-length": "1000000"}) + bytes(100_000))
            until(lambda: services.metrics.requests.in_flight)
        until(lambda: not any(budget.used for budget in memory.budgets()))
