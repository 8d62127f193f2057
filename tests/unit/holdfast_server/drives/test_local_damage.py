"""Damage below the records: whatever is flipped, cut off or lost, nothing wrong is served and the drive says so."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil

import pytest
import xxhash

from holdfast_server.drives import folder_layout, keys, parts, witness
from holdfast_server.drives.faults import FaultKind, kind_of_table_message
from holdfast_server.drives.local import DriveSettings, LocalDrive
from holdfast_server.drives.port import (
    CommitMode,
    CommitRequest,
    CommitStatus,
    DriveFaulty,
    DriveState,
    Held,
    Register,
    ScanRequest,
    ShardCorrupt,
)

SPACE = b"o" + bytes(16)
COUNT = 300
QUIET = DriveSettings(reap_interval_seconds=None)


def register(number: int) -> Register:
    return Register(SPACE, f"key{number:04}")


def request(number: int, stamp: int = 10, mode=CommitMode.PLAIN, inline: bytes | None = None, **facts) -> CommitRequest:
    return CommitRequest(register(number), Held(stamp, False, bytes(800), 0, inline), mode, **facts)


@pytest.fixture
async def folder(open_drive, tmp_path):
    """A drive with some records in sorted files, some only in the log; closed."""
    path = tmp_path / "drive"
    path.mkdir()
    drive = await open_drive(path=path)
    await asyncio.gather(*(drive.commit(request(number)) for number in range(COUNT // 2)))
    drive._parts.engine._table.flush(True)
    await asyncio.gather(*(drive.commit(request(number)) for number in range(COUNT // 2, COUNT)))
    drive._check()
    shutil.copytree(path, tmp_path / "copy")  # with the log, which closing would empty
    await drive.close()
    return tmp_path / "copy"


def flip(pattern: str, share: float):
    def damage(records) -> None:
        for path in records.glob(pattern):
            data = bytearray(path.read_bytes())
            if data:
                data[int(len(data) * share)] ^= 0x55
                path.write_bytes(data)

    return damage


def cut(pattern: str, share: float):
    def damage(records) -> None:
        for path in records.glob(pattern):
            os.truncate(path, int(path.stat().st_size * share))

    return damage


def lose(pattern: str):
    def damage(records) -> None:
        for path in records.glob(pattern):
            path.unlink()

    return damage


ANOTHERS = b"HfR\x01" + b"another drive id" + b"\xff" * 8
ANOTHERS += xxhash.xxh3_64_digest(ANOTHERS)
TORN = b"HfR\x01" + b"drive id 16 byte" + b"\xff" * 8 + bytes(8)
"""Of this drive, with a number that its table never reached; the digest is that of something else."""

DAMAGES = {
    "sst flipped": flip("*.sst", 0.5),
    "sst footer flipped": flip("*.sst", 0.999),
    "sst cut": cut("*.sst", 0.5),
    "sst lost": lose("*.sst"),
    "log flipped": flip("*.log", 0.5),
    "log cut": cut("*.log", 0.5),
    "log emptied": cut("*.log", 0.0),
    "log lost": lose("*.log"),
    "manifest flipped": flip("MANIFEST*", 0.5),
    "manifest cut": cut("MANIFEST*", 0.5),
    "manifest cut a little": cut("MANIFEST*", 0.95),
    "manifest emptied": cut("MANIFEST*", 0.0),
    "manifest lost": lose("MANIFEST*"),
    "current lost": lose("CURRENT"),
    "current flipped": flip("CURRENT", 0.5),
    "everything lost": lose("*"),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
async def test_a_damaged_table_never_serves_less_than_was_acknowledged(open_drive, folder, damage):
    damage(folder / "records")
    drive = await open_drive(path=folder, form=False)
    status = drive.status()
    if status.state is DriveState.FULL:
        found: set[int] = set()
        try:
            for number in range(COUNT):
                if (await drive.query(register(number), False)).records:
                    found.add(number)
        except DriveFaulty:
            assert drive.fault_kind is FaultKind.DAMAGED
        else:
            assert found == set(range(COUNT))
    else:
        assert (status.state, drive.fault_kind) == (DriveState.FAULTY, FaultKind.DAMAGED)
        assert "records" in status.message


async def test_an_undamaged_copy_opens_whole(open_drive, folder):
    drive = await open_drive(path=folder, form=False)
    for number in range(COUNT):
        assert len((await drive.query(register(number), False)).records) == 1


async def test_a_table_that_stops_short_of_its_witness_says_both_numbers(open_drive, folder):
    proven = witness.read_witness(folder, b"drive id 16 byte")
    assert proven >= COUNT
    cut("*.log", 0.5)(folder / "records")
    drive = await open_drive(path=folder, form=False)
    assert f"and {proven} was acknowledged" in drive.status().message


@pytest.mark.parametrize("content", [b"", b"short", b"HfR\x01" + bytes(32), ANOTHERS, TORN, None])
async def test_a_witness_that_cannot_be_believed_proves_nothing(open_drive, folder, content):
    (folder / witness.WITNESS_FILE).unlink()
    if content is not None:
        (folder / witness.WITNESS_FILE).write_bytes(content)
    assert (await open_drive(path=folder, form=False)).status().state is DriveState.FULL


def test_the_text_of_the_engine_tells_the_kind():
    for text, kind in [
        ("IO error: No space left on device: While appending to file: /a", FaultKind.NO_ROOM),
        ("Corruption: block checksum mismatch: stored = 1", FaultKind.DAMAGED),
        ("Corruption: IO error: While pread: /a.sst: Input/output error", FaultKind.MEDIUM),
        ("IO error: No such file or directory: While open a file for random read", FaultKind.DAMAGED),
        ("Read-only file system (os error 30)", FaultKind.READ_ONLY),
        ("IO error: While lock file: /a/LOCK: Resource temporarily unavailable", FaultKind.PLACE),
        ("IO error: While open a file for random read: /a.sst: Too many open files", FaultKind.DESCRIPTORS),
        ("something never seen", FaultKind.MEDIUM),
    ]:
        assert kind_of_table_message(text) is kind


async def test_a_table_that_rots_under_a_running_drive_sets_it_aside_as_damaged(open_drive, tmp_path):
    drive = await open_drive()
    await asyncio.gather(*(drive.commit(request(number, inline=os.urandom(900))) for number in range(COUNT)))
    drive._parts.engine._table.flush(True)
    await drive.close()
    drive = await open_drive(form=False)
    flip("*.sst", 0.4)(tmp_path / "records")

    async def read_everything() -> None:
        for number in range(COUNT):
            await drive.query(register(number), True)

    with pytest.raises(DriveFaulty, match="Corruption"):
        await read_everything()
    assert drive.fault_kind is FaultKind.DAMAGED


# --- a table is replaced


async def test_a_retired_table_leaves_a_blank_drive_with_its_shards(open_drive, folder):
    data_id, block = bytes(range(16)), b"a" * 5000
    drive = await open_drive(path=folder, form=False)
    digest = xxhash.xxh3_128_digest(block)
    await drive.stage(data_id, 0, [block], [digest])
    await drive.seal(data_id)
    held = Held(50, False, b"r", 0, None, (data_id,))
    await drive.commit(CommitRequest(Register(SPACE, "large"), held, CommitMode.PLAIN))
    await drive.close()
    flip("CURRENT", 0.5)(folder / "records")
    drive = await open_drive(path=folder, form=False)
    assert drive.fault_kind is FaultKind.DAMAGED
    reason = drive.status().message
    await drive.close()
    drive.retire_table()
    drive = await open_drive(path=folder, form=False)
    assert (drive.status().state, drive.replaces) == (DriveState.BLANK, True)
    await drive.adopt(b"another drive id", 99, 60)
    assert (drive.status().state, drive.replaces) == (DriveState.HEALING, False)
    assert reason in drive.status().message
    assert (folder / "records.damaged" / "CURRENT").exists()
    assert (await drive.query(Register(SPACE, "large"), False)).records == ()
    # The record comes back from the others; its shard is already here.
    healed = CommitRequest(Register(SPACE, "large"), held, CommitMode.HEAL, watermark=60)
    assert (await drive.commit(healed)).status is CommitStatus.OK
    assert await drive.read_blocks(data_id, 0, 1) == ([block], [digest])
    await drive.finish_healing(99)
    assert not (folder / "records.damaged").exists()
    assert (drive.status().state, drive.status().message) == (DriveState.FULL, "")


async def test_a_drive_that_is_full_again_lets_go_of_its_own_former_table_and_of_no_other(open_drive, folder):
    """What another volume that was mounted over it meanwhile has is that one's."""
    flip("CURRENT", 0.5)(folder / "records")
    drive = await open_drive(path=folder, form=False)
    await drive.close()
    drive.retire_table()
    drive = await open_drive(path=folder, form=False)
    await drive.adopt(b"another drive id", 99, 60)
    aside, other = folder.with_name("aside"), folder / "records.damaged"
    wait = drive._parts.commits.submit

    async def swapped(*arguments):
        await wait(*arguments)
        folder.rename(aside)
        other.mkdir(parents=True)

    drive._parts.commits.submit = swapped
    await drive.finish_healing(99)
    assert other.exists()
    assert not (aside / "records.damaged").exists()


@pytest.mark.parametrize("crash_after", range(5))
async def test_retiring_may_be_cut_off_anywhere_and_begun_again(open_drive, folder, monkeypatch, crash_after):
    flip("CURRENT", 0.5)(folder / "records")
    drive = await open_drive(path=folder, form=False)
    await drive.close()
    steps = []

    class Crash(BaseException):
        pass

    def counted(real):
        def step(*arguments, **named):
            if len(steps) == crash_after:
                raise Crash
            steps.append(real)
            return real(*arguments, **named)

        return step

    with monkeypatch.context() as patch:
        patch.setattr(folder_layout, "replace_file", counted(folder_layout.replace_file))
        patch.setattr(folder_layout.os, "replace", counted(os.replace))
        patch.setattr(folder_layout, "fsync_folder", counted(folder_layout.fsync_folder))
        try:
            drive.retire_table()
        except Crash:
            pass
    drive = await open_drive(path=folder, form=False)
    if drive.status().state is DriveState.FAULTY:
        assert drive.fault_kind is FaultKind.DAMAGED
        await drive.close()
        drive.retire_table()
        drive = await open_drive(path=folder, form=False)
    assert (drive.status().state, drive.replaces) == (DriveState.BLANK, True)
    await drive.adopt(b"another drive id", 99, 60)
    assert drive.status().state is DriveState.HEALING


async def test_a_stale_marker_does_not_turn_a_lost_identity_into_a_replacement(open_drive, folder):
    (folder / folder_layout.RETIRED_FILE).write_text("long ago")
    drive = await open_drive(path=folder, form=False)
    assert drive.status().state is DriveState.FULL
    await drive.close()
    (folder / "holdfast.json").unlink()
    drive = await open_drive(path=folder, form=False)
    assert drive.status().state is DriveState.FAULTY
    assert "no identity file but holds" in drive.status().message


# --- one record rots


def spoil(drive, row: bytes) -> None:
    """As if memory or disk had flipped a bit that the table's own checksums did not see."""
    data = bytearray(drive._parts.engine.get([row])[0])
    data[-1] ^= 1
    drive._parts.engine.write([(row, bytes(data))])
    drive._parts.engine.flush()


async def test_a_rotten_record_is_neither_served_nor_taken_for_an_absence(open_drive):
    drive = await open_drive()
    for number in range(3):
        await drive.commit(request(number))
        await drive.note(register(number), 10, True)
    spoil(drive, keys.records_key(keys.row_key(register(1))))
    for _ in range(2):
        found = await drive.query(register(1), True)
        assert (found.records, found.healing, found.highest) == ((), True, 10)
        assert [r.key for r in await drive.repairs(10)] == ["key0001"]
        assert "1 records fail their checksum" in drive.status().message
        page = await drive.scan(ScanRequest(SPACE))
        assert ([entry.register.key for entry in page.entries], page.healing) == (["key0000", "key0002"], True)
        assert not (await drive.scan(ScanRequest(SPACE, start=b"key0002"))).healing
        assert not (await drive.query(register(0), True)).healing
        # Ordinary writes cannot tell what they replace here.
        assert (await drive.commit(request(1, 20))).status is CommitStatus.REFUSED
        await drive.close()
        drive = await open_drive(form=False)
    assert (await drive.fence(register(1), 15)).healing
    healed = await drive.commit(request(1, 10, CommitMode.HEAL, watermark=0))
    assert healed.status is CommitStatus.OK
    found = await drive.query(register(1), True)
    assert ([held.stamp for held in found.records], found.healing) == ([10], False)
    await drive.repaired([(register(1), 10)])
    assert await drive.repairs(10) == []
    assert not (await drive.scan(ScanRequest(SPACE))).healing
    assert (await drive.commit(request(1, 20))).status is CommitStatus.OK
    assert drive.status().message == ""


async def test_rot_is_met_by_a_listing_first(open_drive):
    drive = await open_drive()
    for number in range(3):
        await drive.commit(request(number))
    spoil(drive, keys.records_key(keys.row_key(register(2))))
    page = await drive.scan(ScanRequest(SPACE))
    assert ([entry.register.key for entry in page.entries], page.healing) == (["key0000", "key0001"], True)
    assert [r.key for r in await drive.repairs(10)] == ["key0002"]
    assert drive.status().state is DriveState.FULL


async def test_a_rotten_inline_shard_makes_its_record_one_to_be_healed(open_drive):
    drive = await open_drive()
    await drive.commit(request(1, inline=b"i" * 5000))
    row = keys.row_key(register(1))
    spoil(drive, keys.inline_key(row, 10))
    assert len((await drive.query(register(1), False)).records) == 1
    found = await drive.query(register(1), True)
    assert (found.records, found.healing) == ((), True)
    assert (
        await drive.commit(request(1, 10, CommitMode.HEAL, inline=b"i" * 5000, watermark=0))
    ).status is CommitStatus.OK
    assert (await drive.query(register(1), True)).records[0].inline == b"i" * 5000


# --- sectors that cannot be read


async def test_one_unreadable_shard_is_rot_and_many_are_a_failing_disk(open_drive, monkeypatch):
    drive = await open_drive()
    block, digest = b"a" * 5000, xxhash.xxh3_128_digest(b"a" * 5000)
    ids = [bytes([number]) * 16 for number in range(parts.MAX_UNREADABLE_SHARDS)]
    for data_id in ids:
        await drive.stage(data_id, 0, [block], [digest])
        await drive.seal(data_id)
    held = Held(10, False, b"r", 0, None, tuple(ids))
    await drive.commit(CommitRequest(register(0), held, CommitMode.PLAIN))

    def fail(*_):
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pread", fail)
        for _ in range(20):
            with pytest.raises(ShardCorrupt):
                await drive.read_blocks(ids[0], 0, 1)
        assert drive.status().state is DriveState.FULL
        for data_id in ids[1:-1]:
            with pytest.raises(ShardCorrupt):
                await drive.read_blocks(data_id, 0, 1)
        drive._clock.advance(parts.UNREADABLE_SECONDS + 1)
        with pytest.raises(ShardCorrupt):
            await drive.read_blocks(ids[-1], 0, 1)
        assert drive.status().state is DriveState.FULL
        for data_id in ids[:-1]:
            with pytest.raises(ShardCorrupt):
                await drive.read_blocks(data_id, 0, 1)
    assert (drive.status().state, drive.fault_kind) == (DriveState.FAULTY, FaultKind.MEDIUM)
    assert "8 shards could not be read" in drive.status().message
    await drive.close()
    again = await LocalDrive.open(drive.path, drive.slot, drive._clock, QUIET)
    assert again.status().state is DriveState.FULL
    assert await again.read_blocks(ids[0], 0, 1) == ([block], [digest])
    await again.close()
