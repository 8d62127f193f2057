"""The end of a run: faults off, repair, and then everything must be whole.

In this order: all drives up, replacements filled; every coordinator reads every key; the heal service runs until its
queues are empty; every register is looked at once, as a scan would; the drives must agree (`HealingConverges`), nothing
unnamed may be left (`NothingGrows`), any K drives must suffice to read everything, and a listing must show exactly the
keys that reads find.

Not here: the judgement of what was answered (`checkers.judge`, afterwards, over the whole history).
"""

from __future__ import annotations

import asyncio
import itertools
import random

from holdfast_server.drives import keys
from holdfast_server.drives.port import DriveError, DriveState
from holdfast_server.objects.healing import OPERATION_DEADLINE_SECONDS
from holdfast_server.objects.port import ObjectError
from holdfast_server.testing.sim.checkers import HealingConverges, NothingGrows, copies_suffice
from holdfast_server.testing.sim.cluster import Cluster
from holdfast_server.testing.sim.history import History, Violation
from holdfast_server.testing.sim.workload import BUCKET, Workload
from holdfast_server.testing.unreliable_network import MAX_DELAY_SECONDS

HEAL_ROUNDS = 60
"""Looks of the heal service within which everything must be repaired; a register's turn comes round in N."""
HEAL_PAUSE_SECONDS = 1.0
SCAN_PASSES = 3
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

    async def run(self, replaced: set[int]) -> None:
        self._history.event("the faults end")
        self._cluster.network.calm()
        await self._cluster.network.drained()
        await self._cluster.background_ended()
        if not replaced:
            await self._everyone_reads()
        await asyncio.sleep(MAX_DELAY_SECONDS)
        await asyncio.sleep(OPERATION_DEADLINE_SECONDS + 100)
        await self._heal_until_whole(replaced)
        await self._scan(bool(replaced))
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

    async def _heal_until_whole(self, replaced: set[int]) -> None:
        for _ in range(HEAL_ROUNDS):
            for coordinator in self._cluster.coordinators:
                try:
                    await coordinator.heal_service.heal_once()
                except (DriveError, ObjectError):
                    continue
            await self._cluster.background_ended()
            if all(drive.status().state is DriveState.FULL for drive in self._cluster.drives) and not any(
                drive.repair_queue_length for drive in self._cluster.drives
            ):
                return
            await asyncio.sleep(HEAL_PAUSE_SECONDS)
        await self._find_undecidable(bool(replaced))
        if not self._undecidable:
            states = [drive.status().state.name for drive in self._cluster.drives]
            queues = [drive.repair_queue_length for drive in self._cluster.drives]
            raise Violation("HealingConverges", f"after {HEAL_ROUNDS} looks drives are {states}, queues {queues}")

    async def _find_undecidable(self, replaced: bool) -> None:
        for row in self._rows():
            try:
                healed = await self._heal(row)
            except ObjectError:
                continue
            if healed.stuck and replaced:
                self._undecidable.add(row)

    def _rows(self) -> list[bytes]:
        return sorted({row for drive in self._cluster.drives for row in drive.rows()} - self._undecidable)

    async def _heal(self, row: bytes):  # type: ignore[no-untyped-def]
        coordinator = self._cluster.coordinators[0]
        return await coordinator.store.heal(coordinator.erasure_set, keys.decode_row_key(row), verify=True)

    async def _scan(self, replaced: bool) -> None:
        """Look at every register; few looks must be enough."""
        for _ in range(SCAN_PASSES):
            left = []
            for row in self._rows():
                try:
                    healed = await self._heal(row)
                except ObjectError as error:
                    left.append((row, str(error)))
                    continue
                if healed.stuck and replaced:
                    self._undecidable.add(row)
                elif not healed.whole:
                    left.append((row, str(healed)))
            await self._cluster.background_ended()
            if not left:
                return
        raise Violation("HealingConverges", f"not whole after {SCAN_PASSES} looks: {left}")

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
        drives = self._cluster.drives
        subsets = list(itertools.combinations(range(len(drives)), copies_suffice(self._cluster.quorums)))
        self._rng.shuffle(subsets)
        for up in subsets[:MAX_SUBSETS]:
            for position, drive in enumerate(drives):
                drive.offline = position not in up
            for key in self._cluster.plan.keys:
                await self._read(0, key, f"drives {up} are up")
        for drive in drives:
            drive.offline = False
