"""Bringing one drive what it lacks: an empty replacement everything, one that was away what it missed.

Both are one pass over all registers of the set: compare a page, heal what differs, go on.  The place is kept on the
drive with each page, so a pod that restarts goes on there; a pass repeats at most one page.

Rule 11: only a pass begun after a replacement was adopted, and that left nothing out, makes it full.  The place is
kept on the very drive, with its incarnation, and so begins after that incarnation's adoption.  What could not be
healed, most often because it was just being written, is healed again by itself at the end of the pass until nothing
is left: under steady traffic no pass would ever meet a moment without writes.  How much was left is counted in the
place as well; a pass that went on after a restart does not know which registers those were, and one that left very
many does not keep them, so that it is followed by another.  Nor is a drive full while a write that the pass met, from
before its adoption, is neither committed nor given up: it may be one that was acknowledged, with the copy of the
drive that was here before, by a coordinator that died, and it is young by the clock of that one.  A write that
reaches the others while the pass goes on, behind its place, is offered to this drive like to any (not a conditional
one, which goes to those that promised); if the drive misses it, W others hold it, as with any full drive, and the
repair queue has it.

A full drive is looked through once after its pod opened it, after its disk had hung or it had been set aside, and after
its pod had been cut off from so many others that those could write without it: the queues of the others bring what it
missed within seconds; this finds what no queue knows (a coordinator that died before its notes, notes lost with the
power).

Not here: adoption (`pod`), verification of what is there (`scanner`).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from holdfast_server.clock.port import Clock
from holdfast_server.contract.healing import FillingProgress
from holdfast_server.drives.port import DriveState, Register
from holdfast_server.heal.comparing import Place, compare
from holdfast_server.heal.own_drive import OwnDrive
from holdfast_server.heal.registers import Outcome, RegisterHealing
from holdfast_server.heal.settings import HealSettings
from holdfast_server.objects.asking import bounded
from holdfast_server.objects.erasure_set import ErasureSet

_NAME = b"filling"
RATE_WEIGHT = 0.3
MAX_LEFTOVERS = 10_000
"""Registers remembered to be healed again at the end of a pass."""

log = logging.getLogger(__name__)


class Pass(msgspec.Struct, array_like=True):
    """How far it is, as it is kept on the drive.  Fields are only ever appended, with defaults."""

    incarnation: int
    """Of the drive; a pass of another says nothing."""
    place: Place = Place()
    registers: int = 0
    copied: int = 0
    copied_bytes: int = 0
    left: int = 0


@dataclass(slots=True)
class FillingState:
    """Of one drive, since its pod opened it."""

    drive_id: bytes = b""
    present: Pass | None = None
    replacement: bool = False
    begin_at: float = 0.0
    """A full drive is not looked through before."""
    done: bool = False
    """A full drive has been looked through."""
    leftovers: dict[Register, None] = field(default_factory=dict)
    """What the present pass could not heal."""
    forgotten: int = 0
    """The same, where it is not known any more which."""
    swept: bool = False
    """The present pass has been everywhere; only what it left is to be done."""
    cut_off: bool = False
    """Others may be writing without this drive, or were just now."""
    passes: int = 0
    again_at: float = float("-inf")
    registers_per_second: float = 0.0
    bytes_per_second: float = 0.0


class Filling:
    def __init__(self, healing: RegisterHealing, clock: Clock, settings: HealSettings) -> None:
        self._healing = healing
        self._clock = clock
        self._settings = settings
        self.drives_filled = 0

    async def step(self, drive: OwnDrive, erasure_set: ErasureSet, state: FillingState) -> bool:
        """One page; True if there is more to do at once.  Raises DriveError."""
        self._watch(erasure_set, state)
        if not await self._begin(drive, state):
            return False
        assert state.present is not None
        if state.swept:
            await self._settle(drive, erasure_set, state)
            return False
        began = self._clock.monotonic_seconds()
        present = state.present
        page = await compare(erasure_set, drive, present.place, self._settings.compare_page, self._clock.now_ms())
        outcome = await self._healing.heal(erasure_set, page.differing)
        present.registers += page.registers
        present.copied += outcome.copied
        present.copied_bytes += outcome.copied_bytes
        _leave(state, _lacking(state, outcome))
        self._measure(state, page.registers, outcome.copied_bytes, self._clock.monotonic_seconds() - began)
        if page.following is None:
            state.swept = True
            await self._settle(drive, erasure_set, state)
            return False
        present.place = page.following
        await bounded(drive.keep(_NAME, msgspec.msgpack.encode(present)))
        return True

    def _watch(self, erasure_set: ErasureSet, state: FillingState) -> None:
        """Have the drive looked through again once it is back from where others could write without it."""
        awake = len(erasure_set.awake())
        quorums = erasure_set.quorums
        if awake <= quorums.set_size - quorums.write_quorum:
            state.cut_off = True
        elif state.cut_off and awake > quorums.read_quorum:
            state.cut_off, state.done = False, False
            state.begin_at = self._clock.monotonic_seconds() + self._settings.returned_delay_seconds
            if not state.replacement:
                state.present = None

    async def _begin(self, drive: OwnDrive, state: FillingState) -> bool:
        """Whether there is a pass to go on with."""
        status = drive.status()
        now = self._clock.monotonic_seconds()
        if status.drive_id != state.drive_id:
            # Opened just now, or replaced under this pod.
            state.drive_id, state.present, state.done, state.passes = status.drive_id, None, False, 0
            state.begin_at = now + self._settings.returned_delay_seconds
        state.replacement = status.state is DriveState.HEALING
        if not state.replacement and (state.done or now < state.begin_at):
            return False
        if now < state.again_at:
            return False
        if state.present is None:
            state.present = await self._kept(drive, status.incarnation, state.replacement)
            state.leftovers, state.forgotten, state.swept = {}, state.present.left, False
            log.info(
                "pool %s set %d: drive %d is %s",
                *(drive.pool, drive.set_index, drive.position),
                "being filled" if state.replacement else "looked through for what it missed",
            )
        return True

    async def _kept(self, drive: OwnDrive, incarnation: int, replacement: bool) -> Pass:
        """The pass to go on with, or a new one.

        A full drive that was away again begins anew: what it missed this time may lie anywhere.
        """
        kept = await bounded(drive.kept(_NAME))
        if kept and replacement:
            try:
                found = msgspec.msgpack.decode(kept, type=Pass)
            except msgspec.MsgspecError as error:
                log.warning("the place of a pass cannot be read, it begins anew: %s", error)
            else:
                if found.incarnation == incarnation:
                    return found
        return Pass(incarnation)

    async def _settle(self, drive: OwnDrive, erasure_set: ErasureSet, state: FillingState) -> None:
        """Heal again what the pass left, and end it once nothing is."""
        assert state.present is not None
        if state.leftovers and state.replacement and not state.forgotten:
            again = list(state.leftovers)
            outcome = await self._healing.heal(erasure_set, again)
            state.present.copied += outcome.copied
            state.present.copied_bytes += outcome.copied_bytes
            state.leftovers = {}
            _leave(state, _lacking(state, outcome))
            if state.leftovers:
                state.again_at = self._clock.monotonic_seconds() + self._settings.leftovers_seconds
                return
        await self._end(drive, erasure_set, state)

    async def _end(self, drive: OwnDrive, erasure_set: ErasureSet, state: FillingState) -> None:
        assert state.present is not None
        ended, state.present = state.present, None
        state.passes += 1
        if ended.left:
            log.warning(
                "%s: drive %d: %d of %d registers could not be healed",
                *(erasure_set.name, drive.position, ended.left, ended.registers),
            )
            state.again_at = self._clock.monotonic_seconds() + self._settings.retry_seconds
        elif state.replacement:
            await bounded(drive.finish_healing(ended.incarnation))
            self.drives_filled += 1
            state.done = True
            log.info("%s: drive %d is full again, %d registers", erasure_set.name, drive.position, ended.registers)
        # A full drive's leftovers are in the repair queue, or the scanner's.
        state.done = state.done or not state.replacement
        # In any case the next pass begins at the beginning.
        await bounded(drive.keep(_NAME, b""))

    def _measure(self, state: FillingState, registers: int, size_bytes: int, seconds: float) -> None:
        if seconds > 0:
            for_registers, for_bytes = registers / seconds, size_bytes / seconds
            weight = RATE_WEIGHT if state.registers_per_second else 1.0
            state.registers_per_second += (for_registers - state.registers_per_second) * weight
            state.bytes_per_second += (for_bytes - state.bytes_per_second) * weight

    def progress(self, state: FillingState, registers_total: int) -> FillingProgress | None:
        """`registers_total`: about how many the set has; 0 if that is not known."""
        present = state.present
        if present is None:
            return None
        left = max(0, registers_total - present.registers)
        known = registers_total > 0 and state.registers_per_second > 0
        return FillingProgress(
            replacement=state.replacement,
            registers_done=present.registers,
            registers_total=max(registers_total, present.registers),
            registers_copied=present.copied,
            bytes_copied=present.copied_bytes,
            registers_left=present.left,
            registers_per_second=state.registers_per_second,
            bytes_per_second=state.bytes_per_second,
            seconds_left=left / state.registers_per_second if known else None,
        )


def _lacking(state: FillingState, outcome: Outcome) -> list[Register]:
    """What the drive may not have yet."""
    return [*outcome.left, *outcome.undecided] if state.replacement else outcome.left


def _leave(state: FillingState, left: Sequence[Register]) -> None:
    """Remember what could not be healed."""
    assert state.present is not None
    for register in left:
        if len(state.leftovers) < MAX_LEFTOVERS:
            state.leftovers[register] = None
        else:
            state.forgotten += 1
    state.present.left = state.forgotten + len(state.leftovers)
