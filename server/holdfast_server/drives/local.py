"""The local drive: a folder with a table of records and shard files, behind the drive port.

This module is the life cycle and the wiring; the parts have the work:
`folder_layout` and `identity` (whose drive is this), `engine` (the table), `group_commit` (nothing is answered
before it is durable), `register_verbs` and `rules` (what is accepted), `point_reads` and `table_walk` (answers
from durable rows only), `shard_files` (staged and placed shards), `trash` (reclaim), `space`.

Life cycle.  `open` never fails: what it finds is the drive's state.  BLANK waits for `format` (a new pool) or
`adopt` (a replacement, HEALING until a heal pass is complete); FAULTY says why and stays so until the process
opens it again: after a failed fsync, a failed read of the table or a vanished identity nothing this process
believes about the drive can be trusted.

Nothing here blocks the event loop: the table is written by one thread, read by others, and shard files have
threads of their own; all are bounded.  One drive belongs to one event loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec

from holdfast_server.clock.port import Clock
from holdfast_server.drives import folder_layout, keys, register_rows
from holdfast_server.drives.durable_files import FolderLock, FolderLocked, FolderSync
from holdfast_server.drives.engine import Engine, EngineError
from holdfast_server.drives.group_commit import GroupCommit, Transaction
from holdfast_server.drives.identity import Identity, IdentityError, IdentityGuard, make_identity
from holdfast_server.drives.point_reads import PointReads
from holdfast_server.drives.port import (
    CommitMode,
    CommitReply,
    CommitRequest,
    CommitStatus,
    DriveError,
    DriveFaulty,
    DriveState,
    DriveStatus,
    FenceReply,
    PrepareReply,
    QueryReply,
    Register,
    ScanPage,
    ScanRequest,
)
from holdfast_server.drives.register_verbs import RegisterVerbs
from holdfast_server.drives.shard_files import ShardFiles
from holdfast_server.drives.slot import Slot, SlotMemory
from holdfast_server.drives.space import Space
from holdfast_server.drives.table_walk import TableWalk
from holdfast_server.drives.trash import RECLAIM_DELAY_SECONDS, Trash

SHARD_WRITE_THREADS = 4
SHARD_READ_THREADS = 4
POINT_READ_THREADS = 2
CHECK_INTERVAL_SECONDS = 1.0
ORPHANS_PER_BATCH = 64
_SLOT = keys.META + b"slot/"
_KEPT = keys.META + b"kept/"

T = TypeVar("T")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class DriveSettings:
    reclaim_delay_seconds: float = RECLAIM_DELAY_SECONDS
    """How long a shard that no record names stays readable; longer than any read takes to get going."""
    reap_interval_seconds: float | None = 5.0
    """Between two passes of reclaim; None: only when `reap` is called."""
    reserve_bytes: int | None = None
    """Room that new data may not use; None: `space.RESERVE_BYTES` or 1 %, whichever is more."""


class _Parts:
    """What an opened, formatted drive consists of."""

    def __init__(self, drive: LocalDrive, engine: Engine, guard: IdentityGuard) -> None:
        name, clock, settings = str(drive.path), drive._clock, drive._settings
        self.engine = engine
        self.guard = guard
        self.space = Space(drive.path, clock, settings.reserve_bytes)
        self.space.refresh()
        self.shards = ShardFiles(drive.path, clock, self.space, drive._set_faulty)
        self.shards.tidy(lambda data_id: bool(engine.items(keys.REFERENCE + data_id, limit=1)))
        self.trash = Trash(engine, clock, settings.reclaim_delay_seconds)
        self.verbs = RegisterVerbs(engine, clock, self.trash, self.shards, self.space, guard.identity.healing)
        self.point_readers = ThreadPoolExecutor(POINT_READ_THREADS, f"{name}-query")
        self.walker = ThreadPoolExecutor(1, f"{name}-scan")
        self.shard_writers = ThreadPoolExecutor(SHARD_WRITE_THREADS, f"{name}-write")
        self.shard_readers = ThreadPoolExecutor(SHARD_READ_THREADS, f"{name}-read")
        self.commits = GroupCommit(engine, check_identity=guard.check, on_fault=drive._set_faulty, name=name)
        self.reads = PointReads(engine, self.commits, self.verbs, self.point_readers, drive._failed)
        self.walk = TableWalk(engine, self.commits, self.walker)
        self.staging_sync = FolderSync(self.shards.staging_folder, self.shard_writers)

    def close(self) -> None:
        """Blocks until what is under way has ended."""
        self.commits.join()
        for executor in (self.point_readers, self.walker, self.shard_readers, self.shard_writers):
            executor.shutdown(wait=True)
        self.shards.close()
        try:
            self.engine.close()
        except EngineError as error:
            log.warning("closing the drive: %s", error)


class LocalDrive:
    """`port.Drive` on a folder of this machine.  Open with `await LocalDrive.open(…)`."""

    local = True

    def __init__(self, path: Path, slot: Slot, clock: Clock, settings: DriveSettings) -> None:
        self.path = path
        self.slot = slot
        self.pool = slot.pool
        self.set_index = slot.set_index
        self.position = slot.position
        self._clock = clock
        self._settings = settings
        self._parts: _Parts | None = None
        self._lock: FolderLock | None = None
        self._fault: str | None = None
        self._closed = False
        self._background: asyncio.Task[None] | None = None
        self._reaping = asyncio.Lock()

    # --- life cycle

    @classmethod
    async def open(cls, path: Path, slot: Slot, clock: Clock, settings: DriveSettings | None = None) -> LocalDrive:
        """The drive in folder `path`, in whatever state it is; never raises for a bad drive (see `status`).

        The folder must exist: it is a mount, and one that is missing must not be made up.
        """
        drive = cls(path, slot, clock, settings or DriveSettings())
        await asyncio.to_thread(drive._guarded, drive._open)
        drive._start_background()
        return drive

    async def format(self, drive_id: bytes, incarnation: int) -> None:
        """Make a blank drive of a new pool FULL.  Permission to do so is the caller's business (rule 11).

        Raises DriveError if it is not blank, or if it fails (the drive is FAULTY then).
        """
        await self._form(make_identity(self.slot, drive_id, incarnation, healing=False), 0)

    async def adopt(self, drive_id: bytes, incarnation: int, watermark: int) -> None:
        """Make a blank drive a replacement: HEALING, nothing at or below `watermark` accepted unseen (rule 11)."""
        await self._form(make_identity(self.slot, drive_id, incarnation, healing=True), watermark)

    def set_aside(self, reason: str) -> None:
        """Serve nothing any more: the pod has learnt that this drive must not be used."""
        self._set_faulty(reason)

    async def close(self) -> None:
        """End cleanly; idempotent.  Verbs under way are finished, later ones refused."""
        if self._closed:
            return
        self._closed = True
        if self._background is not None:
            self._background.cancel()
            await asyncio.wait((self._background,))
        if self._parts is not None:
            self._parts.commits.refuse()
            await asyncio.to_thread(self._parts.close)
        if self._lock is not None:
            self._lock.close()

    def _open(self) -> None:
        folder_layout.check_folder(self.path)
        self._lock = FolderLock(self.path / folder_layout.LOCK_FILE)
        identity = folder_layout.find_identity(self.path, self.slot)
        if identity is not None:
            engine = folder_layout.open_engine(self.path, identity)
            self._parts = _Parts(self, engine, IdentityGuard(self.path, identity))

    async def _form(self, identity: Identity, watermark: int) -> None:
        if self.status().state is not DriveState.BLANK or self._closed:
            raise DriveError(f"{self.path} is not a blank drive: {self.status().message or self.status().state.name}")

        def form() -> None:
            engine = folder_layout.form(self.path, identity, watermark)
            self._parts = _Parts(self, engine, IdentityGuard(self.path, identity))

        await asyncio.to_thread(self._guarded, form)
        if self._fault is not None:
            raise DriveFaulty(self._fault)

    def _guarded(self, step: Callable[[], None]) -> None:
        """Run a step of the life cycle; a failure sets the drive aside."""
        try:
            step()
        except (OSError, IdentityError, EngineError, FolderLocked, DriveError, ValueError) as error:
            self._set_faulty(str(error))

    def _set_faulty(self, message: str) -> None:
        """From any thread; the first reason stays."""
        if self._fault is None:
            self._fault = message
            log.error("drive %s (%s) is set aside: %s", self.path, self.slot, message)

    def _failed(self, error: Exception) -> DriveError:
        """What a verb raises for an error of the table or the file system; all but a DriveError are faults."""
        if isinstance(error, DriveError):
            return error
        if self._closed:
            return DriveError(f"{self.path} is closed")
        self._set_faulty(str(error) if isinstance(error, EngineError | OSError) else repr(error))
        return DriveFaulty(self._fault or "")

    def _opened(self) -> _Parts:
        if self._fault is not None:
            raise DriveFaulty(self._fault)
        if self._closed:
            raise DriveError(f"{self.path} is closed")
        if self._parts is None:
            raise DriveFaulty(f"{self.path} is blank: it has neither been formatted nor adopted")
        return self._parts

    # --- what is known without waiting

    def status(self) -> DriveStatus:
        parts = self._parts
        identity = parts.guard.identity if parts is not None else None
        if self._fault is not None:
            state = DriveState.FAULTY
        elif parts is None:
            state = DriveState.BLANK
        else:
            state = DriveState.HEALING if parts.verbs.healing else DriveState.FULL
        room = parts.space.room if parts is not None else None
        return DriveStatus(
            state,
            identity.id_bytes if identity else b"",
            identity.incarnation if identity else 0,
            self._fault or "",
            room.total_bytes if room else 0,
            room.available_bytes if room else 0,
            room.used_bytes if room else 0,
        )

    @property
    def greatest_stamp(self) -> int:
        """The greatest stamp this drive ever accepted, fenced or dropped; the pod's clock starts above it."""
        return self._parts.verbs.greatest_stamp if self._parts is not None else 0

    @property
    def repair_queue_length(self) -> int:
        return self._parts.verbs.repairs.length if self._parts is not None else 0

    # --- registers

    async def query(self, register: Register, with_inline: bool) -> QueryReply:
        return await self._opened().reads.query(keys.row_key(register), with_inline)

    async def commit(self, request: CommitRequest) -> CommitReply:
        parts = self._opened()
        row = keys.row_key(request.register)

        healing = request.mode is CommitMode.HEAL

        def place_shards(reply: CommitReply) -> CommitReply:
            # Behind the flush: until then a crash must find unnamed shards where start-up removes them.
            if reply.status is CommitStatus.OK and request.held.data_ids and not healing:
                parts.shard_writers.submit(parts.shards.place, request.held.data_ids)
            return reply

        reply = await parts.commits.submit(
            register_rows.wanted(row), lambda transaction: parts.verbs.commit(transaction, row, request), place_shards
        )
        if healing and reply.status is CommitStatus.OK and request.held.data_ids:
            # A rebuilt shard replaces one of the same name: until it is in place, reads find the rotten one.
            await self._on_thread(parts.shard_writers, lambda: parts.shards.place(request.held.data_ids))
        return reply

    async def note(self, register: Register, stamp: int, whole: bool) -> None:
        await self._on_register(
            register, lambda verbs, transaction, row: verbs.note(transaction, register, row, stamp, whole)
        )

    async def prepare(self, register: Register, expected: int, lease: bytes, duration_seconds: float) -> PrepareReply:
        return await self._on_register(
            register, lambda verbs, transaction, row: verbs.prepare(transaction, row, expected, lease, duration_seconds)
        )

    async def release(self, register: Register, lease: bytes) -> None:
        await self._on_register(register, lambda verbs, transaction, row: verbs.release(transaction, row, lease))

    async def fence(self, register: Register, stamp: int) -> FenceReply:
        return await self._on_register(register, lambda verbs, transaction, row: verbs.fence(transaction, row, stamp))

    async def remove(self, register: Register, stamp: int) -> None:
        await self._on_register(register, lambda verbs, transaction, row: verbs.remove(transaction, row, stamp))

    async def drop(self, register: Register, stamp: int) -> None:
        await self._on_register(register, lambda verbs, transaction, row: verbs.drop(transaction, row, stamp))

    async def scan(self, request: ScanRequest) -> ScanPage:
        parts = self._opened()
        try:
            return await parts.walk.page(request, parts.verbs.healing)
        except Exception as error:
            raise self._failed(error) from error

    async def spaces(self, after: bytes, limit: int) -> list[bytes]:
        parts = self._opened()
        try:
            return await parts.walk.spaces(after, limit)
        except Exception as error:
            raise self._failed(error) from error

    async def _on_register(self, register: Register, work: Callable[[RegisterVerbs, Transaction, bytes], T]) -> T:
        parts = self._opened()
        row = keys.row_key(register)
        return await parts.commits.submit(
            register_rows.wanted(row), lambda transaction: work(parts.verbs, transaction, row)
        )

    # --- repair and healing

    async def repairs(self, limit: int) -> list[Register]:
        parts = self._opened()
        rows = await parts.commits.submit((), lambda transaction: parts.verbs.repairs.oldest(transaction, limit))
        return [keys.decode_row_key(row) for row in rows]

    async def repaired(self, register: Register, stamp: int) -> None:
        await self._on_register(register, lambda verbs, transaction, row: verbs.repaired(transaction, row, stamp))

    async def finish_healing(self, incarnation: int) -> None:
        parts = self._opened()

        def finish(transaction: Transaction) -> None:
            identity = parts.guard.identity
            if identity.incarnation == incarnation and identity.healing:
                parts.guard.rewrite(msgspec.structs.replace(identity, state="full"))
                parts.verbs.healing = False

        await parts.commits.submit((), finish)

    # --- shards

    async def stage(self, data_id: bytes, index: int, blocks: Sequence[bytes], hashes: Sequence[bytes]) -> None:
        parts = self._opened()
        await self._on_thread(parts.shard_writers, lambda: parts.shards.stage(data_id, index, blocks, hashes))

    async def seal(self, data_id: bytes) -> None:
        parts = self._opened()
        if not await self._on_thread(parts.shard_writers, lambda: parts.shards.seal_bytes(data_id)):
            return
        try:
            await parts.staging_sync.sync()
        except OSError as error:
            raise self._failed(error) from error
        parts.shards.finish_seal(data_id)

    async def discard(self, data_id: bytes) -> None:
        parts = self._opened()
        await self._on_thread(parts.shard_writers, lambda: parts.shards.discard(data_id))

    async def read_blocks(self, data_id: bytes, first: int, count: int) -> tuple[list[bytes], list[bytes]]:
        parts = self._opened()
        # Before the read: reclaim must see it even if it looks while the read is under way.
        parts.trash.recent_reads.add(data_id)
        return await self._on_thread(parts.shard_readers, lambda: parts.shards.read(data_id, first, count))

    async def _on_thread(self, executor: ThreadPoolExecutor, work: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(executor, work)
        except Exception as error:
            raise self._failed(error) from error

    # --- what the scanner asks

    async def verify_shard(self, data_id: bytes) -> int:
        """Read a shard from the disk against its hashes; its size in bytes.  Raises ShardMissing, ShardCorrupt."""
        parts = self._opened()
        return await self._on_thread(parts.shard_readers, lambda: parts.shards.verify(data_id))

    async def trash_orphans(self, folder: int, age_seconds: float) -> int:
        """Have the shard files of one folder reclaimed that are so old and that nothing names; how many.

        Folders 0 to 255 are those of `shards/`, 256 is `staging/`.  They go through the trash, which looks once
        more before it unlinks.
        """
        parts = self._opened()
        aged = await self._on_thread(parts.shard_readers, lambda: parts.shards.aged(folder, age_seconds))
        count = 0
        for start in range(0, len(aged), ORPHANS_PER_BATCH):
            some = aged[start : start + ORPHANS_PER_BATCH]
            count += await parts.commits.submit((), lambda t, some=some: parts.trash.add_unnamed(t, some))  # type: ignore[misc]
        return count

    # --- what the pod keeps on its drives

    async def keep(self, name: bytes, value: bytes) -> None:
        """A fact of the pod's about this drive (how far a pass over it is).  Lazy: not synced."""
        parts = self._opened()
        await parts.commits.submit((), lambda transaction: transaction.put(_KEPT + name, value))

    async def kept(self, name: bytes) -> bytes | None:
        parts = self._opened()
        return await parts.commits.submit((_KEPT + name,), lambda transaction: transaction.get(_KEPT + name))

    async def remember(self, slots: Iterable[SlotMemory]) -> None:
        """Keep, durably, what the pod knows of drive slots; an older incarnation does not replace a newer."""
        parts = self._opened()

        def keep(transaction: Transaction) -> None:
            for slot in slots:
                key = _SLOT + msgspec.msgpack.encode((slot.pool, slot.set_index, slot.position))
                known = transaction.get(key)
                if known is None or _decode_slot(known).incarnation < slot.incarnation:
                    transaction.put(key, msgspec.msgpack.encode(slot))
                    transaction.durable = True

        await parts.commits.submit((), keep)

    async def remembered(self) -> list[SlotMemory]:
        parts = self._opened()
        found = await parts.commits.submit((), lambda transaction: parts.engine.items(_SLOT))
        return [_decode_slot(value) for _, value in found]

    # --- background work

    async def reap(self) -> int:
        """One pass: drop the parts of ended uploads, remove forgotten staged shards, unlink shards whose delay
        is over.  Returns how many files were unlinked."""
        parts = self._opened()
        async with self._reaping:
            while await parts.commits.submit((), parts.verbs.sweep_parts):
                pass
            await self._on_thread(parts.shard_writers, parts.shards.discard_idle)
            unlinked = 0
            while chosen := await parts.commits.submit((), parts.trash.condemn):
                await self._on_thread(parts.shard_writers, lambda: _unlink(parts, chosen))
                await parts.commits.submit((), lambda transaction: parts.trash.unlinked(transaction, chosen))
                unlinked += len(chosen)
            return unlinked

    def _start_background(self) -> None:
        if self._settings.reap_interval_seconds is not None:
            self._background = asyncio.create_task(self._run_background(self._settings.reap_interval_seconds))

    async def _run_background(self, reap_interval_seconds: float) -> None:
        reaped = self._clock.monotonic_seconds()
        while self._fault is None:
            await self._clock.sleep(CHECK_INTERVAL_SECONDS)
            if self._parts is None:
                continue
            try:
                await self._on_thread(self._parts.point_readers, self._check)
                if self._clock.monotonic_seconds() - reaped >= reap_interval_seconds:
                    await self.reap()
                    reaped = self._clock.monotonic_seconds()
            except DriveFaulty as error:
                self._set_faulty(str(error))
            except DriveError as error:
                log.warning("background work on %s: %s", self.path, error)

    def _check(self) -> None:
        """Without writes nobody else would notice that the drive has gone."""
        assert self._parts is not None
        self._parts.guard.check()
        self._parts.space.refresh()


def _unlink(parts: _Parts, chosen: list[tuple[bytes, bytes]]) -> None:
    for _, data_id in chosen:
        parts.shards.unlink(data_id)


def _decode_slot(value: bytes) -> SlotMemory:
    return msgspec.msgpack.decode(value, type=SlotMemory)
