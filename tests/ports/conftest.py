"""Every implementation of a port goes through the same suite: add a factory to the list and it is tested.

A *bench* is one drive under test together with what the suite needs beyond the port: a clock it can move, a
way to restart the drive, to have reclaim run once, and to look at which shards still take up room.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Protocol

import pytest

from holdfast_server.drives.local import DriveSettings, LocalDrive
from holdfast_server.drives.port import Drive
from holdfast_server.drives.slot import Slot
from holdfast_server.testing.manual_clock import ManualClock
from holdfast_server.testing.memory_drive import MemoryDrive

INCARNATION = 7
SLOT = Slot("tenant-1", "main", 0, 2)


class DriveBench(Protocol):
    drive: Drive
    clock: ManualClock

    async def restart(self) -> None:
        """The process that serves the drive ends cleanly and starts again."""

    async def reap(self) -> None:
        """One pass of reclaim."""

    def has_shard(self, data_id: bytes) -> bool:
        """Whether a shard takes up room."""

    async def close(self) -> None: ...


class LocalBench:
    def __init__(self, path: Path, clock: ManualClock) -> None:
        self.path = path
        self.clock = clock
        self.drive: LocalDrive

    async def open(self) -> None:
        self.drive = await LocalDrive.open(self.path, SLOT, self.clock, DriveSettings(reap_interval_seconds=None))

    async def restart(self) -> None:
        await self.drive.close()
        await self.open()

    async def reap(self) -> None:
        await self.drive.reap()

    def has_shard(self, data_id: bytes) -> bool:
        name = data_id.hex()
        return (self.path / "shards" / name[:2] / name).exists() or (self.path / "staging" / name).exists()

    async def close(self) -> None:
        await self.drive.close()


class MemoryBench:
    def __init__(self, drive: MemoryDrive, clock: ManualClock) -> None:
        self.drive = drive
        self.clock = clock

    async def restart(self) -> None:
        self.drive.restart()

    async def reap(self) -> None:
        self.drive.reap()

    def has_shard(self, data_id: bytes) -> bool:
        return data_id in self.drive.shard_ids()

    async def close(self) -> None:
        """Nothing to let go of."""


async def local_bench(path: Path, clock: ManualClock, watermark: int | None) -> DriveBench:
    bench = LocalBench(path, clock)
    await bench.open()
    if watermark is None:
        await bench.drive.format(b"drive id 16 byte", INCARNATION)
    else:
        await bench.drive.adopt(b"drive id 16 byte", INCARNATION, watermark)
    return bench


async def memory_bench(path: Path, clock: ManualClock, watermark: int | None) -> DriveBench:
    drive = MemoryDrive(clock, incarnation=INCARNATION, healing=watermark is not None, watermark=watermark or 0)
    return MemoryBench(drive, clock)


BenchFactory = Callable[[Path, ManualClock, int | None], Awaitable[DriveBench]]

DRIVE_FACTORIES: list[BenchFactory] = [local_bench, memory_bench]
"""Each opens an empty drive: FULL if the watermark is None, else HEALING with that watermark."""


@pytest.fixture(params=DRIVE_FACTORIES, ids=lambda factory: factory.__name__.removesuffix("_bench"))
def bench_factory(request: pytest.FixtureRequest) -> BenchFactory:
    return request.param


@pytest.fixture
async def bench(bench_factory: BenchFactory, tmp_path: Path) -> AsyncIterator[DriveBench]:
    """A full, empty drive."""
    bench = await bench_factory(tmp_path, ManualClock(), None)
    yield bench
    await bench.close()


@pytest.fixture
async def healing_bench(bench_factory: BenchFactory, tmp_path: Path) -> AsyncIterator[DriveBench]:
    """An empty replacement, healing, with watermark 1000."""
    bench = await bench_factory(tmp_path, ManualClock(), 1000)
    yield bench
    await bench.close()
