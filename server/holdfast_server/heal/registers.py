"""Healing of many registers: how many at once, what is counted, which are stuck, which are better ended.

A unit of work is one register; each can be repeated or cut off anywhere, and two pods may do one at the same time
(rule 9's compare-and-set; shards are named by what is in them).

Parts of uploads are looked at twice: when an upload ends, each drive drops its parts by itself, as it learns of it.
A part that one drive still has and another dropped is no missed write, and must not be copied back.  So the upload
is asked for first; if it has ended, the part is *ended* too: deleted by quorum, like any register, so that nothing
brings it back.  An upload that was completed gave its shards to the object by reference; they stay.

Not here: which registers, in which order (`repair_queue`, `filling`, `scanner`).
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from holdfast_server.clock.port import Clock
from holdfast_server.clock.stamp import stamp_ms
from holdfast_server.contract.healing import MAX_STUCK_SAMPLES, RegisterKind, StuckRegister
from holdfast_server.drives.port import MAX_REGISTERS_PER_CALL, DriveError, Register, ScanEntry
from holdfast_server.heal.pacing import Pacer
from holdfast_server.objects import quorum, record
from holdfast_server.objects.asking import together
from holdfast_server.objects.erasure_set import ErasureSet
from holdfast_server.objects.healing import OPERATION_DEADLINE_SECONDS, Healed, Stuck
from holdfast_server.objects.port import ObjectError
from holdfast_server.objects.record import Kind, Record
from holdfast_server.objects.store import ObjectStore
from holdfast_server.placement.map import SetId

MAX_STUCK = 10_000
"""Registers known to be stuck, per pod; more are found again when these are resolved."""

STUCK_PER_LOOK = 256

READ_AGAIN_SECONDS = 600.0
"""After which shards that were read, and found to be too few, are read again: all of them, on every drive."""

MAX_RECORDS_BYTES = 4 << 20
"""Of one drive's answer about a batch, as far as can be told: a record of ten thousand parts has 0.7 MB, and all drives
answer at once."""
LEAST_AT_ONCE = 4
"""While nothing is known of their size; twice as many each time."""

KINDS: dict[bytes, RegisterKind] = {
    record.OBJECT_SPACE: "object",
    record.VERSION_SPACE: "version",
    record.UPLOAD_SPACE: "upload",
    record.PART_SPACE: "part",
    record.DOCUMENT_SPACE: "document",
}

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Outcome:
    """Of one batch."""

    whole: list[tuple[Register, int]] = field(default_factory=list)
    """Every drive of the set has what it should, up to this stamp."""
    left: list[Register] = field(default_factory=list)
    """Could not be settled now."""
    undecided: list[Register] = field(default_factory=list)
    """Settled but for a write from before a drive that heals was adopted, which may be under way still."""
    not_whole: list[Register] = field(default_factory=list)
    """Settled or not, some drive still lacks something."""
    copied: int = 0
    copied_bytes: int = 0
    rotten: int = 0


@dataclass(slots=True)
class _StuckEntry:
    stuck: Stuck
    since_ms: int
    read_again_at: float | None
    """None: that it is stuck is seen without reading its shards."""


class RegisterHealing:
    def __init__(self, store: ObjectStore, pacer: Pacer, clock: Clock) -> None:
        self._store = store
        self._pacer = pacer
        self._clock = clock
        self._stuck: dict[tuple[SetId, Register], _StuckEntry] = {}
        self._most = LEAST_AT_ONCE
        """Registers in a batch, by the size of the records that were met last."""
        self.copied = 0
        self.failed = 0

    async def heal(self, erasure_set: ErasureSet, registers: Sequence[Register], verify: bool = False) -> Outcome:
        """As many at once as the pacer allows, resting in between.  Failures are counted, never raised."""
        outcome = Outcome()
        start = 0
        while start < len(registers):
            batch = registers[start : start + min(self._pacer.width, self._most)]
            start += len(batch)
            began = self._clock.monotonic_seconds()
            replies = await self._store.healer.query_many(erasure_set, batch)
            self._most = most_at_once(self._most, replies.values())
            made = await together(self._one(erasure_set, register, verify, replies[register]) for register in batch)
            for register, healed in zip(batch, made, strict=True):
                self._count(outcome, register, healed)
            await self._pacer.rest(self._clock.monotonic_seconds() - began)
        return outcome

    def _count(self, outcome: Outcome, register: Register, healed: Healed | None) -> None:
        if healed is not None:
            self.copied += healed.copied
            outcome.copied += healed.copied
            outcome.copied_bytes += healed.copied_bytes
            outcome.rotten += healed.rotten
        if healed is not None and healed.whole:
            outcome.whole.append((register, healed.stamp))
        else:
            outcome.not_whole.append(register)
        if healed is None or not healed.settled:
            outcome.left.append(register)
        elif healed.undecided:
            outcome.undecided.append(register)

    async def _one(
        self, erasure_set: ErasureSet, register: Register, verify: bool, replies: quorum.Replies
    ) -> Healed | None:
        try:
            if register.space[:1] == record.PART_SPACE and await self.upload_has_ended(register):
                ended = await self.end_part(erasure_set, register)
                if ended is None:
                    return None
                healed = ended
            else:
                healed = await self._store.heal(erasure_set, register, verify, replies)
        except (DriveError, ObjectError) as error:
            self.failed += 1
            log.info("%s: %r could not be healed now: %s", erasure_set.name, register.key, error)
            return None
        except record.RecordCorrupt as error:
            # One bad register must not end the pass over all others.
            self.failed += 1
            log.error("%s: the record of %r is damaged: %s", erasure_set.name, register.key, error)
            return None
        self._remember_stuck(erasure_set, register, healed, verify)
        return healed

    # ---------------------------------------------------------------- parts

    async def upload_has_ended(self, part: Register) -> bool:
        """Whether no set knows its upload as open.  Raises Unavailable where one cannot tell.

        Every set is asked, wherever placement has put uploads of this key over time: to take an open upload for an
        ended one would destroy it.
        """
        upload = Register(record.UPLOAD_SPACE + part.space[1:], part.key, part.version[:-2])
        for erasure_set in self._store.all_sets():
            current = await erasure_set.read(upload)
            if current.record is not None and current.record.live:
                return False
        return True

    async def end_part(self, erasure_set: ErasureSet, part: Register) -> Healed | None:
        """Delete, by quorum, a part whose upload has ended; None while something upon it may be under way."""
        # Not `read`: of a part that some drives have dropped already, too few copies may be left to decide or serve it.
        found = quorum.versions(await erasure_set.query(part))
        if any(not held.tombstone for held in found.values()):
            if self._clock.now_ms() - stamp_ms(max(found)) < OPERATION_DEADLINE_SECONDS * 1000:
                return None
            await erasure_set.commit(part, self._store.made(Record(Kind.TOMBSTONE, 0), erasure_set))
        return await self._store.heal(erasure_set, part)

    # ---------------------------------------------------------------- what is superseded

    async def let_go(self, erasure_set: ErasureSet, entry: ScanEntry) -> None:
        """If it is no version of its key any more, because of what is elsewhere.  Raises nothing."""
        register, store = entry.register, self._store
        kind = register.space[:1]
        try:
            if kind == record.VERSION_SPACE:
                if record.decode(entry.newest.record).null:
                    await store.versions.forget_superseded(register)
            elif kind in (record.OBJECT_SPACE, record.DOCUMENT_SPACE) and not store.pools.one_placement:
                placed = store.look_up(register)
                if placed.sets[0] is not erasure_set:
                    await placed.settle()
        except (DriveError, ObjectError, record.RecordCorrupt) as error:
            log.info("%s: whether %r is superseded cannot be told now: %s", erasure_set.name, register.key, error)

    # ---------------------------------------------------------------- what is stuck

    def _remember_stuck(self, erasure_set: ErasureSet, register: Register, healed: Healed, verified: bool) -> None:
        place = (erasure_set.set_id, register)
        known = self._stuck.get(place)
        if healed.stuck is None:
            unread = known is not None and known.read_again_at is not None and known.stuck.stamp == healed.stamp
            if healed.settled and (verified or not unread):
                self._stuck.pop(place, None)
            return
        if known is None and len(self._stuck) < MAX_STUCK:
            log.warning("%s: %r can neither be decided nor rebuilt: %s", erasure_set.name, register.key, healed.stuck)
        if known is not None or len(self._stuck) < MAX_STUCK:
            since = known.since_ms if known is not None else self._clock.now_ms()
            read_again_at = self._clock.monotonic_seconds() + READ_AGAIN_SECONDS if verified else None
            self._stuck[place] = _StuckEntry(healed.stuck, since, read_again_at)

    async def look_again(self, erasure_set: ErasureSet) -> None:
        """Whether some of those that are stuck still are: a drive may have come back, a person may have decided."""
        of_set = [place for place in self._stuck if place[0] == erasure_set.set_id][:STUCK_PER_LOOK]
        for place in of_set:
            self._stuck[place] = self._stuck.pop(place)  # the others are next
        now = self._clock.monotonic_seconds()
        unread = [place[1] for place in of_set if (self._stuck[place].read_again_at or math.inf) <= now]
        others = [place[1] for place in of_set if place[1] not in unread]
        if others:
            await self.heal(erasure_set, others)
        if unread:
            await self.heal(erasure_set, unread, verify=True)

    def stuck_registers(self, set_id: SetId) -> list[Register]:
        return [register for where, register in self._stuck if where == set_id]

    def stuck(self, set_id: SetId) -> tuple[int, list[StuckRegister]]:
        """How many of a set, and some of them."""
        of_set = [(register, entry) for (where, register), entry in self._stuck.items() if where == set_id]
        return len(of_set), [_told(register, entry) for register, entry in of_set[:MAX_STUCK_SAMPLES]]


def most_at_once(before: int, batch: Collection[quorum.Replies]) -> int:
    """How many registers the next batch may have: twice as many as the last one, as far as records of this one's size
    stay within bounds."""
    by_drive: Counter[int] = Counter()
    for replies in batch:
        for position, reply in replies.items():
            by_drive[position] += sum(len(held.record) for held in reply.records)
    largest = max(by_drive.values(), default=0) / max(1, len(batch))
    fitting = int(MAX_RECORDS_BYTES / largest) if largest else MAX_REGISTERS_PER_CALL
    return max(1, min(MAX_REGISTERS_PER_CALL, 2 * max(before, LEAST_AT_ONCE), fitting))


def _told(register: Register, entry: _StuckEntry) -> StuckRegister:
    return StuckRegister(
        kind=KINDS.get(register.space[:1], "other"),
        bucket_id=register.space[1:].hex(),
        key=register.key,
        version=register.version.hex(),
        stamp=entry.stuck.stamp,
        copies=entry.stuck.copies,
        copies_needed=entry.stuck.copies_needed,
        since_ms=entry.since_ms,
    )
