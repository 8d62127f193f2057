"""Working off the repair queue of one drive: registers whose last write did not reach every drive.

Every holder has the entry; the one whose turn it is does the work, the others drop theirs when they are told that
it is whole.  The turn goes around all drives that answer, beginning where the register's hash points to: it may fall
on the very drive that missed the write, which has no entry and does nothing, so it must pass on.

An entry that cannot be repaired now (its drive is away still, it is stuck) goes to the end of the queue, so that it
holds up nobody behind it.  Once round, the queue is left alone until a drive comes or goes, or a while has passed.

What the queue does not know is found by comparing (`filling`) and scanning (`scanner`): a write whose coordinator
died before its notes, or whose notes were lost with the power.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import xxhash

from holdfast_server.clock.port import Clock
from holdfast_server.clock.stamp import stamp_ms
from holdfast_server.drives.port import MAX_REGISTERS_PER_CALL, Register
from holdfast_server.heal.own_drive import OwnDrive
from holdfast_server.heal.registers import RegisterHealing
from holdfast_server.heal.settings import HealSettings
from holdfast_server.objects.asking import ask, bounded
from holdfast_server.objects.erasure_set import ErasureSet

TURN_MS = 2000
"""How long a drive is the one that heals a register; longer than the interval, so that a turn is not missed."""


@dataclass(slots=True)
class QueueState:
    """Of one drive."""

    awake: frozenset[int] = frozenset()
    remaining: int = 0
    """Entries left of this round of the queue."""
    failed: int = 0
    """Of this round."""
    again_at: float = float("-inf")
    oldest_ms: int = 0
    """When the oldest entry's newest version was written; 0: the queue is empty."""
    repaired: int = 0


class RepairQueueWork:
    def __init__(self, healing: RegisterHealing, clock: Clock, settings: HealSettings) -> None:
        self._healing = healing
        self._clock = clock
        self._settings = settings

    async def step(self, drive: OwnDrive, erasure_set: ErasureSet, state: QueueState) -> bool:
        """One page of the queue; True if there may be more to do at once.  Raises DriveError."""
        if not drive.repair_queue_length:
            state.oldest_ms = 0
            state.remaining = 0
            state.again_at = float("-inf")  # what comes next has not been tried yet
            return False
        if not self._is_time(drive, erasure_set, state):
            return False
        page = await bounded(drive.repairs(max(1, min(self._settings.queue_page, state.remaining))))
        state.oldest_ms = await self._written_ms(drive, page[0]) if page else 0
        turn = self._clock.now_ms() // TURN_MS
        order = sorted(state.awake)
        mine = [register for register in page if responsible(register, order, turn) == drive.position]
        if not mine:
            return False
        outcome = await self._healing.heal(erasure_set, mine)
        for start in range(0, len(outcome.whole), MAX_REGISTERS_PER_CALL):
            whole = outcome.whole[start : start + MAX_REGISTERS_PER_CALL]
            await ask(erasure_set.awake(), lambda _, holder, whole=whole: holder.repaired(whole))  # type: ignore[misc]
        for register in outcome.not_whole:
            await bounded(drive.note(register, 0, False))
        state.repaired += len(outcome.whole)
        state.remaining -= len(mine)
        state.failed += len(outcome.not_whole)
        if state.remaining <= 0:
            self._end_round(erasure_set, state)
        return True

    def _end_round(self, erasure_set: ErasureSet, state: QueueState) -> None:
        pause = 0.0
        if state.failed:
            whole = len(state.awake) == erasure_set.quorums.set_size
            pause = self._settings.retry_seconds if whole else self._settings.retry_degraded_seconds
        state.failed = 0
        state.again_at = self._clock.monotonic_seconds() + pause

    def _is_time(self, drive: OwnDrive, erasure_set: ErasureSet, state: QueueState) -> bool:
        awake = frozenset(erasure_set.awake())
        now = self._clock.monotonic_seconds()
        if len(awake) < erasure_set.quorums.read_quorum:
            return False
        if awake != state.awake or (state.remaining <= 0 and now >= state.again_at):
            state.awake = awake
            state.again_at = float("-inf")
            state.remaining = drive.repair_queue_length
            state.failed = 0
        return state.remaining > 0

    async def _written_ms(self, drive: OwnDrive, register: Register) -> int:
        reply = await bounded(drive.query(register, False))
        return stamp_ms(reply.records[0].stamp) if reply.records else self._clock.now_ms()


def responsible(register: Register, awake: Sequence[int], turn: int) -> int:
    """The position whose pod heals a register in this turn: the same answer on every pod that sees the same drives
    and whose clock is right; where it is not, a register is healed twice or a turn later."""
    own = xxhash.xxh3_64_intdigest(register.space + register.key.encode() + register.version)
    return awake[(own + turn) % len(awake)]
