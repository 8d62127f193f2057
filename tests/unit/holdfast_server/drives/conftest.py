"""Drives on real folders."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from holdfast_server.drives.local import DriveSettings, LocalDrive
from holdfast_server.drives.slot import Slot
from holdfast_server.testing.manual_clock import ManualClock

SLOT = Slot("tenant-1", "main", 0, 0)
QUIET = DriveSettings(reap_interval_seconds=None)

OpenDrive = Callable[..., Awaitable[LocalDrive]]


@pytest.fixture
async def open_drive(tmp_path: Path) -> AsyncIterator[OpenDrive]:
    """Open (and format, if blank) the drive in tmp_path; whatever was opened is closed at the end."""
    opened: list[LocalDrive] = []

    async def open_it(
        path: Path = tmp_path, slot: Slot = SLOT, settings: DriveSettings = QUIET, form: bool = True
    ) -> LocalDrive:
        drive = await LocalDrive.open(path, slot, ManualClock(), settings)
        opened.append(drive)
        if form and drive.status().state.name == "BLANK":
            await drive.format(b"drive id 16 byte", 7)
        return drive

    yield open_it
    for drive in opened:
        await drive.close()
