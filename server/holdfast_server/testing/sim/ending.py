"""The end of a run: faults off, repair, and then everything must be whole.

In this order: all drives up, replacements filled; every coordinator reads every key; the heal service runs until its
queues are empty and a scan has gone over every drive; the drives must agree (`HealingConverges`), nothing
unnamed may be left (`NothingGrows`), any K drives must suffice to read everything, and a listing must show exactly the
keys that reads find.

Not here: the judgement of what was answered (`checkers.judge`, afterwards, over the whole history).
"""

from __future__ import annotations

import asyncio
import itertools
import random

from holdfast_server.contract.geometry import quorums
from holdfast_server.drives import keys
from holdfast_server.drives.port import DriveState
from holdfast_server.heal.tombstones import TURN_MS
from holdfast_server.objects.healing import OPERATION_DEADLINE_SECONDS
from holdfast_server.testing.sim.checkers import HealingConverges, NothingGrows, copies_suffice
from holdfast_server.testing.sim.cluster import SET, Cluster
from holdfast_server.testing.sim.history import History, Violation
from holdfast_server.testing.sim.workload import BUCKET, Workload
from holdfast_server.testing.unreliable_network import MAX_DELAY_SECONDS

HEAL_ROUNDS = 60
"""Looks of the heal service within which everything must be repaired; a register's turn comes round in N."""
HEAL_PAUSE_SECONDS = 1.0
SCAN_AGE_SECONDS = 2 * 3600.0
"""Scans leave alone what is younger than an hour and may still be under way."""
MAX_SCAN_UNITS = 3000
LONGEST_DROP_SECONDS = 1200.0
"""In which what some drives have dropped is gone from all: a pass over tombstones in which calls were lost rests ten
times as long as those took, and after that waits for its drive's turn."""
UNITS_PER_LOOK = 30
"""More than a pass over every kind of register has units here; a pod goes on as long as there is more."""
RECLAIM_SECONDS = 40.0
MAX_SUBSETS = 15


class Ending:
    def __init__(self, cluster: Cluster, history: History, workload: Workload, rng: random.Random) -> None:
        self._cluster = cluster
        self._history = history
        self._workload = workload
        self._rng = rng
        self._undecidable: set[bytes] = set()
        """Registers that only a person may decide: K - 1 copies and a replaced drive (rule 11)."""
        self._replaced: set[int] = set()

    async def run(self, replaced: set[int]) -> None:
        """`replaced`: positions of drives that were lost at some time.  Raises Violation."""
        self._replaced = replaced
        self._history.event("the faults end")
        self._cluster.network.calm()
        await self._cluster.network.drained()
        await self._cluster.background_ended()
        if not replaced:
            await self._everyone_reads()
        await asyncio.sleep(MAX_DELAY_SECONDS)
        await asyncio.sleep(OPERATION_DEADLINE_SECONDS + 100)
        await self._heal_until_whole()
        await asyncio.sleep(SCAN_AGE_SECONDS)
        for _ in range(2):  # noted tombstones of uploads drop parts that were looked at before them
            await self._scan()
            await self._heal_until_whole()
        self._find_undecidable()
        await self.finish_drops()
        HealingConverges().check(self._cluster.drives, self._undecidable)
        await self._reclaim()
        NothingGrows().check(self._cluster.drives)
        if not self._undecidable:
            await self._everyone_reads()
            await self._listing_agrees()
            await self._any_k_suffice()

    async def _everyone_reads(self) -> None:
        for coordinator, key in itertools.product(self._cluster.coordinators, self._cluster.plan.keys):
            await self._read(coordinator.node, key, "all drives are up")

    async def _read(self, node: int, key: str, told: str) -> object:
        await self._workload.get(self._cluster.coordinators[node], key)
        operation = self._history.operations[-1]
        if not operation.certain:
            raise Violation("Readable", f"{told}, yet: {operation.told()}")
        return operation.result

    # ---------------------------------------------------------------- repair

    async def _heal_until_whole(self) -> None:
        """The heal services of all pods, until nothing is queued and every drive is full."""
        for _ in range(HEAL_ROUNDS):
            await self._heal_round()
            if self._settled():
                return
            await asyncio.sleep(HEAL_PAUSE_SECONDS)
        self._find_undecidable()
        if not self._settled():
            states = [drive.status().state.name for drive in self._cluster.drives]
            queues = [await drive.repairs(10) for drive in self._cluster.drives]
            raise Violation("HealingConverges", f"after {HEAL_ROUNDS} looks drives are {states}, queues {queues}")

    def _settled(self) -> bool:
        if any(drive.repair_rows() - self._undecidable for drive in self._cluster.drives):
            return False
        full = all(drive.status().state is DriveState.FULL for drive in self._cluster.drives)
        return full or bool(self._undecidable)

    async def _heal_round(self) -> bool:
        """One look of every pod; whether any has more to do at once."""
        more = False
        for coordinator in self._cluster.coordinators:
            more |= await coordinator.heal_service.heal_once()
        await self._cluster.background_ended()
        return more

    async def _scan(self) -> None:
        """Every pod scans its drives from end to end."""
        for coordinator in self._cluster.coordinators:
            coordinator.heal_service.start_scan()
        for _ in range(MAX_SCAN_UNITS):
            if not await self._heal_round():
                return
        raise Violation("HealingConverges", f"a scan does not end within {MAX_SCAN_UNITS} units")

    async def finish_drops(self) -> None:
        """A tombstone that some have dropped is whole, and goes from the others when their turn comes."""
        pause_seconds = TURN_MS / 1000 / 2
        for _ in range(int(LONGEST_DROP_SECONDS / pause_seconds)):
            if not any(map(self._half_dropped, {row for drive in self._cluster.drives for row in drive.rows()})):
                return
            await asyncio.sleep(pause_seconds)
            for _ in range(UNITS_PER_LOOK):
                if not await self._heal_round():
                    break

    def _half_dropped(self, row: bytes) -> bool:
        held = [drive.state_of(row).records for drive in self._cluster.drives]
        left = [records for records in held if records]
        return len(left) < len(held) and all(len(records) == 1 and records[0].tombstone for records in left)

    def _find_undecidable(self) -> None:
        """Where data was lost, a version may be left that only a person can decide; nowhere else."""
        if self._replaced:
            for coordinator in self._cluster.coordinators:
                self._undecidable |= {keys.row_key(r) for r in coordinator.heal_service.registers.stuck_registers(SET)}

    async def _reclaim(self) -> None:
        for drive in self._cluster.drives:
            drive.restart()
        await asyncio.sleep(RECLAIM_SECONDS)
        for drive in self._cluster.drives:
            drive.reap()

    # ---------------------------------------------------------------- what must be readable

    async def _listing_agrees(self) -> None:
        coordinator = self._cluster.coordinators[-1]
        listing = await coordinator.store.list_objects(BUCKET)
        listed = {entry.key: int(entry.record.etag) for entry in listing.entries}
        found = {key: await self._read(0, key, "all drives are up") for key in self._cluster.plan.keys}
        if listed != {key: value for key, value in found.items() if value is not None}:
            raise Violation("ListingAgrees", f"listed {listed}, read {found}")

    async def _any_k_suffice(self) -> None:
        """K of each key's own current version: those of the others may be fewer, or more."""
        drives = self._cluster.drives
        by_copies: dict[int, list[str]] = {}
        for key in self._cluster.plan.keys:
            current = await self._cluster.coordinators[0].store.head_object(BUCKET, key)
            cut = current.geometry if current is not None else None
            own = quorums(len(drives), cut.parity_shards) if cut is not None else self._cluster.quorums
            by_copies.setdefault(copies_suffice(own), []).append(key)
        for copies, of_keys in by_copies.items():
            subsets = list(itertools.combinations(range(len(drives)), copies))
            self._rng.shuffle(subsets)
            for up in subsets[:MAX_SUBSETS]:
                for position, drive in enumerate(drives):
                    drive.offline = position not in up
                for key in of_keys:
                    await self._read(0, key, f"drives {up} are up")
            for drive in drives:
                drive.offline = False
