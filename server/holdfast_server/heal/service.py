"""Which register is healed next, on this pod.

Two sources.  The *repair queue* of each local drive: registers whose last write did not reach every drive; it is
kept on the holders, so it survives restarts, and it is worked off as soon as all drives of the set answer.  Every
holder has the entry; the one whose turn it is does the work, the others drop theirs when they see it whole.  The
turn goes around all drives that answer, beginning where the register's hash points to: it may fall on the very
drive that missed the write, which has no entry and does nothing, so it must pass on.  And local *healing drives*:
a pass over all registers of the set, from the drives that are full; only a pass that began after the drive was
adopted and that met nothing it could not heal makes the drive full (rule 11).

One register per unit of work; each can be repeated or cut off anywhere.  Concurrency is bounded by `WIDTH`, and
after each batch the service rests as long as the batch took, so that requests keep at least half of the pod.

Not here: scanning for rot, expiry, adoption of blank drives (the pod's life cycle does that).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass

import xxhash

from holdfast_server.clock.port import Clock
from holdfast_server.contract.healing import DriveHealing, HealProgress
from holdfast_server.drives.port import Drive, DriveError, DriveState, Register
from holdfast_server.objects.asking import ask, bounded
from holdfast_server.objects.erasure_set import ErasureSet
from holdfast_server.objects.listing import SetWalk, Walk
from holdfast_server.objects.port import ObjectError
from holdfast_server.objects.store import ObjectStore
from holdfast_server.placement.map import SetId

WIDTH = 8
QUEUE_PAGE = 1000
INTERVAL_SECONDS = 1.0
TURN_MS = 2000
"""How long a drive is the one that heals a register; longer than the interval, so that a turn is not missed."""
SPACES_PAGE = 100

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Progress:
    """Counters since the pod started, for metrics and health."""

    repaired: int = 0
    copied: int = 0
    stuck: int = 0
    failed: int = 0
    queue_length: int = 0
    """As of the last look, at most `QUEUE_PAGE` per drive."""
    healed_drives: int = 0


class HealService:
    def __init__(self, store: ObjectStore, local_drives: Callable[[], Sequence[Drive]], clock: Clock) -> None:
        self._store = store
        self._local_drives = local_drives
        self._clock = clock
        self.progress = Progress()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                await self.heal_once()
            except (DriveError, ObjectError) as error:
                log.info("healing will go on later: %s", error)
            await self._clock.sleep(INTERVAL_SECONDS)

    def report(self) -> HealProgress:
        """What is known now, without waiting."""
        drives = [
            DriveHealing(
                pool=drive.pool,
                set_index=drive.set_index,
                position=drive.position,
                volume=volume,
                state=drive.status().state.name.lower(),
                queue_length=getattr(drive, "repair_queue_length", 0),
            )
            for volume, drive in enumerate(self._local_drives())
        ]
        counted = self.progress
        return HealProgress(
            drives=drives,
            registers_repaired=counted.repaired,
            copies_made=counted.copied,
            failed=counted.failed,
            drives_filled=counted.healed_drives,
        )

    async def heal_once(self) -> None:
        """One look at every local drive: its repair queue, then its pass if it is healing."""
        queued = 0
        for drive in self._local_drives():
            if drive.status().state not in (DriveState.FULL, DriveState.HEALING):
                continue
            queued += await self._work_off(drive)
        self.progress.queue_length = queued
        for drive in self._local_drives():
            if drive.status().state is DriveState.HEALING:
                await self._fill(drive)

    # ---------------------------------------------------------------- the repair queue

    async def _work_off(self, drive: Drive) -> int:
        """Returns how many entries were found."""
        erasure_set = self._set_of(drive)
        registers = await bounded(drive.repairs(QUEUE_PAGE))
        awake = sorted(erasure_set.awake())
        if len(awake) < erasure_set.quorums.set_size:
            return len(registers)
        turn = self._clock.now_ms() // TURN_MS
        mine = [register for register in registers if _responsible(register, awake, turn) == drive.position]
        await self._batches(erasure_set, mine)
        return len(registers)

    async def _batches(self, erasure_set: ErasureSet, registers: Sequence[Register]) -> int:
        """Heal them, `WIDTH` at a time; returns how many could not be settled."""
        left = 0
        for start in range(0, len(registers), WIDTH):
            began = self._clock.monotonic_seconds()
            batch = registers[start : start + WIDTH]
            done = await asyncio.gather(*(self._heal(erasure_set, register) for register in batch))
            left += done.count(False)
            await self._clock.sleep(self._clock.monotonic_seconds() - began)
        return left

    async def _heal(self, erasure_set: ErasureSet, register: Register) -> bool:
        try:
            healed = await self._store.heal(erasure_set, register)
        except (DriveError, ObjectError) as error:
            self.progress.failed += 1
            log.info("%s: %r could not be healed now: %s", erasure_set.name, register.key, error)
            return False
        self.progress.copied += healed.copied
        if healed.stuck:
            self.progress.stuck += 1
            log.warning("%s: %r cannot be decided by the drives that answer", erasure_set.name, register.key)
        if healed.whole:
            self.progress.repaired += 1
            await ask(erasure_set.awake(), lambda _, drive: drive.repaired(register, healed.stamp))
        return healed.settled

    # ---------------------------------------------------------------- replacement drives

    async def _fill(self, drive: Drive) -> None:
        """One pass over everything the set holds; makes the drive full if nothing was left out."""
        erasure_set = self._set_of(drive)
        incarnation = drive.status().incarnation
        log.info("%s: filling drive %d", erasure_set.name, drive.position)
        left = count = 0
        batch: list[Register] = []
        async for register in self._registers(erasure_set):
            batch.append(register)
            if len(batch) == WIDTH:
                left += await self._batches(erasure_set, batch)
                count += len(batch)
                batch = []
        left += await self._batches(erasure_set, batch)
        count += len(batch)
        if left:
            log.warning("%s: drive %d: %d of %d could not be healed", erasure_set.name, drive.position, left, count)
            return
        await bounded(drive.finish_healing(incarnation))
        self.progress.healed_drives += 1
        log.info("%s: drive %d is full again, %d registers", erasure_set.name, drive.position, count)

    async def _registers(self, erasure_set: ErasureSet) -> AsyncIterator[Register]:
        after = b""
        while True:
            spaces = await self._spaces(erasure_set, after)
            for space in spaces:
                async for register in SetWalk(erasure_set, Walk(space, page_size=QUEUE_PAGE)).registers():
                    yield register
            if not spaces:
                return
            after = spaces[-1]

    async def _spaces(self, erasure_set: ErasureSet, after: bytes) -> list[bytes]:
        """The next spaces that any full drive has; R full drives miss nothing committed."""
        full = {p: d for p, d in erasure_set.awake().items() if d.status().state is DriveState.FULL}
        pages = await ask(full, lambda _, drive: drive.spaces(after, SPACES_PAGE))
        if len(pages) < erasure_set.quorums.read_quorum:
            raise DriveError(f"{erasure_set.name}: too few full drives answer")
        # A page that was cut off says nothing about what lies beyond its last.
        horizon = min((page[-1] for page in pages.values() if len(page) == SPACES_PAGE), default=None)
        names = {space for page in pages.values() for space in page}
        return sorted(space for space in names if horizon is None or space <= horizon)

    def _set_of(self, drive: Drive) -> ErasureSet:
        return self._store.erasure_set(SetId(drive.pool, drive.set_index))


def _responsible(register: Register, awake: Sequence[int], turn: int) -> int:
    """The position whose pod heals a register in this turn: the same answer on every pod that sees the same drives
    and whose clock is right; where it is not, a register is healed twice or a turn later."""
    own = xxhash.xxh3_64_intdigest(register.space + register.key.encode() + register.version)
    return awake[(own + turn) % len(awake)]
