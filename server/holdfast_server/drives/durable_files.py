"""Files that are there after a power cut: the few sequences of calls that make them so.

A file's bytes are durable after its own fsync, its name after an fsync of its folder; a rename is durable
after an fsync of the folder it went into.  A failed fsync is never tried again: the kernel may have dropped
the dirty pages and would report success (the "fsyncgate" of 2018); callers set the drive aside instead.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from holdfast_server.drives.faults import FaultKind


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
    """Write a small file so that after a crash the old or the new content is there, whole."""
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
    fsync_folder(path.parent)


class FolderSync:
    """Fsync of one folder, shared: everyone who asks while one is running waits for the next, together."""

    def __init__(self, folder: Path, run: Callable[[Callable[[], None]], Coroutine[Any, Any, None]]) -> None:
        """`run` does something on a thread."""
        self._folder = folder
        self._run_on_thread = run
        self._next: asyncio.Future[None] | None = None
        self._last: asyncio.Future[None] | None = None

    async def sync(self) -> None:
        """Names created before this call are durable when it returns.  Raises OSError."""
        if self._next is None:
            self._next = asyncio.ensure_future(self._run(self._last))
            # Whoever asked may have left before it failed.
            self._next.add_done_callback(lambda done: done.cancelled() or done.exception())
            self._last = self._next
        await asyncio.shield(self._next)

    async def _run(self, running: asyncio.Future[None] | None) -> None:
        if running is not None:
            await asyncio.wait((running,))
        # From here on names may be created too late for this fsync: who asks now gets the one after.
        self._next = None
        await self._run_on_thread(lambda: fsync_folder(self._folder))


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
