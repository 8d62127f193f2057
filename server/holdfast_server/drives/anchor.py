"""A folder held by a descriptor, so that its files are found in *it*, wherever its path leads by now.

RocksDB opens, renames and removes files by path for as long as it lives, and even writes some when it is closed.  If
another volume comes to lie at that path meanwhile, those files land in another drive's table.  So a drive's folder is
opened once, and everything in it is named through that descriptor (`/proc/self/fd/…`); only the identity is looked for
at the path itself, which is how a drive notices that it was swapped.

The descriptor's number is not one that is soon given out again: a table that outlives its drive by a moment (somebody
still holds a cursor) must find nothing under its name, and its lock, which RocksDB keeps by name, must not meet another
drive's.
"""

from __future__ import annotations

import fcntl
import os
import resource
import secrets
from pathlib import Path

_DESCRIPTORS = Path("/proc/self/fd")
_LOWEST = 256
"""Above what files and connections mostly get, which is the lowest number that is free."""
_HIGHEST = 1 << 16


def _unlikely_number() -> int:
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = _HIGHEST if limit == resource.RLIM_INFINITY else min(_HIGHEST, limit - _LOWEST // 2)
    return _LOWEST + secrets.randbelow(max(1, highest - _LOWEST))


class Anchor:
    def __init__(self, folder: Path) -> None:
        """Raises OSError."""
        self._folder = folder
        opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._descriptor = fcntl.fcntl(opened, fcntl.F_DUPFD_CLOEXEC, _unlikely_number())
        finally:
            os.close(opened)
        # Without procfs there is no such name, and the path has to do.
        self.inside = _DESCRIPTORS / str(self._descriptor) if _DESCRIPTORS.exists() else folder

    def told(self, message: str) -> str:
        """A message about what is inside, with the path that people know."""
        return message.replace(str(self.inside), str(self._folder))

    def close(self) -> None:
        """Once nothing inside is in use any more."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
