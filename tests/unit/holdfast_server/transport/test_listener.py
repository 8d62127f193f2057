"""Whoever connects and does not do what is due is let go in time, and keeps nobody else from being served."""

from __future__ import annotations

import asyncio
import gc
import resource
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from holdfast_server.transport import listener as module
from holdfast_server.transport.listener import MAX_ARRIVING, MAX_SHAKING_HANDS, Admission, Listener

NAME = "logs.loki.svc"
HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
"""The first bytes of a TLS handshake that says no more."""
WAIT_SECONDS = 90.0

Contexts = tuple[ssl.SSLContext, ssl.SSLContext]


class Echo(asyncio.BufferedProtocol):
    """Answers each piece with the same."""

    def __init__(self) -> None:
        self._buffer = memoryview(bytearray(1000))
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self._transport.write(bytes(self._buffer[:nbytes]))


class Door:
    """A listener and what tests do at it."""

    def __init__(self, listener: Listener, port: int, trust: ssl.SSLContext) -> None:
        self.listener, self._port, self._trust = listener, port, trust
        self._open: list[asyncio.StreamWriter] = []

    async def connect(self, first: bytes = b"") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._open.append(writer)
        writer.write(first)
        return reader, writer

    async def is_served(self, *, secure: bool) -> bool:
        options: dict[str, Any] = {"ssl": self._trust, "server_hostname": NAME} if secure else {}
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port, **options)
        writer.write(b"hello")
        answer = await reader.readexactly(5)
        writer.close()
        await writer.wait_closed()
        return answer == b"hello"

    @property
    def busy(self) -> int:
        """Connections that are neither closed nor with a protocol."""
        inner: Any = self.listener
        return len(inner._arriving.tasks.keys() | inner._shaking_hands.tasks.keys())

    @property
    def shaking_hands(self) -> int:
        inner: Any = self.listener
        return len(inner._shaking_hands.tasks)

    async def until_busy(self, count: int) -> None:
        while self.busy != count:
            await asyncio.sleep(0.01)

    def leave(self) -> None:
        for writer in self._open:
            writer.transport.abort()


async def closed(reader: asyncio.StreamReader) -> bool:
    """Whether the connection ends; what comes before that (an alert) is read over."""
    try:
        await reader.read(-1)
    except ConnectionError:
        pass
    return True


OpenDoor = Callable[..., Any]


@pytest.fixture
async def open_door(contexts: Contexts) -> OpenDoor:
    @asynccontextmanager
    async def opened(
        *,
        tls: bool,
        plain: bool = True,
        first_bytes_seconds: float = module.FIRST_BYTES_SECONDS,
        max_shaking_hands: int = MAX_SHAKING_HANDS,
    ) -> AsyncIterator[Door]:
        admission = Admission(tls=lambda: contexts[0] if tls else None, plain=lambda: plain)
        listener = Listener(Echo, admission, first_bytes_seconds, max_shaking_hands)
        door = Door(listener, await listener.start("127.0.0.1", 0), contexts[1])
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                yield door
        finally:
            door.leave()
            await listener.close()

    return opened


async def test_one_port_serves_both(open_door: OpenDoor) -> None:
    async with open_door(tls=True) as door:
        assert await door.is_served(secure=True)
        assert await door.is_served(secure=False)


async def test_who_says_nothing_is_let_go(open_door: OpenDoor) -> None:
    async with open_door(tls=True, first_bytes_seconds=0.2) as door:
        silent, _ = await door.connect()
        assert await closed(silent)
        await door.until_busy(0)


async def test_who_does_not_finish_the_handshake_is_let_go(
    open_door: OpenDoor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HANDSHAKE_SECONDS", 0.2)
    async with open_door(tls=True) as door:
        reader, _ = await door.connect(HELLO)
        assert await closed(reader)
        await door.until_busy(0)


@pytest.mark.parametrize("sent", [b"\x16\x03", HELLO], ids=["before TLS is certain", "in the handshake"])
async def test_a_byte_at_a_time_buys_no_time(open_door: OpenDoor, monkeypatch: pytest.MonkeyPatch, sent: bytes) -> None:
    monkeypatch.setattr(module, "HANDSHAKE_SECONDS", 1.5)
    async with open_door(tls=True, first_bytes_seconds=1.5) as door:
        reader, writer = await door.connect(sent[:1])
        await door.until_busy(1)

        async def trickle() -> None:
            for byte in sent[1:] + b"\x00" * (1000 if len(sent) > 3 else 0):
                writer.write(bytes((byte,)))
                await asyncio.sleep(0.05)

        trickling = asyncio.create_task(trickle())
        assert await closed(reader)
        trickling.cancel()


async def test_without_tls_what_is_no_tls_goes_to_the_protocol_or_is_refused(open_door: OpenDoor) -> None:
    for garbage in (b"\x00\xff\x00", b"\x16\x02\x00", b"GET / HTTP/1.1\r\n\r\n"):
        async with open_door(tls=True) as door:
            reader, _ = await door.connect(garbage)
            assert await reader.readexactly(len(garbage)) == garbage
        async with open_door(tls=True, plain=False) as door:
            reader, _ = await door.connect(garbage)
            assert await closed(reader)
            assert await door.is_served(secure=True)


async def test_tls_to_a_plain_port_is_the_protocols_to_answer(open_door: OpenDoor) -> None:
    async with open_door(tls=False) as door:
        reader, _ = await door.connect(HELLO)
        assert await reader.readexactly(len(HELLO)) == HELLO


@pytest.mark.parametrize("garbage", [HELLO + b"\xff" * 600, b"\x16\x03\x01\xff\xff" + bytes(70_000)])
async def test_a_handshake_of_garbage_is_refused_at_once(open_door: OpenDoor, garbage: bytes) -> None:
    async with open_door(tls=True) as door:
        reader, _ = await door.connect(garbage)
        assert await closed(reader)
        await door.until_busy(0)
        assert await door.is_served(secure=True)


async def test_a_client_that_vanishes_in_the_handshake_leaves_nothing(open_door: OpenDoor) -> None:
    async with open_door(tls=True) as door:
        for number in range(40):
            _, writer = await door.connect(HELLO[: number % len(HELLO)])
            if number % 2:
                # A reset instead of an orderly end.
                sock = writer.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            await asyncio.sleep(0)
            writer.transport.abort()
        await door.until_busy(0)
        assert await door.is_served(secure=True)


@pytest.mark.parametrize(("first", "most"), [(b"", MAX_ARRIVING), (HELLO, MAX_SHAKING_HANDS)], ids=["silent", "in TLS"])
async def test_a_crowd_that_comes_no_further_keeps_nobody_out(
    open_door: OpenDoor, first: bytes, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_files(3 * MAX_ARRIVING)
    monkeypatch.setattr(module, "CROWDED_SECONDS", 0.5)
    async with open_door(tls=True) as door:
        crowd = [await door.connect(first) for _ in range(most + 50)]
        assert await door.is_served(secure=True)
        assert await door.is_served(secure=False)
        for reader, _ in crowd[: 50 if not first else 2]:
            assert await closed(reader)  # the oldest gave way
        assert door.shaking_hands <= MAX_SHAKING_HANDS
        assert door.busy <= MAX_ARRIVING + MAX_SHAKING_HANDS


async def test_a_burst_of_honest_clients_is_served_in_turn(open_door: OpenDoor) -> None:
    require_files(3 * MAX_ARRIVING)
    async with open_door(tls=True, max_shaking_hands=5) as door:
        assert all(await asyncio.gather(*(door.is_served(secure=True) for _ in range(60))))


def require_files(count: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(count, hard), hard))


@pytest.mark.parametrize("steps", range(8))
async def test_who_arrives_while_it_closes_is_let_go(steps: int) -> None:
    """A socket that is left to the collector is a ResourceWarning, which fails the test."""
    listener = Listener(Echo, Admission())
    port = await listener.start("127.0.0.1", 0)
    await asyncio.sleep(0.01)
    with socket.create_connection(("127.0.0.1", port)):
        for _ in range(steps):
            await asyncio.sleep(0)
        await listener.close()
        gc.collect()
