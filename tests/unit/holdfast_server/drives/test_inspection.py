"""Shards at rest: rot is found on the disk, and what nobody names is found out."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import xxhash

from holdfast_server.drives.inspection import PIECE_BYTES, verify_file
from holdfast_server.drives.local import DriveSettings, LocalDrive
from holdfast_server.drives.port import CommitMode, CommitRequest, Held, Register, ShardCorrupt, ShardMissing
from holdfast_server.drives.slot import Slot
from holdfast_server.testing.manual_clock import ManualClock

REGISTER = Register(b"o" + bytes(16), "key")
DATA_ID = b"0123456789abcdef"
HOUR_SECONDS = 3600.0


@pytest.fixture
async def drive(tmp_path: Path) -> AsyncIterator[LocalDrive]:
    made = await LocalDrive.open(
        tmp_path, Slot("tenant", "main", 0, 0), ManualClock(), DriveSettings(reap_interval_seconds=None)
    )
    await made.format(b"an id of a drive", 1)
    yield made
    await made.close()


async def stage(drive: LocalDrive, blocks: list[bytes], data_id: bytes = DATA_ID) -> None:
    await drive.stage(data_id, 0, blocks, [xxhash.xxh3_128_digest(block) for block in blocks])
    await drive.seal(data_id)


async def name(drive: LocalDrive, stamp: int = 1, data_id: bytes = DATA_ID) -> None:
    held = Held(stamp, False, b"record", 0, None, (data_id,))
    await drive.commit(CommitRequest(REGISTER, held, CommitMode.HEAL))


def file_of(drive: LocalDrive, data_id: bytes = DATA_ID) -> Path:
    return drive.path / "shards" / data_id.hex()[:2] / data_id.hex()


@pytest.mark.parametrize(
    "sizes",
    [[1], [4096], [PIECE_BYTES], [PIECE_BYTES - 1, 5], [300_000] * 7 + [11], [PIECE_BYTES // 2] * 4, [3 << 20, 77]],
)
async def test_a_sound_shard_is_read_whole_and_any_flipped_bit_is_found(drive: LocalDrive, sizes: list[int]) -> None:
    blocks = [os.urandom(size) for size in sizes]
    await stage(drive, blocks)
    await name(drive)
    path = file_of(drive)
    assert await drive.verify_shard(DATA_ID) == path.stat().st_size
    sound = path.read_bytes()
    for place in (0, sizes[0] - 1, sum(sizes) // 2, sum(sizes) - 1, sum(sizes), len(sound) - 1):
        path.write_bytes(sound[:place] + bytes((sound[place] ^ 4,)) + sound[place + 1 :])
        with pytest.raises(ShardCorrupt):
            await drive.verify_shard(DATA_ID)
    path.write_bytes(sound[:-1])
    with pytest.raises(ShardCorrupt):
        verify_file(path, DATA_ID)
    path.unlink()
    with pytest.raises(ShardMissing):
        await drive.verify_shard(DATA_ID)


async def test_only_old_files_that_nothing_names_are_reclaimed(drive: LocalDrive) -> None:
    await stage(drive, [b"named"])
    await name(drive)
    orphans = [bytes((7, number)) * 8 for number in range(3)]
    for orphan in orphans:
        file_of(drive, orphan).write_bytes(b"left behind")
    old = drive._clock.now_ms() / 1000 - 2 * HOUR_SECONDS
    for path in (file_of(drive), *(file_of(drive, orphan) for orphan in orphans[:2])):
        os.utime(path, (old, old))
    young = drive._clock.now_ms() / 1000
    os.utime(file_of(drive, orphans[2]), (young, young))
    stray = file_of(drive).parent / "not a shard"
    stray.write_bytes(b"")
    assert await drive.trash_orphans(7, HOUR_SECONDS) == 2
    assert await drive.trash_orphans(DATA_ID[0], HOUR_SECONDS) == 0
    drive._clock.advance(60)  # type: ignore[attr-defined]
    assert await drive.reap() == 2
    assert [file_of(drive, orphan).exists() for orphan in orphans] == [False, False, True]
    assert file_of(drive).exists()


async def test_an_orphan_that_is_named_before_it_is_reclaimed_stays(drive: LocalDrive) -> None:
    await stage(drive, [b"a block"])
    await name(drive)
    path = file_of(drive)
    await drive.remove(REGISTER, 1)
    old = drive._clock.now_ms() / 1000 - 2 * HOUR_SECONDS
    os.utime(path, (old, old))
    assert await drive.trash_orphans(DATA_ID[0], HOUR_SECONDS) == 1
    await name(drive, stamp=2)
    drive._clock.advance(60)  # type: ignore[attr-defined]
    assert await drive.reap() == 0
    assert await drive.verify_shard(DATA_ID) == path.stat().st_size


async def test_what_is_staged_now_is_no_orphan(drive: LocalDrive) -> None:
    await stage(drive, [b"on its way"])
    path = drive.path / "staging" / DATA_ID.hex()
    left = drive.path / "staging" / ("ee" * 16)
    left.write_bytes(b"of nobody")
    old = drive._clock.now_ms() / 1000 - 2 * HOUR_SECONDS
    for file in (path, left):
        os.utime(file, (old, old))
    assert await drive.trash_orphans(256, HOUR_SECONDS) == 1
    drive._clock.advance(60)  # type: ignore[attr-defined]
    await drive.reap()
    assert path.exists()
    assert not left.exists()


async def test_what_is_kept_survives_a_restart(drive: LocalDrive) -> None:
    assert await drive.kept(b"cursor") is None
    await drive.keep(b"cursor", b"here")
    await drive.close()
    again = await LocalDrive.open(drive.path, drive.slot, drive._clock, DriveSettings(reap_interval_seconds=None))
    try:
        assert await again.kept(b"cursor") == b"here"
    finally:
        await again.close()
