"""One erasure set at work: reading the current version of a register and committing a new one.

Turns the decisions of `quorum` into calls on the set's drives.  A write is *staged* by `writing` before it
comes here; this module only moves records.

Invariants: a commit is answered after every drive that was asked has answered or is known to be unreachable
(rule 2); a commit is sent at most once per drive and stamp, except to a drive that said NO_DATA and so did not
take it; notes are sent after the answer is known and are never needed for correctness.

Not here: shards (`writing`, `reading`), repair (`healing`), which set a key belongs to (`placement`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from holdfast_server.clock.port import Clock
from holdfast_server.clock.stamp import HybridClock, stamp_ms
from holdfast_server.contract.geometry import Quorums
from holdfast_server.drives.port import (
    CommitMode,
    CommitReply,
    CommitRequest,
    CommitStatus,
    Drive,
    DriveFull,
    Held,
    PrepareStatus,
    QueryReply,
    Register,
)
from holdfast_server.objects import quorum, record
from holdfast_server.objects.asking import Answers, Patience, ask, awake
from holdfast_server.objects.background import Background
from holdfast_server.objects.port import Crossed, OutOfSpace, Unavailable
from holdfast_server.objects.record import Record
from holdfast_server.placement.map import SetId

READ_ATTEMPTS = 4
WRITE_ATTEMPTS = 2
"""Rule 6: a new stamp once, and only when nobody took the first."""
LEASED_ATTEMPTS = 8
CONDITION_ATTEMPTS = 4
RETRY_PAUSE_SECONDS = 0.02
LEASE_SECONDS = 10.0
OFFERED_SECONDS = 20.0
"""How long after its stamp was given a write is still offered to drives: together with the deadline of a call and what
clocks differ by, less than after what others take the coordinator for dead (`healing.OPERATION_DEADLINE_SECONDS`)."""

WAITING = quorum.Decision(quorum.Verdict.WAIT)

MET_ANOTHER = frozenset({CommitStatus.OK, CommitStatus.STALE, CommitStatus.LEASED, CommitStatus.SUPERSEDED})
"""What drives answer to a commit where nothing is wrong but that another write of that key came between."""

UNMARKED_AFTER_SECONDS = 5.0
"""A committed version that nobody has marked by then: the coordinator died between its answer and its notes."""


class Contended(Crossed):
    """Enough drives promised for other writes, too few for this one, which needs more copies: another has the rest.
    Nothing was written."""


class Repairer(Protocol):
    """What a read sets going when it meets something unfinished (`healing.Healer`)."""

    async def roll_forward(
        self, erasure_set: ErasureSet, register: Register, stamp: int, replies: quorum.Replies
    ) -> bool: ...

    async def heal(self, erasure_set: ErasureSet, register: Register) -> Any: ...


@dataclass(frozen=True, slots=True)
class Current:
    """The judged current version: `record` None if absent.  A tombstone is a record."""

    record: Record | None
    stamp: int
    holders: dict[int, Held] = field(default_factory=dict)
    """Who holds it, by position, with inline shards if they were asked for."""
    highest: int = 0


@dataclass(frozen=True, slots=True)
class Promise:
    """A lease that W full drives gave."""

    register: Register
    lease: bytes
    highest: int
    drives: Mapping[int, Drive]
    """Full drives that gave one: those a commit under it may go to."""
    asked: Mapping[int, Drive]
    """All that may have given one, whether or not their answer arrived."""
    contended: bool = False
    """Some gave theirs to another write: they may yet give one."""


@dataclass(frozen=True, slots=True)
class Committed:
    """A write that reached its quorum."""

    stamp: int
    positions: frozenset[int]
    """Drives that said they hold it."""


MakeHeld = Callable[[int], Mapping[int, Held]]
"""The record for a given stamp, as each position is to hold it."""

Refill = Callable[[Collection[int]], Awaitable[Collection[int]]]
"""Brings shards to drives that lack them; returns the positions that have them now."""


Deliver = Callable[[int, Drive, CommitRequest], Awaitable[CommitReply]]
"""Sends a commit to the drive at a position."""


def bare(_: int, drive: Drive, request: CommitRequest) -> Awaitable[CommitReply]:
    """The record alone."""
    return drive.commit(request)


class ErasureSet:
    def __init__(
        self,
        set_id: SetId,
        quorums: Quorums,
        drives: Callable[[], list[Drive]],
        clock: Clock,
        stamps: HybridClock,
        background: Background,
        repairer: Repairer,
    ) -> None:
        self.set_id = set_id
        self.quorums = quorums
        self._drives = drives
        self._clock = clock
        self._stamps = stamps
        self._background = background
        self._repairer = repairer
        self._patience = Patience()

    def drives(self) -> dict[int, Drive]:
        return dict(enumerate(self._drives()))

    def awake(self) -> dict[int, Drive]:
        return awake(self.drives())

    def next_stamp(self, above: int = 0) -> int:
        self._stamps.observe(above)
        return self._stamps.next(self._clock.now_ms())

    # ---------------------------------------------------------------- reading

    async def query(self, register: Register, with_inline: bool = False) -> Answers[QueryReply]:
        """Every answer that comes."""
        return await ask(self.awake(), lambda _, drive: drive.query(register, with_inline))

    async def read(self, register: Register, with_inline: bool = False) -> Current:
        """The current version (rule 4).  Raises Unavailable when it cannot be decided now."""
        for attempt in range(READ_ATTEMPTS):
            if attempt:
                await self._clock.sleep(RETRY_PAUSE_SECONDS * attempt)
            current = await self._read_once(register, with_inline)
            if current is not None:
                return current
        raise Unavailable(f"{self.name}: the current version of {register.key!r} cannot be decided now")

    async def _read_once(self, register: Register, with_inline: bool) -> Current | None:
        drives = self.awake()
        if len(drives) < self.quorums.read_quorum:
            raise Unavailable(f"{self.name}: {len(drives)} of {self.quorums.set_size} drives answer")

        decision = WAITING

        def decided(replies: Answers[QueryReply]) -> bool:
            nonlocal decision
            if len(replies) < self.quorums.read_quorum:
                return False  # as every decision would say
            decision = quorum.decide_read(self.quorums, replies, final=False)
            return decision.verdict is not quorum.Verdict.WAIT

        began = self._clock.monotonic_seconds()
        replies = await ask(
            drives,
            lambda _, drive: drive.query(register, with_inline),
            decided,
            first=self._nearest(drives),
            patience_seconds=self._patience.seconds,
        )
        self._patience.learn(replies, self._clock.monotonic_seconds() - began)
        if decision.verdict is quorum.Verdict.WAIT:
            decision = quorum.decide_read(self.quorums, replies, final=True)
        highest = quorum.greatest_seen(replies)
        self._stamps.observe(highest)
        if decision.verdict is quorum.Verdict.ABSENT:
            return Current(None, 0, highest=highest)
        if decision.verdict is quorum.Verdict.CURRENT:
            found = quorum.holders(replies, decision.stamp)
            self._finish_later(register, decision.stamp, replies)
            return Current(record.decode(next(iter(found.values())).record), decision.stamp, found, highest)
        if decision.verdict is quorum.Verdict.ROLL_FORWARD:
            if not with_inline:
                # To bring it to others takes its bytes, which this round did not ask for.
                return await self._read_once(register, with_inline=True)
            await self._repairer.roll_forward(self, register, decision.stamp, replies)
        return None

    def _nearest(self, drives: Mapping[int, Drive]) -> list[int]:
        """Drives whose answers decide a read unless something is amiss: as many as that takes, this pod's own first,
        then its neighbours, so that each pod asks others."""
        size = self.quorums.set_size
        own = [position for position, drive in drives.items() if drive.local]
        start = own[0] if own else self._clock.now_ms() % size
        ordered = sorted(drives, key=lambda position: (not drives[position].local, (position - start) % size))
        return ordered[: max(self.quorums.read_quorum, self.quorums.data_shards)]

    def _finish_later(self, register: Register, stamp: int, replies: quorum.Replies) -> None:
        """See to the notes that a dead coordinator left unsent: without a mark on any holder, the version could
        not be told from a failed write once fewer than W drives answer, and listings would doubt it for ever."""
        if quorum.greatest_mark(replies) >= stamp:
            return
        if self._clock.now_ms() - stamp_ms(stamp) >= UNMARKED_AFTER_SECONDS * 1000:
            self._background.spawn(self._repairer.heal(self, register))

    # ---------------------------------------------------------------- writing

    async def commit(
        self,
        register: Register,
        make_held: MakeHeld,
        refill: Refill | None = None,
        above: int = 0,
        deliver: Deliver = bare,
        deletes: bool = False,
    ) -> Committed:
        """A plain write (rule 6), stamped above `above`.  Raises Unavailable, OutOfSpace.

        `refill` is told of the drives that lack shards the record names; it brings them there and returns
        the positions that have them now.  `deliver` may send shards along.
        """
        highest = above
        restamps = 0
        for attempt in range(LEASED_ATTEMPTS):
            until = self._offered_until()
            stamp = self.next_stamp(highest)
            made = make_held(stamp)
            numbers = self._numbers(made)
            targets = self._enough({p: drive for p, drive in self.awake().items() if p in made}, numbers)
            from_reserve = _may_use_reserve(register, deletes)
            if not from_reserve:
                self._require_room(targets, made, numbers)
            replies = await self._send(
                register, made, numbers, until, targets, CommitMode.PLAIN, b"", refill, deliver, from_reserve
            )
            outcome = quorum.judge_commit(numbers, targets, replies)
            if outcome is quorum.CommitOutcome.COMMITTED:
                return self._note(register, stamp, replies)
            highest = max((reply.highest for reply in replies.values()), default=0)
            self._stamps.observe(highest)
            if outcome is quorum.CommitOutcome.FAILED:
                raise self._failure(register, replies)
            if outcome is quorum.CommitOutcome.RESTAMP:
                restamps += 1
                if restamps >= WRITE_ATTEMPTS:
                    break
            else:
                await self._clock.sleep(RETRY_PAUSE_SECONDS * 2**attempt)
        # Nobody took it.  Clients retry a 503 by themselves, a 409 they do not: nothing was asked of the old version.
        raise self._crossed(register)

    async def promise(self, register: Register, current: Current) -> Promise | None:
        """Have W full drives take no foreign write for `LEASE_SECONDS`, if nothing is newer than `current`.

        None: something is newer, or another has the lease.  Raises Unavailable.
        """
        lease = self._clock.random_bytes(16)
        drives = self.awake()
        replies = await ask(drives, lambda _, drive: drive.prepare(register, current.stamp, lease, LEASE_SECONDS))
        outcome, positions = quorum.judge_prepare(self.quorums, replies)
        if outcome is quorum.PrepareOutcome.PROMISED:
            highest = max(current.highest, *(replies[p].highest for p in positions))
            contended = any(reply.status is PrepareStatus.LEASED for reply in replies.values())
            return Promise(register, lease, highest, {p: drives[p] for p in positions}, drives, contended)
        self._background.spawn(self._release(register, lease, drives))
        if outcome is quorum.PrepareOutcome.FAILED:
            raise Unavailable(f"{self.name}: {len(replies)} drives answer, too few to promise a write")
        return None

    async def clear_way(self, register: Register) -> None:
        """See to a version that stands in the way of promises without being current: one that reached too few drives.

        What can be made committed is (rule 5), whoever is still at it; what cannot is taken back once nothing of it
        can be under way any more (rule 8).  Raises Unavailable.
        """
        replies = await self.query(register, with_inline=True)
        found = quorum.versions(replies)
        newest = max(found, default=0)
        if newest <= quorum.decide_read(self.quorums, replies, final=True).stamp:
            return
        if len(quorum.holders(replies, newest)) >= quorum.copies_needed(self.quorums, found[newest]):
            await self._repairer.roll_forward(self, register, newest, replies)
        else:
            await self._repairer.heal(self, register)

    async def commit_promised(
        self,
        promise: Promise,
        make_held: MakeHeld,
        refill: Refill | None = None,
        above: int = 0,
        first: Callable[[int], Awaitable[None]] | None = None,
        deletes: bool = False,
    ) -> Committed:
        """The write that was promised, stamped above `above`.  Raises Unavailable, OutOfSpace.

        `first` is given the stamp before any drive is; what it raises ends the write, nothing having changed.
        `deletes`: it is a step of a delete.
        """
        until = self._offered_until()
        stamp = self.next_stamp(max(promise.highest, above))
        made = make_held(stamp)
        numbers = self._numbers(made)
        taken: set[int] = set()
        try:
            # Those that promised may not be those that have the shards: below W nothing is sent, because a
            # commit that cannot succeed would be left undecided for nothing.
            targets = {p: drive for p, drive in promise.drives.items() if p in made}
            if promise.contended and len(targets) < numbers.write_quorum:
                raise Contended(f"{self.name}: another write of {promise.register.key!r} is under way")
            self._enough(targets, numbers)
            from_reserve = _may_use_reserve(promise.register, deletes)
            if not from_reserve:
                self._require_room(targets, made, numbers)
            if first is not None:
                await first(stamp)
            replies = await self._send(
                promise.register, made, numbers, until, targets, CommitMode.CONDITIONAL, promise.lease, refill,
                from_reserve=from_reserve,
            )  # fmt: skip
            taken = _accepted(replies)
            if quorum.judge_commit(numbers, targets, replies) is not quorum.CommitOutcome.COMMITTED:
                raise self._failure(promise.register, replies)
        finally:
            self.release_later(promise, taken)
        return self._note(promise.register, stamp, replies)

    def release_later(self, promise: Promise, used_up: Collection[int] = ()) -> None:
        """Give the promise back where no commit used it up: it would turn other writes away until it lapses."""
        drives = {p: drive for p, drive in promise.asked.items() if p not in used_up}
        if drives:
            self._background.spawn(self._release(promise.register, promise.lease, drives))

    async def _release(self, register: Register, lease: bytes, drives: Mapping[int, Drive]) -> None:
        await ask(drives, lambda _, drive: drive.release(register, lease))

    def require_write_quorum(self, numbers: Quorums) -> dict[int, Drive]:
        """The drives a write of a version with these numbers can go to now.  Raises Unavailable at once where they are
        too few."""
        return self._enough(self.awake(), numbers)

    def _enough(self, targets: dict[int, Drive], numbers: Quorums) -> dict[int, Drive]:
        if len(targets) < numbers.write_quorum:
            raise Unavailable(
                f"{self.name}: {len(targets)} drives can take the write, {numbers.write_quorum} are needed"
            )
        return targets

    def _require_room(self, targets: Mapping[int, Drive], made: Mapping[int, Held], numbers: Quorums) -> None:
        """Raises OutOfSpace where fewer drives than it takes say that they have room.

        What the others took would stay undecided, and with each try of a client that tries again and again one more of
        them in the row of that key; and while a drive is away a read could not tell that there is nothing to it."""
        if next(iter(made.values())).tombstone:
            return
        have_room = 0
        for drive in targets.values():
            have_room += not drive.status().full
            if have_room >= numbers.write_quorum:
                return
        raise OutOfSpace(f"{self.name}: too few drives have room")

    def _numbers(self, made: Mapping[int, Held]) -> Quorums:
        """Of a version that is being written."""
        return quorum.of_version(self.quorums, next(iter(made.values()))) if made else self.quorums

    async def _send(
        self,
        register: Register,
        made: Mapping[int, Held],
        numbers: Quorums,
        until: float,
        targets: Mapping[int, Drive],
        mode: CommitMode,
        lease: bytes,
        refill: Refill | None,
        deliver: Deliver = bare,
        from_reserve: bool = False,
    ) -> Answers[CommitReply]:
        if self._clock.monotonic_seconds() >= until:
            raise Unavailable(f"{self.name}: the write of {register.key!r} took too long")

        def commit(position: int, drive: Drive) -> Awaitable[CommitReply]:
            return deliver(position, drive, CommitRequest(register, made[position], mode, lease, None, from_reserve))

        replies = await ask(targets, commit)
        without = [p for p, reply in replies.items() if reply.status is CommitStatus.NO_DATA]
        if without and refill is not None and len(_accepted(replies)) < numbers.write_quorum:
            # They said no and took nothing, so the same stamp may be offered once more.
            refilled = await refill(without)
            in_time = self._clock.monotonic_seconds() < until
            again = await ask({p: targets[p] for p in refilled if in_time}, commit)
            replies.update(again)
            replies.errors.update(again.errors)
        return replies

    def _offered_until(self) -> float:
        """Of a write that is stamped now; on the monotonic clock."""
        return self._clock.monotonic_seconds() + OFFERED_SECONDS

    def _note(self, register: Register, stamp: int, replies: Mapping[int, CommitReply]) -> Committed:
        """Tell the holders that it is committed (rule 1), in the background."""
        held = _accepted(replies)
        self.note_later(register, stamp, held)
        return Committed(stamp, frozenset(held))

    def note_later(self, register: Register, stamp: int, positions: Collection[int], whole: bool | None = None) -> None:
        """Tell these holders.  `whole`: every drive of the set has it; by default, if these are all of them."""
        if whole is None:
            whole = len(positions) == self.quorums.set_size
        drives = self.drives()
        targets = {p: drives[p] for p in positions}
        self._background.spawn(self._send_notes(register, stamp, whole, targets))

    async def _send_notes(self, register: Register, stamp: int, whole: bool, targets: Mapping[int, Drive]) -> None:
        await ask(targets, lambda _, drive: drive.note(register, stamp, whole))

    def _failure(self, register: Register, replies: Answers[CommitReply]) -> Exception:
        if not replies.errors and all(reply.status in MET_ANOTHER for reply in replies.values()):
            return self._crossed(register)
        if any(isinstance(error, DriveFull) for error in replies.errors.values()):
            return OutOfSpace(f"{self.name}: too few drives have room")
        told = ", ".join(f"{p}: {error}" for p, error in sorted(replies.errors.items()))
        return Unavailable(f"{self.name}: the write did not reach its quorum ({told or 'refused'})")

    def _crossed(self, register: Register) -> Crossed:
        return Crossed(f"{self.name}: other writes of {register.key!r} are under way")

    @property
    def name(self) -> str:
        return f"pool {self.set_id.pool} set {self.set_id.index}"


def _may_use_reserve(register: Register, deletes: bool) -> bool:
    """Documents are few, and by them rules are made that free space, and keys taken from users."""
    return deletes or register.space[:1] == record.DOCUMENT_SPACE


def _accepted(replies: Mapping[int, CommitReply]) -> set[int]:
    return {position for position, reply in replies.items() if reply.status is CommitStatus.OK}
