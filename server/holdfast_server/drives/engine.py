"""The ordered table under a drive: RocksDB through rocksdict, with the settings that make it trustworthy.

What was learned of rocksdict 0.3.29, and shapes everything above:
- `write(sync=True)` holds the GIL through the fsync.  Batches are written unsynced, then `flush_wal(True)`,
  which releases it, makes them durable.
- `get` of one key holds the GIL through its disk read; `get` of a *list* of keys releases it.  So every point
  read here that may go to the disk is a list.  `key_may_exist` never does, and gives the value it comes upon.
  Iterators hold it: they run on a reader thread with read-ahead, and rows are kept small.
- A write may be stalled by compaction, with the GIL held: `no_slowdown` turns that into an error at once,
  and the caller waits without the GIL.
- `snapshot().iter()` shows what was written after the snapshot (its read options are built twice, the second
  time without it).  A plain iterator does keep to the moment it was made; that is what walks use.
- The default recovery of the log opens after rot in its middle with everything behind it silently gone.
  `tolerate_corrupted_tail_records` accepts only what a crash leaves, a torn end; anything else fails to open.
- A power cut does not only shorten the log: of what was not flushed, a later block may have reached the disk and an
  earlier one not, and that recovery takes the hole for rot and refuses to open.  So every write carries how far the
  log was flushed before it (`FLUSHED`).  A log that is damaged is opened up to the damage if nothing behind it
  claims that more than that was flushed: what is missing then was never acknowledged.
- What is cut off at the end, of the log or of the MANIFEST, is taken for such a torn end: the table opens with all
  that came later silently gone.  `reached` numbers what was written; `witness` keeps it elsewhere and compares.
- After a write that found no room every later one fails, also when there is room again: the table must be opened
  anew.  Reads go on, and show nothing of the batch that failed.

Not here: what the rows mean, batching, threads.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import rocksdict

from holdfast_server.drives import keys
from holdfast_server.drives.faults import FaultKind, kind_of_table_message

BLOCK_CACHE_BYTES = 16 << 20
MEMTABLE_BYTES = 8 << 20
MEMTABLES_BYTES = 16 << 20
MAX_OPEN_FILES = 256
BACKGROUND_JOBS = 2
INFO_LOG_BYTES = 1 << 20
SCAN_READAHEAD_BYTES = 256 << 10
DELETIONS_WINDOW = 1000
DELETIONS_IN_WINDOW = 500
"""A file in which so many of so many neighbouring entries are deletions is compacted at once: a walk meets every
deletion, and what it deletes, until then, about a microsecond each with the GIL held."""
MAX_IDLE_DELETIONS = 2000
"""More than this are written out of memory once no more come: only files are compacted."""
STALL_WAIT_SECONDS = 0.005
MAX_STALL_SECONDS = 30.0
FLUSHED = keys.META + b"flushed"
"""Row of every batch: the number of the last change that was durable when the batch was written."""

log = logging.getLogger(__name__)


class EngineError(Exception):
    """The table failed: it does not open, or a read or write did not succeed."""

    def __init__(self, message: str, kind: FaultKind | None = None) -> None:
        super().__init__(message)
        self.kind = kind or kind_of_table_message(message)


class Engine:
    """One open table.  Point reads and `flush` release the GIL; all calls may come from any thread."""

    def __init__(self, folder: Path, create: bool) -> None:
        """Open; `create` only when the drive is being formatted, else a lost folder would come back empty.

        Raises EngineError with the cause.
        """
        try:
            self._table = rocksdict.Rdict(str(folder), _options(create))
        except Exception as error:  # rocksdict raises bare Exception
            if create or not _only_torn(folder, error):
                raise EngineError(f"{folder} does not open: {error}") from error
            log.warning("%s: what had not been flushed when the power failed is dropped: %s", folder, error)
            self._table = _open_up_to_damage(folder)
        self._flushed = self.reached
        self._write_options = rocksdict.WriteOptions()
        self._write_options.sync = False
        self._write_options.no_slowdown = True
        self._deletions = 0
        """Rows deleted since the table was opened; `tidy` keeps how many there were when it looked last."""
        self._deletions_before = 0
        self._deletions_written_out = 0

    def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The values of many keys, None where absent."""
        if not keys:
            return []
        try:
            return list(self._table.get(list(keys)) or ())
        except Exception as error:
            raise EngineError(f"read failed: {error}") from error

    def peek(self, keys: Sequence[bytes]) -> list[bytes | None] | None:
        """As `get`, from memory alone: memtables and cached blocks, some microseconds a key with the GIL held.  None if
        that does not tell all of them.  One after the other: a batch may be written in between."""
        found = []
        for key in keys:
            looked: Any = self._table.key_may_exist(key, True)  # its stub knows only what it returns without a value
            there, value = looked
            if there and value is None:
                return None
            found.append(value)
        return found

    def write(self, changes: Iterable[tuple[bytes, bytes | None]]) -> None:
        """Apply all changes (None deletes) at once, visible but not yet durable."""
        deadline = time.monotonic() + MAX_STALL_SECONDS
        changes = list(changes)
        while True:
            # A batch is used up by the attempt, so it is built anew for each.
            batch = rocksdict.WriteBatch(raw_mode=True)
            batch.put(FLUSHED, keys.number(self._flushed))
            for key, value in changes:
                if value is None:
                    batch.delete(key)
                else:
                    batch.put(key, value)
            try:
                self._table.write(batch, self._write_options)
                self._deletions += sum(1 for _, value in changes if value is None)
                return
            except Exception as error:
                # "Incomplete: Write stall" is the only refusal that left nothing behind and passes by itself.
                if not str(error).startswith("Result incomplete") or time.monotonic() > deadline:
                    raise EngineError(f"write failed: {error}") from error
            time.sleep(STALL_WAIT_SECONDS)

    def tidy(self) -> None:
        """Write deletions out of memory once no more come, so that they are compacted; to be called now and then.

        Without the GIL.  Raises EngineError.
        """
        now = self._deletions
        if now == self._deletions_before and now - self._deletions_written_out >= MAX_IDLE_DELETIONS:
            try:
                self._table.flush(False)
            except Exception as error:
                raise EngineError(f"the memtable could not be written out: {error}") from error
            self._deletions_written_out = now
        self._deletions_before = now

    def flush(self) -> None:
        """Make everything written durable.  After an EngineError nothing may be assumed durable any more."""
        reached = self.reached
        try:
            self._table.flush_wal(True)
        except Exception as error:
            raise EngineError(f"the log did not reach stable storage: {error}") from error
        self._flushed = reached

    @property
    def reached(self) -> int:
        """The number of the last change written; it only ever grows, unless something written was lost."""
        number: int = self._table.latest_sequence_number()
        return number

    @property
    def estimated_rows(self) -> int:
        """About how many rows there are; what was overwritten or deleted lately is counted, too."""
        count: int | None = self._table.property_int_value("rocksdb.estimate-num-keys")
        return count or 0

    def cursor(self, end: bytes | None = None, readahead_bytes: int = SCAN_READAHEAD_BYTES) -> Cursor:
        """A cursor over the table as it is at this moment, whatever is written later; ends before `end`."""
        options = rocksdict.ReadOptions()
        options.set_readahead_size(readahead_bytes)
        if end is not None:
            options.set_iterate_upper_bound(end)
        return Cursor(self._table.iter(options), options)

    def items(self, prefix: bytes, start: bytes = b"", limit: int | None = None) -> list[tuple[bytes, bytes]]:
        """Rows whose key starts with `prefix`, from `prefix + start` on, at most `limit`.  A few of them: nothing is
        read ahead, and what was deleted behind them is not walked over."""
        cursor = self.cursor(keys.successor(prefix), readahead_bytes=0)
        found: list[tuple[bytes, bytes]] = []
        cursor.seek(prefix + start)
        while (limit is None or len(found) < limit) and (key := cursor.key()) is not None and key.startswith(prefix):
            found.append((key, cursor.value()))
            cursor.next()
        return found

    def last(self, prefix: bytes) -> bytes | None:
        """The greatest key with `prefix`."""
        cursor = self.cursor()
        cursor.seek_before(prefix + b"\xff" * 16)
        key = cursor.key()
        return key if key is not None and key.startswith(prefix) else None

    def close(self) -> None:
        """Flush and close; every cursor must be gone."""
        try:
            self._table.close()
        except Exception as error:
            raise EngineError(f"did not close cleanly: {error}") from error

    def abandon(self) -> None:
        """Close without writing anything: what was flushed is in the log, and the rest was promised to nobody."""
        del self._table


class Cursor:
    """An ordered walk; holds the GIL while it reads."""

    def __init__(self, iterator: rocksdict.RdictIter, options: rocksdict.ReadOptions) -> None:
        self._iterator = iterator
        # The iterator points into the options' bound without owning it: freed, the bound becomes any bytes, and
        # the walk ends too early or runs into other rows.
        self._options = options
        # As they are: a listing calls them thousands of times.
        self.seek: Callable[[bytes], None] = iterator.seek
        self.next: Callable[[], None] = iterator.next
        self.value: Callable[[], bytes] = iterator.value
        self.unchecked_key: Callable[[], bytes | None] = iterator.key
        """As `key`, but None may as well mean that a read failed: `check` tells."""

    def seek_before(self, key: bytes) -> None:
        """To the greatest key at or below."""
        self._iterator.seek_for_prev(key)

    def key(self) -> bytes | None:
        """None past the end; raises EngineError if it ended because a read failed."""
        key = self.unchecked_key()
        if key is None:
            self.check()
        return key

    def check(self) -> None:
        """Raises EngineError if a read failed."""
        try:
            self._iterator.status()
        except Exception as error:
            raise EngineError(f"walk failed: {error}") from error


def _only_torn(folder: Path, error: Exception) -> bool:
    """Whether a table that does not open lacks only what was not flushed when the power failed."""
    if kind_of_table_message(str(error)) is not FaultKind.DAMAGED:
        return False
    mode = rocksdict.DBRecoveryMode
    try:
        reached = _look(folder, mode.point_in_time())[0]
        claimed = _look(folder, mode.skip_any_corrupted_record())[1]
    except Exception:
        return False  # more than the log is damaged
    return claimed is not None and keys.to_number(claimed) <= reached


def _look(folder: Path, recovery: rocksdict.DBRecoveryMode) -> tuple[int, bytes | None]:
    """How far a table gets in that mode of recovery, and its `FLUSHED`; nothing on the disk changes."""
    options = _options(create=False)
    options.set_wal_recovery_mode(recovery)
    table = rocksdict.Rdict(str(folder), options, access_type=rocksdict.AccessType.read_only())
    try:
        return table.latest_sequence_number(), table.get(FLUSHED)
    finally:
        table.close()


def _open_up_to_damage(folder: Path) -> rocksdict.Rdict:
    options = _options(create=False)
    options.set_wal_recovery_mode(rocksdict.DBRecoveryMode.point_in_time())
    try:
        return rocksdict.Rdict(str(folder), options)
    except Exception as error:
        raise EngineError(f"{folder} does not open: {error}") from error


def _options(create: bool) -> rocksdict.Options:
    options = rocksdict.Options(raw_mode=True)
    options.create_if_missing(create)
    options.set_error_if_exists(create)
    options.set_wal_recovery_mode(rocksdict.DBRecoveryMode.tolerate_corrupted_tail_records())
    options.set_paranoid_checks(True)
    # Recycled log files carry old records behind the new end, which this recovery mode cannot tell from rot.
    options.set_recycle_log_file_num(0)
    options.set_max_background_jobs(BACKGROUND_JOBS)
    options.set_max_subcompactions(1)
    options.set_max_open_files(MAX_OPEN_FILES)
    options.set_max_file_opening_threads(2)
    # Bounded memory.
    options.set_write_buffer_size(MEMTABLE_BYTES)
    options.set_max_write_buffer_number(3)
    options.set_db_write_buffer_size(MEMTABLES_BYTES)
    options.set_max_total_wal_size(4 * MEMTABLES_BYTES)
    tables = rocksdict.BlockBasedOptions()
    tables.set_block_cache(rocksdict.Cache(BLOCK_CACHE_BYTES))
    tables.set_bloom_filter(10, False)
    tables.set_cache_index_and_filter_blocks(True)
    tables.set_pin_l0_filter_and_index_blocks_in_cache(True)
    tables.set_checksum_type(rocksdict.ChecksumType.xxh3())
    options.set_block_based_table_factory(tables)
    # Records are mostly hashes and ids, shards are arbitrary: compression would cost more than it saves.
    options.set_compression_type(rocksdict.DBCompressionType.none())
    options.set_bytes_per_sync(1 << 20)
    options.add_compact_on_deletion_collector_factory(DELETIONS_WINDOW, DELETIONS_IN_WINDOW, 0.5)
    # An information log that cannot grow.
    options.set_keep_log_file_num(2)
    options.set_max_log_file_size(INFO_LOG_BYTES)
    options.set_stats_dump_period_sec(0)
    options.set_stats_persist_period_sec(0)
    return options
