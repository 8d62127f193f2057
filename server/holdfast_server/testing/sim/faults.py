"""What breaks during a run: each fault strikes, lasts a while, and ends.

Every kind the plan names strikes as often as it says, at moments of the run's generator; several may stand at once.
Only those that lose data ask `budget` first; one that is not allowed now does not strike.  A lost drive comes back
blank and is adopted when `pod.adoption` says so, as a pod would do it.

Not here: the network's weather, crashes and cancelled requests (`workload` draws those per operation).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

from holdfast_server.clock.stamp import floor_stamp
from holdfast_server.objects.healing import OPERATION_DEADLINE_SECONDS
from holdfast_server.pod import adoption
from holdfast_server.testing.memory_drive import MemoryDrive
from holdfast_server.testing.sim import budget
from holdfast_server.testing.sim.cluster import Cluster
from holdfast_server.testing.sim.history import History
from holdfast_server.testing.sim.plan import GREATEST_SKEW_SECONDS
from holdfast_server.testing.unreliable_network import MAX_DELAY_SECONDS, Trap

LONGEST_HANG_SECONDS = 60.0
AMBUSH_SECONDS = 60.0
"""An ambush that nobody walks into ends."""
AMBUSH_LOSES = 0.3
AMBUSH_KILLS = 0.2
ADOPTION_LOOK_SECONDS = 5.0
UNNOTICED_SECONDS = 2.0
"""A cut link may go unnoticed for so long."""


class Faults:
    def __init__(self, cluster: Cluster, history: History, rng: random.Random) -> None:
        self._cluster = cluster
        self._history = history
        self._rng = rng
        self.replaced: set[int] = set()
        """Positions whose drive was lost at some time of the run."""
        self._kinds: dict[str, Callable[[MemoryDrive], Awaitable[None]]] = {
            "away": self._away,
            "power": self._power,
            "faulty": self._faulty,
            "full": self._full,
            "hang": self._hang,
            "stall": self._stall,
            "cut": self._cut,
            "replace": self.replace,
            "rot": self._rot,
            "all_down": self._all_down,
            "ambush": self._ambush,
        }

    async def run(self) -> None:
        """All faults of the plan, each on its own; returns when the last has ended."""
        async with asyncio.TaskGroup() as group:
            for kind, times in self._cluster.plan.faults.items():
                group.create_task(self._strike(kind, times))

    async def _strike(self, kind: str, times: int) -> None:
        for _ in range(times):
            await asyncio.sleep(self._rng.expovariate(1 / self._cluster.plan.fault_gap_seconds))
            await self._kinds[kind](self._rng.choice(self._cluster.drives))

    async def _lasting(self, at_most_seconds: float = 300.0) -> None:
        length = self._rng.expovariate(1 / self._cluster.plan.fault_length_seconds)
        await asyncio.sleep(min(length, at_most_seconds))

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    async def _away(self, drive: MemoryDrive) -> None:
        self._history.event(f"drive {drive.position} is away")
        drive.offline = True
        await self._lasting()
        drive.restart()
        drive.offline = False
        self._history.event(f"drive {drive.position} is back")

    def _lose_power(self, drive: MemoryDrive) -> None:
        drive.lose_power(self._rng.randint(0, drive.unsynced_count))

    async def _power(self, drive: MemoryDrive) -> None:
        self._history.event(f"drive {drive.position} loses power")
        drive.offline = True
        self._lose_power(drive)
        await self._lasting()
        drive.offline = False

    async def _all_down(self, _: MemoryDrive) -> None:
        """Power fails everywhere, coordinators included."""
        self._history.event("all power fails")
        for drive in self._cluster.drives:
            drive.offline = True
            self._lose_power(drive)
        for node in range(len(self._cluster.coordinators)):
            self._cluster.crash(node)
        await self._lasting()
        for drive in self._cluster.drives:
            drive.offline = False
        self._history.event("power is back")

    async def _faulty(self, drive: MemoryDrive) -> None:
        """EIO, a table that does not open, a wrong drive in the slot: set aside until the process is restarted."""
        self._history.event(f"drive {drive.position} is set aside")
        drive.faulty = "input/output error"
        await self._lasting()
        drive.restart()
        drive.faulty = ""

    async def _full(self, drive: MemoryDrive) -> None:
        self._history.event(f"drive {drive.position} is full")
        # Of some it is not known for as long as it lasts: writes come upon it.
        drive.full, drive.full_is_news = True, drive.position % 2 == 0
        await self._lasting()
        drive.full = False

    async def _hang(self, drive: MemoryDrive) -> None:
        """Everything it is asked waits, and is done when it goes on."""
        length = min(self._rng.expovariate(1 / (4 * self._cluster.plan.fault_length_seconds)), LONGEST_HANG_SECONDS)
        self._history.event(f"drive {drive.position} hangs for {length:.1f} s")
        self._cluster.network.hung[drive.position] = self._now() + length
        await asyncio.sleep(length)

    async def _stall(self, _: MemoryDrive) -> None:
        """A coordinator's messages pile up on its side and go out all at once."""
        node = self._rng.randrange(len(self._cluster.coordinators))
        length = min(self._rng.expovariate(1 / (2 * self._cluster.plan.fault_length_seconds)), MAX_DELAY_SECONDS)
        self._history.event(f"node {node} stalls for {length:.1f} s")
        self._cluster.network.stalled[node] = self._now() + length
        await asyncio.sleep(length)

    async def _cut(self, drive: MemoryDrive) -> None:
        """One link, or all of a drive but one, one way or both."""
        network = self._cluster.network
        nodes = list(range(len(self._cluster.coordinators)))
        cut = self._rng.choice((nodes[:1], nodes[-1:], nodes[1:], nodes))
        links = {(node, drive.position) for node in cut}
        ways = self._rng.choice(((network.cut_requests,), (network.cut_answers,), (network.cut_requests,) * 2))
        self._history.event(f"nodes {cut} cannot reach drive {drive.position}")
        for way in ways:
            way |= links
        await asyncio.sleep(self._rng.choice((0.0, self._rng.uniform(0, UNNOTICED_SECONDS))))
        network.known_cut |= links
        await self._lasting()
        for way in (*ways, network.known_cut):
            way -= links
        self._history.event(f"nodes {cut} can reach drive {drive.position} again")

    async def _ambush(self, drive: MemoryDrive) -> None:
        """The next messages of one kind from one coordinator are held up or lost, to one drive, some or all; or the
        first of them is its last."""
        rng, network = self._rng, self._cluster.network
        verb = rng.choice(self._cluster.plan.ambushed)
        node = rng.randrange(len(self._cluster.coordinators))
        everywhere = [one.position for one in self._cluster.drives]
        positions = rng.choice((everywhere, [drive.position], rng.sample(everywhere, len(everywhere) // 2 + 1)))
        trap = Trap([verb], [node], positions, loses=rng.random() < AMBUSH_LOSES)
        network.traps.append(trap)
        if await trap.sprung(AMBUSH_SECONDS):
            self._history.event(f"{verb} of node {node} to drives {sorted(positions)} does not get through")
            if rng.random() < AMBUSH_KILLS:
                await asyncio.sleep(rng.choice((0.0, 0.01)))
                self._history.event(f"node {node} crashes")
                self._cluster.crash(node)
            await asyncio.sleep(rng.choice((rng.uniform(0.0, 0.2), rng.uniform(0.2, 4.0), rng.uniform(4.0, 15.0))))
        trap.open()
        network.traps.remove(trap)

    async def _rot(self, drive: MemoryDrive) -> None:
        healthy = sorted(data_id for data_id in drive.shard_ids() if drive.has_healthy(data_id))
        if not healthy:
            return
        data_id = self._rng.choice(healthy)
        # Of one shard on each drive another block, if there are some.
        block = (data_id[0] + drive.position) % drive.block_count(data_id)
        if budget.may_rot(self._cluster, drive, data_id, block):
            self._history.event(f"drive {drive.position}: block {block} of shard {data_id.hex()[:6]} rots")
            drive.rot(data_id, block)

    async def replace(self, drive: MemoryDrive) -> None:
        """The drive is lost; a blank one is in its place and is adopted when the rules allow it."""
        if not budget.may_lose_drive(self._cluster.quorums, self._cluster.drives, drive):
            return
        self._history.event(f"drive {drive.position} is lost")
        self.replaced.add(drive.position)
        drive.lose_everything()
        lost_at = self._now()
        while not self._may_adopt(drive, lost_at):
            await asyncio.sleep(ADOPTION_LOOK_SECONDS)
        now_ms = self._cluster.clock.now_ms()
        watermark = floor_stamp(now_ms + GREATEST_SKEW_SECONDS * 1000)
        drive.adopt(bytes([drive.position, *self._rng.randbytes(15)]), floor_stamp(now_ms), watermark)
        self._history.event(f"drive {drive.position} is replaced")

    def _may_adopt(self, drive: MemoryDrive, lost_at: float) -> bool:
        quorums = self._cluster.quorums
        facts = adoption.BlankDrive(
            formatting=False,
            remembered=True,
            set_size=quorums.set_size,
            parity=quorums.parity_shards,
            others=[other.status().state for other in self._cluster.drives if other is not drive],
            seconds_left=lost_at + OPERATION_DEADLINE_SECONDS - self._now(),
        )
        return adoption.decide(facts).action is adoption.Action.ADOPT
