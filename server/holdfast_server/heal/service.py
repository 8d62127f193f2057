"""The loop of a pod's healing: of each kind of work one unit after the other, on every drive of its own.

1. the *repair queue* (`repair_queue`): registers whose last write did not reach every drive, within seconds;
2. the *filling* (`filling`): an empty replacement gets everything; a drive that was away is looked through;
3. the *scanner* (`scanner`): rot, lost notes, leaks, over a day;
4. the *dropping* of tombstones (`tombstones`), minutes after the delete;
5. the *walk over buckets* (`bucket_walk`): lifecycle, usage, what deleted buckets left; where a keeper is given.

Each pod looks after its own drives, because what a drive lacks is written where it is: only the reading crosses the
network.  The repair queue is on the holders, so there the pods take turns.

One unit per call, each resumable; `heal_once` is one round over all drives.  The pace is the pacer's.

Not here: adoption of blank drives (the pod's life cycle), what healing one register means (`objects.healing`).
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from holdfast_server.clock.port import Clock
from holdfast_server.contract.healing import HealProgress
from holdfast_server.drives.port import DriveError, DriveState
from holdfast_server.heal import progress
from holdfast_server.heal.bucket_keeper import BucketKeeper
from holdfast_server.heal.bucket_walk import BucketWalk, WalkState
from holdfast_server.heal.filling import Filling, FillingState
from holdfast_server.heal.own_drive import OwnDrive
from holdfast_server.heal.pacing import Pacer
from holdfast_server.heal.registers import RegisterHealing
from holdfast_server.heal.repair_queue import QueueState, RepairQueueWork
from holdfast_server.heal.scanner import Scanner, ScanState
from holdfast_server.heal.settings import HealSettings
from holdfast_server.heal.tombstones import DropState, TombstoneWork
from holdfast_server.objects.asking import together
from holdfast_server.objects.erasure_set import ErasureSet
from holdfast_server.objects.port import ObjectError
from holdfast_server.objects.store import ObjectStore
from holdfast_server.placement.map import SetId

log = logging.getLogger(__name__)


@dataclass(slots=True)
class DriveWork:
    """What the parts keep in memory of one drive."""

    queue: QueueState = field(default_factory=QueueState)
    filling: FillingState = field(default_factory=FillingState)
    scan: ScanState = field(default_factory=ScanState)
    drop: DropState = field(default_factory=DropState)
    walk: WalkState = field(default_factory=WalkState)
    look_again_at: float = float("-inf")
    """At what is stuck."""
    failed: dict[Unit, float] = field(default_factory=dict)
    """Until when a kind of work is left alone that ended in an error that should not be."""


Unit = Callable[[OwnDrive, ErasureSet, DriveWork], Awaitable[bool]]
"""One unit of one kind of work on one drive; True if there is more to do at once."""


class HealService:
    def __init__(
        self,
        store: ObjectStore,
        local_drives: Callable[[], Sequence[OwnDrive]],
        clock: Clock,
        settings: HealSettings | None = None,
        peers_slowdowns: Callable[[], Sequence[float]] = tuple,
        keeper: BucketKeeper | None = None,
    ) -> None:
        """`peers_slowdowns`: see `Pacer`.  Without a keeper buckets are not walked."""
        self._store = store
        self._local_drives = local_drives
        self._clock = clock
        self.settings = settings or HealSettings()
        self.pacer = Pacer(clock, store.foreground, self.settings, peers_slowdowns)
        self.registers = RegisterHealing(store, self.pacer, clock)
        self.queue = RepairQueueWork(self.registers, clock, self.settings)
        self.filling = Filling(self.registers, clock, self.settings)
        self.scanner = Scanner(self.registers, clock, self.settings)
        self.tombstones = TombstoneWork(store, self.registers, self.pacer, clock, self.settings)
        self.walk = BucketWalk(store, keeper, self.pacer, clock, self.settings) if keeper is not None else None
        self._work: dict[int, DriveWork] = {}

    async def run(self) -> None:
        """Until cancelled."""
        await together(self._repeat(unit) for unit in self._units())

    async def heal_once(self) -> bool:
        """One unit of each kind of work on every local drive; True if there is more to do at once.

        Failures are logged and the work is taken up again in a later round.
        """
        return any(await together(self._everywhere(unit) for unit in self._units()))

    def start_scan(self) -> None:
        """Have every local drive scanned from where its pass stands to the end, without the rests in between."""
        for volume, _ in enumerate(self._local_drives()):
            self.work_of(volume).scan.hurry = True
            self.work_of(volume).walk.hurry = True

    def walk_soon(self, bucket_id: bytes) -> None:
        """Have a bucket counted, and looked through, by those of the local drives that walk for their sets."""
        for volume, _ in enumerate(self._local_drives()):
            self.work_of(volume).walk.urgent.add(bucket_id)

    def report(self) -> HealProgress:
        """What is known now, without waiting."""
        return progress.report(self, self._store, [*enumerate(self._local_drives())], self._clock)

    def work_of(self, volume: int) -> DriveWork:
        work = self._work.get(volume)
        if work is None:
            work = self._work[volume] = DriveWork()
        return work

    def set_of(self, drive: OwnDrive) -> ErasureSet:
        return self._store.erasure_set(SetId(drive.pool, drive.set_index))

    def _units(self) -> list[Unit]:
        """Apart from each other: what is due after seconds must not wait for what takes hours."""
        units: list[Unit] = [self._work_off, self._fill, self._scan, self._drop]
        return units if self.walk is None else [*units, self._walk]

    async def _repeat(self, unit: Unit) -> None:
        while True:
            if not await self._everywhere(unit):
                await self._clock.sleep(self.settings.interval_seconds)

    async def _everywhere(self, unit: Unit) -> bool:
        """On every local drive that serves."""
        serving = []
        for volume, drive in enumerate(self._local_drives()):
            state = drive.status().state
            if state in (DriveState.FULL, DriveState.HEALING):
                serving.append((volume, drive))
            elif state in (DriveState.OFFLINE, DriveState.FAULTY):
                # It takes nothing; others write without it, and it may be the same drive that comes back.
                self.work_of(volume).filling.cut_off = True
        return any(await together(self._guarded(unit, volume, drive) for volume, drive in serving))

    async def _guarded(self, unit: Unit, volume: int, drive: OwnDrive) -> bool:
        work = self.work_of(volume)
        if self._clock.monotonic_seconds() < work.failed.get(unit, float("-inf")):
            return False
        try:
            return await unit(drive, self.set_of(drive), work)
        except (DriveError, ObjectError) as error:
            log.info("drive %d: healing will go on later: %s", volume, error)
        except Exception:
            # It must not take the others with it: begun anew together, they would all be cut off at the same place.
            log.exception("drive %d: one kind of healing failed and is tried again later", volume)
            work.failed[unit] = self._clock.monotonic_seconds() + self.settings.retry_seconds
        return False

    async def _work_off(self, drive: OwnDrive, erasure_set: ErasureSet, work: DriveWork) -> bool:
        now = self._clock.monotonic_seconds()
        if now >= work.look_again_at:
            work.look_again_at = now + self.settings.retry_seconds
            await self.registers.look_again(erasure_set)
        return await self.queue.step(drive, erasure_set, work.queue)

    async def _fill(self, drive: OwnDrive, erasure_set: ErasureSet, work: DriveWork) -> bool:
        return await self.filling.step(drive, erasure_set, work.filling)

    async def _scan(self, drive: OwnDrive, erasure_set: ErasureSet, work: DriveWork) -> bool:
        if drive.status().state is not DriveState.FULL:
            return False
        return await self.scanner.step(drive, erasure_set, work.scan)

    async def _drop(self, drive: OwnDrive, erasure_set: ErasureSet, work: DriveWork) -> bool:
        return await self.tombstones.step(drive, erasure_set, work.drop)

    async def _walk(self, drive: OwnDrive, erasure_set: ErasureSet, work: DriveWork) -> bool:
        if self.walk is None or drive.status().state is not DriveState.FULL:
            return False
        return await self.walk.step(drive, erasure_set, work.walk)
