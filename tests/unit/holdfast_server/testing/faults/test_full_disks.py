"""A disk is filled beside pods that write to it: what they take meanwhile must not end the run."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from holdfast_server.testing.faults.soak import fill_up

LEAVES_BYTES = 1000


class Disk:
    """Where a pod writes `greed` bytes whenever it has been looked at."""

    def __init__(self, room_bytes: int, greed_bytes: int) -> None:
        self.room_bytes, self.greed_bytes = room_bytes, greed_bytes
        self.filled_bytes = 0

    def statvfs(self, _: int) -> SimpleNamespace:
        seen = SimpleNamespace(f_bavail=self.room_bytes, f_frsize=1)
        self.room_bytes -= self.greed_bytes
        self.greed_bytes //= 2
        return seen

    def allocate(self, _: int, offset: int, size_bytes: int) -> None:
        assert offset == 0
        if size_bytes > self.room_bytes:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.filled_bytes += size_bytes
        self.room_bytes -= size_bytes


@pytest.mark.parametrize("greed_bytes", [0, LEAVES_BYTES + 1, 50_000, 200_000])
def test_what_pods_take_meanwhile_is_not_filled_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, greed_bytes: int
) -> None:
    disk = Disk(room_bytes=100_000, greed_bytes=greed_bytes)
    monkeypatch.setattr(os, "fstatvfs", disk.statvfs)
    monkeypatch.setattr(os, "posix_fallocate", disk.allocate)
    with (tmp_path / "ballast").open("wb") as file:
        fill_up(file.fileno(), LEAVES_BYTES)
    assert disk.room_bytes <= LEAVES_BYTES


def test_any_other_failure_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "posix_fallocate", fail)
    with (tmp_path / "ballast").open("wb") as file, pytest.raises(OSError, match="Input/output"):
        fill_up(file.fileno(), 0)
