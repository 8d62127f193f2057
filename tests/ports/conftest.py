"""Every implementation of a port goes through the same suite: add a factory to the list and it is tested.

A *bench* is one drive under test together with what the suite needs beyond the port: a clock it can move, a
way to restart the drive, to have reclaim run once, and to look at which shards still take up room.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Protocol

import pytest

from holdfast_server.clock.system import SystemClock
from holdfast_server.contract.admin import PodState
from holdfast_server.drives.local import DriveSettings, LocalDrive
from holdfast_server.drives.port import Drive
from holdfast_server.drives.slot import Slot, SlotMemory
from holdfast_server.peers.channel import DialSettings, Target
from holdfast_server.peers.dispatch import Dispatcher, PeerServices
from holdfast_server.peers.handshake import PodIdentity
from holdfast_server.peers.messages import FEATURES, Report
from holdfast_server.peers.naming import Resolver
from holdfast_server.peers.remote import RemotePeer
from holdfast_server.peers.server import PeerServer
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


STATE = PodState(pod="pod-1", pool="main", ordinal=1)


class RemoteBench:
    """A local drive served by one pod and asked by another, over a real connection."""

    def __init__(self, local: LocalBench) -> None:
        self._local = local
        self.clock = local.clock
        self._served: list[Drive] = [local.drive]
        self._resolver = Resolver()
        self.drive: Drive

    async def connect(self) -> None:
        def report() -> Report:
            return Report(1, tuple(drive.status() for drive in self._served), features=FEATURES)

        async def nothing(*_: object) -> None:
            """What this suite does not ask."""

        async def no_slots() -> list[SlotMemory]:
            return []

        services = PeerServices(nothing, nothing, no_slots, nothing, report, lambda: STATE, nothing)
        dispatcher = Dispatcher(self._served, services)
        server_id, asker_id = PodIdentity("tenant-1", "main", 1, "pod-1"), PodIdentity("tenant-1", "main", 0, "pod-0")
        self._server = PeerServer(
            server_id, lambda: b"key", dispatcher, report, lambda *_: True, lambda *_: None, SystemClock()
        )
        port = await self._server.start("127.0.0.1", 0)
        settings = DialSettings(asker_id, lambda: [b"key"], lambda: Report(1, ()), self._resolver, SystemClock())
        place = (SLOT.set_index, SLOT.position)
        self._peer = RemotePeer(Target("main", 1, "127.0.0.1", port), 1, [place], settings, lambda: None)
        self._asking = asyncio.create_task(self._peer.run())
        self.drive = self._peer.drives()[0]
        await self._reported()

    async def restart(self) -> None:
        await self._local.restart()
        self._served[:] = [self._local.drive]
        self._server.push_report()
        await self._reported()

    async def _reported(self) -> None:
        async with asyncio.timeout(60):
            while self.drive.status() != self._local.drive.status():
                await asyncio.sleep(0.005)

    async def reap(self) -> None:
        await self._local.reap()

    def has_shard(self, data_id: bytes) -> bool:
        return self._local.has_shard(data_id)

    async def close(self) -> None:
        self._asking.cancel()
        await asyncio.wait((self._asking,))
        await self._server.close()
        self._resolver.close()
        await self._local.close()


async def local_bench(path: Path, clock: ManualClock, watermark: int | None) -> LocalBench:
    bench = LocalBench(path, clock)
    await bench.open()
    if watermark is None:
        await bench.drive.format(b"drive id 16 byte", INCARNATION)
    else:
        await bench.drive.adopt(b"drive id 16 byte", INCARNATION, watermark)
    return bench


async def remote_bench(path: Path, clock: ManualClock, watermark: int | None) -> DriveBench:
    bench = RemoteBench(await local_bench(path, clock, watermark))
    await bench.connect()
    return bench


async def memory_bench(path: Path, clock: ManualClock, watermark: int | None) -> DriveBench:
    drive = MemoryDrive(clock, incarnation=INCARNATION, healing=watermark is not None, watermark=watermark or 0)
    return MemoryBench(drive, clock)


BenchFactory = Callable[[Path, ManualClock, int | None], Awaitable[DriveBench]]

DRIVE_FACTORIES: list[BenchFactory] = [local_bench, memory_bench, remote_bench]
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
