"""One register over the erasure sets where the pool map's epochs may have put it (its *look-up sets*).

When a pool joins, some keys are written elsewhere from then on, while what was written before stays; and pods change
epochs one after the other, so for a while some write a key in its old set and some in its new one.  Nobody moves data
and nobody waits for anybody, so the sets must add up to one register:

- **Read**: all sets are read, the version with the greatest stamp is current.
- **Plain write**: before it is stamped, R full drives of each *other* set tell the greatest stamp they know.  So a
  write that begins after another was answered, or after a read that saw it, always has the greater stamp.
- **Conditional write**: W leases in the set that is written, as ever; then, with its stamp chosen, the other sets are
  *closed below it*: R full drives of each promise durably (`fence`) to take nothing below that stamp, and say that
  they hold nothing newer than what the read judged.  So nothing can come to lie between the version that the condition
  allowed and the one that is written.  A fence is no lock: it does not expire, is not given back, and only makes
  writes that were stamped before it choose a new stamp.
- **Letting go**: once a version is committed, what it supersedes in another set is replaced there by a tombstone
  with the *same* stamp (`Kind.MOVED`).  It never wins over the version it stands for; a reader that meets it and not
  that version has read the two sets at different moments, and starts again.

The order of stamps is then the order of the operations, whichever set each of them wrote
(docs/decisions/0006-adding-pools.md has the argument).  Which set is *written* matters to nobody's correctness, as
long as it is one of the look-up sets: a body staged in an older set is committed there.

Not here: where a key's sets are (`placement`), what one set answers (`erasure_set`), until when writes may go by an
older map (`epochs`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass

from holdfast_server.clock.port import Clock
from holdfast_server.clock.stamp import stamp_ms
from holdfast_server.drives.port import CommitMode, CommitReply, CommitRequest, CommitStatus, Drive, Held, Register
from holdfast_server.objects import quorum, record
from holdfast_server.objects.asking import Answers, ask, together
from holdfast_server.objects.background import Background
from holdfast_server.objects.erasure_set import (
    CONDITION_ATTEMPTS,
    READ_ATTEMPTS,
    RETRY_PAUSE_SECONDS,
    UNMARKED_AFTER_SECONDS,
    Committed,
    Contended,
    Current,
    Deliver,
    ErasureSet,
    MakeHeld,
    Refill,
    bare,
)
from holdfast_server.objects.port import Condition, Conflict, Unavailable
from holdfast_server.objects.record import Kind, Record

CLEAR_WAY_ATTEMPT = 2
"""Until then it is more likely that others are writing than that something was left half done."""


class Overtaken(Exception):
    """Something newer than what a write was judged by has come; nothing was written."""


@dataclass(frozen=True, slots=True)
class Located:
    """The current version and the set it is in; where there is none, `erasure_set` is the newest."""

    erasure_set: ErasureSet
    current: Current
    by_set: Sequence[Current]
    """Of every look-up set, in their order."""

    @property
    def live(self) -> Record | None:
        found = self.current.record
        return found if found is not None and found.live else None


@dataclass(frozen=True, slots=True)
class Step:
    """What is to take the place of what is current."""

    into: ErasureSet
    make_held: MakeHeld
    refill: Refill | None = None
    before: Callable[[], Awaitable[None]] | None = None
    """Awaited under the promise, when nothing can change any more but by this write, and before any drive is given the
    version.  May raise Overtaken, to have it planned anew, or anything to give it up."""
    end: Callable[[], None] | None = None
    """Called in any case, once the step was taken or given up."""
    deletes: bool = False
    """It is part of a delete, which full drives have room for."""


Plan = Callable[[Located], Awaitable[Step]]


class LookUp:
    """See the module.  Made for one operation; holds nothing."""

    def __init__(self, register: Register, sets: Sequence[ErasureSet], clock: Clock, background: Background) -> None:
        """`sets`: the look-up sets, newest epoch first."""
        self.register = register
        self.sets = sets
        self._clock = clock
        self._background = background

    # ---------------------------------------------------------------- reading

    async def read(self, with_inline: bool = False) -> Located:
        """Raises Unavailable: a set that cannot answer may have the newest version."""
        if len(self.sets) == 1:
            current = await self.sets[0].read(self.register, with_inline)
            return Located(self.sets[0], current, (current,))
        for attempt in range(READ_ATTEMPTS):
            if attempt:
                await self._clock.sleep(RETRY_PAUSE_SECONDS * attempt)
            currents = await together(one.read(self.register, with_inline) for one in self.sets)
            located = self._newest(currents)
            if not _moved(located.current):
                self._let_go_later(located)
                return located
        raise Unavailable(f"the current version of {self.register.key!r} is on its way between two erasure sets")

    def _newest(self, currents: Sequence[Current]) -> Located:
        best = max(range(len(self.sets)), key=lambda i: (currents[i].stamp, not _moved(currents[i])))
        return Located(self.sets[best], currents[best], currents)

    # ---------------------------------------------------------------- writing

    async def write(
        self,
        into: ErasureSet,
        condition: Condition | None,
        make_held: MakeHeld,
        refill: Refill | None = None,
        deliver: Deliver = bare,
    ) -> Committed:
        """A write into one of the look-up sets; `deliver` is for those without a condition.  Raises Unavailable,
        OutOfSpace, Conflict, what `condition` raises."""
        if condition is not None:
            allows = condition  # for the closure

            async def plan(located: Located) -> Step:
                allows(located.live)
                return Step(into, make_held, refill)

            return await self.update(plan)
        self._require(into)
        if len(self.sets) == 1:
            return await into.commit(self.register, make_held, refill, deliver=deliver)
        return await self._commit(into, make_held, refill, deliver)

    def _require(self, into: ErasureSet) -> None:
        if into not in self.sets:
            raise Unavailable(f"{into.name} takes no writes of {self.register.key!r} any more")

    async def _commit(
        self, into: ErasureSet, make_held: MakeHeld, refill: Refill | None, deliver: Deliver
    ) -> Committed:
        others = self._others(into)
        seen = await together(map(self._look, others))
        highest = max(quorum.greatest_seen(replies) for replies in seen)
        committed = await into.commit(self.register, make_held, refill, above=highest, deliver=deliver)
        superseded = [other for other, replies in zip(others, seen, strict=True) if quorum.versions(replies)]
        self._let_go_of(superseded, committed.stamp)
        return committed

    async def _look(self, erasure_set: ErasureSet) -> quorum.Replies:
        """What R full drives say: whatever was answered or seen in that set, one of them knows."""
        quorums = erasure_set.quorums

        def enough(replies: quorum.Replies) -> bool:
            return len(quorum.full_replies(replies)) >= quorums.read_quorum

        replies = await ask(erasure_set.awake(), lambda _, drive: drive.query(self.register, False), enough)
        if not enough(replies):
            raise Unavailable(f"{erasure_set.name}: {len(replies)} drives answer, too few to order a write")
        return replies

    async def update(
        self, plan: Plan, attempts: int = CONDITION_ATTEMPTS, with_inline: bool = False, spread: bool = False
    ) -> Committed:
        """A conditional write (rules 7 and S3): `plan` is given what is current and says what is to take its place, or
        raises to refuse; nothing can come in between.  It may be asked again.

        `with_inline`: it is given the small shards, too.  `spread`: many do this to one key, and nobody chose to be
        conditional: they wait for different times before they try again.
        Raises Unavailable, OutOfSpace, Conflict, what `plan` raises.
        """
        for attempt in range(attempts):
            if attempt:
                share = 0.5 + self._clock.random_bytes(1)[0] / 256 if spread else 1.0
                await self._clock.sleep(RETRY_PAUSE_SECONDS * 2**attempt * share)
            if spread and attempt >= CLEAR_WAY_ATTEMPT:
                await together(one.clear_way(self.register) for one in self.sets)
            located = await self.read(with_inline)
            try:
                step = await plan(located)
                try:
                    committed = await self._take(step, located)
                finally:
                    if step.end is not None:
                        step.end()
            except (Overtaken, Contended):
                continue
            if committed is not None:
                return committed
        raise Conflict(f"another conditional write of {self.register.key!r} is under way")

    async def _take(self, step: Step, located: Located) -> Committed | None:
        """None if something is newer than `located`, or another writes."""
        self._require(step.into)
        currents = dict(zip(self.sets, located.by_set, strict=True))
        promise = await step.into.promise(self.register, currents[step.into])
        if promise is None:
            return None
        expected = {other: currents[other].stamp for other in self._others(step.into)}

        async def first(stamp: int) -> None:
            if step.before is not None:
                await step.before()
            await together(self._close(other, expected[other], stamp) for other in expected)

        highest = max(current.highest for current in currents.values())
        committed = await step.into.commit_promised(
            promise, step.make_held, step.refill, above=highest, first=first, deletes=step.deletes
        )
        # Where there was nothing, too: the fence has left a row there that nobody would ever come upon.
        self._let_go_of(list(expected), committed.stamp)
        return committed

    async def _close(self, erasure_set: ErasureSet, expected: int, stamp: int) -> None:
        """Nothing newer than `expected` and older than `stamp` is, or ever will be, committed in that set.

        Not at the stamp itself: the tombstone that lets go of what is superseded there has it.  Raises Overtaken,
        Unavailable.
        """
        needed = erasure_set.quorums.read_quorum
        answers = await ask(erasure_set.awake(), lambda _, drive: drive.fence(self.register, stamp - 1))
        full = [answer for answer in answers.values() if not answer.healing]
        good = [a for a in full if a.fenced and a.newest is not None and a.newest <= expected]
        if len(good) >= needed:
            return
        if len(full) >= needed:
            raise Overtaken
        raise Unavailable(f"{erasure_set.name}: {len(answers)} drives answer, too few for a conditional write")

    def _others(self, erasure_set: ErasureSet) -> list[ErasureSet]:
        return [other for other in self.sets if other is not erasure_set]

    # ---------------------------------------------------------------- letting go of what is superseded

    def _let_go_later(self, located: Located) -> None:
        """See to what the coordinator of a write did not come to."""
        if self._clock.now_ms() - stamp_ms(located.current.stamp) < UNMARKED_AFTER_SECONDS * 1000:
            return
        self._let_go_of(self._superseded(located), located.current.stamp)

    def _superseded(self, located: Located) -> list[ErasureSet]:
        """The sets that hold something, be it a delete marker, beside what is current."""
        return [
            one
            for one, current in zip(self.sets, located.by_set, strict=True)
            if current.record is not None and not current.record.deleted and current is not located.current
        ]

    def _let_go_of(self, superseded: Collection[ErasureSet], stamp: int) -> None:
        for one in superseded:
            self._background.spawn(self._let_go(one, stamp))

    async def _let_go(self, superseded: ErasureSet, stamp: int) -> bool:
        """Have the tombstone of a version that is committed in another set take the place of what is older here.

        Returns whether it has, for good.  Idempotent; undone by nothing, because the version is committed.
        """
        replies = await superseded.query(self.register)
        if quorum.greatest_mark(replies) >= stamp:
            return True
        if max(quorum.versions(replies), default=0) > stamp:
            return False  # whoever writes it sees to what is older
        marker = record.encode(Record(Kind.MOVED, stamp, modified_ms=self._clock.now_ms()))
        held = Held(stamp, True, marker, -1, None)
        drives = superseded.awake()

        async def commit(position: int, drive: Drive) -> CommitReply:
            watermark = replies[position].watermark
            return await drive.commit(CommitRequest(self.register, held, CommitMode.HEAL, b"", watermark))

        targets = {position: drives[position] for position in replies if position in drives}
        answers: Answers[CommitReply] = await ask(targets, commit)
        taken = [position for position, answer in answers.items() if answer.status is CommitStatus.OK]
        if len(taken) < superseded.quorums.write_quorum:
            return False
        superseded.note_later(self.register, stamp, taken)
        return True

    async def settle(self) -> None:
        """Let go, now, of everything that is superseded; for a scanner that came upon the register.
        Raises Unavailable."""
        if len(self.sets) == 1:
            return
        located = await self.read()
        for one in self._superseded(located):
            await self._let_go(one, located.current.stamp)

    async def give_up(self, superseded: ErasureSet, stamp: int) -> bool:
        """Let go of a version in one set that cannot be read there, if another set has something newer; whether it has.
        Raises Unavailable."""
        others = await together(other.read(self.register) for other in self._others(superseded))
        newest = max((current.stamp for current in others), default=0)
        if newest <= stamp:
            return False
        if not await self._let_go(superseded, newest):
            raise Unavailable(f"{superseded.name}: too few drives took note that another pool has a newer version")
        return True

    async def may_drop(self, holder: ErasureSet, stamp: int) -> bool:
        """Whether a tombstone in one set shadows nothing in the others, as far as they are concerned (rule 10).

        All drives of the others must answer, none be healing, and none hold a version that is older than the
        tombstone and live: it would come back, or could be rolled forward.
        """
        for other in self._others(holder):
            replies = await other.query(self.register)
            if len(replies) < other.quorums.set_size or any(reply.healing for reply in replies.values()):
                return False
            if any(not held.tombstone and held.stamp < stamp for held in quorum.versions(replies).values()):
                return False
        return True


def _moved(current: Current) -> bool:
    return current.record is not None and current.record.kind is Kind.MOVED
