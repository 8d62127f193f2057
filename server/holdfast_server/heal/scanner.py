"""The endless slow pass over one drive of this pod: nothing on it rots, leaks or goes missing unnoticed.

In order of registers, then of folders:
- every shard the drive's newest records name is read from the disk against its hashes; what is rotten or gone is
  rebuilt from the others;
- every register is compared with R other drives (`comparing`): one that some drive misses, or that nobody marked, is
  healed, so that a write whose coordinator died before its notes is found within a pass;
- parts of uploads that have ended are deleted;
- what a writer that died did not come to let go of is let go of: a `null` version that another has replaced, and what a
  version in another erasure set has superseded;
- shard files that no record names, and staged leftovers, are given up when they are old.

One unit of work is a bounded number of registers, of bytes, or one folder.  Where the pass is is
kept on the drive with each unit: a pod that restarts goes on there.  A pass is spread over `scan_pass_seconds`,
the bytes read evenly over most of it, and gives way to requests like all healing.

Not here: dropping tombstones (`tombstones`), expiry and usage (`bucket_walk`).
"""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import dataclass, field

import msgspec

from holdfast_server.clock.port import Clock
from holdfast_server.clock.stamp import stamp_ms
from holdfast_server.contract.healing import ScannerProgress
from holdfast_server.drives.port import DriveError, DriveOffline, Held, Register, ScanEntry, ShardCorrupt, ShardMissing
from holdfast_server.heal.comparing import Place, compare
from holdfast_server.heal.own_drive import ORPHAN_FOLDERS, OwnDrive
from holdfast_server.heal.registers import RegisterHealing
from holdfast_server.heal.settings import HealSettings
from holdfast_server.objects import record
from holdfast_server.objects.asking import bounded
from holdfast_server.objects.erasure_set import ErasureSet
from holdfast_server.objects.port import ObjectError

UNIT_BYTES = 8 << 20
"""Of shards verified in one unit, about: the last of them may be larger."""
VERIFY_TIMEOUT_SECONDS = 60.0
SLOWEST_BYTES_PER_SECOND = 4 << 20
"""A shard has so much longer to be verified: gigabytes take minutes, and a pass must not end at one for ever."""
LEAST_BYTES_PER_SECOND = 4 << 20
BYTES_SHARE = 0.8
FOLDERS_SHARE = 0.1
"""Of a pass's time."""
_NAME = b"scanner"

log = logging.getLogger(__name__)


class ScanPass(msgspec.Struct, array_like=True):
    """As it is kept on the drive.  Fields are only ever appended, with defaults."""

    drive_id: bytes
    began_ms: int
    place: Place = Place()
    folder: int = -1
    """-1: registers are being walked."""
    registers: int = 0
    usage: dict[bytes, object] = {}
    """Earlier releases counted here (`bucket_walk` does now)."""
    last_ended_ms: int = 0
    last_began_ms: int = 0
    last_registers: int = 0
    last_usage: dict[bytes, object] = {}


@dataclass(slots=True)
class ScanState:
    """Of one drive, since its pod opened it."""

    present: ScanPass | None = None
    pending: deque[ScanEntry] = field(default_factory=deque)
    """Entries of the present page that have not been verified."""
    following: Place | None = None
    """Behind the present page."""
    hurry: bool = False
    """Asked for by a person: without the rests that spread a pass, at the pace of healing."""
    due_at: float = float("-inf")
    registers: int = 0
    bytes_verified: int = 0
    rotten: int = 0
    not_whole: int = 0
    orphans: int = 0
    parts: int = 0


class Scanner:
    def __init__(self, healing: RegisterHealing, clock: Clock, settings: HealSettings) -> None:
        self._healing = healing
        self._clock = clock
        self._settings = settings

    async def scan_once(self, drive: OwnDrive, erasure_set: ErasureSet, state: ScanState) -> None:
        """To the end of the pass, without the rests between its units.  Raises DriveError."""
        while await self._unit(drive, erasure_set, state) is not None:
            pass

    async def step(self, drive: OwnDrive, erasure_set: ErasureSet, state: ScanState) -> bool:
        """One unit if it is due; True if another may follow at once.  Raises DriveError."""
        now = self._clock.monotonic_seconds()
        if now < state.due_at and not state.hurry:
            return False
        rest = await self._unit(drive, erasure_set, state)
        if rest is None:
            state.hurry = False
            assert state.present is not None
            left = state.present.last_began_ms / 1000 + self._settings.scan_pass_seconds - self._clock.now_ms() / 1000
            # By clocks that were set meanwhile, what is left may be anything.
            rest = max(min(left, self._settings.scan_pass_seconds), self._settings.interval_seconds)
        state.due_at = self._clock.monotonic_seconds() + rest
        return state.hurry

    async def _unit(self, drive: OwnDrive, erasure_set: ErasureSet, state: ScanState) -> float | None:
        """Seconds to rest after it; None at the end of the pass."""
        present = await self._present(drive, state)
        if present.folder >= 0:
            return await self._folder(drive, state, present)
        if not state.pending:
            page = await compare(erasure_set, drive, present.place, self._settings.scan_page, self._clock.now_ms())
            await self._heal(erasure_set, state, page.differing)
            await self._end_parts(erasure_set, state, page.own)
            await self._let_go(erasure_set, page.own)
            state.pending.extend(page.own)
            state.following = page.following
        registers, read_bytes = await self._verify(drive, erasure_set, state, present)
        if not state.pending:
            if state.following is not None:
                present.place = state.following
            else:
                present.folder = 0
        await self._keep(drive, present)
        return self._rest_seconds(drive, registers, read_bytes, present)

    async def _present(self, drive: OwnDrive, state: ScanState) -> ScanPass:
        drive_id = drive.status().drive_id
        if state.present is None or state.present.drive_id != drive_id:
            kept = await bounded(drive.kept(_NAME))
            state.pending.clear()
            state.present = self._decoded(kept, drive_id) or ScanPass(drive_id, self._clock.now_ms())
        return state.present

    def _decoded(self, kept: bytes | None, drive_id: bytes) -> ScanPass | None:
        if not kept:
            return None
        try:
            found = msgspec.msgpack.decode(kept, type=ScanPass)
        except msgspec.MsgspecError as error:
            log.warning("the scanner's place cannot be read, it begins anew: %s", error)
            return None
        return found if found.drive_id == drive_id else None

    async def _keep(self, drive: OwnDrive, present: ScanPass) -> None:
        await bounded(drive.keep(_NAME, msgspec.msgpack.encode(present)))

    # ---------------------------------------------------------------- registers

    async def _heal(self, erasure_set: ErasureSet, state: ScanState, differing: list[Register]) -> None:
        if differing:
            outcome = await self._healing.heal(erasure_set, differing)
            state.not_whole += outcome.copied

    async def _verify(
        self, drive: OwnDrive, erasure_set: ErasureSet, state: ScanState, present: ScanPass
    ) -> tuple[int, int]:
        """Some of the entries at hand; how many, and how many bytes were read."""
        registers = read_bytes = 0
        while state.pending and read_bytes < UNIT_BYTES:
            entry = state.pending[0]
            size, sound = await self._verify_entry(drive, entry)
            if not sound:
                log.warning("%s: drive %d: rot in %r", erasure_set.name, drive.position, entry.register.key)
                outcome = await self._healing.heal(erasure_set, [entry.register], verify=True)
                state.rotten += outcome.rotten
            state.pending.popleft()
            present.place = Place(entry.register.space, entry.register.key.encode(), entry.register.version + b"\0")
            present.registers += 1
            registers += 1
            read_bytes += size
        state.registers += registers
        state.bytes_verified += read_bytes
        return registers, read_bytes

    async def _verify_entry(self, drive: OwnDrive, entry: ScanEntry) -> tuple[int, bool]:
        size = 0
        sizes = _shard_sizes(entry.newest) if entry.newest.data_ids else {}
        for data_id in entry.newest.data_ids:
            seconds = VERIFY_TIMEOUT_SECONDS + sizes.get(data_id, 0) / SLOWEST_BYTES_PER_SECOND
            try:
                size += await bounded(drive.verify_shard(data_id), seconds)
            except (ShardMissing, ShardCorrupt):
                return size, False
            except DriveOffline as error:
                if not isinstance(error.__cause__, TimeoutError):
                    raise
                # A disk may take minutes over a sector that it cannot read in the end.  The pass is not to end there.
                log.warning("%r: shard %s is passed over: %s", entry.register.key, data_id.hex(), error)
        return size, True

    async def _end_parts(self, erasure_set: ErasureSet, state: ScanState, entries: list[ScanEntry]) -> None:
        """Delete parts whose upload has ended; each upload is asked for once."""
        before_ms = self._clock.now_ms() - self._settings.part_age_seconds * 1000
        ended: dict[tuple[str, bytes], bool] = {}
        leaked: list[Register] = []
        for entry in entries:
            part = entry.register
            if part.space[:1] != record.PART_SPACE or entry.newest.tombstone:
                continue
            if stamp_ms(entry.newest.stamp) >= before_ms:
                continue
            upload = (part.key, part.version[:-2])
            if upload not in ended:
                ended[upload] = await self._has_surely_ended(part)
            if ended[upload]:
                leaked.append(part)
        if leaked:
            await self._healing.heal(erasure_set, leaked)
            state.parts += len(leaked)

    async def _has_surely_ended(self, part: Register) -> bool:
        """One that cannot be told now may stay so until a person decides; the pass goes on."""
        try:
            return await self._healing.upload_has_ended(part)
        except (DriveError, ObjectError, record.RecordCorrupt) as error:
            log.info("whether the upload of %r has ended cannot be told now: %s", part.key, error)
            return False

    async def _let_go(self, erasure_set: ErasureSet, entries: list[ScanEntry]) -> None:
        """Of what nobody reads any more, and so nobody else comes upon."""
        before_ms = self._clock.now_ms() - self._settings.part_age_seconds * 1000
        for entry in entries:
            if not entry.newest.tombstone and stamp_ms(entry.newest.stamp) < before_ms:
                await self._healing.let_go(erasure_set, entry)

    # ---------------------------------------------------------------- folders

    async def _folder(self, drive: OwnDrive, state: ScanState, present: ScanPass) -> float | None:
        following = min(ORPHAN_FOLDERS, present.folder + self._settings.scan_folders)
        for folder in range(present.folder, following):
            state.orphans += await bounded(
                drive.trash_orphans(folder, self._settings.orphan_age_seconds), VERIFY_TIMEOUT_SECONDS
            )
        present.folder = following
        if present.folder < ORPHAN_FOLDERS:
            await self._keep(drive, present)
            return min(
                self._settings.scan_longest_rest_seconds,
                self._settings.scan_pass_seconds * FOLDERS_SHARE / ORPHAN_FOLDERS,
            )
        now_ms = self._clock.now_ms()
        state.present = ScanPass(
            present.drive_id,
            now_ms,
            last_ended_ms=now_ms,
            last_began_ms=present.began_ms,
            last_registers=present.registers,
        )
        await self._keep(drive, state.present)
        return None

    def _rest_seconds(self, drive: OwnDrive, registers: int, read_bytes: int, present: ScanPass) -> float:
        """So that the registers, and the bytes, are spread over the pass."""
        status = drive.status()
        seconds = self._settings.scan_pass_seconds * BYTES_SHARE
        rate = max(LEAST_BYTES_PER_SECOND, status.used_bytes / seconds)
        total = max(present.last_registers, status.registers, present.registers, 1)
        for_registers = min(self._settings.scan_longest_rest_seconds, seconds * registers / total)
        return max(self._settings.scan_rest_seconds, min(for_registers, seconds), read_bytes / rate)

    # ---------------------------------------------------------------- what is told

    def progress(self, state: ScanState, registers_total: int) -> ScannerProgress:
        present = state.present
        if present is None:
            return ScannerProgress()
        total = max(present.last_registers, registers_total, present.registers, 1)
        walked = min(1.0, present.registers / total) if present.folder < 0 else 1.0
        folders = max(0, present.folder) / ORPHAN_FOLDERS
        return ScannerProgress(
            fraction=(1 - FOLDERS_SHARE) * walked + FOLDERS_SHARE * folders,
            pass_began_ms=present.began_ms,
            last_pass_ended_ms=present.last_ended_ms,
            last_pass_seconds=(present.last_ended_ms - present.last_began_ms) / 1000 if present.last_ended_ms else 0.0,
            registers=state.registers,
            bytes_verified=state.bytes_verified,
            rotten_found=state.rotten,
            not_whole_found=state.not_whole,
            orphans_removed=state.orphans,
            parts_removed=state.parts,
        )


def _shard_sizes(held: Held) -> dict[bytes, int]:
    """About how large each shard of a version is, by data id."""
    try:
        found = record.decode(held.record)
    except record.RecordCorrupt:
        return {}
    if found.geometry is None:
        return {}
    return {extent.data_id: extent.size_bytes // found.geometry.data_shards for extent in found.extents}
