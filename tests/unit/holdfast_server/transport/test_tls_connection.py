"""A protocol over TLS on real sockets, on both event loops: nothing is lost, nothing piles up, every end is an end."""

from __future__ import annotations

import asyncio
import random
import select
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, cast

import pytest
import uvloop

from holdfast_server.testing.loops import writelines_never_pauses
from holdfast_server.transport import tls_connection
from holdfast_server.transport.tls_connection import (
    READ_SIZE_BYTES,
    SOCKET_BUFFER_BYTES,
    TURN_STEPS,
    TlsConnection,
    TlsTransport,
    dial_tls,
)
from holdfast_server.transport.tls_stream import STEP_SIZE_BYTES

NAME = "logs.loki.svc"
MIB = 1 << 20
OVERHEAD_BYTES = 1024
"""Of a handful of records."""
WAIT_SECONDS = 90.0

Contexts = tuple[ssl.SSLContext, ssl.SSLContext]


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Awaitable[None]], None]:
    factory = uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop

    def run_it(work: Awaitable[None]) -> None:
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(asyncio.wait_for(work, WAIT_SECONDS))

    return run_it


class Recorder(asyncio.BufferedProtocol):
    """The protocol above: remembers, and does as it is told."""

    def __init__(self) -> None:
        self.came = bytearray()
        self.transport: TlsTransport | None = None
        self.paused = self.ended = self.keeps_open = False
        self.lost: list[Exception | None] = []
        self.changed = asyncio.Event()
        self._buffer = memoryview(bytearray(READ_SIZE_BYTES))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(TlsTransport, transport)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.came += self._buffer[:nbytes]
        self.changed.set()

    def eof_received(self) -> bool:
        self.ended = True
        self.changed.set()
        return self.keeps_open

    def pause_writing(self) -> None:
        assert not self.paused
        self.paused = True

    def resume_writing(self) -> None:
        assert self.paused
        self.paused = False
        self.changed.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.append(exc)
        self.changed.set()

    async def until(self, condition: Callable[[], object]) -> None:
        while not condition():
            self.changed.clear()
            await self.changed.wait()


class Ends:
    """A connection: the server's end with its protocol, and the client's, a blocking socket in threads."""

    def __init__(self, protocol: Recorder, connection: TlsConnection, client: ssl.SSLSocket) -> None:
        self.protocol, self.connection, self.client = protocol, connection, client
        assert protocol.transport is not None
        self.transport = protocol.transport

    async def receive(self, size: int) -> bytes:
        return await asyncio.to_thread(self._receive, size)

    async def exchange(self, data: bytes, size: int) -> bytes:
        """Send and receive at once."""
        return await asyncio.to_thread(self._exchange, data, size)

    def _exchange(self, data: bytes, size: int) -> bytes:
        """In one thread: two may not use such a socket at the same time."""
        left, came = memoryview(data), bytearray()
        self.client.setblocking(False)
        while left or len(came) < size:
            before = len(left), len(came)
            with suppress(ssl.SSLWantReadError, ssl.SSLWantWriteError):
                left = left[self.client.send(left[: 64 * 1024]) :] if left else left
            with suppress(ssl.SSLWantReadError, ssl.SSLWantWriteError):
                came += self.client.recv(min(MIB, size - len(came))) if len(came) < size else b""
            if before == (len(left), len(came)):
                select.select([self.client], [self.client] if left else [], [], 0.1)
        self.client.settimeout(WAIT_SECONDS)
        return bytes(came)

    def _receive(self, size: int) -> bytes:
        came = bytearray()
        while len(came) < size and (piece := self.client.recv(min(MIB, size - len(came)))):
            came += piece
        return bytes(came)

    @property
    def encrypted_bytes(self) -> int:
        """What the server's end keeps in encrypted form."""
        inner: Any = self.connection
        return int(inner._transport.get_write_buffer_size()) + int(inner._stream._outgoing.pending)


@asynccontextmanager
async def ends(contexts: Contexts) -> AsyncIterator[Ends]:
    protocol = Recorder()
    connection = TlsConnection(protocol, contexts[0], memoryview(bytearray(READ_SIZE_BYTES)), server_side=True)
    with plain_pair() as (ours, theirs):
        ours.setblocking(False)
        client = asyncio.create_task(asyncio.to_thread(contexts[1].wrap_socket, theirs, server_hostname=NAME))
        await asyncio.get_running_loop().connect_accepted_socket(lambda: connection, ours)
        await connection.established()
        with await client as secure:
            secure.settimeout(WAIT_SECONDS)
            yield Ends(protocol, connection, secure)
        connection.abort()
        await protocol.until(lambda: protocol.lost)


@contextmanager
def plain_pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        theirs = socket.create_connection(listening.getsockname())
        ours, _ = listening.accept()
    with theirs:
        theirs.settimeout(WAIT_SECONDS)
        yield ours, theirs


Runner = Callable[[Awaitable[None]], None]


@pytest.fixture
def both(contexts: Contexts, client_context: ssl.SSLContext) -> Contexts:
    return contexts[0], client_context


def test_megabytes_go_both_ways_at_once(run: Runner, both: Contexts) -> None:
    async def work() -> None:
        async with ends(both) as pair:
            up, down = (random.Random(seed).randbytes(3 * MIB + seed) for seed in (1, 2))
            exchanging = asyncio.create_task(pair.exchange(up, len(down)))
            pair.transport.write(down[:100])
            pair.transport.writelines([down[100:200], memoryview(down)[200:MIB], bytearray(down[MIB:])])
            assert await exchanging == down
            await pair.protocol.until(lambda: len(pair.protocol.came) >= len(up))
            assert pair.protocol.came == up
            await pair.protocol.until(lambda: not pair.protocol.paused)

    run(work())


def test_a_protocol_that_takes_nothing_stops_the_other_end_and_later_gets_everything(
    run: Runner, both: Contexts
) -> None:
    async def work() -> None:
        async with ends(both) as pair:
            pair.transport.pause_reading()
            data = random.Random(3).randbytes(20 * MIB)
            sending = asyncio.create_task(asyncio.to_thread(pair.client.sendall, data))
            await asyncio.sleep(0.5)
            kept: Any = pair.connection
            assert not pair.protocol.came
            assert len(kept._stream._received) <= READ_SIZE_BYTES
            assert not sending.done()
            while len(pair.protocol.came) < len(data):
                pair.transport.resume_reading()
                before = len(pair.protocol.came)
                await pair.protocol.until(lambda before=before: len(pair.protocol.came) > before)  # type: ignore[misc]
                if random.Random(before).random() < 0.2:
                    pair.transport.pause_reading()
                    await asyncio.sleep(0)
            await sending
            assert pair.protocol.came == data

    run(work())


def test_what_a_client_does_not_take_waits_unencrypted_and_the_protocol_is_asked_to_pause(
    run: Runner, both: Contexts
) -> None:
    async def work() -> None:
        if writelines_never_pauses():
            pytest.skip("CVE-2024-12254")
        async with ends(both) as pair:
            data = random.Random(4).randbytes(20 * MIB)
            pair.transport.write(data)
            await asyncio.sleep(0.2)
            assert pair.protocol.paused
            record = STEP_SIZE_BYTES + OVERHEAD_BYTES
            assert pair.encrypted_bytes <= SOCKET_BUFFER_BYTES + TURN_STEPS * record
            assert pair.transport.get_write_buffer_size() > 4 * MIB
            assert await pair.receive(len(data)) == data
            await pair.protocol.until(lambda: not pair.protocol.paused)
            assert pair.transport.get_write_buffer_size() == 0

    run(work())


def test_closing_sends_what_was_written_then_says_goodbye(run: Runner, both: Contexts) -> None:
    async def work() -> None:
        async with ends(both) as pair:
            pair.client.suppress_ragged_eofs = False
            data = bytes(5 * MIB)
            pair.transport.write(data)
            pair.transport.close()
            pair.transport.write(b"too late")
            assert pair.transport.is_closing()
            assert await pair.receive(len(data) + 1) == data  # and a proper end, else recv raises
            pair.client.close()
            await pair.protocol.until(lambda: pair.protocol.lost)
            assert pair.protocol.lost == [None]

    run(work())


@pytest.mark.parametrize("written", [0, 20 * MIB], ids=["never says goodbye", "never takes what was written"])
def test_a_client_that_does_nothing_is_cut_off(
    run: Runner, both: Contexts, written: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls_connection, "GOODBYE_SECONDS", 0.2)
    monkeypatch.setattr(tls_connection, "FLUSH_SECONDS", 0.2)

    async def work() -> None:
        async with ends(both) as pair:
            pair.transport.write(bytes(written))
            pair.transport.close()
            await pair.protocol.until(lambda: pair.protocol.lost)

    run(work())


def test_a_client_that_has_said_all_can_still_be_answered(run: Runner, both: Contexts) -> None:
    async def work() -> None:
        async with ends(both) as pair:
            pair.protocol.keeps_open = True
            pair.client.sendall(b"question")
            socket.socket.shutdown(pair.client, socket.SHUT_WR)  # of the socket below; that of TLS forgets TLS
            await pair.protocol.until(lambda: pair.protocol.ended)
            assert pair.protocol.came == b"question"
            pair.transport.write(b"answer")
            assert await pair.receive(6) == b"answer"
            pair.transport.close()
            await pair.protocol.until(lambda: pair.protocol.lost)

    run(work())


def test_a_client_that_says_goodbye_ends_the_connection(run: Runner, both: Contexts) -> None:
    async def work() -> None:
        async with ends(both) as pair:
            pair.client.sendall(b"question")
            plain = await asyncio.to_thread(pair.client.unwrap)  # waits for the server's goodbye
            assert plain.recv(1) == b""
            assert (pair.protocol.came, pair.protocol.ended) == (b"question", True)
            plain.close()

    run(work())


def test_what_is_no_tls_ends_the_connection_with_a_reason(run: Runner, both: Contexts) -> None:
    async def work() -> None:
        async with ends(both) as pair:
            with socket.socket(fileno=pair.client.detach()) as raw:
                raw.sendall(b"\x17\x03\x03\x00\x20" + bytes(32))
                await pair.protocol.until(lambda: pair.protocol.lost)
                assert isinstance(pair.protocol.lost[0], ssl.SSLError)
                raw.settimeout(WAIT_SECONDS)
                assert raw.recv(1)  # the alert

    run(work())


def test_dialling_takes_the_right_name_only(run: Runner, contexts: Contexts) -> None:
    async def work() -> None:
        accepted: list[TlsConnection] = []

        def accept() -> TlsConnection:
            buffer = memoryview(bytearray(READ_SIZE_BYTES))
            accepted.append(TlsConnection(Recorder(), contexts[0], buffer, server_side=True))
            return accepted[-1]

        server = await asyncio.get_running_loop().create_server(accept, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        dialled = Recorder()
        await dial_tls(dialled, contexts[1], NAME, "127.0.0.1", port)
        assert dialled.transport is not None
        assert dialled.transport.get_extra_info("ssl_object").version() == "TLSv1.3"
        assert dialled.transport.get_extra_info("sslcontext") is contexts[1]
        assert dialled.transport.get_extra_info("peername")[1] == port
        dialled.transport.abort()
        with pytest.raises(ssl.SSLCertVerificationError):
            await dial_tls(Recorder(), contexts[1], "another.svc", "127.0.0.1", port)
        with pytest.raises(ssl.SSLError, match="ALERT"):
            await accepted[1].established()
        server.close()
        for connection in accepted:
            connection.abort()
        await dialled.until(lambda: dialled.lost)

    run(work())
