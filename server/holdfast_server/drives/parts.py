"""What an open, formatted drive consists of, put together and taken apart.

Made on a thread (opening reads the disk), used on the loop; `closed` ends it in order: no more commits, what is
under way ends, then files and table are closed.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from holdfast_server.clock.port import Clock
from holdfast_server.drives import ballast, folder_layout, keys
from holdfast_server.drives.disk_threads import DiskThreads, Watch
from holdfast_server.drives.durable_files import FolderSync
from holdfast_server.drives.engine import Engine, EngineError
from holdfast_server.drives.faults import NO_ROOM_ERRORS, Fault, FaultKind
from holdfast_server.drives.group_commit import GroupCommit
from holdfast_server.drives.identity import IdentityGuard
from holdfast_server.drives.placing import Placing
from holdfast_server.drives.point_reads import PointReads
from holdfast_server.drives.port import DriveError
from holdfast_server.drives.register_verbs import RegisterVerbs
from holdfast_server.drives.shard_files import ShardFiles
from holdfast_server.drives.space import Space
from holdfast_server.drives.table_walk import TableWalk
from holdfast_server.drives.trash import RECLAIM_DELAY_SECONDS, Trash
from holdfast_server.drives.witness import write_witness

SHARD_WRITE_THREADS = 4
SHARD_READ_THREADS = 4
VERIFY_THREADS = 1
"""Apart from those that serve reads: verifying may take minutes over bad sectors, and is asked for again and again."""
POINT_READ_THREADS = 2

MAX_UNREADABLE_SHARDS = 8
UNREADABLE_SECONDS = 600.0
"""One shard that cannot be read is a bad sector, and repaired like rot; so many different ones within that time
are a disk that is failing, and the drive is set aside."""

ROWS_PER_REGISTER = 2
"""Its records and its mark; those with shards beside them have one or two more."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class DriveSettings:
    reclaim_delay_seconds: float = RECLAIM_DELAY_SECONDS
    """How long a shard that no record names stays readable; longer than any read takes to get going."""
    reap_interval_seconds: float | None = 5.0
    """Between two passes of reclaim; None: only when `reap` is called."""
    reserve_bytes: int | None = None
    """Room that new data may not use; None: `space.RESERVE_BYTES` or 1 %, whichever is more."""
    ballast_bytes: int | None = None
    """Room allocated in advance for the time when there is none; None: `ballast.ballast_size`."""


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What the parts are told by the drive they belong to."""

    path: Path
    """As people know it, and where the identity is looked for."""
    inside: Path
    """The same folder, whatever lies at its path by now (`anchor`)."""
    clock: Clock
    settings: DriveSettings
    loop: asyncio.AbstractEventLoop
    on_fault: Callable[[Fault], None]
    failed: Callable[[Exception], DriveError]


class Parts:
    def __init__(self, around: Surroundings, engine: Engine, guard: IdentityGuard) -> None:
        name, clock, loop = str(around.path), around.clock, around.loop
        self._around = around
        self.engine = engine
        self.guard = guard
        self.watch = Watch()
        self.space = Space(around.inside, clock, around.settings.reserve_bytes)
        self.space.refresh()
        self.shards = ShardFiles(around.inside, clock, self.space, around.on_fault, self._shard_unreadable)
        self.shards.tidy(lambda data_id: bool(engine.items(keys.REFERENCE + data_id, limit=1)))
        self.trash = Trash(engine, clock, around.settings.reclaim_delay_seconds)
        self.verbs = RegisterVerbs(engine, clock, self.trash, self.shards, self.space, guard.identity.healing)
        self.point_readers = DiskThreads(f"{name}-query", POINT_READ_THREADS, self.watch, loop)
        self.walker = DiskThreads(f"{name}-scan", 1, self.watch, loop)
        self.shard_writers = DiskThreads(f"{name}-write", SHARD_WRITE_THREADS, self.watch, loop)
        self.shard_readers = DiskThreads(f"{name}-read", SHARD_READ_THREADS, self.watch, loop)
        self.verifiers = DiskThreads(f"{name}-verify", VERIFY_THREADS, self.watch, loop)
        self.placing = Placing(self.shards.place, self.shard_writers, loop)
        self.commits = GroupCommit(
            engine, check_identity=guard.check, on_fault=around.on_fault, name=name, watch=self.watch, loop=loop,
            on_delivered=self.placing.look,
        )  # fmt: skip
        self.reads = PointReads(engine, self.commits, self.verbs, self.point_readers, around.failed)
        self.walk = TableWalk(engine, self.commits, self.verbs, self.walker)
        self.staging_sync = FolderSync(self.shards.staging_folder)
        self.damage = folder_layout.damage_note(around.inside) if guard.identity.healing else ""
        """Why the table had to be made anew, while the drive is being filled."""
        self.registers = engine.estimated_rows // ROWS_PER_REGISTER
        """About how many the table holds."""
        self.reopen_advised = False
        """The table met a full disk, and there is room to open it anew."""
        self._unreadable: OrderedDict[bytes, float] = OrderedDict()
        self._witnessed = 0

    @property
    def _groups(self) -> tuple[DiskThreads, ...]:
        return self.point_readers, self.walker, self.shard_readers, self.shard_writers, self.verifiers

    def stick(self, reason: str) -> None:
        """Let everybody who waits for this drive go."""
        for threads in self._groups:
            threads.stick(reason)
        self.commits.stick(reason)

    def resume(self) -> None:
        for threads in self._groups:
            threads.resume()
        self.commits.resume()

    def check(self) -> None:
        """Once a second, on a thread: what nobody else would notice.  Raises DriveError, OSError."""
        folder = self._around.inside
        self.guard.check()
        room = self.space.refresh()
        self.registers = self.engine.estimated_rows // ROWS_PER_REGISTER
        if os.statvfs(folder).f_flag & os.ST_RDONLY:
            self._around.on_fault(Fault(FaultKind.READ_ONLY, f"{self._around.path} is mounted read-only"))
            return
        reached = self.commits.reached
        if reached > self._witnessed:
            try:
                write_witness(folder, self.guard.identity.id_bytes, reached)
                self._witnessed = reached
            except OSError as error:
                if error.errno not in NO_ROOM_ERRORS:
                    raise
                # It proves less for a while; what a full disk can do goes on.
        size = self._around.settings.ballast_bytes
        size = ballast.ballast_size(room.total_bytes) if size is None else size
        if self.commits.no_room is not None:
            if ballast.release(folder):
                log.warning("%s is full: the ballast was released for deletes", self._around.path)
                room = self.space.refresh(at_once=True)
            self.reopen_advised = room.available_bytes >= size // 2
        elif room.available_bytes > self.space.reserve_bytes(room) + 2 * size:
            ballast.lay(folder, size)

    async def closed(self, run: Callable[[Callable[[], None]], asyncio.Future[None]], faulty: bool) -> None:
        """End it; `run` runs something on a thread.  As long as what is under way takes.

        `faulty`: nothing more is written.  By now another drive may lie where this one was, and the table knows its
        files by their paths.
        """
        self.commits.refuse()
        await self.commits.ended.wait()
        self.placing.begin()
        for threads in self._groups:
            await threads.drained()
        await run(self._abandon if faulty else self._close)

    def _abandon(self) -> None:
        for threads in self._groups:
            threads.shutdown()
        self.shards.close()
        self.engine.abandon()

    def _close(self) -> None:
        for threads in self._groups:
            threads.shutdown()
        self.shards.close()
        try:
            self.guard.check()
            write_witness(self._around.inside, self.guard.identity.id_bytes, self.commits.reached)
        except (DriveError, OSError) as error:
            log.warning("closing the drive: %s", error)
            self.engine.abandon()
            return
        try:
            self.engine.close()
        except EngineError as error:
            log.warning("closing the drive: %s", error)

    def _shard_unreadable(self, data_id: bytes, reason: str) -> None:
        """From any thread: an input/output error.  Repaired like rot, but not without end."""
        now = self._around.clock.monotonic_seconds()
        self._unreadable[data_id] = now
        self._unreadable.move_to_end(data_id)
        while self._unreadable and now - next(iter(self._unreadable.values())) > UNREADABLE_SECONDS:
            self._unreadable.popitem(last=False)
        log.warning("%s: shard %s cannot be read: %s", self._around.path, data_id.hex(), reason)
        if len(self._unreadable) >= MAX_UNREADABLE_SHARDS:
            self._around.on_fault(
                Fault(
                    FaultKind.MEDIUM,
                    f"{len(self._unreadable)} shards could not be read within {UNREADABLE_SECONDS:.0f} s: {reason}",
                )
            )
