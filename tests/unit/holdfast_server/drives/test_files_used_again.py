"""What a record names is whole, whatever is put, deleted, discarded, read, reclaimed and written over beside it.

Random operations on a real folder, side by side, with a reclaim that waits for nobody.  Most of them name a file once
more after it was dropped, at whatever moment of its reclaim: it is whole then, or the drive has said NO_DATA.
`HOLDFAST_CRASH_ROUNDS` has more of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
from collections import Counter

import pytest
import xxhash

from holdfast_server.drives import spares
from holdfast_server.drives.local import DriveSettings, LocalDrive
from holdfast_server.drives.port import CommitMode, CommitRequest, CommitStatus, Held, Register, ShardMissing
from holdfast_server.drives.shard_files import staged_names
from holdfast_server.drives.spares import SUFFIX

HASTY = DriveSettings(reclaim_delay_seconds=0.0, reap_interval_seconds=None)
SPACE = b"o" + bytes(16)
REGISTERS = 8
ROUNDS = int(os.environ.get("HOLDFAST_CRASH_ROUNDS", "0"))
OPERATIONS = 500 * max(1, ROUNDS)
BLOCK_SIZES = (65_536, 100_000, 200_004)


class Shard:
    def __init__(self, chance: random.Random) -> None:
        self.data_id = chance.randbytes(16)
        size = chance.choice(BLOCK_SIZES)
        self.blocks = [chance.randbytes(size) for _ in range(chance.choice((0, 0, 1, 3)))] + [
            chance.randbytes(chance.choice((size, size // 2 + 1)))
        ]
        self.hashes = [xxhash.xxh3_128_digest(block) for block in self.blocks]
        self.tried_again = False


class Busy:
    """A drive, and what it must have."""

    def __init__(self, drive: LocalDrive, seed: int) -> None:
        self.drive, self.chance = drive, random.Random(seed)
        self.named: list[Shard | None] = [None] * REGISTERS
        self.dropped: list[Shard] = []
        self.counts: Counter[str] = Counter()
        self._locks = [asyncio.Lock() for _ in range(REGISTERS)]
        self._stamp = 100

    async def work(self, operations: int) -> None:
        for _ in range(operations):
            number = self.chance.randrange(REGISTERS)
            async with self._locks[number]:
                await self.chance.choice((self.put, self.put, self.delete, self.again, self.again, self.check))(number)
            await self.chance.choice((self.begin_and_leave, self.read_dropped))()

    async def put(self, number: int) -> None:
        shard = Shard(self.chance)
        await self._stage(shard, len(shard.blocks))
        assert await self._name(number, shard) is CommitStatus.OK

    async def delete(self, number: int) -> None:
        assert await self._name(number, None) is CommitStatus.OK

    async def again(self, number: int) -> None:
        shard = self.named[number]
        if shard is None:
            return
        await self.delete(number)
        await asyncio.sleep(self.chance.choice((0, 0.001, 0.01)))
        if await self._name(number, shard) is CommitStatus.OK:
            self.counts["again"] += 1
            await self.check(number)
        else:
            self.counts["too late"] += 1

    async def check(self, number: int) -> None:
        shard = self.named[number]
        if shard is not None:
            assert await self.drive.read_blocks(shard.data_id, 0, len(shard.blocks)) == (shard.blocks, shard.hashes)
            await self.drive.verify_shard(shard.data_id)

    async def begin_and_leave(self) -> None:
        shard = Shard(self.chance)
        await self._stage(shard, self.chance.randint(1, len(shard.blocks)))
        await self.drive.discard(shard.data_id)

    async def read_dropped(self) -> None:
        """It may be gone, but not another's."""
        if self.dropped:
            shard = self.chance.choice(self.dropped)
            try:
                found = await self.drive.read_blocks(shard.data_id, 0, len(shard.blocks))
            except ShardMissing:
                return
            assert found == (shard.blocks, shard.hashes)

    async def _stage(self, shard: Shard, blocks: int) -> None:
        for index in range(blocks):
            last = index == len(shard.blocks) - 1
            await self.drive.stage(shard.data_id, index, [shard.blocks[index]], [shard.hashes[index]], last)

    async def _name(self, number: int, shard: Shard | None) -> CommitStatus:
        """In the place of what is named there."""
        self._stamp += 1
        register, stamp = Register(SPACE, f"k{number}"), self._stamp
        held = Held(stamp, shard is None, b"r", 0 if shard else -1, None, (shard.data_id,) if shard else ())
        reply = await self.drive.commit(CommitRequest(register, held, CommitMode.PLAIN))
        if reply.status is CommitStatus.OK:
            former, self.named[number] = self.named[number], shard
            self.dropped = [*self.dropped[-20:], former] if former else self.dropped
            await self.drive.note(register, stamp, True)
        return reply.status


@pytest.mark.timeout(600 + 60 * ROUNDS)
async def test_what_is_named_is_whole_whatever_is_written_over_beside_it(open_drive, monkeypatch):
    monkeypatch.setattr(spares, "MAX_FILES", 6)
    drive = await open_drive(settings=HASTY)
    busy = Busy(drive, seed=5)

    async def reap() -> None:
        while True:
            busy.counts["reclaimed"] += await drive.reap()
            await asyncio.sleep(busy.chance.choice((0, 0.002, 0.01)))

    reaping = asyncio.create_task(reap())
    async with asyncio.TaskGroup() as group:
        for _ in range(8):
            group.create_task(busy.work(OPERATIONS // 8))
    reaping.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await reaping
    for number in range(REGISTERS):
        await busy.check(number)
    while staged_names(drive.path):
        await asyncio.sleep(0.005)
    files = [path for folder in ("shards", "staging") for path in (drive.path / folder).rglob("*") if path.is_file()]
    assert len({path.stat().st_ino for path in files}) == len(files)
    assert len([path for path in files if path.name.endswith(SUFFIX)]) <= spares.MAX_FILES
    assert set(+busy.counts) == {"again", "too late", "reclaimed"}
