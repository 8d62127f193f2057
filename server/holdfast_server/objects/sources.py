"""Which drives a read takes shards from, and the race between those that were asked.

Drives that were not asked for the record, or did not answer in time, are taken for holders, too: nearly always they
have their shard, whose index follows from what another holder said.

Invariants of a race: a call ends once, by its answer, its deadline or the end of the race, and its exception is looked
at in any case.  It has no tasks of its own and one timer at a time, since a large read is many of these.

Not here: when another drive is asked, and what is reported (`reading`).
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass

from holdfast_server.drives.port import Block, Drive, DriveError, DriveOffline, DriveState, Held, ShardCorrupt
from holdfast_server.objects.asking import DRIVE_CALL_TIMEOUT_SECONDS, let_go

Answer = tuple[list[Block], list[bytes]]
"""Blocks and their hashes."""


@dataclass(frozen=True, slots=True)
class Source:
    """One drive that holds a version, or may."""

    position: int
    drive: Drive
    shard_index: int
    sure: bool = True
    """It said so; a missing shard there is a fault."""


def order_sources(
    holders: Mapping[int, Held], drives: Mapping[int, Drive], data_shards: int, others: bool = True
) -> list[Source]:
    """The drives of a set that hold a version, or may (`others`), best first.

    Local drives before remote ones, whatever shards they have: to compute one takes less than to send one.  Then data
    shards before parity, from drives that were not asked, too, since nearly always they have theirs: but not from one
    that is being healed, which has little yet.
    """
    sources = [Source(p, drives[p], held.shard_index) for p, held in holders.items() if p in drives]
    if others:
        position, held = next(iter(holders.items()))
        rotation = held.shard_index - position
        sources += [
            Source(p, drive, (p + rotation) % len(drives), False) for p, drive in drives.items() if p not in holders
        ]
    return sorted(sources, key=lambda source: _rank(source, data_shards))


def _rank(source: Source, data_shards: int) -> tuple[bool, bool, bool, bool]:
    unlikely = not source.sure and source.drive.state is DriveState.HEALING
    return unlikely, not source.drive.local, source.shard_index >= data_shards, not source.sure


def checked(count: int, answer: Answer | DriveError) -> list[Block] | DriveError:
    """The blocks, if they are what was asked for.  Drives give only what matched its hash in the very memory that it is
    in (`drives.shard_reads`, `peers.calls`)."""
    if isinstance(answer, DriveError):
        return answer
    blocks, hashes = answer
    if len(blocks) != count or len(hashes) != count:
        return ShardCorrupt(f"{len(blocks)} blocks instead of {count}")
    return blocks


class Race:
    """What drives were asked for and have not given, each under a deadline.  Whoever begins one ends it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._under_way: dict[asyncio.Future[Answer], tuple[Source, float]] = {}
        """With their deadlines, the earliest first."""
        self._ended: deque[tuple[Source, asyncio.Future[Answer] | None]] = deque()
        """None: its deadline has passed."""
        self._waiter: asyncio.Future[None] | None = None

    @property
    def running(self) -> list[Source]:
        return [source for source, _ in self._under_way.values()]

    @property
    def goes_on(self) -> bool:
        """Whether there will be a `next`."""
        return bool(self._under_way or self._ended)

    def start(self, source: Source, call: Awaitable[Answer]) -> None:
        future = asyncio.ensure_future(call)
        self._under_way[future] = source, self._loop.time() + DRIVE_CALL_TIMEOUT_SECONDS
        future.add_done_callback(self._done)

    async def next(self, patience_seconds: float | None) -> tuple[Source, Answer | DriveError] | None:
        """The next that ends, in order; None if all take longer than that.  Raises what is no DriveError."""
        until = math.inf if patience_seconds is None else self._loop.time() + patience_seconds
        while not self._ended:
            await self._wait(min(until, next(iter(self._under_way.values()))[1]))
            now = self._loop.time()
            if not self._ended:
                self._expire(now)
            if not self._ended and now >= until:
                return None
        source, future = self._ended.popleft()
        return source, _outcome(future)

    async def _wait(self, until: float) -> None:
        self._waiter = self._loop.create_future()
        timer = self._loop.call_at(until, self._wake)
        try:
            await self._waiter
        finally:
            self._waiter = None
            timer.cancel()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _done(self, future: asyncio.Future[Answer]) -> None:
        entry = self._under_way.pop(future, None)
        if entry is not None:
            self._ended.append((entry[0], future))
            self._wake()

    def _expire(self, now: float) -> None:
        for future in [future for future, (_, deadline) in self._under_way.items() if deadline <= now]:
            source, _ = self._under_way.pop(future)
            let_go(future)
            self._ended.append((source, None))

    def end(self) -> None:
        """Nobody wants the others any more."""
        for future in self._under_way:
            let_go(future)
        self._under_way.clear()
        for _, ended in self._ended:
            if ended is not None:
                let_go(ended)


def _outcome(future: asyncio.Future[Answer] | None) -> Answer | DriveError:
    """Raises what is no DriveError."""
    if future is None:
        return DriveOffline(f"no answer within {DRIVE_CALL_TIMEOUT_SECONDS:g} s")
    if future.cancelled():
        return DriveOffline("the call was cut off")
    error = future.exception()
    if error is None:
        return future.result()
    if isinstance(error, DriveError):
        return error
    raise error
