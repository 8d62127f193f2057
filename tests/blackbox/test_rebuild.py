"""Break real drives, read, heal once, compare every shard: files and records, byte for byte as they were.

Four real drives (RocksDB, files, threads) under the real object layer and heal service, in one process.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from holdfast_server.clock.stamp import HybridClock, floor_stamp
from holdfast_server.clock.system import SystemClock
from holdfast_server.drives.local import DriveSettings, LocalDrive
from holdfast_server.drives.port import DriveState, ScanRequest
from holdfast_server.drives.slot import Slot
from holdfast_server.heal.service import HealService
from holdfast_server.heal.settings import HealSettings
from holdfast_server.objects import record
from holdfast_server.objects.store import ObjectStore
from holdfast_server.testing.memory_cluster import BUCKET, BytesBody, MemoryCluster

SETTINGS = HealSettings(compare_page=20, returned_delay_seconds=0.0, scan_longest_rest_seconds=0.0, scan_page=20)
SIZES = (0, 700, 4096, 50_000, 70_000, (1 << 20) + 3, 3_500_000)


class RealDrives:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = SystemClock()
        self.drives: list[LocalDrive] = []
        self.contents: dict[str, bytes] = {}

    async def open(self) -> None:
        self.drives = [await self._open(position) for position in range(4)]
        for position, drive in enumerate(self.drives):
            if drive.status().state is DriveState.BLANK:
                await drive.format(bytes((position,)) * 16, 1)
        pools = MemoryCluster(self.clock, 4, 2, 1).pools
        self.store = ObjectStore(pools, lambda *_: list(self.drives), self.clock, HybridClock(0))

    async def _open(self, position: int) -> LocalDrive:
        path = self.folder / str(position)
        path.mkdir(exist_ok=True)
        slot = Slot("tenant", "main", 0, position)
        return await LocalDrive.open(path, slot, self.clock, DriveSettings(reap_interval_seconds=None))

    async def close(self) -> None:
        await self.store.close()
        for drive in self.drives:
            await drive.close()

    async def write(self) -> None:
        rng = random.Random(3)
        for number in range(4):
            for size in SIZES:
                key = f"{number}/{size}"
                self.contents[key] = rng.randbytes(size)
                await self.store.put_object(BUCKET, key, BytesBody(self.contents[key]))
        await self.store.background.drained()

    async def read(self) -> None:
        for key, data in self.contents.items():
            reader = await self.store.open_object(BUCKET, key)
            assert reader is not None
            assert b"".join([bytes(piece) async for piece in reader.chunks(0, len(data))]) == data

    async def replace(self, position: int) -> None:
        """Its folder is emptied, and it is adopted."""
        await self.drives[position].close()
        shutil.rmtree(self.folder / str(position))
        self.drives[position] = await self._open(position)
        watermark = floor_stamp(self.clock.now_ms() + 2000)
        await self.drives[position].adopt(b"a replacement id", watermark, watermark)

    def heal_service(self, position: int) -> HealService:
        return HealService(self.store, lambda: (self.drives[position],), self.clock, SETTINGS)

    async def everything(self, position: int) -> dict[str, tuple[object, ...]]:
        """What a drive has of every object: record, inline shard, and its shard files' bytes."""
        drive = self.drives[position]
        page = await drive.scan(ScanRequest(record.OBJECT_SPACE + BUCKET))
        found = {}
        for entry in page.entries:
            reply = await drive.query(entry.register, True)
            files = tuple(self.shard_file(position, data_id).read_bytes() for data_id in entry.newest.data_ids)
            found[entry.register.key] = (reply.records, reply.mark, files)
        assert len(found) == len(self.contents)
        return found

    def shard_file(self, position: int, data_id: bytes) -> Path:
        return self.folder / str(position) / "shards" / data_id.hex()[:2] / data_id.hex()

    def staged_files(self, position: int) -> list[Path]:
        return list((self.folder / str(position) / "staging").iterdir())

    def shard_files(self, position: int) -> list[Path]:
        return sorted(path for path in (self.folder / str(position) / "shards").rglob("*") if path.is_file())


@pytest.fixture
async def real(tmp_path: Path) -> AsyncIterator[RealDrives]:
    made = RealDrives(tmp_path)
    await made.open()
    await made.write()
    yield made
    await made.close()


async def settle(real: RealDrives) -> None:
    """Until the shards of commits are where they belong: they are moved there soon."""
    await real.store.background.drained()
    async with asyncio.timeout(120):
        while any(real.staged_files(position) for position in range(len(real.drives))):
            await asyncio.sleep(0.02)


async def test_an_emptied_drive_gets_every_shard_back_byte_for_byte(real: RealDrives) -> None:
    await settle(real)
    before = await real.everything(1)
    await real.replace(1)
    await real.read()
    healing = real.heal_service(1)
    while real.drives[1].status().state is DriveState.HEALING:
        await healing._everywhere(healing._fill)
    await settle(real)
    assert await real.everything(1) == before
    await real.read()


async def test_a_filling_goes_on_over_restarts_of_everything(real: RealDrives) -> None:
    await settle(real)
    before = await real.everything(2)
    await real.replace(2)
    rounds = 0
    while real.drives[2].status().state is DriveState.HEALING:
        healing = real.heal_service(2)
        await healing._everywhere(healing._fill)
        await settle(real)
        rounds += 1
        await real.close()
        await real.open()
    assert rounds >= 2
    assert await real.everything(2) == before


async def test_rot_and_loss_are_found_and_rebuilt_byte_for_byte(real: RealDrives) -> None:
    await settle(real)
    before = await real.everything(3)
    files = real.shard_files(3)
    assert len(files) == 12
    rng = random.Random(7)
    for number, path in enumerate(files[:9]):
        if number % 3 == 0:
            path.unlink()
        elif number % 3 == 1:
            os.truncate(path, path.stat().st_size // 2)
        else:
            data = bytearray(path.read_bytes())
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            path.write_bytes(data)
    await real.read()
    await settle(real)
    healing = real.heal_service(3)
    work = healing.work_of(0)
    await healing.scanner.scan_once(real.drives[3], healing.set_of(real.drives[3]), work.scan)
    await settle(real)
    assert await real.everything(3) == before
    await real.read()
