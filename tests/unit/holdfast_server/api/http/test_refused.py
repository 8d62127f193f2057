"""Clients that are refused: nothing they sent is taken for a request, and what they make the server hold is bounded."""

from __future__ import annotations

import threading
import time

import pytest

from holdfast_server.testing.memory_services import memory_services, served

LIVE = b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"
ANONYMOUS = b"GET /bucket/none HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize(
    "lines",
    [
        b"Content-Length: 5\r\nContent-Length: 50\r\n",
        b"Content-Length: 50\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 50\r\n",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        b"Content-Length: -5\r\n",
        b"Transfer-Encoding: \x0bchunked\r\n",
        b"X: y\n\nGET / HTTP/1.1\r\n",
    ],
)
def test_nothing_is_smuggled_in(connect, lines: bytes) -> None:
    with connect() as wire:
        wire.send(b"POST /bucket HTTP/1.1\r\nHost: x\r\n" + lines + b"\r\n0\r\n\r\n" + LIVE)
        answer = wire.read()
        assert (answer.status, answer.code) == (400, "InvalidRequest")
        assert wire.reader.read() == b""


def test_an_unread_body_is_never_taken_for_a_request(connect) -> None:
    with connect() as wire:
        wire.send(b"PUT /no-bucket/a HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n" + LIVE * 1000)
        assert wire.read().code == "NoSuchBucket"
        assert wire.reader.read() == b""
    with connect() as wire:  # a rest that is small is read, and the connection goes on
        body = LIVE * 100
        wire.send(b"PUT /no-bucket/a HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body + ANONYMOUS)
        assert [wire.read().code, wire.read().code] == ["NoSuchBucket", "AccessDenied"]


def test_chunks_that_are_none_end_the_connection(connect) -> None:
    with connect() as wire:
        head = wire.head("PUT", "/bucket/a", {"transfer-encoding": "chunked"})
        wire.send(head + b"3\r\none\r\nno chunk\r\n" + LIVE)
        assert wire.read().code == "IncompleteBody"
        assert wire.reader.read() == b""


def test_what_cannot_become_a_request_is_refused_before_its_end(connect) -> None:
    for sent in (b"\x16\x03", b"get / HTTP/1.1\r\n", b"A" * 40):
        with connect() as wire:
            wire.send(sent)
            assert wire.read().code == "InvalidRequest"
            assert wire.closed()


def test_who_reads_no_answers_is_asked_for_no_more_questions(make_wire) -> None:
    """A client may send any number of requests at once; what is answered beyond what it takes is bounded."""
    services, count, body = memory_services(), 1000, bytes(60_000)
    answered = services.metrics.registry

    def gets() -> float:
        labels = {"operation": "GetObject", "status": "2xx"}
        return answered.get_sample_value("holdfast_s3_requests_total", labels) or 0.0

    with served(services) as endpoint, make_wire(endpoint) as wire:
        assert wire.ask("PUT", "/bucket").status == 200
        assert wire.ask("PUT", "/bucket/key", body).status == 200
        sending = threading.Thread(target=wire.send, args=(wire.head("GET", "/bucket/key") * count,))
        sending.start()
        before = 0.0
        while not before or gets() != before:
            before = gets()
            time.sleep(0.5)
        assert 0 < before < count
        assert all(wire.read().body == body for _ in range(count))
        sending.join()
        wire.send(LIVE)
        assert wire.read().status == 200
