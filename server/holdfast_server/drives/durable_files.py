"""Files that are there after a power cut: the few sequences of calls that make them so.

A file's bytes are durable after its own fsync, its name after an fsync of its folder; a rename is durable
after an fsync of the folder it went into.  A failed fsync is never tried again: the kernel may have dropped
the dirty pages and would report success (the "fsyncgate" of 2018); callers set the drive aside instead.
"""

from __future__ import annotations

import fcntl
import os
import threading
from pathlib import Path

from holdfast_server.drives.faults import FaultKind, is_passing


class FolderLocked(Exception):
    """Another process has the drive open."""

    kind = FaultKind.PLACE


def fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_file(path: Path, data: bytes) -> None:
    """Write a small file so that after a crash the old or the new content is there, whole.

    All that is opened is opened before anything changes: who finds no descriptor left has the old file still."""
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        temporary = path.with_name(path.name + ".new")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
            # Before the rename: else the name may be durable before the bytes, and the file come back empty.
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(temporary, path)
        os.fsync(folder)
    finally:
        os.close(folder)


class FolderSync:
    """Fsync of one folder, shared: everyone who asks while one is running waits for the next, together.

    Called on worker threads.  Once one has failed all fail: see the module.  Not so where the folder could not even be
    opened for want of descriptors: who waits does it himself then.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._changed = threading.Condition()
        self._running = False
        self._begun = 0
        self._done = 0
        """The last that was begun, and the last that has succeeded."""
        self._error: OSError | None = None

    def sync(self) -> None:
        """Names created before this call are durable when it returns.  Raises OSError."""
        with self._changed:
            # One that is running may have begun before the name was there.
            wanted = self._begun + 1
            while self._done < wanted and self._running:
                self._changed.wait()
            if self._error is not None:
                raise self._error
            if self._done >= wanted:
                return
            self._running = True
            self._begun += 1
            number = self._begun
        error: OSError | None = None
        try:
            fsync_folder(self._folder)
        except OSError as raised:
            error = raised
            raise
        finally:
            with self._changed:
                self._running = False
                if error is None or not is_passing(error):
                    self._error = error
                    self._done = number
                self._changed.notify_all()


class FolderLock:
    """An exclusive lock on a drive's folder, held until closed or until the process ends."""

    def __init__(self, path: Path) -> None:
        """Raises FolderLocked, OSError."""
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._descriptor)
            raise FolderLocked(f"{path.parent} is in use by another process (it holds {path.name})") from error

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
