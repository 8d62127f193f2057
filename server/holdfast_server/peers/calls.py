"""The calls under way on one channel: what their callers await, their room, their deadlines, their answers.

A call is a future that the answer's frame completes: between asking and being answered there is no task and no
coroutine, since a small write is a dozen calls and each task costs more than the message it carries.

Invariants: a call ends once, by its answer, its deadline, the loss of the connection or its caller's leaving, and
whichever it is gives its room back at that moment; a later answer is ignored.  Deadlines are looked at every
SWEEP_SECONDS while there are calls, and nothing runs while there are none.

Bounds: MAX_CALLS calls under way and MAX_BYTES_IN_FLIGHT bytes of blobs sent and unanswered; further callers wait
inside their deadline, first come, first served.

Blocks are compared with their hashes here, whatever was done where they were read: they may have changed since.

Not here: connections, and what a missed deadline says about a peer (`link`).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from xxhash import xxh3_128_digest

from holdfast_server.drives.port import ShardCorrupt
from holdfast_server.peers import messages
from holdfast_server.peers.frames import Frame, FrameError, split_blobs
from holdfast_server.peers.messages import ConnectionClass, Outcome
from holdfast_server.peers.port import PeerError

MAX_CALLS = {ConnectionClass.CONTROL: 512, ConnectionClass.BULK: 64}
MAX_BYTES_IN_FLIGHT = 32 << 20
SWEEP_SECONDS = 0.1
"""How late a deadline may be noticed."""

FailAs = Callable[[PeerError], Exception]
"""What the caller is told instead of a PeerError."""


class NotConnected(PeerError):
    """There is no connection, or it was lost while the call was under way."""


class DeadlineMissed(PeerError):
    """Connected, but no answer in time."""


class Call(asyncio.Future[Any]):
    """One question; its result is the answer's, behind the blobs of it where the verb has any."""

    __slots__ = ("_calls", "_fail_as", "deadline", "id", "size_bytes", "spec", "volume")

    def __init__(
        self, calls: Calls, spec: messages.VerbSpec, volume: int, deadline: float, size_bytes: int, fail_as: FailAs
    ) -> None:
        super().__init__(loop=calls.loop)
        self._calls = calls
        self._fail_as = fail_as
        self.id = 0
        self.spec = spec
        self.volume = volume
        self.deadline = deadline
        self.size_bytes = size_bytes

    def cancel(self, msg: Any = None) -> bool:
        self._calls.end(self)
        return super().cancel(msg)

    def fail(self, error: PeerError) -> None:
        """It ends without an answer."""
        self._calls.end(self)
        if not self.done():
            self.set_exception(self._fail_as(error))

    def answer(self, reply: messages.ReceivedReply, frame: Frame, told_by: object) -> None:
        """It ends with one.  `told_by`: the peer, for people."""
        self._calls.end(self)
        if self.done():
            return
        spec = self.spec
        try:
            if reply.outcome != Outcome.OK:
                error = messages.error_of(reply.outcome, f"{told_by}: {msgspec.msgpack.decode(reply.result)}")
                self.set_exception(self._fail_as(error) if isinstance(error, PeerError) else error)
                return
            result = spec.result.decode(reply.result)
            if spec.blobs:
                result = _whole(split_blobs(frame.blobs, reply.sizes), result, frame.digests), result
        except ShardCorrupt as error:
            self.set_exception(ShardCorrupt(f"{told_by}: {error}"))
            return
        except (msgspec.MsgspecError, FrameError) as error:
            self.set_exception(self._fail_as(PeerError(f"{told_by}: answer cannot be read: {error}")))
            return
        self.set_result(result)


def _whole(blocks: list[memoryview], hashes: list[bytes], digests: Sequence[bytes]) -> list[memoryview]:
    """`digests`: of the blocks, if they were hashed as they came.  Raises ShardCorrupt."""
    if digests == hashes and len(blocks) == len(hashes):
        return blocks
    if len(blocks) != len(hashes):
        raise ShardCorrupt(f"{len(blocks)} blocks and {len(hashes)} hashes")
    for index, (block, digest) in enumerate(zip(blocks, hashes, strict=True)):
        if xxh3_128_digest(block) != digest:
            raise ShardCorrupt(f"block {index} of {len(blocks)} does not match its hash")
    return blocks


class Calls:
    """All of one channel, over the connections it has had.  Belongs to one event loop."""

    def __init__(
        self, connection_class: ConnectionClass, loop: asyncio.AbstractEventLoop, on_missed: Callable[[Call], None]
    ) -> None:
        """`on_missed`: a call's deadline has passed; it has to end the call."""
        self.loop = loop
        self._connection_class = connection_class
        self._on_missed = on_missed
        self._open: dict[int, Call] = {}
        self._last_id = messages.PUSHED_REPORT_ID
        self._bytes_in_flight = 0
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._sweeping: asyncio.TimerHandle | None = None

    def begin(self, call: Call) -> None:
        """It is about to be sent."""
        self._last_id = call.id = self._last_id + 1
        self._open[call.id] = call
        self._bytes_in_flight += call.size_bytes
        if self._sweeping is None:
            self._sweeping = self.loop.call_later(SWEEP_SECONDS, self._sweep)

    def end(self, call: Call) -> None:
        """Give its room back; idempotent."""
        if self._open.pop(call.id, None) is not None:
            self._bytes_in_flight -= call.size_bytes
            if self._waiters:
                self._let_in()

    def get(self, call_id: int) -> Call | None:
        return self._open.get(call_id)

    def under_way(self) -> list[Call]:
        return list(self._open.values())

    # --- room
    def has_room(self, size_bytes: int) -> bool:
        """A call larger than the whole allowance goes alone."""
        in_flight = self._bytes_in_flight
        return len(self._open) < MAX_CALLS[self._connection_class] and (
            not size_bytes or not in_flight or in_flight + size_bytes <= MAX_BYTES_IN_FLIGHT
        )

    async def wait_for_room(self, size_bytes: int, deadline: float) -> None:
        """First come, first served.  Raises TimeoutError at the deadline."""
        async with asyncio.timeout_at(deadline):
            while not self.has_room(size_bytes):
                await self._turn()
            if self._waiters and self.has_room(0):
                self._let_in()  # a large call that ended may have made room for several

    async def _turn(self) -> None:
        """Wait to be let in, which need not mean that there is room."""
        waiter: asyncio.Future[None] = self.loop.create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter in self._waiters:
                self._waiters.remove(waiter)
            elif not waiter.cancelled():
                self._let_in()  # it was this one's turn; the next must not wait for another call to end
            raise

    def _let_in(self) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    # --- deadlines
    def _sweep(self) -> None:
        self._sweeping = None
        now = self.loop.time()
        for call in self.under_way():
            if call.deadline <= now and not call.done():
                self._on_missed(call)
        if self._open:
            self._sweeping = self.loop.call_later(SWEEP_SECONDS, self._sweep)
