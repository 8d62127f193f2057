"""The shard files of one drive: `staging/` for what no record names yet, `shards/xx/` for the rest.

Who may call what: `stage`, `seal_bytes`, `finish_seal`, `discard`, `place`, `reclaim`, `read` and `fetch` run on worker
threads; `is_staged`, `is_placed`, `claim` and `unclaim` also on the committing thread, in the middle of a batch, and
therefore only look (a `stat` at most).  A commit *claims* the staged shards its record names before the batch
is written; from then on `discard` leaves them alone, unless the batch finds no room.  They are moved into place
afterwards, lazily and unsynced: a crash before the move leaves a staged file with a reference row, and start-up moves
it.

Locks: a shard's own, then this one's, never the other way round.  A shard that is being removed is GONE and keeps its
place among the staged until its file has been unlinked: whoever found it there before finds nothing to write to, and
whoever begins it anew waits, or the unlinking would take away the new file.

A disk that is full spoils the one shard (its file is removed, DriveFull), and so does a file that cannot be opened for
want of descriptors; any other failure to write may have lost what the kernel held, and sets the drive aside.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from holdfast_server.clock.port import Clock
from holdfast_server.drives.faults import NO_ROOM_ERRORS, Fault, is_passing, kind_of
from holdfast_server.drives.inspection import aged_files, verify_file
from holdfast_server.drives.port import Block, DriveError, DriveFaulty, DriveFull, ShardMissing
from holdfast_server.drives.shard_reads import Fetched, ShardReads
from holdfast_server.drives.space import Space
from holdfast_server.drives.spares import SUFFIX, Spares
from holdfast_server.drives.staged_shard import Stage, StagedShard, verify
from holdfast_server.memory.pipes import Pipes

STAGING_FOLDER = "staging"
SHARDS_FOLDER = "shards"
SHARD_FOLDERS = 256
STAGING_LIFETIME_SECONDS = 3600.0
"""A staged shard that was not touched for so long was left behind by a coordinator that died; every deadline
of an operation is far shorter, and a commit that came yet later would be told NO_DATA."""

log = logging.getLogger(__name__)


class ShardFiles:
    def __init__(
        self,
        folder: Path,
        clock: Clock,
        space: Space,
        on_fault: Callable[[Fault], None],
        on_unreadable: Callable[[bytes, str], None],
    ) -> None:
        """`on_unreadable` is told of a shard whose reading ended in an I/O error, and why; both from any thread."""
        self.staging_folder = folder / STAGING_FOLDER
        self._shards_folder = folder / SHARDS_FOLDER
        self._clock = clock
        self._space = space
        self._on_fault = on_fault
        self._lock = threading.Lock()
        self._staged: dict[bytes, StagedShard] = {}
        self._reads = ShardReads(self._places, on_unreadable)
        self.spares = Spares(self.staging_folder, space)

    def stage(
        self, data_id: bytes, index: int, blocks: Sequence[Block], hashes: Sequence[bytes], last: bool = False
    ) -> None:
        """`last`: `seal_bytes` finds it complete."""
        size = sum(map(len, blocks))
        shard = self._get(data_id)
        if shard is not None and shard.stage is Stage.CLAIMED:
            # A rotten shard is being healed before its first copy was moved.
            self.place((data_id,))
            shard = None
        if shard is not None and shard.has(index, hashes):
            return
        verify(data_id, index, blocks, hashes)
        if self._space.refuses(size):
            raise DriveFull("no room for more shards: the reserve for deletes is reached")
        if shard is None and index != 0:
            raise DriveError(f"shard {data_id.hex()}: block {index} comes before the first one")
        if shard is None or index == 0:
            shard = self._begin(data_id, shard, size, last)
        with shard.lock:
            shard.touched_seconds = self._clock.monotonic_seconds()
            try:
                shard.append(index, blocks, hashes, last)
            except OSError as error:
                raise self._spoilt(shard, error) from error

    def seal_bytes(self, data_id: bytes) -> bool:
        """Complete the file; True if its folder has yet to be synced and `finish_seal` called."""
        shard = self._get(data_id)
        if shard is None:
            if self.is_placed(data_id):
                return False
            raise ShardMissing(f"nothing is staged as shard {data_id.hex()}")
        with shard.lock:
            if shard.stage is Stage.GONE:
                raise ShardMissing(f"shard {data_id.hex()} was discarded meanwhile")
            if shard.stage is Stage.OPEN:
                try:
                    shard.write_footer()
                except OSError as error:
                    raise self._spoilt(shard, error) from error
            return shard.stage is Stage.COMPLETE

    def finish_seal(self, data_id: bytes) -> None:
        """Its folder is synced: the shard may be named by a record."""
        shard = self._get(data_id)
        if shard is None:
            raise ShardMissing(f"shard {data_id.hex()} was discarded meanwhile")
        with shard.lock:
            if shard.stage is Stage.GONE:
                raise ShardMissing(f"shard {data_id.hex()} was discarded meanwhile")
            if shard.stage is Stage.COMPLETE:
                shard.stage = Stage.SEALED
                if shard.streamed:
                    self.spares.streamed(shard.size_bytes)

    def discard(self, data_id: bytes) -> None:
        shard = self._get(data_id)
        if shard is None:
            return
        with shard.lock:
            with self._lock:
                if shard.stage in (Stage.CLAIMED, Stage.GONE) or self._staged.get(data_id) is not shard:
                    return
                shard.stage = Stage.GONE
            self._remove(shard)
        self._reads.forget(data_id)

    def discard_idle(self) -> None:
        limit = self._clock.monotonic_seconds() - STAGING_LIFETIME_SECONDS
        with self._lock:
            idle = {shard.data_id: shard.stage for shard in self._staged.values() if shard.touched_seconds < limit}
        # What was to move them was dropped while the drive hung, or failed.
        self.place([data_id for data_id, stage in idle.items() if stage is Stage.CLAIMED])
        for data_id in (data_id for data_id, stage in idle.items() if stage is not Stage.CLAIMED):
            log.warning("removing shard %s, staged and forgotten", data_id.hex())
            self.discard(data_id)

    def is_staged(self, data_id: bytes) -> bool:
        """Sealed, and waiting for a record or for its move."""
        shard = self._get(data_id)
        return shard is not None and shard.stage in (Stage.SEALED, Stage.CLAIMED)

    def is_placed(self, data_id: bytes) -> bool:
        return self._place_of(data_id).exists()

    def claim(self, data_ids: Sequence[bytes]) -> list[bytes]:
        """Those of them that were not claimed before."""
        claimed = []
        with self._lock:
            for data_id in data_ids:
                shard = self._staged.get(data_id)
                if shard is not None and shard.stage is Stage.SEALED:
                    shard.stage = Stage.CLAIMED
                    claimed.append(data_id)
        return claimed

    def unclaim(self, data_ids: Sequence[bytes]) -> None:
        """No record names them after all: whoever staged them may discard them."""
        with self._lock:
            for data_id in data_ids:
                shard = self._staged.get(data_id)
                if shard is not None and shard.stage is Stage.CLAIMED:
                    shard.stage = Stage.SEALED

    def place(self, data_ids: Sequence[bytes]) -> None:
        """Move claimed shards where they belong; what does not move stays readable where it is."""
        for data_id in data_ids:
            with self._lock:
                shard = self._staged.get(data_id)
                if shard is None or shard.stage is not Stage.CLAIMED:
                    continue
                try:
                    os.replace(shard.path, self._place_of(data_id))
                except OSError as error:
                    log.warning("shard %s stays in staging: %s", data_id.hex(), error)
                    continue
                del self._staged[data_id]
            self._reads.forget(data_id)

    def reclaim(
        self, data_id: bytes, unnamed: bool = False, was_read: Callable[[bytes], bool] = lambda _: False
    ) -> None:
        """Remove a shard no record names any more, wherever it is.  `unnamed`: that is durable, and its file may be
        kept as a spare, unless it `was_read` lately: what was read of it may be on its way out of pages of the file."""
        with self._lock:
            shard = self._staged.get(data_id)
            if shard is None:
                self._staging_path(data_id).unlink(missing_ok=True)
        if shard is not None:
            with shard.lock:
                self._remove(shard)
        place = self._place_of(data_id)
        spare = self.spares.set_apart(place) if unnamed else None
        if spare is None:
            place.unlink(missing_ok=True)
        is_read = self._reads.forget(data_id) or was_read(data_id)
        if spare is not None:
            # Not before: who began to read since has found it gone.
            (self.spares.drop if is_read else self.spares.add)(spare)

    def read(self, data_id: bytes, first: int, count: int) -> tuple[list[Block], list[bytes]]:
        return self._reads.read(data_id, first, count)

    def fetch(self, data_id: bytes, first: int, count: int, pipes: Pipes | None) -> Fetched:
        return self._reads.fetch(data_id, first, count, pipes)

    def verify(self, data_id: bytes) -> int:
        """Read a sealed shard from the disk against its hashes; its size.  Raises ShardMissing, ShardCorrupt."""
        with self._reads.reading(data_id):
            for path, _ in self._places(data_id):
                try:
                    return verify_file(path, data_id)
                except FileNotFoundError:
                    continue
        raise ShardMissing(f"no sealed shard {data_id.hex()}")

    def aged(self, folder: int, age_seconds: float) -> list[bytes]:
        """Files last written so long ago, of `shards/xx/` for 0 to 255; of `staging/`, which nobody is writing, for
        256."""
        before = self._clock.now_ms() / 1000 - age_seconds
        if folder < SHARD_FOLDERS:
            return aged_files(self._shards_folder / f"{folder:02x}", before)
        with self._lock:
            return [data_id for data_id in aged_files(self.staging_folder, before) if data_id not in self._staged]

    def tidy(self, is_named: Callable[[bytes], bool]) -> None:
        """At start-up: move what a record names into place, remove everything else that was staged but spares.

        What was staged under the name of one that is in its place was to replace a rotten one.  It does if it is whole;
        if not, the rotten one has more: no drive may need to be whole for an object to be (`objects.healing`).
        """
        for path in list(self.staging_folder.iterdir()):
            if self.spares.found(path):
                continue
            data_id = _data_id(path.name)
            if data_id is None or not is_named(data_id) or (self.is_placed(data_id) and not _is_whole(path, data_id)):
                path.unlink()
            else:
                os.replace(path, self._place_of(data_id))

    def close(self) -> None:
        with self._lock:
            for shard in self._staged.values():
                shard.close()
            self._staged.clear()
        self._reads.close()

    def _get(self, data_id: bytes) -> StagedShard | None:
        with self._lock:
            return self._staged.get(data_id)

    def _begin(self, data_id: bytes, former: StagedShard | None, size_bytes: int, whole: bool) -> StagedShard:
        """A fresh file, in place of a former attempt with other bytes.  So much is to be written at once, which may be
        the whole."""
        if former is not None:
            self.discard(data_id)
        with self._lock:
            existing = self._staged.get(data_id)
            if existing is not None:
                return existing
            path = self._staging_path(data_id)
            over = self.spares.take(path, size_bytes, whole)
            try:
                shard = StagedShard(path, data_id, self._clock.monotonic_seconds(), over)
            except OSError as error:
                if over:
                    path.unlink(missing_ok=True)
                raise self._translate(error) from error
            self._staged[data_id] = shard
            return shard

    def _spoilt(self, shard: StagedShard, error: OSError) -> Exception:
        try:
            self._remove(shard)
        except OSError as second:
            log.warning("could not remove %s: %s", shard.path, second)
        return self._translate(error)

    def _remove(self, shard: StagedShard) -> None:
        """Under its lock.  Raises OSError; then it is gone from here all the same."""
        try:
            with self._lock:
                is_ours = self._staged.get(shard.data_id) is shard
            if is_ours:
                shard.remove()
        finally:
            with self._lock:
                if self._staged.get(shard.data_id) is shard:
                    del self._staged[shard.data_id]

    def _translate(self, error: OSError) -> Exception:
        if error.errno in NO_ROOM_ERRORS:
            return DriveFull(f"no space left on the drive: {error}")
        message = f"writing a shard failed: {error}"
        if is_passing(error):
            return DriveError(message)
        self._on_fault(Fault(kind_of(error), message))
        return DriveFaulty(message)

    def _staging_path(self, data_id: bytes) -> Path:
        return self.staging_folder / data_id.hex()

    def _place_of(self, data_id: bytes) -> Path:
        name = data_id.hex()
        return self._shards_folder / name[:2] / name

    def _places(self, data_id: bytes) -> Sequence[tuple[Path, bool]]:
        place = self._place_of(data_id)
        shard = self._get(data_id)
        if shard is not None and shard.stage in (Stage.OPEN, Stage.COMPLETE):
            # Whole perhaps, but no commit would accept it: whoever heals must not believe that it is there.
            return ((place, True),)
        # Twice its place: it may move there between the first two looks.
        return (place, True), (self._staging_path(data_id), False), (place, True)


def _is_whole(path: Path, data_id: bytes) -> bool:
    try:
        verify_file(path, data_id)
    except DriveError:
        return False
    return True


def staged_names(folder: Path) -> list[str]:
    """What is staged in a drive's folder, without the spares; also while the drive is in use."""
    try:
        names = os.listdir(folder / STAGING_FOLDER)
    except FileNotFoundError:
        return []
    return sorted(name for name in names if not name.endswith(SUFFIX))


def make_folders(folder: Path) -> None:
    """The empty folders of a drive that is being formatted."""
    (folder / STAGING_FOLDER).mkdir()
    (folder / SHARDS_FOLDER).mkdir(exist_ok=True)
    for index in range(256):
        (folder / SHARDS_FOLDER / f"{index:02x}").mkdir(exist_ok=True)


def _data_id(name: str) -> bytes | None:
    try:
        data_id = bytes.fromhex(name)
    except ValueError:
        return None
    return data_id if len(data_id) == 16 and data_id.hex() == name else None
