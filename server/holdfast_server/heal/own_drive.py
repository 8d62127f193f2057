"""What healing needs of a drive of its own pod, beyond the port."""

from __future__ import annotations

from typing import Protocol

from holdfast_server.drives.port import Drive

ORPHAN_FOLDERS = 257
"""Those of `shards/`, and `staging/`."""


class OwnDrive(Drive, Protocol):
    @property
    def repair_queue_length(self) -> int:
        """Entries of the repair queue."""

    async def verify_shard(self, data_id: bytes) -> int:
        """Read a shard from the disk against its hashes; its size in bytes.  Raises ShardMissing, ShardCorrupt."""

    async def trash_orphans(self, folder: int, age_seconds: float) -> int:
        """Have the files of one folder (0 to `ORPHAN_FOLDERS` - 1) reclaimed that are so old and unnamed; how many."""

    async def keep(self, name: bytes, value: bytes) -> None:
        """A fact about this drive, kept on it; not synced."""

    async def kept(self, name: bytes) -> bytes | None: ...
