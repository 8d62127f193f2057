"""One shard file on its way in: blocks are appended, then it is sealed.  Called on a worker thread, one call
at a time (its owner holds `lock`).

Staging the same blocks again is no fault and writes nothing: a caller whose answer was lost may repeat, and
two healers may stage the same shard at once (what belongs in it is determined by its data id).

Large ones go past the page cache (`page_appends`): that takes half the CPU, and what is read soon stays in memory
instead.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from enum import Enum
from pathlib import Path

import xxhash

from holdfast_server.drives import shard_format
from holdfast_server.drives.page_appends import PageAppends
from holdfast_server.drives.port import Block, ComputedHashes, DriveError, ShardCorrupt
from holdfast_server.drives.shard_format import ShardShape


class Stage(Enum):
    OPEN = 1
    COMPLETE = 2
    """Its bytes are durable, its name not yet."""
    SEALED = 3
    CLAIMED = 4
    """A record names it; it is only waiting to be moved into its place."""
    GONE = 5
    """Removed: its descriptor, which may be another file's by now, is not to be used."""


class StagedShard:
    def __init__(self, path: Path, data_id: bytes, now_seconds: float, over: bool = False) -> None:
        """Create the file, or write `over` the one that is there.  Raises OSError."""
        self.lock = threading.Lock()
        self.path = path
        self.data_id = data_id
        self.stage = Stage.OPEN
        self.touched_seconds = now_seconds
        afresh = 0 if over else os.O_TRUNC
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | afresh | os.O_CLOEXEC, 0o644)
        self._appends = PageAppends(self._descriptor, over)
        self._hashes: list[bytes] = []
        self._block_size_bytes = 0
        self._last_size_bytes = 0
        self.size_bytes = 0
        """Of its blocks so far."""
        self.streamed = False
        """Whether they came in pieces."""

    def has(self, index: int, hashes: Sequence[bytes]) -> bool:
        """Whether these very blocks are there already."""
        if self.stage is Stage.GONE:
            return False
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
        self._block_size_bytes, self._last_size_bytes = block_size, last_size
        self.streamed = self.streamed or bool(self._hashes)
        self.size_bytes += sum(map(len, blocks))
        self._hashes.extend(hashes)
        self._appends.append(blocks, self._ending() if last else ())
        if last:
            self._complete()

    def write_footer(self) -> None:
        """Make the bytes complete and durable (the name is not yet).  OPEN; raises OSError."""
        self._appends.append((), self._ending())
        self._complete()

    def _ending(self) -> list[bytes]:
        shape = ShardShape(self._block_size_bytes, len(self._hashes), self.size_bytes)
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
        """Close and unlink, whatever state it is in; for good."""
        self.stage = Stage.GONE
        self.close()
        self.path.unlink(missing_ok=True)


def verify(data_id: bytes, index: int, blocks: Sequence[Block], hashes: Sequence[bytes]) -> None:
    """Raises ShardCorrupt if a block did not arrive as its hash says."""
    if isinstance(hashes, ComputedHashes):
        return
    for offset, (block, digest) in enumerate(zip(blocks, hashes, strict=True)):
        if xxhash.xxh3_128_digest(block) != digest:
            raise ShardCorrupt(f"shard {data_id.hex()}: block {index + offset} arrived with another hash")
