"""A file that takes up room only to give it back when the drive needs it most.

The reserve (`space`) keeps the pod itself from filling a drive; it cannot keep others from filling the file system.
RocksDB then fails even at what would free space, and a table that met a full disk has to be opened anew, which
itself writes.  So a few megabytes are allocated in advance, and removed when that happens: deletes, notes and
reclaim go on in their place.  The file comes back once there is room for it above the reserve.

It helps as long as nobody else takes what was given back; after that the drive goes on reading, and waits.
On file systems that compress or copy on write, allocating in advance guarantees nothing.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

BALLAST_FILE = "holdfast.ballast"
BALLAST_BYTES = 32 << 20
"""Twice what the table keeps in memory and may have to write when it is opened (`engine.MEMTABLES_BYTES`)."""
BALLAST_SHARE = 16
"""On a small file system at most one part in so many."""

log = logging.getLogger(__name__)


def ballast_size(total_bytes: int) -> int:
    return min(BALLAST_BYTES, total_bytes // BALLAST_SHARE)


def lay(folder: Path, size_bytes: int) -> None:
    """Allocate it, unless it is there and whole: a crash may leave it empty.  A file system that cannot is no fault."""
    path = folder / BALLAST_FILE
    if size_bytes <= 0 or (path.exists() and path.stat().st_size >= size_bytes):
        return
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            os.posix_fallocate(descriptor, 0, size_bytes)
        finally:
            os.close(descriptor)
    except OSError as error:
        log.info("no ballast in %s: %s", folder, error)
        path.unlink(missing_ok=True)


def release(folder: Path) -> bool:
    """Give it back; whether there was any.  Raises OSError."""
    path = folder / BALLAST_FILE
    if not path.exists():
        return False
    path.unlink()
    return True
