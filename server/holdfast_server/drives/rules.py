"""A drive's side of the quorum rules, as decisions over one register's state.  Pure.

Both the local drive and the in-memory one of `testing/` go through here, so that there is one place to hold
against `docs/quorum.md`.  What is *not* here: durability, shards, and leases' clocks (the caller passes the
lease that is live now, or None).

One detail goes beyond the letter of the rules: taking a record back (`remove`) raises the fence to its stamp,
so that a delayed copy of the commit that was just taken back is not accepted afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from holdfast_server.drives.port import CommitMode, CommitRequest, CommitStatus, PrepareStatus, TombstoneState


class Version(Protocol):
    @property
    def stamp(self) -> int: ...

    @property
    def tombstone(self) -> bool: ...


V = TypeVar("V", bound=Version)


@dataclass(slots=True)
class RegisterState(Generic[V]):
    """All a drive knows of one register."""

    records: list[V] = field(default_factory=list)
    """Newest first."""
    fence: int = 0
    mark: int = 0
    watermark: int = 0
    healing: bool = False

    @property
    def newest(self) -> int:
        return self.records[0].stamp if self.records else 0

    @property
    def highest(self) -> int:
        """A plain commit must be above it."""
        return max(self.newest, self.fence, self.watermark)

    @property
    def forgotten(self) -> bool:
        """Nothing is left that the watermark does not say already."""
        return not self.records and self.fence <= self.watermark

    @property
    def settled(self) -> bool:
        """A tombstone that is committed, and nothing else."""
        return len(self.records) == 1 and self.records[0].tombstone and self.records[0].stamp == self.mark

    def holds(self, stamp: int) -> bool:
        return any(record.stamp == stamp for record in self.records)


def judge_commit(
    state: RegisterState[V], request: CommitRequest, live_lease: bytes | None
) -> tuple[CommitStatus, bool]:
    """The answer to a commit, and whether the record is to be accepted (an OK may have nothing to write)."""
    stamp = request.held.stamp
    if state.holds(stamp):
        return CommitStatus.OK, False
    if request.mode in (CommitMode.ROLL_FORWARD, CommitMode.HEAL):
        return _judge_repair(state, request, live_lease)
    if request.mode is CommitMode.CONDITIONAL and (live_lease is None or live_lease != request.lease):
        return CommitStatus.REFUSED, False
    if live_lease is not None and live_lease != request.lease:
        return CommitStatus.LEASED, False
    if stamp <= state.highest:
        return CommitStatus.STALE, False
    return CommitStatus.OK, True


def _judge_repair(
    state: RegisterState[V], request: CommitRequest, live_lease: bytes | None
) -> tuple[CommitStatus, bool]:
    """Rules 5 and 9: writing a version again, decided (HEAL) or not yet (ROLL_FORWARD)."""
    stamp = request.held.stamp
    if stamp < state.mark:
        return CommitStatus.SUPERSEDED, False
    if request.held.tombstone and not state.records and not state.healing and stamp <= state.watermark:
        return CommitStatus.OK, False
    if stamp <= state.watermark and request.watermark != state.watermark:
        # Its tombstone may have been dropped since the caller looked.  Above the watermark none was.
        return CommitStatus.REFUSED, False
    if request.mode is CommitMode.ROLL_FORWARD and (
        live_lease is not None or (stamp <= max(state.newest, state.fence) and not state.healing)
    ):
        return CommitStatus.REFUSED, False
    return CommitStatus.OK, True


def accept(state: RegisterState[V], version: V) -> None:
    state.records.append(version)
    state.records.sort(key=lambda record: record.stamp, reverse=True)


def note(state: RegisterState[V], stamp: int) -> list[V]:
    """Raise the mark if the version is held; the older records, which are no longer of the state (rule 1)."""
    if not state.holds(stamp):
        return []
    state.mark = max(state.mark, stamp)
    older = [record for record in state.records if record.stamp < stamp]
    state.records = [record for record in state.records if record.stamp >= stamp]
    return older


def judge_prepare(state: RegisterState[V], expected: int, lease: bytes, live_lease: bytes | None) -> PrepareStatus:
    if live_lease is not None and live_lease != lease:
        return PrepareStatus.LEASED
    return PrepareStatus.MISMATCH if state.newest > expected else PrepareStatus.PROMISED


def fence(state: RegisterState[V], stamp: int) -> bool:
    """False if that very version is held; else the promise is in the state."""
    if state.holds(stamp):
        return False
    state.fence = max(state.fence, stamp)
    return True


def remove(state: RegisterState[V], stamp: int) -> list[V]:
    """What was taken back; a marked version stays (rules 1 and 8)."""
    if stamp == state.mark or not state.holds(stamp):
        return []
    gone = [record for record in state.records if record.stamp == stamp]
    state.records = [record for record in state.records if record.stamp != stamp]
    state.fence = max(state.fence, stamp)
    return gone


def weigh_tombstone(state: RegisterState[V], stamp: int, settled_long_enough: bool) -> TombstoneState:
    """Rule 10: how this drive stands to the dropping of a tombstone."""
    if state.healing:
        return TombstoneState.OTHER
    if not state.records:
        return TombstoneState.GONE if stamp <= state.watermark else TombstoneState.OTHER
    if state.newest != stamp or not state.records[0].tombstone:
        return TombstoneState.OTHER
    if not state.settled:
        return TombstoneState.UNNOTED
    return TombstoneState.SETTLED if settled_long_enough else TombstoneState.YOUNG


def raised(watermark: int, stamp: int) -> int:
    """A drive's watermark when it has let go of a tombstone, or says that it has: never again what it was (rule 10).

    A replacement's is above deletes that came after it.  Left as it is, it would still be the one that a repair saw
    before such a delete, and the repair would bring back what was deleted (rule 9).
    """
    return max(stamp, watermark + 1)


def drop(state: RegisterState[V], stamp: int) -> list[V]:
    """What was dropped, if the tombstone was all there is; the watermark is at it or above in any case (rule 10)."""
    if len(state.records) != 1 or state.newest != stamp or not state.records[0].tombstone:
        state.watermark = max(state.watermark, stamp)
        return []
    state.watermark = raised(state.watermark, stamp)
    gone, state.records, state.mark = state.records, [], 0
    return gone
