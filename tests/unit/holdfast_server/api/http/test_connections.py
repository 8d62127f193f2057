"""Connections on the wire: who is answered, in which order, and when a connection ends."""

from __future__ import annotations

import random
import time

import pytest

from holdfast_server.testing.memory_services import memory_services, served

LIVE = b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture(scope="module", params=["plain", "TLS"])
def endpoint(make_wire, tls_contexts, request):
    with served(memory_services(), tls=tls_contexts if request.param == "TLS" else None) as endpoint:
        with make_wire(endpoint) as wire:
            assert wire.ask("PUT", "/bucket").status == 200
        yield endpoint


def test_what_is_asked_at_once_is_answered_in_order(wire) -> None:
    put = wire.head("PUT", "/bucket/a", {"content-length": "3"}) + b"one"
    chunked = wire.head("PUT", "/bucket/b", {"transfer-encoding": "chunked"}) + b"3\r\ntwo\r\n0\r\n\r\n"
    gets = wire.head("GET", "/bucket/a") + wire.head("GET", "/bucket/b")
    wire.send(put + chunked + LIVE + gets + wire.head("DELETE", "/bucket/a") + wire.head("DELETE", "/bucket/b"))
    assert [wire.read().status for _ in range(3)] == [200, 200, 200]
    assert [wire.read().body, wire.read().body] == [b"one", b"two"]
    assert [wire.read().status, wire.read().status] == [204, 204]


def test_it_does_not_matter_how_what_is_asked_is_cut(wire) -> None:
    asked = wire.head("PUT", "/bucket/a", {"content-length": "3"}) + b"one" + wire.head("DELETE", "/bucket/a")
    for size in (1, 7, 100):
        for at in range(0, len(asked), size):
            wire.send(asked[at : at + size])
        assert [wire.read().status, wire.read().status] == [200, 204]


@pytest.mark.parametrize("pieces", [[1], [1, 70_000], [65_536, 65_536], [299_999], [100_000, 1, 1, 99_998], [300_000]])
def test_a_body_is_what_was_sent_however_it_comes(wire, pieces) -> None:
    """Some of it with its head, the rest as it comes, and what follows is the next request."""
    body = random.Random(7).randbytes(300_000)
    asked = wire.head("PUT", "/bucket/large", {"content-length": str(len(body))}) + body
    asked += wire.head("GET", "/bucket/large") + LIVE
    head_bytes = len(asked) - len(body) - len(wire.head("GET", "/bucket/large") + LIVE)
    at = 0
    for size in (head_bytes, *pieces, len(asked)):
        wire.send(asked[at : at + size])
        at += size
        time.sleep(0.01)
    assert wire.read().status == 200
    assert wire.read().body == body
    assert wire.read().status == 200


@pytest.mark.parametrize("sent", [0, 1, 100_000, 299_999])
def test_a_body_that_breaks_off_is_told_and_not_stored(wire, connect, sent) -> None:
    wire.send(wire.head("PUT", "/bucket/broken", {"content-length": "300000"}) + bytes(sent))
    wire.end_sending()
    answer = wire.read()
    assert (answer.status, b"IncompleteBody" in answer.body) == (400, True)
    with connect() as other:
        assert other.ask("GET", "/bucket/broken").status == 404


def test_who_ends_sending_is_answered_what_it_had_asked(wire) -> None:
    wire.send(LIVE + wire.head("GET", "/bucket/a") + LIVE + b"GET /incompl")
    wire.end_sending()
    assert [wire.read().status for _ in range(3)] == [200, 404, 200]
    assert wire.closed()


def test_half_a_head_is_no_request(wire) -> None:
    wire.send(LIVE[:-2])
    wire.end_sending()
    assert wire.closed()


def test_line_ends_between_requests_are_read_over(wire) -> None:
    wire.send(b"\r\n\r\n" + LIVE + b"\r\n" + LIVE)
    assert [wire.read().status, wire.read().status] == [200, 200]
    wire.send(b"\r\n")
    wire.send(LIVE)
    assert wire.read().status == 200


def test_http_1_0_is_answered_as_such(connect) -> None:
    with connect() as wire:
        wire.send(b"GET /health/live HTTP/1.0\r\n\r\n")
        assert wire.reader.readline() == b"HTTP/1.0 200 OK\r\n"
        assert b"keep-alive" not in wire.reader.read()
    with connect() as wire:
        for _ in range(2):
            wire.send(b"GET /health/live HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            assert wire.read().headers["connection"] == "keep-alive"


def test_who_wants_the_connection_closed_has_it_closed(wire) -> None:
    wire.send(LIVE.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    assert wire.read().headers["connection"] == "close"
    assert wire.closed()


def test_a_whole_address_is_understood(wire) -> None:
    wire.send(b"GET http://anywhere:80/health/live HTTP/1.1\r\nHost: x\r\n\r\n")
    assert wire.read().status == 200


def test_who_asks_for_another_protocol_is_answered_in_this_one(wire) -> None:
    wire.send(LIVE.replace(b"\r\n\r\n", b"\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n") + LIVE)
    assert [wire.read().status, wire.read().status] == [200, 200]
