"""Frames whose blobs are in pipes arrive like all others, among others, in order; and end with their connection."""

from __future__ import annotations

import asyncio
import os
import random
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvloop

from holdfast_server.memory.pipes import Piped, Pipes
from holdfast_server.peers.connection import WRITE_BUFFER_HIGH_BYTES, Connection, ConnectionLost
from holdfast_server.peers.frames import MAX_FRAME_SIZE_BYTES, FrameError
from holdfast_server.testing.loops import writelines_never_pauses

DATA = random.Random(4).randbytes(4 << 20)
WAIT_SECONDS = 60.0
Runner = Callable[[Coroutine[Any, Any, None]], None]

loops = pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])


class _Ends:
    """A connection that sends, the one it goes to, and what came there."""

    def __init__(self, sender: Connection, receiver: Connection, path: Path) -> None:
        self.sender, self.receiver = sender, receiver
        self.pipes = Pipes(16)
        self.came: list[tuple[bytes, bytes]] = []
        self.lost: list[str] = []
        sender.start(lambda _: None, self.lost.append)
        receiver.start(lambda frame: self.came.append((bytes(frame.header), bytes(frame.blobs))), lambda _: None)
        path.write_bytes(DATA)
        self._descriptor = os.open(path, os.O_RDONLY)

    def piped(self, offset: int = 0, size: int = len(DATA)) -> Piped:
        piped = self.pipes.load(self._descriptor, offset, [size])
        assert piped is not None
        return piped

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(WAIT_SECONDS):
            while not condition():
                await asyncio.sleep(0.005)

    def close(self) -> None:
        os.close(self._descriptor)
        for connection in (self.sender, self.receiver):
            connection.abort("the test is over")


@asynccontextmanager
async def _connected(path: Path) -> AsyncIterator[_Ends]:
    loop = asyncio.get_running_loop()
    arrived: asyncio.Future[Connection] = loop.create_future()
    server = await loop.create_server(lambda: Connection(arrived.set_result), "127.0.0.1", 0)
    _, sender = await loop.create_connection(Connection, *server.sockets[0].getsockname())
    ends = _Ends(sender, await arrived, path)
    try:
        yield ends
    finally:
        ends.close()
        server.close()
        await server.wait_closed()
        await ends.until(lambda: ends.pipes.taken == 0)


@loops
def test_they_arrive_among_others_in_order(run: Runner, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with _connected(tmp_path / "file") as ends:
            expected = []
            sent = []
            for number in range(12):
                for small in range(number % 3):
                    ends.sender.send(b"small %d %d" % (number, small), (b"blob",) * small)
                    expected.append((b"small %d %d" % (number, small), b"blob" * small))
                if number % 4 == 3:
                    # Before anything of it is out, or while some is.
                    await sent[-1]
                size = [300_000, 3 << 20, 1 << 20, 100][number % 4]
                sent.append(ends.sender.send_piped(b"piped %d" % number, ends.piped(number * 999, size)))
                expected.append((b"piped %d" % number, DATA[number * 999 : number * 999 + size]))
            ends.sender.send(b"the last", (DATA,))
            expected.append((b"the last", DATA))
            await ends.until(lambda: len(ends.came) == len(expected))
            assert ends.came == expected
            assert all(one.done() for one in sent)
            assert ends.pipes.taken == 0

    run(scenario())


@loops
def test_a_peer_that_takes_nothing_for_a_while_gets_all_of_it(run: Runner, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with _connected(tmp_path / "file") as ends:
            _shrink(ends)
            ends.receiver.pause_reading()
            sent = ends.sender.send_piped(b"first", ends.piped())
            second = ends.sender.send_piped(b"second", ends.piped(5, 1 << 20))
            ends.sender.send(b"third")
            await asyncio.sleep(0.05)
            assert not sent.done()
            assert not second.done()
            second.cancel()  # who waited has left; what was begun goes on
            ends.receiver.resume_reading()
            await ends.until(lambda: len(ends.came) == 3)
            assert ends.came == [(b"first", DATA), (b"second", DATA[5 : 5 + (1 << 20)]), (b"third", b"")]
            assert sent.done()

    run(scenario())


@loops
def test_behind_a_transport_that_is_full_they_are_copied(run: Runner, tmp_path: Path) -> None:
    async def scenario() -> None:
        if writelines_never_pauses():
            pytest.skip("CVE-2024-12254")
        async with _connected(tmp_path / "file") as ends:
            _shrink(ends)
            ends.receiver.pause_reading()
            large = bytes(2 * WRITE_BUFFER_HIGH_BYTES)
            ends.sender.send(b"large", (large,))
            await asyncio.sleep(0.05)
            assert ends.sender.congested
            sent = ends.sender.send_piped(b"piped", ends.piped())
            await asyncio.wait_for(sent, WAIT_SECONDS)
            assert ends.pipes.taken == 0
            ends.receiver.resume_reading()
            await ends.until(lambda: len(ends.came) == 2)
            assert ends.came == [(b"large", large), (b"piped", DATA)]

    run(scenario())


@loops
@pytest.mark.parametrize("by_peer", [False, True])
def test_they_end_with_their_connection(run: Runner, tmp_path: Path, by_peer: bool) -> None:
    async def scenario() -> None:
        async with _connected(tmp_path / "file") as ends:
            _shrink(ends)
            ends.receiver.pause_reading()
            sent = [ends.sender.send_piped(b"header", ends.piped()) for _ in range(3)]
            await asyncio.sleep(0.05)
            assert ends.pipes.taken > 8
            descriptors = len(os.listdir("/proc/self/fd"))
            (ends.receiver if by_peer else ends.sender).abort("the test says so")
            async with asyncio.timeout(WAIT_SECONDS):
                await asyncio.gather(*sent)
            assert len(ends.lost) == 1
            assert ends.pipes.taken == 0
            assert len(os.listdir("/proc/self/fd")) < descriptors
            piped = ends.piped()
            with pytest.raises(ConnectionLost):
                ends.sender.send_piped(b"header", piped)
            piped.close()
            assert not ends.sender.takes_pipes

    run(scenario())


@loops
def test_a_page_that_cannot_be_sent_ends_the_connection(
    run: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The peer waits for bytes that will not come: it must hear of it, and nobody may take others for them."""

    async def scenario() -> None:
        async with _connected(tmp_path / "file") as ends:
            ends.sender.send(b"before")
            piped = ends.piped()
            await ends.until(lambda: len(ends.came) == 1)
            monkeypatch.setattr(os, "splice", lambda *_, **__: 0)
            sent = ends.sender.send_piped(b"header", piped)
            behind = ends.sender.send_piped(b"behind", ends_piped_before)
            async with asyncio.timeout(WAIT_SECONDS):
                await asyncio.gather(sent, behind)
                await ends.receiver.ended()
            assert ends.came == [(b"before", b"")]
            assert "a page has left" in ends.lost[0]

    ends_piped_before: Any = Piped(Pipes(0), [], [])
    run(scenario())


@loops
def test_too_large_a_frame_is_refused(run: Runner, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with _connected(tmp_path / "file") as ends:
            piped = ends.piped()
            with pytest.raises(FrameError):
                ends.sender.send_piped(bytes(MAX_FRAME_SIZE_BYTES), piped)
            assert ends.pipes.taken == 4
            ends.sender.send_piped(b"header", piped)
            await ends.until(lambda: len(ends.came) == 1)

    run(scenario())


def _shrink(ends: _Ends) -> None:
    """Sockets that take little, whatever the machine's settings are."""
    for connection, option in ((ends.sender, socket.SO_SNDBUF), (ends.receiver, socket.SO_RCVBUF)):
        transport = connection._transport
        assert transport is not None
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, option, 64 << 10)
