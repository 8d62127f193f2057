"""Reading sealed shard files: every block is checked against its hash before anyone sees it.  Where it goes to another
pod it is checked there (`fetch`), and need not even pass through this process's memory.

Open files are kept in a bounded cache with their footers.  A file that is replaced or unlinked while a read
is under way stays readable through its open descriptor, which is closed when the last reader lets go of it.  One that
is to be written over (`spares`) does not, so it is known which shards are being read.  Called on worker threads.

Not here: direct I/O.  Reads go through the page cache, which has what is read often; mapping files instead of copying
would show a reader bytes that may be read from the disk again after they were verified.
"""

from __future__ import annotations

import errno
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import xxhash

from holdfast_server.drives import shard_format
from holdfast_server.drives.port import HASH_SIZE_BYTES, Block, DriveError, ShardCorrupt, ShardMissing
from holdfast_server.memory.buffers import uncleared_pages
from holdfast_server.memory.pipes import NoSplice, Piped, Pipes

MAX_OPEN_SHARDS = 128
PIPED_FROM_BYTES = 256 << 10
"""Less is copied in less time than it takes to hand it over."""
PASSED_OVER_BYTES = 4096
"""Of hashes nobody asked for, read along to save a call."""

Fetched = tuple[Piped | list[Block], list[bytes]]
"""Blocks and their hashes."""

T = TypeVar("T")


class _OpenShard:
    def __init__(self, data_id: bytes, path: Path) -> None:
        self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        size = os.fstat(self.descriptor).st_size
        footer_at = max(0, size - shard_format.FOOTER_SIZE_BYTES)
        footer = os.pread(self.descriptor, shard_format.FOOTER_SIZE_BYTES, footer_at)
        self.shape = shard_format.decode_footer(data_id, footer, size)

    def __del__(self) -> None:
        # With the last reference, so that no reader finds its descriptor reused for another file.
        if hasattr(self, "descriptor"):
            os.close(self.descriptor)


class ShardReads:
    def __init__(
        self,
        places: Callable[[bytes], Sequence[tuple[Path, bool]]],
        on_unreadable: Callable[[bytes, str], None] | None = None,
    ) -> None:
        """`places` names the paths to try for a data id, in order, and whether a file there must be sealed;
        `on_unreadable` is told of each read that ended in an input/output error."""
        self._places = places
        self._on_unreadable = on_unreadable
        self._lock = threading.Lock()
        self._open: OrderedDict[bytes, _OpenShard] = OrderedDict()
        self._under_way: dict[bytes, int] = {}
        """Reads, by data id."""
        self._splices = True
        """Until the file system says that it has no such thing."""

    def read(self, data_id: bytes, first: int, count: int) -> tuple[list[Block], list[bytes]]:
        """Blocks and their hashes.  Raises ShardMissing, ShardCorrupt, DriveError."""
        return self._reading(data_id, first, count, lambda shard: _read_blocks(data_id, shard, first, count))

    def fetch(self, data_id: bytes, first: int, count: int, pipes: Pipes | None) -> Fetched:
        """Blocks as the disk has them, and the hashes they should have: whoever gets them compares.  In pipes, if there
        are any.  Raises ShardMissing, DriveError, and ShardCorrupt where some cannot be read at all."""
        return self._reading(data_id, first, count, lambda shard: self._fetch(data_id, shard, first, count, pipes))

    def _fetch(self, data_id: bytes, shard: _OpenShard, first: int, count: int, pipes: Pipes | None) -> Fetched:
        ranges = [shard.shape.block_range(index) for index in range(first, first + count)]
        sizes = [size for _, size in ranges]
        start, size_bytes = ranges[0][0] if ranges else 0, sum(sizes)
        piped = self._piped(shard, start, sizes, pipes) if pipes is not None and self._splices else None
        blocks: Piped | list[Block]
        if piped is not None:
            blocks, found = piped, piped.size_bytes
        else:
            run = uncleared_pages(size_bytes)
            blocks = [run[at - start :][:size] for at, size in ranges]
            found = os.preadv(shard.descriptor, [run], start) if ranges else 0
        hashes = os.pread(shard.descriptor, count * HASH_SIZE_BYTES, shard.shape.hash_offset(first))
        if found != size_bytes or len(hashes) != count * HASH_SIZE_BYTES:
            raise ShardCorrupt(f"shard {data_id.hex()}: the file ends in its blocks or the hashes behind them")
        return blocks, _cut(hashes)

    def _piped(self, shard: _OpenShard, start: int, sizes: list[int], pipes: Pipes) -> Piped | None:
        if sum(sizes) < PIPED_FROM_BYTES:
            return None
        try:
            return pipes.load(shard.descriptor, start, sizes)
        except NoSplice:
            self._splices = False
            return None

    def _reading(self, data_id: bytes, first: int, count: int, read: Callable[[_OpenShard], T]) -> T:
        self._begin(data_id)
        try:
            shard = self._shard(data_id)
            if first < 0 or count < 0 or first + count > shard.shape.block_count:
                raise DriveError(
                    f"shard {data_id.hex()} has {shard.shape.block_count} blocks, not {first} to {first + count - 1}"
                )
            return read(shard)
        except ShardCorrupt:
            # The next read opens it anew: it may have been healed under its old name.
            self.forget(data_id)
            raise
        except OSError as error:
            if error.errno == errno.EIO:
                # One bad sector is rot like any other: the block is rebuilt from the other drives.
                self.forget(data_id)
                if self._on_unreadable is not None:
                    self._on_unreadable(data_id, str(error))
                raise ShardCorrupt(f"shard {data_id.hex()}: {error.strerror}") from error
            raise DriveError(f"shard {data_id.hex()}: {error}") from error
        finally:
            self._end(data_id)

    @contextmanager
    def reading(self, data_id: bytes) -> Iterator[None]:
        """Somebody reads its file, though not here."""
        self._begin(data_id)
        try:
            yield
        finally:
            self._end(data_id)

    def _begin(self, data_id: bytes) -> None:
        with self._lock:
            self._under_way[data_id] = self._under_way.get(data_id, 0) + 1

    def _end(self, data_id: bytes) -> None:
        with self._lock:
            left = self._under_way[data_id] - 1
            if left:
                self._under_way[data_id] = left
            else:
                del self._under_way[data_id]

    def forget(self, data_id: bytes) -> bool:
        """The file was replaced, or taken from its place: later reads look for it anew.  Whether any is under way that
        may have found it before."""
        with self._lock:
            self._open.pop(data_id, None)
            return data_id in self._under_way

    def close(self) -> None:
        with self._lock:
            self._open.clear()

    def _shard(self, data_id: bytes) -> _OpenShard:
        with self._lock:
            known = self._open.get(data_id)
            if known is not None:
                self._open.move_to_end(data_id)
                return known
        shard = self._find(data_id)
        with self._lock:
            self._open[data_id] = shard
            while len(self._open) > MAX_OPEN_SHARDS:
                self._open.popitem(last=False)
        return shard

    def _find(self, data_id: bytes) -> _OpenShard:
        for path, sealed in self._places(data_id):
            try:
                return _OpenShard(data_id, path)
            except FileNotFoundError:
                continue
            except shard_format.NotSealed as error:
                if sealed:
                    raise ShardCorrupt(f"shard {data_id.hex()}: {error}") from error
        raise ShardMissing(f"no sealed shard {data_id.hex()}")


def _read_blocks(data_id: bytes, shard: _OpenShard, first: int, count: int) -> tuple[list[Block], list[bytes]]:
    shape = shard.shape
    if not count:
        return [], []
    start, _ = shape.block_range(first)
    last_start, last_size = shape.block_range(first + count - 1)
    end = last_start + last_size
    # Behind the last block come the hashes of all: one call brings both.
    to_the_end = first + count == shape.block_count and first * HASH_SIZE_BYTES <= PASSED_OVER_BYTES
    run = uncleared_pages((shape.hash_offset(shape.block_count) if to_the_end else end) - start)
    blocks: list[Block] = []
    found: list[bytes] = []
    for index in range(first, first + count):
        # One at a time: a block is hashed while the processor still has it at hand.
        offset, size = shape.block_range(index)
        with_hashes = to_the_end and index == first + count - 1
        wanted = run[offset - start :] if with_hashes else run[offset - start :][:size]
        if os.preadv(shard.descriptor, [wanted], offset) != len(wanted):
            raise ShardCorrupt(f"shard {data_id.hex()}: the file ends in block {index} or the hashes behind it")
        blocks.append(wanted[:size])
        found.append(xxhash.xxh3_128_digest(blocks[-1]))
    if to_the_end:
        table = run[shape.hash_offset(first) - start :]
    else:
        table = memoryview(os.pread(shard.descriptor, count * HASH_SIZE_BYTES, shape.hash_offset(first)))
    hashes = _cut(table[: count * HASH_SIZE_BYTES])
    for index, (digest, kept) in enumerate(zip(found, hashes, strict=True), first):
        if digest != kept:
            raise ShardCorrupt(f"shard {data_id.hex()}: block {index} does not match its hash")
    return blocks, hashes


def _cut(hashes: bytes | memoryview) -> list[bytes]:
    return [bytes(hashes[at : at + HASH_SIZE_BYTES]) for at in range(0, len(hashes), HASH_SIZE_BYTES)]
