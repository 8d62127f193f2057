"""The body of a request, as it comes: taken off the wire only when a handler asks for it, and never much ahead of it.

What came with the head is kept; for more, the connection reads only while a handler waits or less than HIGH_BYTES are
there that it has not taken.  A handler may also name memory to receive it into (`fill`): then nothing is read but into
that.  A client that waits for `100 Continue` is told to go on by the first question.  A wait is
bounded (`waits`); one that ends without a body, because the client stalls or stops sending, is an S3 error.

A body also knows whether its client is slow (`is_slow`): what counts is the time it was waited for, not what the server
took for itself.  Who has to go for that, and when, is decided elsewhere (`places`).

Not here: sockets (`connection`), S3's own framing (`s3.payload`).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Protocol

from holdfast_server.api.http.chunks import BadFraming, ChunkReader
from holdfast_server.api.http.head import Head
from holdfast_server.api.http.overdue import Overdue
from holdfast_server.s3.errors import S3Error

HIGH_BYTES = 128 << 10
"""Come and not taken: no more is read then, beyond the one read that brought so much."""
JOINED_BELOW_BYTES = 4 << 10
"""What came in smaller pieces is kept as one: each takes far more than the bytes in it."""
DRAINED_SIZE_BYTES = 64 << 10
"""A rest of a body up to this size is read so that the connection can be kept."""
DRAIN_SECONDS = 0.5
SLOW_SECONDS = 6.0
"""A client is slow that sends nothing for so long,"""
PACE_BYTES = 192 << 10
"""or less than this (32 KB/s): a third of what a line of 100 KB/s brings, lost packets or not."""


def _nobody() -> bool:
    """In place of a handler that waits for nothing."""
    return False


class Source(Protocol):
    """What a body asks of its connection."""

    def read_on(self) -> None:
        """Look anew whether to read."""

    def tell_to_continue(self) -> None: ...


class HttpBody:
    """`IncomingBody` over a connection."""

    __slots__ = (
        "_asked", "_awaits_continue", "_chunks", "_error", "_filling", "_full_count", "_go_on", "_left_bytes",
        "_marked_bytes", "_marked_seconds", "_ready", "_ready_bytes", "_source", "_targets", "_waited_seconds",
        "_waiter", "_waiting_since", "_waits", "ended", "received_bytes", "size_bytes",
    )  # fmt: skip

    def __init__(self, source: Source, head: Head, waits: Overdue[HttpBody]) -> None:
        self._source, self._waits = source, waits
        self.size_bytes = head.size_bytes
        self.received_bytes = 0
        """What was taken of it."""
        self._left_bytes = head.size_bytes or 0
        """Not come yet; of no meaning where there are chunks."""
        self._chunks = ChunkReader() if head.size_bytes is None else None
        self.ended = head.size_bytes == 0
        """All of it has come."""
        self._awaits_continue = head.awaits_continue and not self.ended
        self._ready: deque[bytes] = deque()
        self._ready_bytes = 0
        self._asked = False
        self._error = ""
        self._waiter: asyncio.Future[None] | None = None
        self._filling = False
        self._targets: deque[memoryview] = deque()
        """Where the handler wants what comes next, while it waits for it."""
        self._full_count = 0
        """Of those, so many are full."""
        self._go_on: Callable[[], bool] = _nobody
        """Asked after each of them."""
        self._waited_seconds = self._waiting_since = 0.0
        """For its client, in waits that are over; when the last one began."""
        self._marked_seconds, self._marked_bytes = 0.0, 0
        """How long was waited, and what was there, when its client was last found to keep pace."""

    # --- the connection's side
    @property
    def wants_more(self) -> bool:
        """Whether to read on."""
        if not self._asked or self.ended or self._error:
            return False
        return bool(self._targets) if self._filling else self._ready_bytes < HIGH_BYTES

    @property
    def target(self) -> memoryview | None:
        """Where to receive what comes next; no more than is left of the body fits."""
        return self._targets[0][: self._left_bytes] if self._targets else None

    def filled(self, size_bytes: int) -> None:
        """So much was received into `target`."""
        targets = self._targets
        self._left_bytes -= size_bytes
        self.received_bytes += size_bytes
        self.ended = not self._left_bytes
        rest = targets[0][size_bytes:]
        if len(rest):
            targets[0] = rest
        else:
            self._first_is_full(targets)
        if targets and not self.ended:
            self._waits.begin(self)
        else:
            targets.clear()
            self._wake()

    def _first_is_full(self, targets: deque[memoryview]) -> None:
        targets.popleft()
        self._full_count += 1
        if not self._go_on():
            targets.clear()

    def arrived(self, data: bytes) -> bytes:
        """Take what came; what follows the body's end is given back."""
        if self._error:
            return b""
        rest = b""
        if self._chunks is None:
            left = self._left_bytes
            if len(data) > left:
                data, rest = data[:left], data[left:]
            self._left_bytes = left - len(data)
            self.ended = not self._left_bytes
            self._keep(data)
        else:
            try:
                pieces, rest = self._chunks.feed(data)
            except BadFraming:
                self.broken()
                return b""
            for piece in pieces:
                self._keep(piece)
            self.ended = self._chunks.ended
        self._wake()
        return rest

    def _keep(self, piece: bytes) -> None:
        if piece:
            ready = self._ready
            if ready and len(piece) < JOINED_BELOW_BYTES and len(ready[-1]) < JOINED_BELOW_BYTES:
                ready[-1] += piece
            else:
                ready.append(piece)
            self._ready_bytes += len(piece)

    def broken(self) -> None:
        """Nothing more will come of it; no news where all has come."""
        self._fail("IncompleteBody")

    def stalled(self) -> None:
        """The client has sent nothing for too long."""
        self._fail("RequestTimeout")

    def is_slow(self, now: float, since: float) -> bool:
        """Of one that is waited for, and of which nothing has come since `since` (on the loop's clock)."""
        if now - since >= SLOW_SECONDS:
            return True
        waited_seconds = self._waited_seconds + now - self._waiting_since
        if self.received_bytes - self._marked_bytes < PACE_BYTES:
            return waited_seconds - self._marked_seconds >= SLOW_SECONDS
        self._marked_seconds, self._marked_bytes = waited_seconds, self.received_bytes
        return False

    def _fail(self, code: str) -> None:
        if not self.ended and not self._error:
            self._error = code
            self._targets.clear()
            self._wake()

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    # --- the handler's side
    async def pieces(self) -> AsyncIterator[bytes]:
        """See `IncomingBody`."""
        self._begin()
        ready = self._ready
        while True:
            while ready:
                piece = ready.popleft()
                was_high = self._ready_bytes >= HIGH_BYTES
                self._ready_bytes -= len(piece)
                self.received_bytes += len(piece)
                if was_high:
                    self._source.read_on()
                yield piece
            if self.ended:
                return
            if self._error:
                raise S3Error(self._error)
            self._waits.begin(self)
            try:
                await self._more()
            finally:
                self._waits.end(self)

    async def fill(self, targets: Sequence[memoryview], go_on: Callable[[], bool]) -> int:
        """See `objects.port.Filler`; only where `size_bytes` is known, and not beside `pieces`."""
        self._filling = True
        self._full_count, self._go_on = 0, go_on
        try:
            await self._fill(deque(targets))
        finally:
            self._go_on = _nobody  # what it holds holds this body
        return self._full_count

    async def _fill(self, left: deque[memoryview]) -> None:
        while left and self._ready:
            self._put_ready(left)
        if left:
            if self.ended:
                raise S3Error("IncompleteBody")
            if self._error:
                raise S3Error(self._error)
            self._targets = left
            self._begin()
            self._source.read_on()
            self._waits.begin(self)
            try:
                await self._more()
            finally:
                self._waits.end(self)
                self._targets.clear()
            if self._error:
                raise S3Error(self._error)

    def _put_ready(self, targets: deque[memoryview]) -> None:
        """Of the next piece that came before it was asked for, what fits into the next target."""
        piece, target = self._ready.popleft(), targets[0]
        size = min(len(piece), len(target))
        target[:size] = piece[:size]
        self._ready_bytes -= size
        self.received_bytes += size
        if size < len(piece):
            self._ready.appendleft(piece[size:])
        if size < len(target):
            targets[0] = target[size:]
        else:
            self._first_is_full(targets)

    def _begin(self) -> None:
        if not self._asked:
            self._asked = True
            if not self.ended:
                if self._awaits_continue:
                    self._awaits_continue = False
                    self._source.tell_to_continue()
                self._source.read_on()

    async def _more(self) -> None:
        loop = asyncio.get_running_loop()
        self._waiter, self._waiting_since = loop.create_future(), loop.time()
        try:
            await self._waiter
        finally:
            self._waiter = None
            self._waited_seconds += loop.time() - self._waiting_since

    async def drain(self) -> bool:
        """Read a small rest; True when the body is at its end and the connection can go on."""
        if self.ended:
            self._forget()
            return True
        if self._awaits_continue or self._error:
            return False
        if self.size_bytes is not None and self.size_bytes - self.received_bytes > DRAINED_SIZE_BYTES:
            return False
        taken = self._forget()
        self._filling = False
        self._begin()
        self._source.read_on()
        try:
            async with asyncio.timeout(DRAIN_SECONDS):
                while not self.ended and not self._error and taken <= DRAINED_SIZE_BYTES:
                    await self._more()
                    taken += self._forget()
        except TimeoutError:
            return False
        return self.ended

    def _forget(self) -> int:
        """What came and nobody will take."""
        forgotten, self._ready_bytes = self._ready_bytes, 0
        self._ready.clear()
        return forgotten
