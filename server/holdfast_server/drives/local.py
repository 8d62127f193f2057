"""The local drive: a folder with a table of records and shard files, behind the drive port.

This module is the life cycle; the parts have the work (`parts` puts them together):
`folder_layout` and `identity` (whose drive is this), `engine` (the table), `group_commit` (nothing is answered
before it is durable), `register_verbs` and `rules` (what is accepted), `point_reads` and `table_walk` (answers
from durable rows only), `shard_files` (staged and placed shards), `trash` (reclaim), `space`.

Life cycle.  `open` never fails: what it finds is the drive's state.  BLANK waits for `format` (a new pool) or
`adopt` (a replacement, HEALING until a heal pass is complete).  FAULTY says why and stays so for as long as this
object lives: after a failed fsync, a failed read of the table or a vanished identity nothing this process believes
about the drive can be trusted; the pod opens the folder anew, as a new object (`faults` says when).  OFFLINE is a
drive that does not answer: it is being opened, or a call into the disk hangs (`disk_threads`).  It keeps what it
has and comes back by itself, after a probe.

Nothing here blocks the event loop: the table is written by one thread, read by others, and shard files have
threads of their own; all are bounded.  One drive belongs to one event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from holdfast_server.clock.port import Clock
from holdfast_server.drives import ballast, folder_layout, keys, register_rows
from holdfast_server.drives.anchor import Anchor
from holdfast_server.drives.disk_threads import HANG_SECONDS, WATCH_INTERVAL_SECONDS, CallTimes, DiskThreads
from holdfast_server.drives.durable_files import FolderLock, FolderLocked
from holdfast_server.drives.engine import Engine, EngineError
from holdfast_server.drives.faults import NO_ROOM_ERRORS, Fault, FaultKind, is_passing, kind_of
from holdfast_server.drives.group_commit import Transaction
from holdfast_server.drives.identity import Identity, IdentityError, IdentityGuard, make_identity
from holdfast_server.drives.parts import DriveSettings, Parts, Surroundings
from holdfast_server.drives.port import (
    STAGED_FOR_COMMIT_SECONDS,
    Block,
    CommitMode,
    CommitReply,
    CommitRequest,
    CommitStatus,
    DriveError,
    DriveFaulty,
    DriveFull,
    DriveOffline,
    DriveState,
    DriveStatus,
    FenceReply,
    ListPage,
    ListRequest,
    Note,
    PrepareReply,
    QueryReply,
    Register,
    ScanPage,
    ScanRequest,
    Tombstone,
    TombstonePage,
    TombstoneReply,
    TombstoneRequest,
    TombstoneState,
)
from holdfast_server.drives.register_verbs import RegisterVerbs
from holdfast_server.drives.shard_reads import Fetched
from holdfast_server.drives.slot import Slot, SlotMemory
from holdfast_server.memory.pipes import Pipes

CHECK_INTERVAL_SECONDS = 1.0
OPEN_PATIENCE_SECONDS = 10.0
"""How long a pod waits for a drive that is being opened; after that it goes on without it."""
HANGS_REMEMBERED_SECONDS = 600.0
MAX_HOLD_OFF_SECONDS = 60.0
"""A drive that has hung again and again is left alone for longer each time before it is used again."""
ORPHANS_PER_BATCH = 32
TOMBSTONES_PER_BATCH = 128
"""One operation of the committing thread holds up those behind it for a few milliseconds at most."""
UNLINKS_PER_JOB = 16
_SLOT = keys.META + b"slot/"
_KEPT = keys.META + b"kept/"
_PROBE = keys.META + b"probe"

__all__ = ["DriveSettings", "LocalDrive"]

T = TypeVar("T")

log = logging.getLogger(__name__)


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
        self._loop = asyncio.get_running_loop()
        self._parts: Parts | None = None
        self._lock: FolderLock | None = None
        self._anchor: Anchor | None = None
        self._retired = False
        self._fault: Fault | None = None
        self._stuck: str | None = None
        """Why it does not answer now."""
        self._hangs: deque[float] = deque()
        self._footprint: object = None
        self._life = ThreadPoolExecutor(1, f"{path}-life")
        """Opening, forming and closing, one after the other: a folder that hangs must hold up no other drive."""
        self._looking: asyncio.Future[bool] | None = None
        self._closing: asyncio.Task[None] | None = None
        self._background: list[asyncio.Task[None]] = []
        self._watching: asyncio.Task[None] | None = None
        self._reaping = asyncio.Lock()

    # --- life cycle

    @classmethod
    async def open(cls, path: Path, slot: Slot, clock: Clock, settings: DriveSettings | None = None) -> LocalDrive:
        """The drive in folder `path`, in whatever state it is; never raises for a bad drive (see `status`).

        The folder must exist: it is a mount, and one that is missing must not be made up.  Where opening takes
        longer than `OPEN_PATIENCE_SECONDS`, the drive is OFFLINE until it has been opened.
        """
        drive = cls(path, slot, clock, settings or DriveSettings())
        drive._stuck = "it is being opened"
        opening = asyncio.create_task(drive._open_and_watch())
        drive._background.append(opening)
        await asyncio.wait((opening,), timeout=OPEN_PATIENCE_SECONDS)
        return drive

    async def _open_and_watch(self) -> None:
        try:
            await self._in_life(lambda: self._guarded(self._open))
        except RuntimeError as error:  # no thread can be begun
            self._set_fault(Fault(kind_of(error), str(error)))
        self._stuck = None
        self._watching = asyncio.create_task(self._watch_calls())
        if self._settings.reap_interval_seconds is not None:
            # Apart: reclaiming what many deletes left takes minutes, and the drive may fail, or have room, meanwhile.
            self._background.append(asyncio.create_task(self._repeat(CHECK_INTERVAL_SECONDS, self._look_after)))
            self._background.append(asyncio.create_task(self._repeat(self._settings.reap_interval_seconds, self.reap)))

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
        self._set_fault(Fault(FaultKind.RETIRED, reason))

    async def close(self) -> None:
        """End cleanly; may be called again.  Verbs under way are finished, later ones refused.

        As long as the disk takes: a caller that gives up leaves the closing under way.
        """
        if self._closing is None:
            self._closing = asyncio.create_task(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        for task in self._background:
            task.cancel()
        if self._background:
            await asyncio.wait(self._background)
        # Behind an opening or forming that is still under way, whose parts are closed with the rest.
        try:
            await self._in_life(lambda: None)
        except RuntimeError:  # there never was a thread for it, so nothing was opened, and nothing is to be any more
            self._life.shutdown(wait=False, cancel_futures=True)
        if self._parts is not None:
            await self._parts.closed(self._in_life, faulty=self._fault is not None)
        if self._watching is not None:
            self._watching.cancel()  # not before: what is under way may hang until then
            await asyncio.wait((self._watching,))
        self._let_go()
        self._life.shutdown(wait=False)

    def retire_table(self) -> None:
        """Blocks; once closed.  Leave the folder blank, with its shards, for a replacement to be adopted into it.
        Whether the set can rebuild it is the caller's business.  Raises DriveError, OSError."""
        folder_layout.retire_table(self.path, self.slot, self._fault.message if self._fault else "")

    def _let_go(self) -> None:
        """Of the folder: nothing in it is in use."""
        if self._lock is not None:
            self._lock.close()
        if self._anchor is not None:
            self._anchor.close()

    def _open(self) -> None:
        """A folder that cannot be used is not held either: whoever puts it right has to be able to unmount it."""
        try:
            self._open_folder()
        except BaseException:
            self._let_go()
            raise

    def _open_folder(self) -> None:
        folder_layout.check_folder(self.path)
        self._anchor = Anchor(self.path)
        inside = self._anchor.inside
        self._footprint = folder_layout.footprint(inside)
        self._lock = FolderLock(inside / folder_layout.LOCK_FILE)
        identity = folder_layout.find_identity(inside, self.slot)
        if identity is None:
            self._retired = folder_layout.is_retired(inside)
            return
        try:
            engine = folder_layout.open_engine(inside, identity)
        except EngineError as error:
            if error.kind is not FaultKind.NO_ROOM or not ballast.release(inside):
                raise
            log.warning("%s is full: the ballast was released to open it", self.path)
            engine = folder_layout.open_engine(inside, identity)
        self._take_into_use(engine, identity)

    def _take_into_use(self, engine: Engine, identity: Identity) -> None:
        assert self._anchor is not None
        around = Surroundings(
            path=self.path, inside=self._anchor.inside, clock=self._clock, settings=self._settings, loop=self._loop,
            on_fault=self._set_fault, failed=self._failed,
        )  # fmt: skip
        try:
            self._parts = Parts(around, engine, IdentityGuard(self.path, identity))
        except BaseException:
            engine.close()
            raise
        self._footprint = folder_layout.footprint(self.path)

    async def _form(self, identity: Identity, watermark: int) -> None:
        if self.status().state is not DriveState.BLANK or self._closing is not None:
            raise DriveError(f"{self.path} is not a blank drive: {self.status().message or self.status().state.name}")

        def form() -> None:
            assert self._anchor is not None
            if folder_layout.footprint(self.path) is not None:
                raise DriveFaulty(f"{self.path} has an identity by now")
            self._take_into_use(folder_layout.form(self._anchor.inside, identity, watermark), identity)

        await self._in_life(lambda: self._guarded(form))
        if self._fault is not None:
            raise DriveFaulty(self._fault.message)

    def _in_life(self, step: Callable[[], None]) -> asyncio.Future[None]:
        return self._loop.run_in_executor(self._life, step)

    def _guarded(self, step: Callable[[], None]) -> None:
        """Run a step of the life cycle; a failure sets the drive aside."""
        try:
            step()
        except (OSError, IdentityError, EngineError, FolderLocked, DriveError, ValueError) as error:
            self._set_fault(Fault(kind_of(error), str(error)))
        except Exception as error:
            # Nobody thought of it and nobody awaits it: without a fault the drive would be "being opened" for ever.
            log.exception("%s: an error that should not be", self.path)
            self._set_fault(Fault(kind_of(error), repr(error)))

    def _set_fault(self, fault: Fault) -> None:
        """From any thread; the first reason stays."""
        if self._fault is None:
            if self._anchor is not None:
                fault = Fault(fault.kind, self._anchor.told(fault.message))
            self._fault = fault
            log.error("drive %s (%s) is set aside (%s): %s", self.path, self.slot, fault.kind.value, fault.message)

    def _failed(self, error: Exception) -> DriveError:
        """What a verb raises for an error of the table or the file system; all but a DriveError are faults, and but
        what passes by itself."""
        if isinstance(error, DriveError):
            return error
        if self._closing is not None:
            return DriveError(f"{self.path} is closed")
        message = str(error) if isinstance(error, EngineError | OSError) else repr(error)
        if is_passing(error):
            return DriveError(message)
        self._set_fault(Fault(kind_of(error), message))
        return DriveFaulty(self._fault.message if self._fault else "")

    def _opened(self) -> Parts:
        if self._fault is not None:
            raise DriveFaulty(self._fault.message)
        if self._closing is not None:
            raise DriveError(f"{self.path} is closed")
        if self._stuck is not None:
            raise DriveOffline(self._stuck)
        if self._parts is None:
            raise DriveFaulty(f"{self.path} is blank: it has neither been formatted nor adopted")
        return self._parts

    # --- a disk that does not answer

    async def _watch_calls(self) -> None:
        """Look when the oldest piece of work will have been under way for too long, and not before: what begins
        later, or has yet to begin, cannot hang earlier.

        Of a drive that is set aside or being closed, too: who waits for what hangs there is let go like any other, but
        it does not come back."""
        pause_seconds = WATCH_INTERVAL_SECONDS
        while True:
            await asyncio.sleep(pause_seconds)
            pause_seconds = WATCH_INTERVAL_SECONDS
            parts = self._parts
            if parts is None:
                if self._fault is not None:
                    return
                continue
            seconds, what = parts.watch.longest()
            if seconds >= HANG_SECONDS:
                self._hang(parts, what)
            elif self._stuck is not None and self._fault is None and self._closing is None:
                await self._come_back(parts)
            else:
                pause_seconds = max(WATCH_INTERVAL_SECONDS, HANG_SECONDS - seconds)

    def _hang(self, parts: Parts, what: str) -> None:
        if self._stuck is None:
            now = datetime.now(UTC).strftime("%H:%M:%S")
            self._stuck = f"does not answer since {now} UTC: {what} has been under way for over {HANG_SECONDS:g} s"
            self._hangs.append(self._loop.time())
            log.error("drive %s (%s) %s", self.path, self.slot, self._stuck)
        parts.stick(self._stuck)

    async def _come_back(self, parts: Parts) -> None:
        """What hung has ended: use the drive again if it answers now, for reading and for writing."""
        while self._hangs and self._loop.time() - self._hangs[0] > HANGS_REMEMBERED_SECONDS:
            self._hangs.popleft()
        times = len(self._hangs)
        if times > 1:
            await asyncio.sleep(min(MAX_HOLD_OFF_SECONDS, 2.0 ** (times - 2)))
        parts.resume()
        probe = asyncio.create_task(self._probe(parts))
        try:
            while not (await asyncio.wait((probe,), timeout=WATCH_INTERVAL_SECONDS))[0]:
                seconds, _ = parts.watch.longest()
                if seconds >= HANG_SECONDS and self._stuck is not None:
                    parts.stick(self._stuck)
        finally:
            probe.cancel()
        if probe.exception() is None:
            log.warning("drive %s (%s) answers again", self.path, self.slot)
            self._stuck = None

    async def _probe(self, parts: Parts) -> None:
        def write(transaction: Transaction) -> None:
            transaction.put(_PROBE, keys.number(self._clock.now_ms()))
            transaction.durable = True

        with contextlib.suppress(DriveFull):  # it answers: what a full drive still does, it does
            await parts.commits.submit((), write)
        await parts.shard_readers.run(parts.guard.check)

    # --- what is known without waiting

    @property
    def state(self) -> DriveState:
        if self._fault is not None:
            return DriveState.FAULTY
        if self._stuck is not None:
            return DriveState.OFFLINE
        if self._parts is None:
            return DriveState.BLANK
        return DriveState.HEALING if self._parts.verbs.healing else DriveState.FULL

    def status(self) -> DriveStatus:
        parts = self._parts
        identity = parts.guard.identity if parts is not None else None
        message, full = "", False
        if self._fault is not None:
            message = self._fault.message
        elif self._stuck is not None:
            message = self._stuck
        elif parts is not None:
            full = parts.space.full or parts.commits.no_room is not None
            message = self._remark(parts, full)
        room = parts.space.room if parts is not None else None
        return DriveStatus(
            self.state,
            identity.id_bytes if identity else b"",
            identity.incarnation if identity else 0,
            message,
            room.total_bytes if room else 0,
            room.available_bytes if room else 0,
            room.used_bytes if room else 0,
            full,
            parts.registers if parts is not None else 0,
        )

    def _remark(self, parts: Parts, full: bool) -> str:
        """What people should know of a drive that serves."""
        if parts.commits.no_room is not None:
            return "the disk is full to the last byte: nothing is written until there is room again"
        if full:
            return "full: takes no new data, deletes go on"
        if parts.verbs.healing and parts.damage:
            return f"filled anew from the other drives: {parts.damage}"
        if len(parts.verbs.damaged):
            return f"{len(parts.verbs.damaged)} records fail their checksum and wait for repair"
        return ""

    @property
    def call_times(self) -> CallTimes:
        """Of the work on its disk, since it was opened; for metrics."""
        return self._parts.watch.times if self._parts is not None else CallTimes()

    @property
    def fault_kind(self) -> FaultKind | None:
        """Why it was set aside; None while it is not."""
        return self._fault.kind if self._fault is not None else None

    @property
    def reopen_advised(self) -> bool:
        """It serves, and would serve better if it were opened anew."""
        return self._parts is not None and self._parts.reopen_advised

    @property
    def replaces(self) -> bool:
        """A blank drive whose table was damaged: whatever is remembered, it is no new one."""
        return self._parts is None and self._retired

    @property
    def hanging(self) -> bool:
        """Something into the disk is under way for too long; nothing can be closed now."""
        return self._stuck is not None

    async def folder_changed(self) -> bool:
        """Whether another identity, or none, is in the folder than when it was opened; False while it hangs."""

        def look() -> bool:
            try:
                return folder_layout.footprint(self.path) != self._footprint
            except (DriveError, OSError):
                return False

        if self._looking is None:
            # A pod asks one, too, that was closed when it had given up waiting for that.
            closed = self._closing is not None and self._closing.done()
            try:
                self._looking = self._loop.run_in_executor(None if closed else self._life, look)
            except RuntimeError:  # no thread can be begun
                return False
        await asyncio.wait((self._looking,), timeout=HANG_SECONDS)
        if not self._looking.done():
            return False
        looking, self._looking = self._looking, None
        return looking.result()

    @property
    def greatest_stamp(self) -> int:
        """The greatest stamp this drive ever accepted, fenced or dropped; the pod's clock starts above it."""
        return self._parts.verbs.greatest_stamp if self._parts is not None else 0

    @property
    def repair_queue_length(self) -> int:
        return self._parts.verbs.repairs.length if self._parts is not None else 0

    # --- registers

    def query(self, register: Register, with_inline: bool) -> Awaitable[QueryReply]:
        try:
            return self._opened().reads.query(keys.row_key(register), with_inline)
        except DriveError as error:
            return self._refused(error)

    async def query_many(self, registers: Sequence[Register], with_inline: bool) -> list[QueryReply]:
        # They pile up and are answered together (`point_reads`).
        return await asyncio.gather(*(self.query(register, with_inline) for register in registers))

    def commit(self, request: CommitRequest) -> Awaitable[CommitReply]:
        try:
            parts = self._opened()
        except DriveError as error:
            return self._refused(error)
        if request.mode is CommitMode.HEAL:
            return self._commit_healed(parts, request)
        return self._submit_commit(parts, request)

    def _submit_commit(self, parts: Parts, request: CommitRequest) -> asyncio.Future[CommitReply]:
        row = keys.row_key(request.register)

        def place(reply: CommitReply) -> CommitReply:
            _to_be_placed(parts, request, reply)
            return reply

        return parts.commits.submit(
            register_rows.wanted(row),
            lambda transaction: parts.verbs.commit(transaction, row, request),
            place if request.held.data_ids and request.mode is not CommitMode.HEAL else None,
        )

    def commit_many(self, requests: Sequence[CommitRequest]) -> Awaitable[list[CommitReply | None]]:
        try:
            parts = self._opened()
        except DriveError as error:
            return self._refused(error)
        found = [(keys.row_key(request.register), request) for request in requests]

        def place(replies: list[CommitReply | None]) -> list[CommitReply | None]:
            for request, reply in zip(requests, replies, strict=True):
                if reply is not None and request.held.data_ids:
                    _to_be_placed(parts, request, reply)
            return replies

        return parts.commits.submit_each(
            [key for row, _ in found for key in register_rows.wanted(row)],
            [partial(parts.verbs.commit, row=row, request=request) for row, request in found],
            place,
        )

    async def commit_with_shard(
        self, request: CommitRequest, blocks: Sequence[Block], hashes: Sequence[bytes]
    ) -> CommitReply:
        (data_id,) = request.held.data_ids
        began = self._clock.monotonic_seconds()
        await self.stage(data_id, 0, blocks, hashes, last=True)
        if self._clock.monotonic_seconds() - began > STAGED_FOR_COMMIT_SECONDS:
            raise DriveOffline(f"{self.path} took too long for the shard; its record was not begun")
        return await self.commit(request)

    async def _commit_healed(self, parts: Parts, request: CommitRequest) -> CommitReply:
        reply = await self._submit_commit(parts, request)
        if reply.status is CommitStatus.OK and request.held.data_ids:
            # A rebuilt shard replaces one of the same name: until it is in place, reads find the rotten one.
            await self._on_thread(parts.shard_writers, lambda: parts.shards.place(request.held.data_ids))
        return reply

    def _refused(self, error: DriveError) -> asyncio.Future[Any]:
        future = self._loop.create_future()
        future.set_exception(error)
        return future

    def note(self, register: Register, stamp: int, whole: bool) -> Awaitable[None]:
        return self.note_many(((register, stamp, whole),))

    def note_many(self, notes: Sequence[Note]) -> Awaitable[None]:
        try:
            parts = self._opened()
        except DriveError as error:
            return self._refused(error)
        found = [(keys.row_key(note[0]), note) for note in notes]

        def apply(transaction: Transaction) -> None:
            for row, (register, stamp, whole) in found:
                parts.verbs.note(transaction, register, row, stamp, whole)

        return parts.commits.submit_lazily([key for row, _ in found for key in register_rows.wanted(row)], apply)

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

    async def tombstones(self, request: TombstoneRequest) -> TombstonePage:
        parts = self._opened()
        try:
            return await parts.walk.tombstones(request)
        except DriveError:
            raise
        except Exception as error:
            raise self._failed(error) from error

    async def weigh_tombstones(self, tombstones: Sequence[Tombstone], settled_seconds: float) -> TombstoneReply:
        states: list[TombstoneState] = []
        healing = False
        for some in _in_batches(tombstones):
            reply = await self._on_tombstones(
                some, lambda verbs, transaction, found: verbs.weigh_tombstones(transaction, found, settled_seconds)
            )
            states += reply.states
            healing = healing or reply.healing
        return TombstoneReply(tuple(states), healing)

    async def drop_tombstones(self, tombstones: Sequence[Tombstone]) -> None:
        for some in _in_batches(tombstones):
            await self._on_tombstones(some, lambda verbs, transaction, found: verbs.drop_tombstones(transaction, found))

    async def _on_tombstones(
        self,
        tombstones: Sequence[Tombstone],
        work: Callable[[RegisterVerbs, Transaction, list[tuple[bytes, int]]], T],
    ) -> T:
        parts = self._opened()
        found = [(keys.row_key(tombstone.register), tombstone.stamp) for tombstone in tombstones]
        wanted = [key for row, _ in found for key in register_rows.wanted(row)]
        return await parts.commits.submit(wanted, lambda transaction: work(parts.verbs, transaction, found))

    async def scan(self, request: ScanRequest) -> ScanPage:
        parts = self._opened()
        try:
            return await parts.walk.scan_page(request, parts.verbs.healing)
        except DriveError:
            raise
        except Exception as error:
            raise self._failed(error) from error

    async def list_registers(self, request: ListRequest) -> ListPage:
        parts = self._opened()
        try:
            return await parts.walk.list_page(request, parts.verbs.healing)
        except DriveError:
            raise
        except Exception as error:
            raise self._failed(error) from error

    async def spaces(self, after: bytes, limit: int) -> list[bytes]:
        parts = self._opened()
        try:
            return await parts.walk.spaces(after, limit)
        except DriveError:
            raise
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

    async def repaired(self, whole: Sequence[tuple[Register, int]]) -> None:
        parts = self._opened()
        found = [(keys.row_key(register), stamp) for register, stamp in whole]
        wanted = [key for row, _ in found for key in register_rows.wanted(row)]

        def forget(transaction: Transaction) -> None:
            for row, stamp in found:
                parts.verbs.repaired(transaction, row, stamp)

        await parts.commits.submit(wanted, forget)

    async def finish_healing(self, incarnation: int) -> None:
        parts = self._opened()

        def finish(transaction: Transaction) -> None:
            identity = parts.guard.identity
            if identity.incarnation == incarnation and identity.healing:
                try:
                    parts.guard.rewrite(msgspec.structs.replace(identity, state="full"))
                except OSError as error:
                    # The file is what it was, and the drive as good as before.
                    if error.errno in NO_ROOM_ERRORS:
                        raise DriveFull(f"{self.path} cannot note that it is full: {error}") from error
                    if is_passing(error):
                        raise DriveError(f"{self.path} cannot note that it is full: {error}") from error
                    raise
                parts.verbs.healing = False

        await parts.commits.submit((), finish)
        assert self._anchor is not None
        inside = self._anchor.inside  # not what may be mounted over it by now
        await self._on_thread(parts.shard_writers, lambda: folder_layout.forget_damaged(inside), watched=False)

    # --- shards

    async def stage(
        self, data_id: bytes, index: int, blocks: Sequence[Block], hashes: Sequence[bytes], last: bool = False
    ) -> None:
        parts = self._opened()

        def stage() -> None:
            parts.shards.stage(data_id, index, blocks, hashes, last)
            if last:
                self._seal(parts, data_id)

        await self._on_thread(parts.shard_writers, stage)

    async def seal(self, data_id: bytes) -> None:
        parts = self._opened()
        await self._on_thread(parts.shard_writers, lambda: self._seal(parts, data_id))

    def _seal(self, parts: Parts, data_id: bytes) -> None:
        """On a thread: bytes first, then the name."""
        if parts.shards.seal_bytes(data_id):
            parts.watch.go_on()
            parts.staging_sync.sync()
            parts.shards.finish_seal(data_id)

    async def discard(self, data_id: bytes) -> None:
        parts = self._opened()
        await self._on_thread(parts.shard_writers, lambda: parts.shards.discard(data_id))

    async def read_blocks(self, data_id: bytes, first: int, count: int) -> tuple[list[Block], list[bytes]]:
        parts = self._opened()
        # Before the read: reclaim must see it even if it looks while the read is under way.
        parts.trash.recent_reads.add(data_id)
        return await self._on_thread(parts.shard_readers, lambda: parts.shards.read(data_id, first, count))

    async def fetch_blocks(self, data_id: bytes, first: int, count: int, pipes: Pipes | None) -> Fetched:
        """What `read_blocks` reads, not compared with its hashes: for another pod, which does that."""
        parts = self._opened()
        parts.trash.recent_reads.add(data_id)
        return await self._on_thread(parts.shard_readers, lambda: parts.shards.fetch(data_id, first, count, pipes))

    async def _on_thread(self, threads: DiskThreads, work: Callable[[], T], watched: bool = True) -> T:
        try:
            return await threads.run(work, watched)
        except DriveError:
            raise
        except Exception as error:
            raise self._failed(error) from error

    # --- what the scanner asks

    async def verify_shard(self, data_id: bytes) -> int:
        """Read a shard from the disk against its hashes; its size in bytes.  Raises ShardMissing, ShardCorrupt."""
        parts = self._opened()
        return await self._on_thread(parts.verifiers, lambda: parts.shards.verify(data_id), watched=False)

    async def trash_orphans(self, folder: int, age_seconds: float) -> int:
        """Have the shard files of one folder reclaimed that are so old and that nothing names; how many.

        Folders 0 to 255 are those of `shards/`, 256 is `staging/`.  They go through the trash, which looks once
        more before it unlinks.
        """
        parts = self._opened()
        aged = await self._on_thread(parts.verifiers, lambda: parts.shards.aged(folder, age_seconds), watched=False)
        count = 0
        for start in range(0, len(aged), ORPHANS_PER_BATCH):
            some = aged[start : start + ORPHANS_PER_BATCH]
            count += await parts.commits.submit((), lambda t, some=some: parts.verbs.trash_unnamed(t, some))  # type: ignore[misc]
        return count

    # --- what the pod keeps on its drives

    async def keep(self, name: bytes, value: bytes, durable: bool = False) -> None:
        """A fact of the pod's about this drive (how far a pass over it is).  Lazy unless `durable`: not synced."""
        parts = self._opened()

        def put(transaction: Transaction) -> None:
            transaction.put(_KEPT + name, value)
            transaction.durable = transaction.durable or durable

        await parts.commits.submit((), put)

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
        """One pass: drop the parts of ended uploads, remove forgotten staged shards, reclaim shards whose delay
        is over.  Returns how many."""
        parts = self._opened()
        async with self._reaping:
            with contextlib.suppress(DriveFull):  # what may go all the same makes room
                while await parts.commits.submit((), parts.verbs.sweep_parts):
                    pass
            await self._on_thread(parts.shard_writers, parts.shards.discard_idle)
            await self._trim_spares(parts)
            reclaimed, more = 0, True
            while more:
                chosen, more = await parts.commits.submit((), parts.trash.condemn)
                unnamed = bool(chosen) and parts.shards.spares.wanted and await self._settled(parts)
                for start in range(0, len(chosen), UNLINKS_PER_JOB):
                    some = chosen[start : start + UNLINKS_PER_JOB]
                    await self._on_thread(parts.shard_writers, partial(_reclaim, parts, some, unnamed))
                    await self._trim_spares(parts)
                if chosen:
                    await parts.commits.submit((), partial(parts.trash.unlinked, chosen=chosen))
                reclaimed += len(chosen)
            return reclaimed

    async def _trim_spares(self, parts: Parts) -> None:
        while parts.shards.spares.surplus:
            await self._on_thread(parts.shard_writers, partial(parts.shards.spares.trim, UNLINKS_PER_JOB))

    async def _settled(self, parts: Parts) -> bool:
        """Whether all that the table says is durable; where there is no room it need not be."""

        def settle(transaction: Transaction) -> None:
            transaction.durable = True

        try:
            await parts.commits.submit((), settle)
        except DriveFull:
            return False
        return True

    async def _repeat(self, seconds: float, work: Callable[[], Awaitable[object]]) -> None:
        while self._fault is None:
            await self._clock.sleep(seconds)
            if self._parts is None or self._stuck is not None:
                continue
            try:
                await work()
            except DriveFaulty as error:
                self._set_fault(Fault(kind_of(error), str(error)))
            except DriveFull:
                continue  # its status says so
            except DriveError as error:
                log.warning("background work on %s: %s", self.path, error)

    async def _look_after(self) -> None:
        parts = self._opened()
        await self._on_thread(parts.point_readers, self._check)

    def _check(self) -> None:
        """Without writes nobody else would notice that the drive has gone."""
        assert self._parts is not None
        self._parts.check()
        if self._parts.commits.no_room is None:
            self._parts.engine.tidy()


def _to_be_placed(parts: Parts, request: CommitRequest, reply: CommitReply) -> None:
    # Behind the flush: until then a crash must find unnamed shards where start-up removes them.
    if reply.status is CommitStatus.OK:
        parts.placing.add(request.held.data_ids)


def _in_batches(tombstones: Sequence[Tombstone]) -> Iterator[Sequence[Tombstone]]:
    for start in range(0, len(tombstones), TOMBSTONES_PER_BATCH):
        yield tombstones[start : start + TOMBSTONES_PER_BATCH]


def _reclaim(parts: Parts, chosen: list[tuple[bytes, bytes]], unnamed: bool) -> None:
    for _, data_id in chosen:
        parts.shards.reclaim(data_id, unnamed, parts.trash.recent_reads.contains)


def _decode_slot(value: bytes) -> SlotMemory:
    return msgspec.msgpack.decode(value, type=SlotMemory)
