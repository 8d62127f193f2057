"""What a pod has reported is known to whichever of its drives serve, and so to its next process."""

from __future__ import annotations

import pytest

from holdfast_server.drives.port import DriveError, DriveFull, DriveState, DriveStatus
from holdfast_server.pod.epoch_memory import NAME, EpochMemory


class Drive:
    def __init__(self, epoch: int = 0, state: DriveState = DriveState.FULL) -> None:
        self.epoch, self.state = epoch, state
        self.failure: DriveError | None = None

    def status(self) -> DriveStatus:
        return DriveStatus(self.state)

    async def keep(self, name: bytes, value: bytes, durable: bool = False) -> None:
        assert (name, durable) == (NAME, True)
        if self.failure is not None:
            raise self.failure
        self.epoch = int.from_bytes(value, "big")

    async def kept(self, name: bytes) -> bytes | None:
        if self.failure is not None:
            raise self.failure
        return self.epoch.to_bytes(8, "big") if self.epoch else None


async def test_a_drive_that_serves_later_is_asked_then() -> None:
    """Its pod was started with an older configuration, and nothing else here knows how far it had been."""
    slow = Drive(7, DriveState.OFFLINE)
    memory = EpochMemory(lambda: [Drive(3), slow])
    await memory.load()
    assert memory.newest == 3
    slow.state = DriveState.FULL
    await memory.load()
    assert memory.newest == 7


async def test_a_drive_that_serves_later_is_not_made_to_forget() -> None:
    slow = Drive(7, DriveState.OFFLINE)
    memory = EpochMemory(lambda: [Drive(3), slow])
    await memory.load()
    slow.state = DriveState.FULL
    await memory.remember(4)
    assert (memory.newest, slow.epoch) == (7, 7)


async def test_a_drive_that_joins_is_told_what_was_reported_before() -> None:
    """Alone at the next start, it would have the pod go by any older configuration."""
    first, second = Drive(), Drive(state=DriveState.BLANK)
    memory = EpochMemory(lambda: [first, second])
    await memory.load()
    await memory.remember(5)
    assert (first.epoch, second.epoch) == (5, 0)
    second.state = DriveState.HEALING
    await memory.load()
    assert second.epoch == 5


async def test_drives_that_knew_less_are_told_of_what_another_brings() -> None:
    first, late = Drive(2), Drive(6, DriveState.OFFLINE)
    memory = EpochMemory(lambda: [first, late])
    await memory.load()
    late.state = DriveState.FULL
    await memory.load()
    await memory.load()
    assert (first.epoch, late.epoch) == (6, 6)


async def test_a_drive_that_could_not_be_told_is_told_once_it_can_and_complained_of_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    drive = Drive()
    memory = EpochMemory(lambda: [drive])
    await memory.load()
    drive.failure = DriveFull("no room")
    for _ in range(5):
        await memory.remember(4)
    assert memory.newest == 4
    assert len(caplog.records) == 1
    drive.failure = None
    await memory.load()
    assert drive.epoch == 4
