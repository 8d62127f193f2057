"""Audit lines to a file that is rotated by size.

`path` becomes `path.1`, that `path.2`, and so on; the oldest goes.  If somebody else has renamed or removed the file
(logrotate), it is made anew with the next batch: no signal is needed.  A batch that does not fit on the disk is taken
back to the last whole line and tried again later, so that no half line stays.

Not here: fsync.  The log is not the data; it may lose its last moments with the machine's power.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from holdfast_server.audit.outlet import DeliveryError
from holdfast_server.audit.patient_thread import PatientThread

MODE = 0o640


class FileSink:
    name = "file"

    def __init__(self, path: Path, max_size_bytes: int, keep: int) -> None:
        """`keep` rotated files beside the one that is written."""
        self._path, self._max_size_bytes, self._keep = path, max_size_bytes, keep
        self._descriptor: int | None = None
        self._thread = PatientThread("audit-file")

    async def deliver(self, lines: Sequence[bytes]) -> None:
        try:
            await self._thread.call(lambda: self._write(b"".join(lines)))
        except OSError as error:
            raise DeliveryError(f"{self._path}: {error.strerror or error}") from error

    async def close(self) -> None:
        self._thread.end(self._let_go)

    # --- on the thread

    def _let_go(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def _write(self, data: bytes) -> None:
        descriptor = self._current()
        size = os.fstat(descriptor).st_size
        if size and size + len(data) > self._max_size_bytes:
            self._rotate()
            descriptor, size = self._current(), 0
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(descriptor, rest) :]
        except OSError:
            os.ftruncate(descriptor, size)
            raise

    def _current(self) -> int:
        """The descriptor of what is at the path now."""
        if self._descriptor is not None and not self._is_at_path(self._descriptor):
            self._let_go()
        if self._descriptor is None:
            self._descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, MODE)
        return self._descriptor

    def _is_at_path(self, descriptor: int) -> bool:
        try:
            return os.path.samestat(os.fstat(descriptor), os.stat(self._path))
        except FileNotFoundError:
            return False

    def _rotate(self) -> None:
        for number in range(self._keep, 0, -1):
            older = self._path.with_name(f"{self._path.name}.{number}")
            newer = self._path if number == 1 else self._path.with_name(f"{self._path.name}.{number - 1}")
            if newer.exists():
                newer.replace(older)
        if not self._keep:
            self._path.unlink()
