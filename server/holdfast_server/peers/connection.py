"""One TCP connection between two pods: frames in both directions, writes coalesced, flow control.

Everything that is sent within one turn of the event loop goes out in one system call (`_flush` runs once, at
the end of the turn): that is what makes a call cost microseconds.  Small frames are joined, blobs are handed
to the transport as they are.

Blobs in pipes go to the socket from there, past the transport, and only where that has nothing left to send; else they
are copied, as ever.  What is queued behind them waits until they are out.

Until `start` the frames that arrive wait to be fetched with `receive` (the handshake); afterwards each goes
straight to the callback, synchronously.  Not here: what the frames mean, deadlines, dialling.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

from holdfast_server.memory.pipes import Piped
from holdfast_server.peers.bypass import Bypass, bypass_to
from holdfast_server.peers.frames import (
    MAX_FRAME_SIZE_BYTES,
    Buffer,
    Frame,
    FrameError,
    FrameReader,
    Wish,
    encode_frame,
    frame_head,
)

WRITE_BUFFER_HIGH_BYTES = 4 << 20
"""Above it `drained` waits: what one slow peer can hold of our memory."""

FLUSH_SECONDS = 5.0
_JOIN_BELOW_BYTES = 64 << 10
_MAX_WAITING_FRAMES = 4


class ConnectionLost(Exception):
    """The connection is gone; the message says why as far as is known."""


@dataclass(slots=True)
class _PipedFrame:
    before: list[Buffer]
    """What was queued before it."""
    before_size_bytes: int
    head: bytes
    piped: Piped
    sent: asyncio.Future[None]

    def end(self) -> None:
        self.piped.close()
        if not self.sent.done():
            self.sent.set_result(None)


class Connection(asyncio.BufferedProtocol):
    """A protocol for `loop.create_connection` and `loop.create_server`."""

    def __init__(self, on_connected: Callable[[Connection], None] | None = None) -> None:
        self._on_connected = on_connected
        self._reader = FrameReader()
        self._transport: asyncio.Transport | None = None
        self._pieces: list[Buffer] = []
        self._pieces_size_bytes = 0
        self._flush_scheduled = False
        self._piped: deque[_PipedFrame] = deque()
        """What goes before `_pieces`; the first may be on its way."""
        self._bypass: Bypass | None = None
        self._lost: str | None = None
        self._lost_event = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._on_frame: Callable[[Frame], None] | None = None
        self._on_lost: Callable[[str], None] | None = None
        self._waiting: deque[Frame] = deque()
        self._arrived = asyncio.Event()
        self.peer_address = ""
        self._deadline: asyncio.TimerHandle | None = None
        self.secure = False
        """Whether it has TLS."""

    # --- for the owner
    @property
    def lost(self) -> bool:
        return self._lost is not None

    def send(self, header: bytes, blobs: Sequence[Buffer] = ()) -> None:
        """Queue a frame for the end of this turn of the loop.  Raises ConnectionLost, FrameError."""
        if self._lost is not None:
            raise ConnectionLost(self._lost)
        for piece in encode_frame(header, blobs):
            self._pieces.append(piece)
            self._pieces_size_bytes += len(piece)
        if not self._flush_scheduled:
            self._flush_scheduled = True
            asyncio.get_running_loop().call_soon(self._flush)

    @property
    def takes_pipes(self) -> bool:
        """Whether `send_piped` may be used."""
        return self._bypass is not None and self._lost is None

    def send_piped(self, header: bytes, piped: Piped) -> asyncio.Future[None]:
        """Queue a frame whose blobs are in pipes, which are ours from now on; done once all of it has left them, or the
        connection is lost.  Raises ConnectionLost, FrameError: then they are the caller's still."""
        if self._lost is not None:
            raise ConnectionLost(self._lost)
        head = frame_head(header, piped.size_bytes)
        loop = asyncio.get_running_loop()
        frame = _PipedFrame(self._pieces, self._pieces_size_bytes, head, piped, loop.create_future())
        self._pieces, self._pieces_size_bytes = [], 0
        self._piped.append(frame)
        if not self._flush_scheduled:
            self._flush_scheduled = True
            loop.call_soon(self._flush)
        return frame.sent

    @property
    def congested(self) -> bool:
        """The peer has not taken enough of what was written."""
        return not self._writable.is_set()

    async def drained(self) -> None:
        """Wait until the peer has taken enough of what was written.  Raises ConnectionLost."""
        if not self._writable.is_set():
            await self._writable.wait()
        if self._lost is not None:
            raise ConnectionLost(self._lost)

    async def receive(self) -> Frame:
        """The next frame, before `start`.  Raises ConnectionLost."""
        while not self._waiting:
            if self._lost is not None:
                raise ConnectionLost(self._lost)
            self._arrived.clear()
            await self._arrived.wait()
        return self._waiting.popleft()

    def start(
        self,
        on_frame: Callable[[Frame], None],
        on_lost: Callable[[str], None],
        wish: Callable[[memoryview], Wish] | None = None,
    ) -> None:
        """The handshake is over: frames may be large and go to `on_frame`; `on_lost` is called once.  `wish`: see
        `frames.FrameReader`."""
        self._on_frame, self._on_lost = on_frame, on_lost
        self._reader.wish = wish
        self._reader.limit_bytes = MAX_FRAME_SIZE_BYTES
        lost = self._lost
        try:
            while self._waiting:
                on_frame(self._waiting.popleft())
        except FrameError as error:
            self.abort(str(error))
        if lost is not None:
            on_lost(lost)

    def pause_reading(self) -> None:
        if self._transport is not None and self._transport.is_reading():
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if self._transport is not None and not self.lost and not self._transport.is_reading():
            self._transport.resume_reading()

    def close(self) -> None:
        """Send what is queued, then close; what the peer has not taken within FLUSH_SECONDS is dropped."""
        if self._transport is not None:
            self._flush()
            self._transport.close()
            if self._deadline is None and self._lost is None:
                self._deadline = asyncio.get_running_loop().call_later(FLUSH_SECONDS, self._transport.abort)

    def abort(self, reason: str) -> None:
        """Close at once; `reason` is what callers are told."""
        if self._transport is not None:
            self._transport.abort()
        self._end(reason)

    async def ended(self) -> None:
        await self._lost_event.wait()

    # --- asyncio.BufferedProtocol
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # No isinstance check: uvloop's transports do not derive from asyncio.Transport.
        self._transport = transport = cast(asyncio.Transport, transport)
        self.secure = transport.get_extra_info("sslcontext") is not None
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            if not self.secure:
                self._bypass = bypass_to(sock)
        transport.set_write_buffer_limits(high=WRITE_BUFFER_HIGH_BYTES)
        address = transport.get_extra_info("peername")
        self.peer_address = f"{address[0]}:{address[1]}" if isinstance(address, tuple) else str(address)
        if self._on_connected is not None:
            self._on_connected(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._reader.buffer()

    def buffer_updated(self, nbytes: int) -> None:
        try:
            frames = self._reader.received(nbytes)
            for frame in frames:
                if self._on_frame is not None:
                    self._on_frame(frame)
                elif len(self._waiting) < _MAX_WAITING_FRAMES:
                    self._waiting.append(frame)
                    self._arrived.set()
                else:
                    raise FrameError("more frames than the handshake has")
        except FrameError as error:
            self.abort(str(error))

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(f"connection lost: {exc}" if exc is not None else "connection closed by the peer")

    def _end(self, reason: str) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        if self._lost is not None:
            return
        self._lost = reason
        self._lost_event.set()
        self._writable.set()
        self._arrived.set()
        self._pieces.clear()
        if self._bypass is not None:
            self._bypass.close()
        for frame in self._piped:
            frame.end()
        self._piped.clear()
        if self._on_lost is not None:
            self._on_lost(reason)

    def _flush(self) -> None:
        self._flush_scheduled = False
        if self._piped and not self._flush_piped():
            return
        pieces, size = self._pieces, self._pieces_size_bytes
        self._pieces, self._pieces_size_bytes = [], 0
        self._write(pieces, size)

    def _flush_piped(self) -> bool:
        """Whether nothing is left of them."""
        while self._piped:
            if self._bypass is None or self._bypass.busy:
                return False  # its end calls `_flush`
            frame = self._piped[0]
            self._write(frame.before, frame.before_size_bytes)
            frame.before = []
            transport = self._transport
            if transport is None or transport.is_closing():
                return False  # `_end` sees to it
            if transport.get_write_buffer_size():
                transport.writelines([frame.head, frame.piped.read()])
            elif not self._bypass.send(frame.head, frame.piped, self._piped_sent, self.abort):
                return False
            self._piped.popleft().end()
        return True

    def _piped_sent(self) -> None:
        self._piped.popleft().end()
        self._flush()

    def _write(self, pieces: list[Buffer], size: int) -> None:
        if not pieces or self._transport is None or self._transport.is_closing():
            return
        if len(pieces) == 1:
            self._transport.write(pieces[0])
        elif size < _JOIN_BELOW_BYTES:
            self._transport.write(b"".join(pieces))
        else:
            self._transport.writelines(pieces)
