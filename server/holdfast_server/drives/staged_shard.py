"""One shard file on its way in: blocks are appended, then it is sealed.  Called on a worker thread, one call
at a time (its owner holds `lock`).

Staging the same blocks again is no fault and writes nothing: a caller whose answer was lost may repeat, and
two healers may stage the same shard at once (what belongs in it is determined by its data id).

A large shard that comes as a whole goes past the page cache where the file system allows it (all but the last bytes,
which do not fill a page): that takes half the CPU, and what is read soon stays in memory instead.  Blocks that come in
several calls do not, since they begin anywhere in a page.
"""

from __future__ import annotations

import errno
import fcntl
import os
import threading
from collections.abc import Sequence
from enum import Enum
from pathlib import Path

import xxhash

from holdfast_server.drives import shard_format
from holdfast_server.drives.port import Block, DriveError, ShardCorrupt
from holdfast_server.drives.shard_format import ShardShape
from holdfast_server.memory.buffers import PAGE_SIZE_BYTES, address_of, as_one

DIRECT_FROM_BYTES = 128 << 10
"""Below it, waiting for the device costs more than the page cache."""
_MAX_BUFFERS_PER_WRITE = 512


class Stage(Enum):
    OPEN = 1
    COMPLETE = 2
    """Its bytes are durable, its name not yet."""
    SEALED = 3
    CLAIMED = 4
    """A record names it; it is only waiting to be moved into its place."""


class StagedShard:
    def __init__(self, path: Path, data_id: bytes, now_seconds: float) -> None:
        """Create the file.  Raises OSError."""
        self.lock = threading.Lock()
        self.path = path
        self.data_id = data_id
        self.stage = Stage.OPEN
        self.touched_seconds = now_seconds
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        self._hashes: list[bytes] = []
        self._block_size_bytes = 0
        self._last_size_bytes = 0
        self._size_bytes = 0

    def has(self, index: int, hashes: Sequence[bytes]) -> bool:
        """Whether these very blocks are there already."""
        return bool(hashes) and self._hashes[index : index + len(hashes)] == list(hashes)

    def append(self, index: int, blocks: Sequence[Block], hashes: Sequence[bytes], last: bool = False) -> None:
        """Blocks that were verified; after the `last` it is complete, as by `write_footer`.

        Raises DriveError before anything is written; OSError: it is spoilt.
        """
        if self.stage is not Stage.OPEN or index != len(self._hashes):
            raise DriveError(
                f"shard {self.data_id.hex()}: block {index} is not the next one "
                f"({len(self._hashes)}, {self.stage.name.lower()})"
            )
        block_size, last_size = self._block_size_bytes, self._last_size_bytes
        for block in blocks:
            block_size = block_size or len(block)
            if ((self._hashes or last_size) and last_size != block_size) or not 0 < len(block) <= block_size:
                raise DriveError(f"shard {self.data_id.hex()}: only the last block may be shorter than the others")
            last_size = len(block)
        start = self._size_bytes
        self._block_size_bytes, self._last_size_bytes = block_size, last_size
        self._size_bytes += sum(map(len, blocks))
        self._hashes.extend(hashes)
        _write_all(self._descriptor, [*blocks, *(self._ending() if last else ())], start)
        if last:
            self._complete()

    def write_footer(self) -> None:
        """Make the bytes complete and durable (the name is not yet).  Raises OSError."""
        _write_all(self._descriptor, self._ending(), self._size_bytes)
        self._complete()

    def _ending(self) -> list[bytes]:
        shape = ShardShape(self._block_size_bytes, len(self._hashes), self._size_bytes)
        return [b"".join(self._hashes), shard_format.encode_footer(self.data_id, shape)]

    def _complete(self) -> None:
        os.fdatasync(self._descriptor)
        self.close()
        self.stage = Stage.COMPLETE

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def remove(self) -> None:
        """Close and unlink, whatever state it is in."""
        self.close()
        self.path.unlink(missing_ok=True)


def verify(data_id: bytes, index: int, blocks: Sequence[Block], hashes: Sequence[bytes]) -> None:
    """Raises ShardCorrupt if a block did not arrive as its hash says."""
    for offset, (block, digest) in enumerate(zip(blocks, hashes, strict=True)):
        if xxhash.xxh3_128_digest(block) != digest:
            raise ShardCorrupt(f"shard {data_id.hex()}: block {index + offset} arrived with another hash")


def _write_all(descriptor: int, buffers: Sequence[Block], offset: int) -> None:
    """Gathered writes at an offset, however short each of them falls."""
    views = [memoryview(buffer) for buffer in buffers if buffer]
    written = _write_directly(descriptor, views, offset)
    offset += written
    views = _after(views, written)
    while views:
        written = os.pwritev(descriptor, views[:_MAX_BUFFERS_PER_WRITE], offset)
        offset += written
        views = _after(views, written)


def _after(views: list[memoryview], count: int) -> list[memoryview]:
    """Without the first `count` bytes."""
    gone = 0
    while count and count >= len(views[gone]):
        count -= len(views[gone])
        gone += 1
    left = views[gone:]
    if count:
        left[0] = left[0][count:]
    return left


def _write_directly(descriptor: int, views: list[memoryview], offset: int) -> int:
    """Past the page cache as much as can be; returns how much of the beginning that was."""
    run = as_one(_together(views))
    if run is None or len(run) < DIRECT_FROM_BYTES or offset % PAGE_SIZE_BYTES or address_of(run) % PAGE_SIZE_BYTES:
        return 0
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | os.O_DIRECT)
        try:
            return os.pwritev(descriptor, [run[: len(run) // PAGE_SIZE_BYTES * PAGE_SIZE_BYTES]], offset)
        finally:
            fcntl.fcntl(descriptor, fcntl.F_SETFL, flags)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return 0  # the file system does not have it


def _together(views: list[memoryview]) -> list[memoryview]:
    """The first of them that are views of one buffer."""
    count = 0
    while count < len(views) and views[count].obj is views[0].obj:
        count += 1
    return views[:count]
