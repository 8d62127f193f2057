"""Dropping tombstones (rule 10): what is left of a delete goes once nothing can bring back what was deleted.

A tombstone must outlive everything that could still show or restore what lies below it.  It is dropped when

1. every drive of the set answers, and none is healing: a drive that is away may hold an older version, and one that
   is being filled is empty for other reasons;
2. every drive holds it marked and nothing else of the register, and has held just that for `settled_seconds` by its
   own clock, or is empty with its watermark at or above the tombstone;
3. the tombstone's stamp is `age_seconds` old;
4. it shadows nothing in the other sets where the pool map's epochs may have put the register (`look_up.may_drop`).

**Why nothing comes back.**  Let S be the moment at which the last drive came to hold only the tombstone.  Whoever
began after S can have seen nothing older of the register anywhere.  Whoever began before S, and any message of theirs,
is dead L (`OPERATION_DEADLINE_SECONDS`) after S, and by 2. nothing is dropped before that.  So at the drop nobody alive
remembers what was deleted, and no drive does: a read during or after it finds the tombstone marked somewhere or R full
drives with nothing, and either is "absent".  For a drive that is empty there is no such moment; 3. stands in for it:
a version that was taken back there was taken back by somebody who had not seen the tombstone, so within L of the
tombstone's own writing, and whoever had read that version before is dead another L later.

Should one live longer all the same (a process that was suspended, a repair that rebuilt shards for minutes), the
watermark refuses it: dropping raises it to the tombstone's stamp, a plain commit or a promise below it is stale, and a
repair below it is accepted only with the very watermark its coordinator saw before.  So the watermark is raised even
where it was above that stamp already: a replacement's begins above all clocks, and a delete that does not know of it is
stamped below.  A drive that held the tombstone raises it in dropping that; until then the tombstone's mark keeps older
versions out.  One that is empty raises it in saying so, before anybody drops: nothing else would keep them out, and the
call to drop may never reach it.

**Why a loss of power does not matter.**  Notes are not flushed.  A drive that told of a lone tombstone and then lost
the note would be back at the older version beneath, and the tombstone, unmarked again and gone elsewhere, could be
judged never committed.  So what a drive answers to `weigh_tombstones` is made durable first.  (Left out of the model
of these rules, this made deleted objects readable within seconds of search.)

**What the watermark does to other registers of its range.**  It rises to stamps that are at least `age_seconds` old.
A coordinator whose clock lags by more gets "stale" from all drives and stamps anew, above the watermark it was told;
if only some drives have dropped yet, its write is refused with 503 once and it has learnt the time.  An undecided
version below the watermark can still be rolled forward or healed, by comparing with the watermark that was seen;
a heal that meets a rise in between is done again.

**Interruptions.**  Each step may be repeated, by several pods at once and in any order.  After half a drop the others
still hold the tombstone, and those that let go say so with their watermark.

**In bulk.**  A drive finds its lone tombstones without a search (`drives.register_rows`); all drives are asked about a
page of them in one call each and told to drop it in one more, with one flush.  One drive of the set has the turn.

What a page shows to be unfinished is finished: a drive that holds the tombstone but was not told that it is committed
is told, and what a drive lacks or has beyond it is healed.

Tombstones of uploads keep the result of a completion for clients that repeat the call, hence `upload_seconds`.

Not here: what a drive accepts (`drives.rules`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from holdfast_server.clock.port import Clock
from holdfast_server.clock.stamp import stamp_ms
from holdfast_server.drives.port import Drive, DriveState, Register, Tombstone, TombstoneRequest, TombstoneState
from holdfast_server.heal.own_drive import OwnDrive
from holdfast_server.heal.pacing import Pacer
from holdfast_server.heal.registers import RegisterHealing
from holdfast_server.heal.settings import HealSettings
from holdfast_server.objects import record
from holdfast_server.objects.asking import ask, bounded, together
from holdfast_server.objects.erasure_set import ErasureSet
from holdfast_server.objects.store import ObjectStore

TURN_MS = 10_000
"""How long a drive is the one that looks after the tombstones of its set."""
UNPRODUCTIVE_SHARE = 0.1
"""A pass that drops little may take this part of the time: what cannot be dropped is looked at again and again."""
HEALS_PER_PAGE = 64
LOOK_UPS_AT_ONCE = 32
_LEAST_ID, _GREATEST_ID = bytes(record.BUCKET_ID_SIZE_BYTES), b"\xff" * record.BUCKET_ID_SIZE_BYTES
_KINDS = (
    record.DOCUMENT_SPACE, record.OBJECT_SPACE, record.PART_SPACE, record.UPLOAD_SPACE, record.VERSION_SPACE
)  # fmt: skip


@dataclass(slots=True)
class DropState:
    """Of one drive."""

    kind: int = 0
    """Which of the kinds the pass is at."""
    first: Register | None = None
    """Where in it the pass goes on; None: at its beginning."""
    worked_seconds: float = 0.0
    """In this pass; not the time it lay still, without the turn or while a drive was away."""
    seen: int = 0
    """In this pass."""
    dropped: int = 0
    """In this pass."""
    again_at: float = float("-inf")
    dropped_ever: int = 0


@dataclass(slots=True)
class _Judged:
    """A page of tombstones."""

    drop: list[Tombstone] = field(default_factory=list)
    note: dict[int, list[Tombstone]] = field(default_factory=dict)
    """By position: those that the drive holds and was not told of."""
    heal: list[Register] = field(default_factory=list)


class TombstoneWork:
    def __init__(
        self, store: ObjectStore, healing: RegisterHealing, pacer: Pacer, clock: Clock, settings: HealSettings
    ) -> None:
        self._store = store
        self._healing = healing
        self._pacer = pacer
        self._clock = clock
        self._settings = settings

    async def step(self, drive: OwnDrive, erasure_set: ErasureSet, state: DropState) -> bool:
        """One page; True if there may be more to do at once.  Raises DriveError, Unavailable."""
        began = self._clock.monotonic_seconds()
        if began < state.again_at or not self._has_turn(drive, erasure_set):
            return False
        if state.kind == 0 and state.first is None:
            state.worked_seconds, state.seen, state.dropped = 0.0, 0, 0
        kind = _KINDS[state.kind]
        settings = self._settings
        seconds = settings.upload_seconds if kind == record.UPLOAD_SPACE else settings.settled_seconds
        first = state.first or Register(kind + _LEAST_ID, "")
        last = Register(kind + _GREATEST_ID, "")
        page = await bounded(drive.tombstones(TombstoneRequest(first, last, seconds, settings.drop_page)))
        dropped = await self._drop(erasure_set, page.tombstones, seconds) if page.tombstones else 0
        state.seen += len(page.tombstones)
        state.dropped += dropped
        state.dropped_ever += dropped
        state.first = page.next_first
        worked = self._clock.monotonic_seconds() - began
        state.worked_seconds += worked
        if page.next_first is None:
            state.kind = (state.kind + 1) % len(_KINDS)
            if state.kind == 0:
                self._end_pass(state)
                return False
        await self._pacer.rest(worked)
        return True

    def _has_turn(self, drive: OwnDrive, erasure_set: ErasureSet) -> bool:
        drives = erasure_set.drives()
        if any(one.status().state is not DriveState.FULL for one in drives.values()):
            return False
        turn = self._clock.now_ms() // TURN_MS
        return (turn + drive.set_index) % len(drives) == drive.position

    def _end_pass(self, state: DropState) -> None:
        now = self._clock.monotonic_seconds()
        pause = self._settings.drop_interval_seconds
        if state.dropped * 2 < state.seen:
            pause = max(pause, state.worked_seconds / UNPRODUCTIVE_SHARE)
        state.again_at = now + pause

    async def _drop(self, erasure_set: ErasureSet, tombstones: Sequence[Tombstone], settled_seconds: float) -> int:
        """How many were dropped."""
        drives = erasure_set.drives()
        replies = await ask(drives, lambda _, drive: drive.weigh_tombstones(tombstones, settled_seconds))
        if len(replies) < len(drives) or any(reply.healing for reply in replies.values()):
            return 0
        states = {position: reply.states for position, reply in replies.items()}
        judged = judge(tombstones, states, self._clock.now_ms(), self._settings.age_seconds)
        await self._finish(erasure_set, drives, judged)
        free = await self._that_shadow_nothing(erasure_set, judged.drop)
        if not free:
            return 0
        told = await ask(drives, lambda _, drive: drive.drop_tombstones(free))
        return len(free) if len(told) == len(drives) else 0

    async def _finish(self, erasure_set: ErasureSet, drives: Mapping[int, Drive], judged: _Judged) -> None:
        async def note(position: int, tombstone: Tombstone) -> None:
            only = {position: drives[position]}
            await ask(only, lambda _, drive: drive.note(tombstone.register, tombstone.stamp, True))

        await together(note(position, one) for position, untold in judged.note.items() for one in untold)
        if judged.heal:
            await self._healing.heal(erasure_set, judged.heal[:HEALS_PER_PAGE])

    async def _that_shadow_nothing(self, erasure_set: ErasureSet, found: list[Tombstone]) -> list[Tombstone]:
        if self._store.pools.one_placement:
            return found
        free: list[Tombstone] = []
        for start in range(0, len(found), LOOK_UPS_AT_ONCE):
            some = found[start : start + LOOK_UPS_AT_ONCE]
            allowed = await together(self._store.look_up(one.register).may_drop(erasure_set, one.stamp) for one in some)
            free += [one for one, may in zip(some, allowed, strict=True) if may]
        return free


def judge(
    tombstones: Sequence[Tombstone],
    states: Mapping[int, Sequence[TombstoneState]],
    now_ms: int,
    age_seconds: float,
) -> _Judged:
    """What becomes of each, from what every drive of the set holds.  Pure."""
    judged = _Judged()
    for index, tombstone in enumerate(tombstones):
        said = {position: of_drive[index] for position, of_drive in states.items()}
        if TombstoneState.OTHER in said.values():
            judged.heal.append(tombstone.register)
            continue
        for position, state in said.items():
            if state is TombstoneState.UNNOTED:
                judged.note.setdefault(position, []).append(tombstone)
        alone = all(state in (TombstoneState.SETTLED, TombstoneState.GONE) for state in said.values())
        if alone and now_ms - stamp_ms(tombstone.stamp) >= age_seconds * 1000:
            judged.drop.append(tombstone)
    return judged
