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
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from holdfast_server.drives.port import (
    Block,
    CommitMode,
    CommitReply,
    CommitRequest,
    Drive,
    DriveError,
    DriveOffline,
    DriveState,
    DriveStatus,
    FenceReply,
    ListPage,
    ListRequest,
    Note,
    PrepareReply,
    QueryReply,
    Register,
    ScanPage,
    ScanRequest,
    Tombstone,
    TombstonePage,
    TombstoneReply,
    TombstoneRequest,
)
from holdfast_server.objects.asking import DRIVE_CALL_TIMEOUT_SECONDS
from holdfast_server.testing.memory_drive import commit_each

MAX_DELAY_SECONDS = 20.0
"""Below the deadline after which operations are dead (`healing.OPERATION_DEADLINE_SECONDS`)."""

_TIMER_SLACK_SECONDS = 0.001
"""Loops fire timers a clock tick early."""

_REPEATABLE = frozenset(("note", "release", "fence", "remove", "repaired", "drop_tombstones"))

Deliver = Callable[[], Awaitable[Any]]


@dataclass
class Weather:
    """What the network does; all are chances of one message, in [0, 1]."""

    loss: float = 0.0
    repeat: float = 0.0
    slow: float = 0.0
    """Of taking seconds instead of milliseconds."""
    usual_seconds: float = 0.01


class Trap:
    """Messages of some verbs, stopped on their way until it is opened; or lost in it.

    What random weather hardly ever does, delay just the messages of one step of a protocol, is what a race between two
    coordinators needs.
    """

    def __init__(
        self,
        verbs: Collection[str],
        nodes: Collection[int],
        positions: Collection[int],
        loses: bool = False,
    ) -> None:
        self.caught = 0
        self._verbs, self._nodes, self._positions = frozenset(verbs), frozenset(nodes), frozenset(positions)
        self._loses = loses
        self._opened = asyncio.Event()
        self._sprung = asyncio.Event()

    def catches(self, link: tuple[int, int], verb: str) -> bool:
        in_reach = link[0] in self._nodes and link[1] in self._positions
        return in_reach and verb in self._verbs and not self._opened.is_set()

    async def stop(self, near: bool) -> bool:
        """Until it is opened; False if the message is lost.  Within a pod no message is lost."""
        self.caught += 1
        self._sprung.set()
        if self._loses and not near:
            return False
        await self._opened.wait()
        return True

    async def sprung(self, at_most_seconds: float) -> bool:
        """Whether something was caught within that time."""
        try:
            await asyncio.wait_for(self._sprung.wait(), at_most_seconds)
        except TimeoutError:
            return False
        return True

    def open(self) -> None:
        """All that it stopped goes on, and nothing more is caught."""
        self._opened.set()


class Network:
    """Carries the messages of all coordinators to all drives.

    Beside the weather, three kinds of standing trouble, each by number of the coordinator and position of the drive:
    `cut` links lose everything in that direction (a partition may be one-sided, and differ between coordinators),
    `stalled` coordinators and `hung` drives let nothing through until a moment, and then all of it, in order.
    Beyond those, `traps`.
    """

    def __init__(self, seed: int, weather: Weather) -> None:
        self.weather = weather
        self.cut_requests: set[tuple[int, int]] = set()
        self.cut_answers: set[tuple[int, int]] = set()
        self.known_cut: set[tuple[int, int]] = set()
        """Links whose coordinator has noticed that nothing answers, and says so in the drive's status."""
        self.stalled: dict[int, float] = {}
        self.hung: dict[int, float] = {}
        """Until when, by the loop's time."""
        self.traps: list[Trap] = []
        self._random = random.Random(seed)
        self._under_way: set[asyncio.Task[None]] = set()

    def calm(self) -> None:
        """All trouble ends."""
        self.weather = Weather()
        for trouble in (self.cut_requests, self.cut_answers, self.known_cut, self.stalled, self.hung):
            trouble.clear()
        for trap in self.traps:
            trap.open()
        self.traps.clear()

    async def drained(self) -> None:
        """Everything that was sent has arrived or is lost."""
        while self._under_way:
            await asyncio.wait(set(self._under_way))

    async def call(
        self, link: tuple[int, int], deliver: Deliver, repeatable: bool, near: bool = False, verb: str = ""
    ) -> Any:
        """`link`: coordinator and position.  `near`: within one pod, where no message is lost."""
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._send(link, deliver, answer, near, verb)
        if repeatable and not near and self._chance(self.weather.repeat):
            self._send(link, deliver, None, near, verb)
        return await answer

    def _send(
        self, link: tuple[int, int], deliver: Deliver, answer: asyncio.Future[Any] | None, near: bool, verb: str
    ) -> None:
        task = asyncio.get_running_loop().create_task(self._carry(link, deliver, answer, near, verb))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def _carry(
        self, link: tuple[int, int], deliver: Deliver, answer: asyncio.Future[Any] | None, near: bool, verb: str
    ) -> None:
        if self._lost(link, self.cut_requests, near):
            return
        for trap in [trap for trap in self.traps if trap.catches(link, verb)]:
            if not await trap.stop(near):
                return
        await self._until(self.stalled.get(link[0], 0.0))
        await asyncio.sleep(0 if near else self._delay())
        await self._until(self.hung.get(link[1], 0.0))
        result: Any = None
        failure: Exception | None = None
        try:
            result = await deliver()
        except Exception as error:
            failure = error
        if answer is None or self._lost(link, self.cut_answers, near):
            return
        await asyncio.sleep(0 if near else self._delay())
        if answer.done():
            return
        if failure is not None:
            answer.set_exception(failure)
        else:
            answer.set_result(result)

    def _lost(self, link: tuple[int, int], cut: set[tuple[int, int]], near: bool) -> bool:
        return not near and (link in cut or self._chance(self.weather.loss))

    async def _until(self, moment: float) -> None:
        left = moment - asyncio.get_running_loop().time()
        if left > 0:
            await asyncio.sleep(left)

    def _chance(self, of: float) -> bool:
        return of > 0 and self._random.random() < of

    def _delay(self) -> float:
        if self._chance(self.weather.slow):
            return self._random.uniform(0.2, MAX_DELAY_SECONDS)
        return self._random.expovariate(1 / self.weather.usual_seconds)


class CrashSwitch:
    """One life of one coordinator; once crashed, nothing it still does leaves it."""

    def __init__(self, node: int = 0) -> None:
        self.node = node
        self.crashed = False
        self.fuse: int | None = None
        """So many more messages leave it, then it crashes: in the midst of a round of commits, for instance."""

    def sends(self) -> None:
        """One message leaves.  Raises DriveOffline once crashed."""
        if self.fuse is not None and not self.crashed:
            self.fuse -= 1
            self.crashed = self.fuse < 0
        if self.crashed:
            raise DriveOffline("this coordinator has crashed")


class Watcher(Protocol):
    """Sees the commits of requests go and their answers come: for checking rule 2."""

    def commit_sent(self, position: int, stamp: int) -> None: ...

    def commit_ended(self, position: int, stamp: int) -> None:
        """Answered, or failed, or given up after the deadline of drive calls."""


class UnreliableDrive:
    """`drives.port.Drive`: another one, as one coordinator reaches it over the network."""

    def __init__(
        self,
        drive: Drive,
        network: Network,
        life: CrashSwitch,
        local: bool = False,
        watcher: Callable[[], Watcher | None] = lambda: None,
        link_number: int | None = None,
    ) -> None:
        """`local`: a drive of the coordinator's own pod.  `watcher`: whoever wants to see the commits sent now.
        `link_number`: what the network knows the drive by, where positions are not unique."""
        self.pool, self.set_index, self.position = drive.pool, drive.set_index, drive.position
        self.local = local
        self._drive = drive
        self._network = network
        self._life = life
        self._link = (life.node, drive.position if link_number is None else link_number)
        self._watcher = watcher

    @property
    def state(self) -> DriveState:
        return DriveState.OFFLINE if self._silent else self._drive.state

    def status(self) -> DriveStatus:
        return DriveStatus(DriveState.OFFLINE) if self._silent else self._drive.status()

    @property
    def _silent(self) -> bool:
        return self._life.crashed or self._link in self._network.known_cut

    async def _call(self, verb: str, *arguments: Any, repeatable: bool = False) -> Any:
        self._life.sends()
        method = getattr(self._drive, verb)
        # To the network, too, a commit is a commit, with its shard or without.
        told = "commit" if verb == "commit_with_shard" else verb
        return await self._network.call(
            self._link, lambda: method(*arguments), repeatable or verb in _REPEATABLE, self.local, told
        )

    async def query(self, register: Register, with_inline: bool) -> QueryReply:
        return await self._call("query", register, with_inline)

    async def commit(self, request: CommitRequest) -> CommitReply:
        return await self._commit("commit", request)

    async def commit_with_shard(
        self, request: CommitRequest, blocks: Sequence[Block], hashes: Sequence[bytes]
    ) -> CommitReply:
        return await self._commit("commit_with_shard", request, blocks, hashes)

    async def _commit(self, verb: str, request: CommitRequest, *shard: Any) -> CommitReply:
        repair = request.mode in (CommitMode.ROLL_FORWARD, CommitMode.HEAL)
        watcher = None if repair else self._watcher()
        if watcher is None:
            return await self._call(verb, request, *shard, repeatable=repair)
        sent = asyncio.get_running_loop().time()
        watcher.commit_sent(self.position, request.held.stamp)
        try:
            reply: CommitReply = await self._call(verb, request, *shard)
        except BaseException as error:
            waited_seconds = asyncio.get_running_loop().time() - sent
            if isinstance(error, DriveError) or waited_seconds > DRIVE_CALL_TIMEOUT_SECONDS - _TIMER_SLACK_SECONDS:
                watcher.commit_ended(self.position, request.held.stamp)
            raise
        watcher.commit_ended(self.position, request.held.stamp)
        return reply

    async def commit_many(self, requests: Sequence[CommitRequest]) -> list[CommitReply | None]:
        return await commit_each(self, requests)

    async def note(self, register: Register, stamp: int, whole: bool) -> None:
        await self._call("note", register, stamp, whole)

    async def note_many(self, notes: Sequence[Note]) -> None:
        await self._call("note_many", notes)

    async def prepare(self, register: Register, expected: int, lease: bytes, duration_seconds: float) -> PrepareReply:
        return await self._call("prepare", register, expected, lease, duration_seconds)

    async def release(self, register: Register, lease: bytes) -> None:
        await self._call("release", register, lease)

    async def fence(self, register: Register, stamp: int) -> FenceReply:
        return await self._call("fence", register, stamp)

    async def remove(self, register: Register, stamp: int) -> None:
        await self._call("remove", register, stamp)

    async def tombstones(self, request: TombstoneRequest) -> TombstonePage:
        return await self._call("tombstones", request)

    async def weigh_tombstones(self, tombstones: Sequence[Tombstone], settled_seconds: float) -> TombstoneReply:
        return await self._call("weigh_tombstones", tombstones, settled_seconds)

    async def drop_tombstones(self, tombstones: Sequence[Tombstone]) -> None:
        await self._call("drop_tombstones", tombstones)

    async def stage(
        self, data_id: bytes, index: int, blocks: Sequence[Block], hashes: Sequence[bytes], last: bool = False
    ) -> None:
        await self._call("stage", data_id, index, blocks, hashes, last)

    async def seal(self, data_id: bytes) -> None:
        await self._call("seal", data_id)

    async def discard(self, data_id: bytes) -> None:
        await self._call("discard", data_id)

    async def read_blocks(self, data_id: bytes, first: int, count: int) -> tuple[list[Block], list[bytes]]:
        return await self._call("read_blocks", data_id, first, count)

    async def scan(self, request: ScanRequest) -> ScanPage:
        return await self._call("scan", request)

    async def list_registers(self, request: ListRequest) -> ListPage:
        return await self._call("list_registers", request)

    async def spaces(self, after: bytes, limit: int) -> list[bytes]:
        return await self._call("spaces", after, limit)

    async def repairs(self, limit: int) -> list[Register]:
        return await self._call("repairs", limit)

    async def repaired(self, whole: Sequence[tuple[Register, int]]) -> None:
        await self._call("repaired", whole)

    async def query_many(self, registers: Sequence[Register], with_inline: bool) -> list[QueryReply]:
        return await self._call("query_many", registers, with_inline)

    async def finish_healing(self, incarnation: int) -> None:
        await self._call("finish_healing", incarnation)
