"""Histories that begin with a script: the counterexamples behind the rules, each as the real code would live it.

The model checker found, for each rule, an interleaving that breaks a store without it: this message late, that reader
with just these drives in sight.  Random weather finds most of them within some runs and some never.  So each of those
is written down here as the first steps of a run; the geometry, who plays which part, sizes and times are drawn, and
afterwards the run goes on at random (`simulation`), the checkers judging all of it.

A script is no test: it expects nothing of its own, and where the product does not let it have its way (it refuses a
write that the script wanted to be taken) it goes on.  Everything it does to the network and the drives lies within what
the rules assume: messages are held for less than `MAX_DELAY_SECONDS`, what is lost is within the budget.

Not here: which breakage each of them shows (docs/decisions/0005-what-the-checkers-catch.md).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager

from holdfast_server.contract.geometry import Quorums
from holdfast_server.drives.port import DriveState
from holdfast_server.heal.tombstones import TURN_MS
from holdfast_server.objects import record
from holdfast_server.objects.asking import DRIVE_CALL_TIMEOUT_SECONDS
from holdfast_server.objects.healing import LARGE_WIDTH, OPERATION_DEADLINE_SECONDS
from holdfast_server.objects.port import ObjectError
from holdfast_server.testing.memory_drive import MemoryDrive
from holdfast_server.testing.sim.cluster import SETTINGS, Cluster
from holdfast_server.testing.sim.faults import Faults
from holdfast_server.testing.sim.history import (
    DONE,
    FILE_SIZE_BYTES,
    INLINE_SIZE_BYTES,
    History,
    Operation,
    Value,
    Violation,
)
from holdfast_server.testing.sim.workload import BUCKET, Workload
from holdfast_server.testing.unreliable_network import Trap, Weather

SPRUNG_SECONDS = 4.0
"""Within which a message that the script waits for is sent, or never will be."""
DEAD_SECONDS = OPERATION_DEADLINE_SECONDS + 5.0
FORGETTING_SECONDS = SETTINGS.age_seconds + 5.0
"""After which a tombstone that every drive knows of may be dropped."""
FILLED_SECONDS = 10.0 + SETTINGS.settled_seconds
"""Within which a replacement has been filled, and a tombstone has been alone on it for long enough."""
LEASE_LAPSES_SECONDS = 10.2
LONGEST_LAPSE_SECONDS = 14.0
"""Below the lead of the fast clock of that script, and `MAX_DELAY_SECONDS`."""


class Stage:
    """What a script has at its hands: the clients, the network and the drives of a run."""

    def __init__(self, cluster: Cluster, history: History, workload: Workload, faults: Faults, rng: random.Random):
        self.cluster, self.rng = cluster, rng
        self.quorums: Quorums = cluster.quorums
        self.order: list[int] = rng.sample(range(self.quorums.set_size), self.quorums.set_size)
        """The positions of the drives, in the order of their parts."""
        self.key = cluster.plan.keys[0]
        self._history, self._workload, self._faults = history, workload, faults
        self._tasks: set[asyncio.Task[None]] = set()

    # ---------------------------------------------------------------- clients

    async def write(self, node: int, kind: str, expected: Value = None, size_bytes: int = INLINE_SIZE_BYTES) -> None:
        await self._workload.write(self.cluster.coordinators[node], kind, self.key, expected, size_bytes)

    async def read(self, node: int) -> Operation:
        await self._workload.get(self.cluster.coordinators[node], self.key)
        return self._history.operations[-1]

    async def everyone_reads(self) -> None:
        """Where all drives answer and none is being filled, every read can be decided."""
        if any(drive.status().state is not DriveState.FULL for drive in self.cluster.drives):
            return
        for node in range(self.cluster.plan.coordinators):
            if not (operation := await self.read(node)).certain:
                raise Violation("Readable", f"all drives are up, yet: {operation.told()}")

    def must_be_done(self, kind: str) -> None:
        """The last of that kind: it met no other write, and all drives were up."""
        last = [operation for operation in self._history.operations if operation.kind == kind][-1]
        if last.result != DONE:
            raise Violation("NeedlessRefusals", f"all drives are up, nobody else writes, yet: {last.told()}")

    async def settled(self) -> None:
        """The notes of all writes so far have arrived."""
        await self.cluster.background_ended()
        await self.cluster.network.drained()

    def crash(self, node: int) -> None:
        self._history.event(f"node {node} crashes")
        self.cluster.crash(node)

    @property
    def every_turn_seconds(self) -> float:
        """Within which each drive has had its turn at the tombstones."""
        return (self.quorums.set_size + 1) * TURN_MS / 1000

    @property
    def newest(self) -> Value:
        """The number of the last put."""
        return max((op.number for op in self._history.operations), default=0) or None

    # ---------------------------------------------------------------- repair

    async def heal(self, node: int) -> None:
        """One register, as a repair service would."""
        coordinator = self.cluster.coordinators[node]
        try:
            await coordinator.store.heal(coordinator.erasure_set, record.object_register(BUCKET, self.key))
        except ObjectError:
            return

    async def serve(self, seconds: float, ended: Callable[[], bool] = lambda: False) -> None:
        """The heal services of all pods, for a while."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while loop.time() < end and not ended():
            for coordinator in self.cluster.coordinators:
                await coordinator.heal_service.heal_once()
            await asyncio.sleep(1.0)

    async def replace(self, position: int) -> None:
        """The drive is lost; returns when a blank one has been adopted in its place."""
        await self._faults.replace(self.cluster.drives[position])

    def holders(self) -> set[int]:
        """Drives that know anything of the key."""
        return {drive.position for drive in self.cluster.drives if drive.rows()}

    # ---------------------------------------------------------------- trouble

    @contextmanager
    def trap(
        self,
        verbs: str,
        nodes: Collection[int] | None = None,
        positions: Collection[int] | None = None,
        loses: bool = False,
    ) -> Iterator[Trap]:
        """Until the end of the block, if the script does not open it before.  `verbs`: by spaces."""
        everybody = range(self.cluster.plan.coordinators)
        caught_nodes = everybody if nodes is None else nodes
        trap = Trap(verbs.split(), caught_nodes, self.order if positions is None else positions, loses)
        self._history.event(f"{verbs} of nodes {sorted(caught_nodes)} is {'lost' if loses else 'held up'}")
        self.cluster.network.traps.append(trap)
        try:
            yield trap
        finally:
            trap.open()
            self.cluster.network.traps.remove(trap)
            self._history.event(f"{verbs} goes on")

    @contextmanager
    def sees(self, node: int, positions: Collection[int]) -> Iterator[None]:
        """That coordinator knows that it can reach only these drives."""
        links = {(node, position) for position in self.order if position not in positions}
        self._history.event(f"node {node} reaches drives {sorted(positions)} only")
        self.cluster.network.known_cut |= links
        try:
            yield
        finally:
            self.cluster.network.known_cut -= links

    @contextmanager
    def away(self, positions: Collection[int]) -> Iterator[None]:
        drives = [self.cluster.drives[position] for position in positions]
        self._history.event(f"drives {sorted(positions)} are away")
        for drive in drives:
            drive.offline = True
        try:
            yield
        finally:
            for drive in drives:
                drive.restart()
                drive.offline = False
            self._history.event(f"drives {sorted(positions)} are back")

    def lose_power(self, positions: Collection[int]) -> None:
        """They come back at once, without what was not synced."""
        for position in positions:
            self._history.event(f"drive {position} loses power")
            self.cluster.drives[position].lose_power()

    @asynccontextmanager
    async def meanwhile(self, work: Awaitable[None]) -> AsyncIterator[None]:
        """The block runs beside that work and does not end before it."""
        task = asyncio.ensure_future(work)
        try:
            yield
        finally:
            await asyncio.wait([task])
        task.result()

    async def torn(self, node: int, kind: str, reached: Collection[int]) -> None:
        """A write whose coordinator dies when these drives have taken it."""
        others = [position for position in self.order if position not in reached]
        with self.trap("commit", [node], others, loses=True), self.trap("note discard", [node], loses=True):
            await self.write(node, kind)
            self.crash(node)


Script = Callable[[Stage], Awaitable[None]]


async def act(script: str, stage: Stage, weather: Weather) -> None:
    """The script, in fine weather; then everybody must be able to read, and the weather is that of the plan."""
    stage.cluster.network.weather = Weather(usual_seconds=0.005)
    await SCRIPTS[script](stage)
    await stage.settled()
    await stage.everyone_reads()
    stage.cluster.network.weather = weather


async def _lease(stage: Stage) -> None:
    """Rules 5 and 7: a reader makes a torn delete committed between another's conditional write's promises and its
    commits.  Both would have happened to the same version."""
    order, quorums = stage.order, stage.quorums
    await stage.write(0, "put")
    await stage.settled()
    expected = stage.newest
    await stage.torn(1, "delete", order[:1])
    with stage.trap("commit", [2]) as trap:
        async with stage.meanwhile(stage.write(2, stage.rng.choice(("put_if", "delete_if", "put_if")), expected)):
            if await trap.sprung(SPRUNG_SECONDS):
                seen = quorums.read_quorum
                while seen <= quorums.set_size:
                    with stage.sees(0, order[:seen]):
                        if (await stage.read(0)).certain:
                            break
                    seen += max(1, quorums.read_quorum - 1)
            trap.open()
    await stage.read(0)


async def _take_back(stage: Stage) -> None:
    """Rules 5 and 8: a reader makes a torn write committed, and serves it, while a healer takes it back."""
    order, quorums, rng = stage.order, stage.quorums, stage.rng
    await stage.write(0, "put")
    await stage.settled()
    await stage.read(0)
    copies = _tearable(stage)
    await stage.torn(1, "put" if copies >= quorums.data_shards and rng.random() < 0.5 else "delete", order[:copies])
    await asyncio.sleep(DEAD_SECONDS)
    step = rng.choice(("remove", "fence", "remove"))
    with stage.trap(step, [2]) as trap, stage.trap("note", [0]):
        async with stage.meanwhile(stage.heal(2)):
            await trap.sprung(SPRUNG_SECONDS)
            with stage.sees(0, order[: copies + quorums.read_quorum - 1]):
                await stage.read(0)
            trap.open()
    for node in range(stage.cluster.plan.coordinators):
        await stage.read(node)


async def _weak_fence(stage: Stage) -> None:
    """Rules 3 and 8: the same, where one of the drives that promise is a replacement, which takes repairs all the same,
    and another's promise is not asked for."""
    order = stage.order
    holder, unasked, replaced = order[0], order[1], order[-1]
    await stage.write(0, "put")
    await stage.settled()
    await stage.replace(replaced)
    await stage.read(0)
    await stage.torn(1, "delete", [holder])
    await asyncio.sleep(DEAD_SECONDS)
    with stage.trap("fence", [2], [unasked], loses=True), stage.trap("remove", [2]) as trap, stage.trap("note", [0]):
        async with stage.meanwhile(stage.heal(2)):
            await trap.sprung(DRIVE_CALL_TIMEOUT_SECONDS + SPRUNG_SECONDS)
            with stage.sees(0, [holder, unasked, replaced]):
                await stage.read(0)
            trap.open()
    for node in range(stage.cluster.plan.coordinators):
        await stage.read(node)


async def _early_heal(stage: Stage) -> None:
    """Rule 8: repair comes upon a write that some drives have taken and that is on its way to the others."""
    order, quorums, rng = stage.order, stage.quorums, stage.rng
    await stage.write(0, "put")
    await stage.settled()
    reached = order[: rng.randint(1, quorums.write_quorum - 1)]
    with stage.trap("commit", [1], order[len(reached) :]) as trap:
        async with stage.meanwhile(stage.write(1, "put")):
            if await trap.sprung(SPRUNG_SECONDS):
                await asyncio.sleep(0.2)
                await stage.heal(2)
                await asyncio.sleep(rng.uniform(0.0, 0.5))
            trap.open()
    stage.must_be_done("put")


async def _twice(stage: Stage) -> None:
    """Rule 6: a write that some drives took is made committed by a reader and overwritten; the others refuse it as
    old."""
    order, quorums, rng = stage.order, stage.quorums, stage.rng
    await stage.write(0, "put")
    await stage.settled()
    copies = _tearable(stage)
    kind = "put" if copies >= quorums.data_shards else "delete"
    with stage.trap("commit", [1], order[copies:]) as trap:
        async with stage.meanwhile(stage.write(1, kind)):
            await trap.sprung(SPRUNG_SECONDS)
            await asyncio.sleep(0.1)
            with stage.sees(0, order[: copies + quorums.read_quorum - 1]):
                await stage.read(0)
            await stage.write(0, "put")
            await asyncio.sleep(rng.uniform(0.0, 1.0))
            await stage.read(2)
            trap.open()
    await stage.read(0)
    await stage.read(2)


def _tearable(stage: Stage) -> int:
    """On how many drives a write may be that was not committed, so that a reader with some others in sight makes it."""
    quorums = stage.quorums
    least = max(1, quorums.write_quorum - quorums.read_quorum + 1)
    return stage.rng.randint(least, quorums.write_quorum - 1)


async def _late_commit(stage: Stage) -> None:
    """Rule 7: a conditional write of a pod whose clock is fast arrives when its lease has lapsed, or was forgotten, and
    another write has been acknowledged."""
    rng = stage.rng
    await stage.write(0, "put")
    await stage.settled()
    expected = stage.newest
    with stage.trap("commit", [1]) as trap:
        async with stage.meanwhile(stage.write(1, "put_if", expected)):
            if await trap.sprung(SPRUNG_SECONDS):
                if rng.random() < 0.5:
                    await asyncio.sleep(rng.uniform(LEASE_LAPSES_SECONDS, LONGEST_LAPSE_SECONDS))
                else:
                    with stage.away(stage.order):
                        await asyncio.sleep(0.01)
                await stage.write(0, rng.choice(("put", "delete")))
                await stage.read(2)
            trap.open()
    await stage.settled()
    for node in (0, 2):
        await stage.read(node)


async def _rebuild(stage: Stage) -> None:
    """Rule 9: rebuilding a shard waits for its turn behind larger ones while the object is deleted and forgotten."""
    order, quorums = stage.order, stage.quorums
    missed = order[: stage.rng.randint(1, quorums.set_size - quorums.write_quorum)]
    with stage.away(missed):
        await stage.write(0, "put", size_bytes=FILE_SIZE_BYTES)
        await stage.settled()
    async with _late_rebuild(stage):
        await stage.write(0, "delete")
        await asyncio.sleep(FORGETTING_SECONDS)
        await stage.serve(stage.every_turn_seconds, lambda: not stage.holders())
    await stage.settled()
    await stage.read(0)
    await stage.read(2)


@asynccontextmanager
async def _late_rebuild(stage: Stage) -> AsyncIterator[None]:
    """Node 1 has begun to repair the key, and ends it after the block."""
    turns = stage.cluster.coordinators[1].store.healer._large
    for _ in range(LARGE_WIDTH):
        await turns.acquire()
    async with stage.meanwhile(stage.heal(1)):
        await asyncio.sleep(1.0)
        try:
            yield
        finally:
            for _ in range(LARGE_WIDTH):
                turns.release()


async def _newcomer(stage: Stage) -> None:
    """Rules 9 and 10: the same upon a replacement, whose watermark is above the delete before that is forgotten.  If it
    was filled before, it never has the tombstone: being empty, it says by its watermark that it is gone."""
    newcomer = stage.cluster.drives[stage.order[0]]
    filled_before = stage.rng.random() < 0.5

    async def write(kind: str, size_bytes: int = FILE_SIZE_BYTES) -> None:
        with stage.sees(0, stage.order[1:]):  # or it would learn of the watermark, and stamp above it
            await stage.write(0, kind, size_bytes=size_bytes)
            await stage.settled()

    if not filled_before:
        await write("put")
    await stage.replace(newcomer.position)
    if filled_before:
        await stage.serve(FILLED_SECONDS, lambda: not newcomer.healing)
        await write("put")
    async with _late_rebuild(stage):
        await write("delete", 0)
        with stage.trap("drop_tombstones", positions=[newcomer.position] if filled_before else [], loses=True):
            await stage.serve(8.0, lambda: not newcomer.healing)
            await asyncio.sleep(FORGETTING_SECONDS)
            await stage.serve(stage.every_turn_seconds, lambda: not stage.holders())
    await stage.settled()
    await stage.read(0)
    await stage.read(2)


async def _half_told(stage: Stage) -> None:
    """Rule 10: a drive that missed a delete is back, and has not been repaired when the tombstone is old enough."""
    order, quorums = stage.order, stage.quorums
    await stage.write(0, "put")
    await stage.settled()
    missed = order[: stage.rng.randint(1, quorums.set_size - quorums.write_quorum)]
    with stage.away(missed):
        await stage.write(1, "delete")
        await stage.settled()
        await asyncio.sleep(FORGETTING_SECONDS)
    with stage.trap("commit", positions=missed, loses=True):
        await stage.serve(stage.every_turn_seconds, lambda: stage.holders() <= set(missed))
    await stage.read(0)


async def _slow_reader(stage: Stage) -> None:
    """Rule 10: a reader has seen the deleted version on some drives, and asks the last one when it has forgotten."""
    order, quorums = stage.order, stage.quorums
    last = order[quorums.data_shards]
    unseen = order[quorums.data_shards + 1 :]
    with stage.away([last]), stage.trap("note", loses=True):
        await stage.write(0, "put")
        await stage.settled()
    with stage.sees(1, order[: quorums.data_shards + 1]), stage.trap("query", [1], [last]) as trap:
        async with stage.meanwhile(_reading(stage, 1)):
            await trap.sprung(SPRUNG_SECONDS)
            await asyncio.sleep(0.1)
            await stage.write(0, "delete")
            await asyncio.sleep(0.1)
            await stage.serve(3.0, lambda: not stage.holders())
            trap.open()
    await stage.settled()
    assert unseen
    await stage.read(0)


async def _reading(stage: Stage, node: int) -> None:
    await stage.read(node)


async def _forgetful(stage: Stage) -> None:
    """Rule 10: drives say that they hold only the tombstone, and lose that, and the power, while others drop it."""
    order, quorums = stage.order, stage.quorums
    await stage.write(0, "put")
    await stage.settled()
    await stage.write(1, "delete")
    await stage.settled()
    await asyncio.sleep(FORGETTING_SECONDS)
    forgetful = order[: stage.rng.randint(1, quorums.set_size - quorums.read_quorum)]
    with stage.trap("drop_tombstones", positions=forgetful, loses=True):
        await stage.serve(stage.every_turn_seconds, lambda: stage.holders() <= set(forgetful))
        stage.lose_power(forgetful)
    await stage.read(0)
    await stage.read(1)


async def _left_out(stage: Stage) -> None:
    """Rule 11: an acknowledged write that one drive missed and a lost one had is what its replacement lacks still."""
    order, quorums = stage.order, stage.quorums
    lost, missed = order[0], order[1 : quorums.read_quorum]
    with stage.away(missed):
        await stage.write(0, "put")
        await stage.settled()
    replaced: MemoryDrive = stage.cluster.drives[lost]
    with stage.trap("commit", positions=[lost, *missed], loses=True):
        await stage.replace(lost)
        await stage.serve(8.0, lambda: not replaced.healing)
        with stage.sees(1, order[: quorums.read_quorum]):
            await stage.read(1)
    await stage.read(2)


async def _predecessor(stage: Stage) -> None:
    """Rule 11: a drive promises, is lost, and its replacement takes what was sent to it before."""
    order, quorums = stage.order, stage.quorums
    await stage.write(0, "put")
    await stage.settled()
    expected = stage.newest
    lost, others = order[0], order[1 : quorums.set_size - quorums.write_quorum + 1]
    with stage.trap("commit", [1], [lost]) as late, stage.trap("commit", [1], order[1 + len(others) :], loses=True):
        async with stage.meanwhile(stage.write(1, "put")):
            await late.sprung(SPRUNG_SECONDS)
            await asyncio.sleep(0.1)
            await stage.write(2, "delete_if", expected)
            replacing = asyncio.ensure_future(stage.replace(lost))
            await asyncio.sleep(0.2)
            late.open()
    await stage.read(0)
    await replacing
    await stage.read(0)


SCRIPTS: Mapping[str, Script] = {
    "lease": _lease,
    "take_back": _take_back,
    "weak_fence": _weak_fence,
    "early_heal": _early_heal,
    "twice": _twice,
    "late_commit": _late_commit,
    "rebuild": _rebuild,
    "newcomer": _newcomer,
    "half_told": _half_told,
    "slow_reader": _slow_reader,
    "forgetful": _forgetful,
    "left_out": _left_out,
    "predecessor": _predecessor,
}
