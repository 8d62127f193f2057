"""The walk over what buckets hold: counting it, finding what lifecycle rules make due, and what deleted buckets left.

One drive of each erasure set walks it: the first that is full, beginning at another position in each set.  Should two
pods both think so for a while, both walk, and what they do is the same and done once: every deletion is conditional on
the version that was judged (`api.expiring`), every tombstone may be written twice.

A pass goes over the drive's own records, bucket by bucket, without asking anybody: a record of a drive may be behind
what the set has decided, so what looks due is judged again, by quorum, before anything is deleted.  What is not on the
drive yet is repaired within seconds, or found by the next pass.

- Objects, versions, parts and bytes are counted.
- What may be due goes to the keeper, as many at once as healing may do (`pacing`), resting in between.
- What lies in a bucket that was deleted (a write that failed and took effect after the bucket was gone) is deleted by
  quorum.  A bucket that nobody knows, and nobody is known to have deleted, is left alone and told of.

The place is kept on the drive every few seconds, so a pod that restarts goes on there; the count of the bucket in which
it was cut off is left to the next pass.  A pass begins `bucket_pass_seconds` after the last, later where it takes more
than `bucket_share` of the time.

Not here: the rules (`s3.expiry`), deciding and carrying out (`api.expiring`), rot and missing copies (`scanner`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import msgspec

from holdfast_server.clock.port import Clock
from holdfast_server.contract.healing import BucketUsage, BucketWalkProgress
from holdfast_server.drives.port import DriveError, DriveState, Register, ScanEntry, ScanRequest
from holdfast_server.heal.bucket_due import Due, find_due
from holdfast_server.heal.bucket_keeper import BucketKeeper, Buckets, Outcome, WalkedBucket
from holdfast_server.heal.own_drive import OwnDrive
from holdfast_server.heal.pacing import Pacer
from holdfast_server.heal.settings import HealSettings
from holdfast_server.objects import record
from holdfast_server.objects.asking import bounded, together
from holdfast_server.objects.erasure_set import ErasureSet
from holdfast_server.objects.port import ObjectError
from holdfast_server.objects.record import Kind, Record
from holdfast_server.objects.store import ObjectStore
from holdfast_server.s3.expiry import Why

KINDS = (record.OBJECT_SPACE, record.VERSION_SPACE, record.UPLOAD_SPACE, record.PART_SPACE)
KEEP_SECONDS = 5.0
"""How often the place is kept at the most."""
SPACES_PER_CALL = 1000
MAX_TOLD_BUCKETS = 10_000
"""Buckets whose usage is remembered; those beyond are walked all the same."""
_NAME = b"buckets"

log = logging.getLogger(__name__)


class Usage(msgspec.Struct, array_like=True):
    """Of one bucket in one erasure set.  Fields are only ever appended, with defaults."""

    objects: int = 0
    versions: int = 0
    """All, delete markers too; those of buckets without versioning are its objects."""
    size_bytes: int = 0
    parts: int = 0
    """Of uploads that are open."""
    parts_size_bytes: int = 0
    counted_ms: int = 0


class WalkPass(msgspec.Struct, array_like=True):
    """As it is kept on the drive.  Fields are only ever appended, with defaults."""

    drive_id: bytes
    began_ms: int
    bucket_id: bytes = b""
    """Where the pass is; what is below has been walked."""
    kind: int = 0
    key: bytes = b""
    version: bytes = b""
    registers: int = 0
    ended: bool = False
    usage: dict[bytes, Usage] = {}
    last_ended_ms: int = 0
    last_registers: int = 0


@dataclass(slots=True)
class WalkState:
    """Of one drive, since its pod opened it."""

    present: WalkPass | None = None
    buckets: Buckets | None = None
    """None: no pass is under way here."""
    ids: list[bytes] = field(default_factory=list)
    """Still to be walked, the last first."""
    counting: Usage | None = None
    """None: this bucket was resumed, and is not counted."""
    urgent: set[bytes] = field(default_factory=set)
    """Buckets that are to be walked soon, whenever the next pass begins."""
    partial: bool = False
    """The present pass goes over those alone."""
    hurry: bool = False
    again_at: float = float("-inf")
    keep_at: float = float("-inf")
    worked_seconds: float = 0.0
    registers: int = 0
    strays_removed: int = 0
    unknown_buckets: int = 0
    outcome: Outcome = field(default_factory=Outcome)


class BucketWalk:
    def __init__(
        self, store: ObjectStore, keeper: BucketKeeper, pacer: Pacer, clock: Clock, settings: HealSettings
    ) -> None:
        self._store = store
        self._keeper = keeper
        self._pacer = pacer
        self._clock = clock
        self._settings = settings

    async def step(self, drive: OwnDrive, erasure_set: ErasureSet, state: WalkState) -> bool:
        """One page; True if there is more to do at once.  Raises DriveError, Unavailable."""
        now = self._clock.monotonic_seconds()
        if not leads(drive, erasure_set):
            state.buckets = None  # whoever leads next begins anew
            state.urgent.clear()
            return False
        if state.buckets is None:
            if now < state.again_at and not state.hurry and not state.urgent:
                return False
            await self._begin(drive, state, partial=now < state.again_at and not state.hurry)
        if not state.ids:
            await self._end(drive, state)
            return False
        await self._page(drive, erasure_set, state, state.ids[-1])
        await self._keep(drive, state, within_seconds=KEEP_SECONDS)
        worked = self._clock.monotonic_seconds() - now
        state.worked_seconds += worked
        await self._pacer.rest(worked)
        return True

    # ---------------------------------------------------------------- a pass

    async def _begin(self, drive: OwnDrive, state: WalkState, partial: bool) -> None:
        """`partial`: only what is urgent."""
        drive_id = drive.status().drive_id
        if state.present is None or state.present.drive_id != drive_id:
            state.present = decoded(await bounded(drive.kept(_NAME)), drive_id)
        kept = state.present
        if kept is None or kept.ended:
            usage = kept.usage if kept is not None else {}
            state.present = WalkPass(drive_id, self._clock.now_ms(), usage=usage)
            if kept is not None:
                state.present.last_ended_ms, state.present.last_registers = kept.last_ended_ms, kept.last_registers
        present = state.present
        assert present is not None
        state.buckets = await self._keeper.look()
        found = await bucket_ids(drive)
        state.unknown_buckets = len(found - state.buckets.by_id.keys() - state.buckets.deleted)
        gone = present.usage.keys() - state.buckets.by_id.keys()
        present.usage = {bucket_id: one for bucket_id, one in present.usage.items() if bucket_id not in gone}
        every = state.urgent & state.buckets.by_id.keys() if partial else found | state.buckets.by_id.keys()
        state.urgent, state.partial = set(), partial
        state.ids = sorted((one for one in every if one >= present.bucket_id), reverse=True)
        state.worked_seconds = 0.0
        state.counting = None
        if not state.ids or state.ids[-1] != present.bucket_id:
            self._at(state, state.ids[-1] if state.ids else b"")

    def _at(self, state: WalkState, bucket_id: bytes) -> None:
        """The walk of a bucket begins."""
        present = state.present
        assert present is not None
        present.bucket_id, present.kind, present.key, present.version = bucket_id, 0, b"", b""
        state.counting = Usage()

    async def _end(self, drive: OwnDrive, state: WalkState) -> None:
        present = state.present
        assert present is not None
        present.ended, present.bucket_id = True, b""
        state.buckets = None
        if state.partial:
            return
        state.hurry = False
        present.last_ended_ms, present.last_registers = self._clock.now_ms(), present.registers
        rest = max(self._settings.bucket_pass_seconds, state.worked_seconds / self._settings.bucket_share)
        state.again_at = self._clock.monotonic_seconds() + rest
        await self._keep(drive, state)

    async def _keep(self, drive: OwnDrive, state: WalkState, within_seconds: float = 0.0) -> None:
        now = self._clock.monotonic_seconds()
        if now < state.keep_at and within_seconds:
            return
        state.keep_at = now + KEEP_SECONDS
        await bounded(drive.keep(_NAME, msgspec.msgpack.encode(state.present)))

    # ---------------------------------------------------------------- a page

    async def _page(self, drive: OwnDrive, erasure_set: ErasureSet, state: WalkState, bucket_id: bytes) -> None:
        present, buckets = state.present, state.buckets
        assert present is not None
        assert buckets is not None
        bucket = buckets.by_id.get(bucket_id)
        if state.counting is not None and not present.kind and not present.key and bucket is not None:
            await self._keeper.begin_count(erasure_set.name, bucket_id)
        page = await bounded(
            drive.scan(
                ScanRequest(
                    KINDS[present.kind] + bucket_id,
                    start=present.key,
                    start_version=present.version,
                    limit=self._settings.bucket_page,
                    tombstones=False,
                    hidden=True,
                )
            )
        )
        if bucket is not None:
            await self._look_through(state, bucket_id, bucket, list(page.entries))
        elif bucket_id in buckets.deleted:
            await self._remove_strays(erasure_set, state, list(page.entries))
        state.registers += len(page.entries)
        present.registers += len(page.entries)
        if page.next_start is not None:
            present.key, present.version = page.next_start, page.next_version
            return
        present.kind, present.key, present.version = present.kind + 1, b"", b""
        if present.kind == len(KINDS):
            await self._finish_bucket(erasure_set, state, bucket_id, bucket)

    async def _finish_bucket(
        self, erasure_set: ErasureSet, state: WalkState, bucket_id: bytes, bucket: WalkedBucket | None
    ) -> None:
        present, counted = state.present, state.counting
        assert present is not None
        if counted is not None and bucket is not None:
            counted.counted_ms = self._clock.now_ms()
            if bucket_id in present.usage or len(present.usage) < MAX_TOLD_BUCKETS:
                present.usage[bucket_id] = counted
            self._keeper.counted(erasure_set.name, told(bucket_id, counted), counted.counted_ms)
        state.ids.pop()
        self._at(state, state.ids[-1] if state.ids else b"")

    async def _look_through(
        self, state: WalkState, bucket_id: bytes, bucket: WalkedBucket, entries: list[ScanEntry]
    ) -> None:
        records = [(entry, found) for entry in entries if (found := _read(entry)) is not None]
        if state.counting is not None:
            for entry, found in records:
                count(state.counting, entry, found)
        if not bucket.rules:
            return
        due = find_due(bucket, records, self._keeper.facts, self._keeper.now_ms(), self._keeper.calendar)
        await self._at_width(state, due, lambda one: self._carry_out(bucket_id, bucket, one))

    def _carry_out(self, bucket_id: bytes, bucket: WalkedBucket, due: Due) -> Coroutine[Any, Any, Outcome]:
        if due.upload_id:
            return self._keeper.end_upload(bucket_id, bucket, due.key, due.upload_id)
        if bucket.versioned:
            return self._keeper.settle(bucket_id, bucket, due.key)
        return self._keeper.expire(bucket_id, bucket, due.key, due.stamp)

    async def _at_width(
        self, state: WalkState, due: list[Due], work: Callable[[Due], Coroutine[Any, Any, Outcome]]
    ) -> None:
        waiting = iter(due)
        while batch := list(islice(waiting, self._pacer.width)):
            began = self._clock.monotonic_seconds()
            for outcome in await together(work(one) for one in batch):
                state.outcome.add(outcome)
            await self._pacer.rest(self._clock.monotonic_seconds() - began)

    # ---------------------------------------------------------------- what deleted buckets left

    async def _remove_strays(self, erasure_set: ErasureSet, state: WalkState, entries: list[ScanEntry]) -> None:
        async def remove(register: Register) -> int:
            tombstone = self._store.made(Record(Kind.TOMBSTONE, 0), erasure_set)
            try:
                await erasure_set.commit(register, tombstone)
            except (ObjectError, DriveError) as error:
                log.info("%s: %r of a deleted bucket stays for now: %s", erasure_set.name, register.key, error)
                return 0
            return 1

        waiting = iter([entry.register for entry in entries if not entry.newest.tombstone])
        while batch := list(islice(waiting, self._pacer.width)):
            state.strays_removed += sum(await together(remove(register) for register in batch))

    # ---------------------------------------------------------------- what is told

    def progress(self, state: WalkState, registers_total: int) -> BucketWalkProgress:
        present = state.present
        if present is None:
            return BucketWalkProgress()
        total = max(present.last_registers, registers_total if not present.last_registers else 0, present.registers, 1)
        return BucketWalkProgress(
            leads=state.buckets is not None,
            fraction=1.0 if present.ended else min(1.0, present.registers / total),
            last_pass_ended_ms=present.last_ended_ms,
            registers=state.registers,
            expired={why.value: state.outcome.done[why] for why in Why},
            locked=state.outcome.locked,
            failed=state.outcome.failed,
            strays_removed=state.strays_removed,
            unknown_buckets=state.unknown_buckets,
        )

    def usage(self, state: WalkState) -> tuple[list[BucketUsage], int]:
        """As of the last walk of each bucket, and when the last pass ended."""
        if state.present is None:
            return [], 0
        return [told(bucket_id, one) for bucket_id, one in state.present.usage.items()], state.present.last_ended_ms


def _read(entry: ScanEntry) -> Record | None:
    """None of a tombstone, and of what cannot be read: a later release may have written it."""
    if entry.newest.tombstone:
        return None
    try:
        return record.decode(entry.newest.record)
    except record.RecordCorrupt as error:
        log.warning("the record of %r is neither counted nor expired: %s", entry.register.key, error)
        return None


def leads(drive: OwnDrive, erasure_set: ErasureSet) -> bool:
    """Whether this drive walks for its set, as far as this pod knows the others."""
    drives = erasure_set.drives()
    ranked = sorted(drives, key=lambda position: (position - drive.set_index) % len(drives))
    first = next((p for p in ranked if drives[p].status().state is DriveState.FULL), None)
    return first == drive.position


async def bucket_ids(drive: OwnDrive) -> set[bytes]:
    """Of all buckets of which the drive holds anything."""
    found: set[bytes] = set()
    after = b""
    while spaces := await bounded(drive.spaces(after, SPACES_PER_CALL)):
        found |= {space[1:] for space in spaces if space[:1] in KINDS}
        after = spaces[-1]
    found.discard(record.SYSTEM_ID)
    return found


def decoded(kept: bytes | None, drive_id: bytes) -> WalkPass | None:
    """None where there is nothing, or of another drive, or of a later release."""
    if not kept:
        return None
    try:
        found = msgspec.msgpack.decode(kept, type=WalkPass)
    except msgspec.MsgspecError as error:
        log.warning("the place of the walk over buckets cannot be read, it begins anew: %s", error)
        return None
    return found if found.drive_id == drive_id else None


def count(usage: Usage, entry: ScanEntry, found: Record) -> None:
    if entry.mark and entry.newest.stamp != entry.mark:
        return  # undecided; the version below is as good as unknown here
    kind = entry.register.space[:1]
    if kind == record.PART_SPACE:
        usage.parts += 1
        usage.parts_size_bytes += found.size_bytes
    elif kind in (record.OBJECT_SPACE, record.VERSION_SPACE):
        usage.versions += 1
        usage.size_bytes += found.size_bytes
        usage.objects += kind == record.OBJECT_SPACE and not found.marker


def told(bucket_id: bytes, usage: Usage) -> BucketUsage:
    return BucketUsage(
        bucket_id=bucket_id.hex(),
        objects=usage.objects,
        versions=usage.versions,
        size_bytes=usage.size_bytes,
        parts=usage.parts,
        parts_size_bytes=usage.parts_size_bytes,
    )
