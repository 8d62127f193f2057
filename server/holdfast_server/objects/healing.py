"""Bringing one register back to full redundancy: one call, one register, safe to repeat and to interrupt.

Walks the register's versions from the newest down, as rules 5, 8, 9 and 11 say: what is committed is copied to
the drives that lack it (shards rebuilt from any K others), what provably never was is fenced and removed, what
may have been is rolled forward, what cannot be told stays as it is.  Shards whose file is gone or rotten on a
drive that still holds the record are rebuilt in place.

A full drive that answers like a healing one has a *hole* there: its rows were damaged (`drives.damaged_registers`).
Where others have a version, that ends it.  Where R full drives have none and promise to take none that the hole may
have held, nothing there is or ever was committed, and it is ended.  Else it is stuck: nobody can tell what was there.

Invariants: a version is taken back only when it is older than `OPERATION_DEADLINE_SECONDS` (nothing that could
still commit it lives) and only after R full drives fenced it; nothing here ever writes above what it saw.

Not here: which registers need it and when (`heal/`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

from holdfast_server.clock.port import Clock
from holdfast_server.clock.stamp import stamp_ms
from holdfast_server.contract.geometry import Quorums
from holdfast_server.drives.port import (
    Block,
    CommitMode,
    CommitReply,
    CommitRequest,
    CommitStatus,
    Drive,
    DriveError,
    DriveState,
    Held,
    Register,
    ShardCorrupt,
    ShardMissing,
)
from holdfast_server.erasure.codec import Codec, CodingError, codec
from holdfast_server.objects import quorum, record
from holdfast_server.objects.asking import Answers, ask, bounded
from holdfast_server.objects.coding import hash_blocks
from holdfast_server.objects.erasure_set import ErasureSet
from holdfast_server.objects.port import Unavailable
from holdfast_server.objects.reading import BATCH_STRIPES, ShardReader
from holdfast_server.objects.record import Extent, Record
from holdfast_server.objects.sources import order_sources

CommitCall = Awaitable[CommitReply]
Made = dict[int, list[Block]]
"""Blocks by shard index."""

LARGE_WIDTH = 4
"""Versions with shard files being read and rebuilt at once: each has some eight stripes in memory."""

OPERATION_DEADLINE_SECONDS = 30.0
"""After it no message and no coordinator of an older write is alive (the L of the rules)."""


class TooFewShards(Unavailable):
    """A stripe that cannot be rebuilt: of those that hold the version too few say that they have it whole."""

    def __init__(self, left: int, needed: int, holders: frozenset[int]) -> None:
        super().__init__(f"a stripe is left on {left} drives, and {needed} are needed to rebuild it")
        self.left, self.needed, self.holders = left, needed, holders


@dataclass(frozen=True, slots=True)
class Stuck:
    """Rule 11's undecidable version, or one that lost more shards than parity can replace."""

    stamp: int
    copies: int
    copies_needed: int
    committed: bool
    """It is known to have been; else it may have been a write that failed."""


@dataclass(slots=True)
class Healed:
    whole: bool = False
    """Every drive of the set has what it should."""
    settled: bool = False
    """Every drive that answered has what it should; only writes still under way were left alone."""
    undecided: bool = False
    """There was such a write from before a drive that heals was adopted: its predecessor may have had it."""
    stuck: Stuck | None = None
    """A version that all drives together cannot decide or rebuild, though every one of them answered."""
    copied: int = 0
    """Records brought to a drive that lacked them, or shards rebuilt in place."""
    copied_bytes: int = 0
    """Of their shards."""
    rotten: int = 0
    """Shards that could not be read back (looked for only where asked)."""
    stamp: int = 0
    """The newest version that was judged: `whole` and `settled` speak of the register up to it."""


class Healer:
    def __init__(self, clock: Clock, executor: Executor) -> None:
        self._clock = clock
        self._executor = executor
        self._large = asyncio.Semaphore(LARGE_WIDTH)

    async def query_many(
        self, erasure_set: ErasureSet, registers: Sequence[Register]
    ) -> dict[Register, quorum.Replies]:
        """What all drives that answer know of some registers, in one call of each: what `heal` begins with."""
        answers = await ask(erasure_set.awake(), lambda _, drive: drive.query_many(registers, True))
        return {
            register: {position: replies[index] for position, replies in answers.items()}
            for index, register in enumerate(registers)
        }

    async def heal(
        self,
        erasure_set: ErasureSet,
        register: Register,
        verify: bool = False,
        replies: quorum.Replies | None = None,
    ) -> Healed:
        """One pass over one register.  `verify`: read every shard and rebuild what is rotten or gone.

        `replies`: what all drives that answer said just now, if they were asked already.
        """
        healed = Healed()
        if replies is None:
            replies = await erasure_set.query(register, with_inline=True)
        mark = quorum.greatest_mark(replies)
        all_answered = len(replies) == erasure_set.quorums.set_size
        found = quorum.versions(replies)
        young = False
        for stamp in sorted((s for s in found if s >= mark), reverse=True):
            step = quorum.decide_heal(erasure_set.quorums, replies, stamp)
            healed.stamp = max(healed.stamp, stamp)
            if step is not quorum.HealStep.COPY and self.may_be_in_flight(stamp):
                young = True  # its coordinator will decide it; what lies below may still be needed
                owed = any(reply.healing and stamp <= reply.watermark for reply in replies.values())
                healed.undecided = healed.undecided or owed
                continue
            if step is quorum.HealStep.TAKE_BACK:
                if not await self._take_back(erasure_set, register, stamp, replies):
                    return healed
                continue
            if step is quorum.HealStep.STUCK:
                if all_answered:
                    healed.stuck = self._stuck(erasure_set, replies, stamp)
                return healed
            if step is quorum.HealStep.ROLL_FORWARD:
                if not await self.roll_forward(erasure_set, register, stamp, replies):
                    return healed
                return await self.heal(erasure_set, register, verify)
            have = quorum.holders(replies, stamp)
            try:
                if verify:
                    healed.rotten = await self._rebuild_rotten(erasure_set, register, have)
                    healed.copied += healed.rotten
                added = await self._copy(erasure_set, register, stamp, replies, CommitMode.HEAL)
            except TooFewShards as lost:
                if not await self._is_all_there_is(erasure_set, register, stamp, lost.holders):
                    raise
                healed.stuck = Stuck(stamp, lost.left, lost.needed, committed=True)
                return healed
            healed.copied += len(added)
            healed.copied_bytes += len(added) * _shard_size_bytes(next(iter(have.values())))
            positions = set(have) | added
            healed.settled = positions >= set(replies) | _filling(erasure_set)
            healed.whole = healed.settled and all_answered and not young
            # While a drive still lacks it, all holders must remember that; else those that know it all may be left.
            everywhere = len(positions) == erasure_set.quorums.set_size
            uninformed = positions - _noted(replies, stamp) if everywhere else positions
            if uninformed:
                erasure_set.note_later(register, stamp, uninformed, whole=everywhere)
            return healed
        # Nothing to bring anywhere, if that is what R full drives say: a silent one may hold what the others lack.
        full = len(quorum.full_replies(replies))
        holes = find_holes(erasure_set, replies)
        if holes:
            if not found and not await self._end_holes(erasure_set, register, replies, holes) and all_answered:
                healed.stuck = self._stuck_hole(erasure_set, replies)
            return healed  # not whole before it is looked at again
        healed.settled = full >= erasure_set.quorums.read_quorum and _filling(erasure_set) <= set(replies)
        healed.whole = all_answered and not young
        return healed

    async def roll_forward(
        self, erasure_set: ErasureSet, register: Register, stamp: int, replies: quorum.Replies
    ) -> bool:
        """Rule 5: make an undecided version committed; True once W drives hold it."""
        have = set(quorum.holders(replies, stamp))
        have |= await self._copy(erasure_set, register, stamp, replies, CommitMode.ROLL_FORWARD)
        if len(have) < _numbers(erasure_set, replies, stamp).write_quorum:
            return False
        erasure_set.note_later(register, stamp, have)
        return True

    def find_stuck(self, erasure_set: ErasureSet, replies: quorum.Replies) -> Stuck | None:
        """The version that `heal` would stop at, if all drives answered."""
        mark = quorum.greatest_mark(replies)
        for stamp in sorted((s for s in quorum.versions(replies) if s >= mark), reverse=True):
            step = quorum.decide_heal(erasure_set.quorums, replies, stamp)
            if step is quorum.HealStep.STUCK:
                return self._stuck(erasure_set, replies, stamp)
            if step is not quorum.HealStep.TAKE_BACK:
                return None
        return self._stuck_hole(erasure_set, replies)

    def _stuck_hole(self, erasure_set: ErasureSet, replies: quorum.Replies) -> Stuck | None:
        """Of all drives' answers, none of which has a version: too few of them can say that there is none."""
        holes = find_holes(erasure_set, replies)
        full = len(quorum.full_replies(replies))
        if not holes or full >= erasure_set.quorums.read_quorum or quorum.versions(replies):
            return None
        return Stuck(max(replies[p].highest for p in holes), 0, 1, committed=False)

    async def _end_holes(
        self, erasure_set: ErasureSet, register: Register, replies: quorum.Replies, holes: Collection[int]
    ) -> bool:
        """End the damage of a register of which nobody has anything; False where that cannot be known.  It may be again
        once nothing upon it can be under way."""
        above = max(replies[p].highest for p in holes) + 1
        full = len(quorum.full_replies(replies))
        if full < erasure_set.quorums.read_quorum:
            return False
        if self.may_be_in_flight(above):
            return True
        drives = erasure_set.awake()
        others = {p: drive for p, drive in drives.items() if p not in holes}
        fences = await ask(others, lambda _, drive: drive.fence(register, above))
        empty = sum(1 for fence in fences.values() if fence.fenced and not fence.healing and fence.newest == 0)
        if empty >= erasure_set.quorums.read_quorum:
            damaged = {p: drives[p] for p in holes if p in drives}
            await ask(damaged, lambda _, drive: drive.remove(register, above))
        return True

    def _stuck(self, erasure_set: ErasureSet, replies: quorum.Replies, stamp: int) -> Stuck:
        held = quorum.versions(replies)[stamp]
        copies = len(quorum.holders(replies, stamp))
        numbers = quorum.of_version(erasure_set.quorums, held)
        committed = copies >= numbers.write_quorum or stamp == quorum.greatest_mark(replies)
        return Stuck(stamp, copies, quorum.copies_needed(erasure_set.quorums, held), committed)

    async def _is_all_there_is(
        self, erasure_set: ErasureSet, register: Register, stamp: int, holders: frozenset[int]
    ) -> bool:
        """Whether a version is to be brought to every drive, and none but these holds it, every drive saying so.

        Overwritten meanwhile, its shards may be gone for good reason.
        """
        replies = await erasure_set.query(register)
        if len(replies) < erasure_set.quorums.set_size or not _is_to_be_copied(erasure_set, replies, stamp):
            return False
        return holders >= set(quorum.holders(replies, stamp))

    def may_be_in_flight(self, stamp: int) -> bool:
        """Whether its coordinator, or a message of its, may still be alive."""
        return self._clock.now_ms() - stamp_ms(stamp) < OPERATION_DEADLINE_SECONDS * 1000

    async def _take_back(
        self, erasure_set: ErasureSet, register: Register, stamp: int, replies: quorum.Replies
    ) -> bool:
        have = quorum.holders(replies, stamp)
        drives = erasure_set.awake()
        others = {p: drive for p, drive in drives.items() if p not in have}
        fences = await ask(others, lambda _, drive: drive.fence(register, stamp))
        if not quorum.fence_holds(_numbers(erasure_set, replies, stamp), fences):
            return False
        removed = await ask({p: drives[p] for p in have if p in drives}, lambda _, drive: drive.remove(register, stamp))
        return len(removed) == len(have)

    # ---------------------------------------------------------------- copying a version

    async def _copy(
        self, erasure_set: ErasureSet, register: Register, stamp: int, replies: quorum.Replies, mode: CommitMode
    ) -> set[int]:
        """Bring a version to every drive that answered and lacks it; returns who took it."""
        have = quorum.holders(replies, stamp)
        drives = erasure_set.awake()
        targets = {p: drives[p] for p in replies if p not in have and p in drives}
        if not targets:
            return set()
        job = _CopyJob(self._clock, erasure_set, have)
        made = await job.held_for(list(targets))

        def commit(position: int, drive: Drive) -> CommitCall:
            return drive.commit(CommitRequest(register, made[position], mode, b"", replies[position].watermark))

        answers = await ask(targets, commit)
        without = [p for p, reply in answers.items() if reply.status is CommitStatus.NO_DATA]
        refilled: set[int] = set()
        if without:
            async with self._large:
                refilled = await job.bring_shards({p: targets[p] for p in without})
            answers.update(await ask({p: targets[p] for p in refilled}, commit))
        if mode is CommitMode.HEAL:
            overtaken = {p: targets[p] for p, reply in answers.items() if reply.status is CommitStatus.REFUSED}
            answers.update(await self._heal_again(erasure_set, register, stamp, made, overtaken))
        # Overwritten meanwhile: nobody will name these shards.
        await job.discard({p: targets[p] for p in refilled if _refused(answers.get(p))})
        return {p for p, reply in answers.items() if reply.status is CommitStatus.OK}

    async def _heal_again(
        self,
        erasure_set: ErasureSet,
        register: Register,
        stamp: int,
        made: Mapping[int, Held],
        targets: Mapping[int, Drive],
    ) -> Answers[CommitReply]:
        """Offer a version to drives whose watermark rose after it was asked for, if it is still to be copied.

        A watermark rises with each tombstone of its range that is dropped.  Where objects are deleted all the time it
        does so every few seconds, and what takes longer to rebuild would be rebuilt in vain for ever.
        """
        if not targets:
            return Answers()
        replies = await erasure_set.query(register)
        if not _is_to_be_copied(erasure_set, replies, stamp):
            return Answers()
        return await ask(
            {p: drive for p, drive in targets.items() if p in replies},
            lambda p, drive: drive.commit(CommitRequest(register, made[p], CommitMode.HEAL, b"", replies[p].watermark)),
        )

    async def _rebuild_rotten(self, erasure_set: ErasureSet, register: Register, have: Mapping[int, Held]) -> int:
        """Rebuild in place the shard files of drives that hold the record but not its bytes."""
        async with self._large:
            return await self._rebuild_rotten_now(erasure_set, register, have)

    async def _rebuild_rotten_now(self, erasure_set: ErasureSet, register: Register, have: Mapping[int, Held]) -> int:
        drives = erasure_set.awake()
        job = _CopyJob(self._clock, erasure_set, have)
        rotten = await job.find_rotten({p: drives[p] for p in have if p in drives})
        if not rotten:
            return 0
        healthy = {p: held for p, held in have.items() if p not in rotten}
        if len(healthy) >= job.record.copies_needed:
            job = _CopyJob(self._clock, erasure_set, healthy)
        # Else each stripe is taken from those that have it, the rotten among them: until the new shard is named, the
        # old one is read.
        brought = await job.bring_shards({p: drives[p] for p in rotten}, replace=True)
        # Named again, the new shard takes the place of the one that is rotten.
        replies = await ask(
            {p: drives[p] for p in brought},
            lambda p, drive: drive.commit(CommitRequest(register, have[p], CommitMode.HEAL)),
        )
        # Overwritten meanwhile, as in `_copy`.
        await job.discard({p: drives[p] for p in brought if _refused(replies.get(p))})
        return sum(1 for reply in replies.values() if reply.status is CommitStatus.OK)

    async def refill(self, erasure_set: ErasureSet, positions: list[int], have: Mapping[int, Held]) -> set[int]:
        """Bring the shards of a version that `have` hold to further drives, without a record."""
        drives = erasure_set.awake()
        job = _CopyJob(self._clock, erasure_set, have)
        async with self._large:
            return await job.bring_shards({p: drives[p] for p in positions if p in drives})


def find_holes(erasure_set: ErasureSet, replies: quorum.Replies) -> list[int]:
    """The positions of drives that are full, and do not know what they had of this register."""
    drives = erasure_set.drives()
    return [p for p, reply in replies.items() if reply.healing and drives[p].status().state is DriveState.FULL]


def _numbers(erasure_set: ErasureSet, replies: quorum.Replies, stamp: int) -> Quorums:
    """Of that version."""
    return quorum.of_version(erasure_set.quorums, quorum.versions(replies)[stamp])


def _is_to_be_copied(erasure_set: ErasureSet, replies: quorum.Replies, stamp: int) -> bool:
    known = stamp in quorum.versions(replies) and stamp >= quorum.greatest_mark(replies)
    return known and quorum.decide_heal(erasure_set.quorums, replies, stamp) is quorum.HealStep.COPY


def _refused(reply: CommitReply | None) -> bool:
    """Whether it said that it did not take it; one that did not answer may have."""
    return reply is not None and reply.status is not CommitStatus.OK


def _noted(replies: quorum.Replies, stamp: int) -> set[int]:
    """Who has it marked, and nothing else."""
    return {p for p, reply in replies.items() if reply.mark == stamp and len(reply.records) == 1}


def _shard_size_bytes(held: Held) -> int:
    """About what one drive has of a version: the stripe's padding is left out."""
    found = record.decode(held.record)
    return -(-found.size_bytes // found.geometry.data_shards) if found.geometry is not None else 0


def _filling(erasure_set: ErasureSet) -> set[int]:
    """Replacement drives: a register is settled only if they have it, whether or not they answered."""
    return {p for p, drive in erasure_set.drives().items() if drive.status().state is DriveState.HEALING}


class _CopyJob:
    """One version, its holders, and the making of the shards that others lack."""

    def __init__(self, clock: Clock, erasure_set: ErasureSet, have: Mapping[int, Held]) -> None:
        self._have = have
        self._holders = {p: drive for p, drive in erasure_set.drives().items() if p in have}
        self._set_size = erasure_set.quorums.set_size
        position, held = next(iter(have.items()))
        self.held = held
        self.record: Record = record.decode(held.record)
        self._rotation = (held.shard_index - position) % self._set_size
        self._codec: Codec | None = None
        if self.record.geometry is not None:
            geometry = self.record.geometry
            self._codec = codec(geometry.data_shards, geometry.parity_shards)
            sources = order_sources(have, erasure_set.drives(), geometry.data_shards, others=False)
            self._reader = ShardReader(self._codec, sources, geometry.stripe_size_bytes, clock, lambda: None)

    def shard_index(self, position: int) -> int:
        return (position + self._rotation) % self._set_size if self.held.shard_index >= 0 else self.held.shard_index

    async def held_for(self, positions: list[int]) -> dict[int, Held]:
        """The record as these positions are to hold it, inline shards rebuilt."""
        inline: dict[int, bytes] = {}
        if self.record.inline and self.record.size_bytes and self._codec is not None:
            known = {h.shard_index: h.inline for h in self._have.values() if h.inline is not None}
            missing = [self.shard_index(p) for p in positions if self.shard_index(p) not in known]
            rebuilt = self._rebuilt(known, missing)
            inline = known | {shard: bytes(block) for shard, block in rebuilt.items()}
        return {
            p: Held(
                self.held.stamp,
                self.held.tombstone,
                self.held.record,
                self.shard_index(p),
                inline.get(self.shard_index(p)),
                self.held.data_ids,
            )
            for p in positions
        }

    async def bring_shards(self, targets: Mapping[int, Drive], replace: bool = False) -> set[int]:
        """Stage and seal every extent on the targets that lack it; returns those that now have all.  Nothing stays
        staged on others, whatever it raises."""
        good = set(targets)
        try:
            for extent in self.record.extents:
                if not extent.data_id:
                    continue
                lacking = {p: targets[p] for p in good}
                if not replace:
                    lacking = {p: drive for p, drive in lacking.items() if not await _has(drive, extent)}
                good -= await self._bring_extent(extent, lacking)
        except Exception:
            await self.discard(targets)
            raise
        await self.discard({p: drive for p, drive in targets.items() if p not in good})
        return good

    async def discard(self, targets: Mapping[int, Drive]) -> None:
        """Remove what `bring_shards` staged; what a record has named by now stays."""
        for extent in self.record.extents:
            if extent.data_id and targets:
                await ask(targets, lambda _, drive, data_id=extent.data_id: drive.discard(data_id))  # type: ignore[misc]

    async def _bring_extent(self, extent: Extent, targets: Mapping[int, Drive]) -> set[int]:
        """Returns the targets that failed."""
        assert self._codec is not None
        failed: set[int] = set()
        stripes = -(-extent.size_bytes // self._stripe_size_bytes)
        for first in range(0, stripes, BATCH_STRIPES):
            live = {p: drive for p, drive in targets.items() if p not in failed}
            if not live:
                return failed
            count = min(BATCH_STRIPES, stripes - first)
            try:
                known = await self._reader.blocks(extent.data_id, first, count, self._codec.data_shards)
            except Unavailable:
                await self._require_shards(extent.data_id, first, count)
                raise
            made = self._rebuild(known, [self.shard_index(p) for p in live])

            async def stage(position: int, drive: Drive, first: int = first, made: Made = made) -> None:
                blocks = made[self.shard_index(position)]
                await drive.stage(extent.data_id, first, blocks, hash_blocks(blocks))

            failed |= set((await ask(live, stage)).errors)
        live = {p: drive for p, drive in targets.items() if p not in failed}
        return failed | set((await ask(live, lambda _, drive: drive.seal(extent.data_id))).errors)

    def _rebuild(self, stripes: Sequence[Mapping[int, Block]], shards: list[int]) -> Made:
        assert self._codec is not None
        made: Made = {shard: [] for shard in shards}
        for stripe in stripes:
            rebuilt = self._rebuilt(stripe, [shard for shard in shards if shard not in stripe])
            for shard in shards:
                made[shard].append(rebuilt[shard] if shard in rebuilt else stripe[shard])
        return made

    def _rebuilt(self, known: Mapping[int, Block], missing: list[int]) -> dict[int, Block]:
        assert self._codec is not None
        try:
            return self._codec.rebuild(known, missing) if missing else {}
        except CodingError as error:
            raise Unavailable(f"shards {missing} cannot be rebuilt: {error}") from error

    async def find_rotten(self, drives: Mapping[int, Drive]) -> set[int]:
        """Which holders cannot read their own shards back.  Raises TooFewShards if some stripe is lost by that."""
        rotten: set[int] = set()
        for data_id, first, count in self._batches():
            healthy = {p: drive for p, drive in drives.items() if p not in rotten}
            rotten |= await _without(healthy, data_id, first, count)
        if len(self._have) - len(rotten) < self.record.copies_needed:
            for batch in self._batches():
                await self._require_shards(*batch)
        return rotten

    async def _require_shards(self, data_id: bytes, first: int, count: int) -> None:
        """Raises TooFewShards for stripes that no waiting makes whole."""
        needed = self.record.copies_needed
        if len(self._have) - len(await _without(self._holders, data_id, first, count)) >= needed:
            return
        for stripe in range(first, first + count):  # each may have been lost by others
            left = len(self._have) - len(await _without(self._holders, data_id, stripe, 1))
            if left < needed:
                raise TooFewShards(left, needed, frozenset(self._have))

    def _batches(self) -> Iterator[tuple[bytes, int, int]]:
        """Shard files, and the stripes of each that are read at once: the first, and how many."""
        for extent in self.record.extents:
            stripes = -(-extent.size_bytes // self._stripe_size_bytes) if extent.data_id else 0
            for first in range(0, stripes, BATCH_STRIPES):
                yield extent.data_id, first, min(BATCH_STRIPES, stripes - first)

    @property
    def _stripe_size_bytes(self) -> int:
        assert self.record.geometry is not None
        return self.record.geometry.stripe_size_bytes


async def _without(drives: Mapping[int, Drive], data_id: bytes, first: int, count: int) -> set[int]:
    """Which of them say that they do not have these stripes' blocks, or not whole."""
    answers = await ask(drives, lambda _, drive: drive.read_blocks(data_id, first, count))
    return {p for p, error in answers.errors.items() if isinstance(error, (ShardMissing, ShardCorrupt))}


async def _has(drive: Drive, extent: Extent) -> bool:
    try:
        await bounded(drive.read_blocks(extent.data_id, 0, 1))
    except DriveError:
        return False
    return True
