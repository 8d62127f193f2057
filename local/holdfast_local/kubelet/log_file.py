"""A container's log: what it writes, appended to a file that is rotated once, so that disk use is bounded."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import BinaryIO

LOG_LIMIT_BYTES = 10 * 1024 * 1024
"""Per file; the current and one older file are kept, as `<name>` and `<name>.1`."""
READ_SIZE_BYTES = 64 * 1024


class LogFile:
    """Append-only, rotated at `limit_bytes`.  A write that fails (disk full) is dropped, never the pod."""

    def __init__(self, path: Path, limit_bytes: int = LOG_LIMIT_BYTES) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._limit_bytes = limit_bytes
        self._file: BinaryIO = path.open("ab", buffering=0)
        self._size_bytes = self._file.tell()

    def write(self, data: bytes) -> None:
        try:
            if self._size_bytes + len(data) > self._limit_bytes:
                self._rotate()
            self._file.write(data)
            self._size_bytes += len(data)
        except OSError:
            return

    def _rotate(self) -> None:
        self._file.close()
        self.path.replace(self.path.with_name(self.path.name + ".1"))
        self._file = self.path.open("ab", buffering=0)
        self._size_bytes = 0

    def close(self) -> None:
        self._file.close()


async def copy_to_log(stream: asyncio.StreamReader, log: LogFile) -> None:
    """Until the stream ends."""
    while data := await stream.read(READ_SIZE_BYTES):
        log.write(data)


def tail(path: Path, line_count: int) -> list[str]:
    """The last lines of a log, for people; empty where there is none."""
    try:
        with path.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - line_count * 400))
            return file.read().decode("utf-8", "replace").splitlines()[-line_count:]
    except OSError:
        return []
