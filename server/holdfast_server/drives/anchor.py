"""A folder held by a descriptor, so that its files are found in *it*, wherever its path leads by now.

RocksDB opens, renames and removes files by path for as long as it lives, and even writes some when it is closed.  If
another volume comes to lie at that path meanwhile, those files land in another drive's table.  So a drive's folder is
opened once, and everything in it is named through that descriptor (`/proc/self/fd/…`); only the identity is looked for
at the path itself, which is how a drive notices that it was swapped.
"""

from __future__ import annotations

import os
from pathlib import Path

_DESCRIPTORS = Path("/proc/self/fd")


class Anchor:
    def __init__(self, folder: Path) -> None:
        """Raises OSError."""
        self._folder = folder
        self._descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
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
