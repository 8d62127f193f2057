"""Drives behind a network that delays, loses and repeats messages, as one coordinator sees them.

A request, once sent, is on its way whatever becomes of its sender: cancelling or crashing the caller does not
call it back.  What may happen to a message follows the rules' assumptions: a commit that is not a repair
arrives at most once, everything arrives before `MAX_DELAY_SECONDS` or never.  Answers are lost and delayed
like requests.  Faults are drawn from one seeded generator, so a history can be replayed.

Not here: what drives do wrong by themselves (`memory_drive` has switches for that).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from holdfast_server.drives.port import (
    CommitMode,
    CommitReply,
    CommitRequest,
    Drive,
    DriveOffline,
    DriveState,
    DriveStatus,
    FenceReply,
    PrepareReply,
    QueryReply,
    Register,
    ScanPage,
    ScanRequest,
)

MAX_DELAY_SECONDS = 20.0
"""Below the deadline after which operations are dead (`healing.OPERATION_DEADLINE_SECONDS`)."""

_REPEATABLE = frozenset(("note", "release", "fence", "remove", "repaired"))

Deliver = Callable[[], Awaitable[Any]]


@dataclass
class Weather:
    """What the network does; all are chances of one message, in [0, 1]."""

    loss: float = 0.0
    repeat: float = 0.0
    slow: float = 0.0
    """Of taking seconds instead of milliseconds."""
    usual_seconds: float = 0.01


class Network:
    """Carries the messages of all coordinators."""

    def __init__(self, seed: int, weather: Weather) -> None:
        self.weather = weather
        self._random = random.Random(seed)
        self._under_way: set[asyncio.Task[None]] = set()

    async def drained(self) -> None:
        """Everything that was sent has arrived or is lost."""
        while self._under_way:
            await asyncio.wait(set(self._under_way))

    async def call(self, verb: str, deliver: Deliver, repeatable: bool) -> Any:
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._send(deliver, answer)
        if repeatable and self._chance(self.weather.repeat):
            self._send(deliver, None)
        return await answer

    def _send(self, deliver: Deliver, answer: asyncio.Future[Any] | None) -> None:
        task = asyncio.get_running_loop().create_task(self._carry(deliver, answer))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def _carry(self, deliver: Deliver, answer: asyncio.Future[Any] | None) -> None:
        if self._chance(self.weather.loss):
            return
        await asyncio.sleep(self._delay())
        result: Any = None
        failure: Exception | None = None
        try:
            result = await deliver()
        except Exception as error:
            failure = error
        if answer is None or self._chance(self.weather.loss):
            return
        await asyncio.sleep(self._delay())
        if answer.done():
            return
        if failure is not None:
            answer.set_exception(failure)
        else:
            answer.set_result(result)

    def _chance(self, of: float) -> bool:
        return self._random.random() < of

    def _delay(self) -> float:
        if self._chance(self.weather.slow):
            return self._random.uniform(0.2, MAX_DELAY_SECONDS)
        return self._random.expovariate(1 / self.weather.usual_seconds)


class CrashSwitch:
    """One life of one coordinator; once crashed, nothing it still does leaves it."""

    def __init__(self) -> None:
        self.crashed = False


class UnreliableDrive:
    """`drives.port.Drive`: another one, as one coordinator reaches it over the network."""

    local = False

    def __init__(self, drive: Drive, network: Network, life: CrashSwitch) -> None:
        self.pool, self.set_index, self.position = drive.pool, drive.set_index, drive.position
        self._drive = drive
        self._network = network
        self._life = life

    def status(self) -> DriveStatus:
        status = self._drive.status()
        return DriveStatus(DriveState.OFFLINE) if self._life.crashed else status

    async def _call(self, verb: str, *arguments: Any, repeatable: bool = False) -> Any:
        if self._life.crashed:
            raise DriveOffline("this coordinator has crashed")
        method = getattr(self._drive, verb)
        return await self._network.call(verb, lambda: method(*arguments), repeatable or verb in _REPEATABLE)

    async def query(self, register: Register, with_inline: bool) -> QueryReply:
        return await self._call("query", register, with_inline)

    async def commit(self, request: CommitRequest) -> CommitReply:
        repair = request.mode in (CommitMode.ROLL_FORWARD, CommitMode.HEAL)
        return await self._call("commit", request, repeatable=repair)

    async def note(self, register: Register, stamp: int, whole: bool) -> None:
        await self._call("note", register, stamp, whole)

    async def prepare(self, register: Register, expected: int, lease: bytes, duration_seconds: float) -> PrepareReply:
        return await self._call("prepare", register, expected, lease, duration_seconds)

    async def release(self, register: Register, lease: bytes) -> None:
        await self._call("release", register, lease)

    async def fence(self, register: Register, stamp: int) -> FenceReply:
        return await self._call("fence", register, stamp)

    async def remove(self, register: Register, stamp: int) -> None:
        await self._call("remove", register, stamp)

    async def drop(self, register: Register, stamp: int) -> None:
        await self._call("drop", register, stamp)

    async def stage(self, data_id: bytes, index: int, blocks: Sequence[bytes], hashes: Sequence[bytes]) -> None:
        await self._call("stage", data_id, index, blocks, hashes)

    async def seal(self, data_id: bytes) -> None:
        await self._call("seal", data_id)

    async def discard(self, data_id: bytes) -> None:
        await self._call("discard", data_id)

    async def read_blocks(self, data_id: bytes, first: int, count: int) -> tuple[list[bytes], list[bytes]]:
        return await self._call("read_blocks", data_id, first, count)

    async def scan(self, request: ScanRequest) -> ScanPage:
        return await self._call("scan", request)

    async def spaces(self, after: bytes, limit: int) -> list[bytes]:
        return await self._call("spaces", after, limit)

    async def repairs(self, limit: int) -> list[Register]:
        return await self._call("repairs", limit)

    async def repaired(self, register: Register) -> None:
        await self._call("repaired", register)

    async def finish_healing(self, incarnation: int) -> None:
        await self._call("finish_healing", incarnation)
