"""The load generator's HTTP, fed byte by byte: what it takes for an answer, and what it does not."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SOURCE = Path(__file__).resolve().parents[3] / "bench" / "wire.py"


def load() -> ModuleType:
    """The benchmark is no installed package."""
    spec = importlib.util.spec_from_file_location("bench_wire_under_test", SOURCE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


wire = load()


class Transport:
    def __init__(self) -> None:
        self.sent = bytearray()
        self.aborted = False

    def write(self, data: bytes) -> None:
        self.sent += data

    def abort(self) -> None:
        self.aborted = True


def feed(protocol: Any, data: bytes, step: int) -> None:
    for start in range(0, len(data), step):
        piece = data[start : start + step]
        protocol.get_buffer(-1)[: len(piece)] = piece
        protocol.buffer_updated(len(piece))


async def answer(data: bytes, step: int, keep: bool = True, bodiless: bool = False) -> tuple[Any, Any, Transport]:
    protocol, transport = wire.Wire(), Transport()
    protocol.connection_made(transport)
    waiting = asyncio.ensure_future(protocol.exchange(b"head", b"body", keep, bodiless))
    await asyncio.sleep(0)
    assert bytes(transport.sent) == b"headbody"
    feed(protocol, data, step)
    return await waiting, protocol, transport


@pytest.mark.parametrize("step", [1, 7, 1000])
@pytest.mark.parametrize(
    ("data", "body"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", b"hello"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\n\r\n", b"hello"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b""),
    ],
)
async def test_bodies_of_every_framing_are_read_whole(data: bytes, body: bytes, step: int) -> None:
    got, protocol, _ = await answer(data, step)
    assert bytes(got.body) == body
    assert got.size_bytes == len(body)
    assert not protocol.ended


async def test_an_answer_to_head_has_no_body_whatever_its_length_says() -> None:
    got, protocol, _ = await answer(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", 3, bodiless=True)
    assert got.size_bytes == 0
    assert not protocol.ended


async def test_bodies_that_nobody_wants_are_counted_but_those_of_errors_kept() -> None:
    got, _, _ = await answer(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", 2, keep=False)
    assert (bytes(got.body), got.size_bytes) == (b"", 5)
    got, _, _ = await answer(b"HTTP/1.1 503 Slow\r\nContent-Length: 5\r\n\r\nhello", 2, keep=False)
    assert (got.status, bytes(got.body)) == (503, b"hello")


async def test_a_connection_that_is_to_be_closed_is_not_used_again() -> None:
    _, protocol, transport = await answer(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", 9)
    assert transport.aborted
    with pytest.raises(wire.WireError):
        await protocol.exchange(b"", b"", False, False)


@pytest.mark.parametrize("data", [b"SSH-2.0\r\n\r\n", b"HTTP/1.1 abc\r\n\r\n"])
async def test_what_is_no_http_is_an_error(data: bytes) -> None:
    with pytest.raises(wire.WireError):
        await answer(data, 100)


async def test_an_answer_that_ends_early_is_an_error() -> None:
    protocol, transport = wire.Wire(), Transport()
    protocol.connection_made(transport)
    waiting = asyncio.ensure_future(protocol.exchange(b"head", b"", False, False))
    await asyncio.sleep(0)
    feed(protocol, b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel", 100)
    protocol.connection_lost(None)
    with pytest.raises(wire.WireError):
        await waiting
