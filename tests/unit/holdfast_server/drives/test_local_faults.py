"""Disks that rot, fill up and fail."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import threading
import time

import pytest
import xxhash

from holdfast_server.clock.system import SystemClock
from holdfast_server.drives import durable_files, identity, trash
from holdfast_server.drives.engine import EngineError
from holdfast_server.drives.local import DriveSettings, LocalDrive
from holdfast_server.drives.port import (
    CommitMode,
    CommitRequest,
    CommitStatus,
    DriveError,
    DriveFaulty,
    DriveFull,
    DriveState,
    Held,
    Register,
    ScanRequest,
    ShardCorrupt,
    ShardMissing,
    Tombstone,
)
from holdfast_server.drives.slot import Slot
from holdfast_server.testing.failures_left import refused_without_a_trace

SPACE = b"o" + bytes(16)
REGISTER = Register(SPACE, "key")
DATA_ID = bytes(range(16))
BLOCKS = [b"a" * 5000, b"b" * 5000, b"c" * 100]
HASHES = [xxhash.xxh3_128_digest(block) for block in BLOCKS]


async def stage(drive, data_id: bytes = DATA_ID) -> None:
    await drive.stage(data_id, 0, BLOCKS, HASHES)
    await drive.seal(data_id)


async def finish(drive) -> None:
    await drive.stage(DATA_ID, 1, BLOCKS[1:], HASHES[1:])
    await drive.seal(DATA_ID)


async def put(drive, stamp: int, **facts) -> CommitStatus:
    held = Held(stamp, facts.pop("tombstone", False), b"r", 0, None, facts.pop("data_ids", ()))
    mode, spare = facts.pop("mode", CommitMode.PLAIN), facts.pop("from_reserve", False)
    return (await drive.commit(CommitRequest(REGISTER, held, mode, from_reserve=spare))).status


def shard_path(tmp_path):
    return tmp_path / "shards" / "00" / DATA_ID.hex()


@pytest.fixture
async def drive_with_shard(open_drive):
    drive = await open_drive()
    await stage(drive)
    await put(drive, 10, data_ids=(DATA_ID,))
    await drive.close()
    return await open_drive()


@pytest.mark.parametrize("at", [0, 4999, 5000, 10099, 10100, 10147])
async def test_a_flipped_bit_in_block_or_hash_is_never_served(drive_with_shard, tmp_path, at):
    path = shard_path(tmp_path)
    data = bytearray(path.read_bytes())
    data[at] ^= 0x10
    path.write_bytes(data)
    with pytest.raises(ShardCorrupt):
        await drive_with_shard.read_blocks(DATA_ID, 0, 3)
    assert drive_with_shard.status().state is DriveState.FULL


@pytest.mark.parametrize("length", [0, 1, 5000, 10147, 10199])
async def test_a_truncated_shard_is_corrupt(drive_with_shard, tmp_path, length):
    os.truncate(shard_path(tmp_path), length)
    with pytest.raises(ShardCorrupt):
        await drive_with_shard.read_blocks(DATA_ID, 0, 1)


async def test_another_shards_content_under_this_name_is_corrupt(drive_with_shard, tmp_path):
    other = b"another shard id"
    await drive_with_shard.stage(other, 0, BLOCKS, HASHES)
    await drive_with_shard.seal(other)
    shard_path(tmp_path).write_bytes((tmp_path / "staging" / other.hex()).read_bytes())
    with pytest.raises(ShardCorrupt, match="it is shard"):
        await drive_with_shard.read_blocks(DATA_ID, 0, 1)


async def test_a_rotten_or_lost_shard_is_healed_under_its_own_name(drive_with_shard, tmp_path):
    drive = drive_with_shard
    path = shard_path(tmp_path)
    path.write_bytes(b"rot" + path.read_bytes()[3:])
    for damaged in (ShardCorrupt, ShardMissing):
        with pytest.raises(damaged):
            await drive.read_blocks(DATA_ID, 0, 1)
        await stage(drive)
        assert await put(drive, 10, mode=CommitMode.HEAL, data_ids=(DATA_ID,)) is CommitStatus.OK
        assert await drive.read_blocks(DATA_ID, 0, 3) == (BLOCKS, HASHES)
        await drive.close()
        drive = await _reopen(tmp_path, drive)
        assert await drive.read_blocks(DATA_ID, 0, 3) == (BLOCKS, HASHES)
        await drive.close()
        path.unlink()
        drive = await _reopen(tmp_path, drive)
    await drive.close()


async def _reopen(tmp_path, former):
    return await type(former).open(tmp_path, former.slot, former._clock, former._settings)


async def test_a_nearly_full_drive_refuses_data_and_goes_on_deleting(open_drive, tmp_path):
    drive = await open_drive()
    await stage(drive)
    await put(drive, 10, data_ids=(DATA_ID,))
    await drive.close()
    drive = await open_drive(settings=DriveSettings(reap_interval_seconds=None, reserve_bytes=1 << 60))
    with pytest.raises(DriveFull):
        await drive.stage(b"another shard id", 0, BLOCKS, HASHES)
    assert list((tmp_path / "staging").iterdir()) == []
    with pytest.raises(DriveFull):
        await put(drive, 20)
    assert await drive.read_blocks(DATA_ID, 0, 3) == (BLOCKS, HASHES)
    assert await put(drive, 30, tombstone=True) is CommitStatus.OK
    await drive.note(REGISTER, 30, True)
    drive._clock.advance(100)
    assert await drive.reap() == 1
    await drive.drop_tombstones([Tombstone(REGISTER, 30)])
    assert (await drive.query(REGISTER, False)).records == ()


async def test_nothing_of_what_a_full_drive_refused_stays_in_memory(open_drive):
    """Clients go on sending, and each time it would be the blocks of a write: gigabytes before the cycle collector
    comes by."""
    drive = await open_drive(settings=DriveSettings(reap_interval_seconds=None, reserve_bytes=1 << 60))
    request = CommitRequest(REGISTER, Held(20, False, b"r", 0, bytes(5000)), CommitMode.PLAIN)
    calls = [
        lambda: drive.stage(DATA_ID, 0, BLOCKS, HASHES),
        lambda: drive.commit(request),
        lambda: drive.commit_with_shard(
            CommitRequest(REGISTER, Held(20, False, b"r", 0, None, (DATA_ID,)), CommitMode.PLAIN), BLOCKS, HASHES
        ),
    ]
    await refused_without_a_trace(calls, DriveFull)


async def test_no_space_while_staging_removes_the_partial_file(open_drive, tmp_path, monkeypatch):
    drive = await open_drive()
    await drive.stage(DATA_ID, 0, BLOCKS[:1], HASHES[:1])

    def fail(descriptor, buffers, offset):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwritev", fail)
        with pytest.raises(DriveFull, match="no space left"):
            await drive.stage(DATA_ID, 1, BLOCKS[1:], HASHES[1:])
    assert list((tmp_path / "staging").iterdir()) == []
    assert drive.status().state is DriveState.FULL
    await stage(drive)
    assert await put(drive, 10, data_ids=(DATA_ID,)) is CommitStatus.OK


@pytest.mark.parametrize("call", ["pwritev", "fdatasync", "fsync"])
async def test_a_failed_write_or_sync_of_a_shard_sets_the_drive_aside_for_good(open_drive, monkeypatch, call):
    drive = await open_drive()
    await drive.stage(DATA_ID, 0, BLOCKS[:1], HASHES[:1])

    def fail(*arguments):
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(DriveFaulty):
            await finish(drive)
    assert drive.status().state is DriveState.FAULTY
    with pytest.raises(DriveFaulty):
        await drive.seal(DATA_ID)


async def test_a_failed_flush_acknowledges_nothing_and_is_not_tried_again(open_drive, monkeypatch):
    drive = await open_drive()

    def fail() -> None:
        raise EngineError("the log did not reach stable storage: IO error")

    with monkeypatch.context() as patch:
        patch.setattr(drive._parts.engine, "flush", fail)
        with pytest.raises(DriveFaulty, match="stable storage"):
            await put(drive, 10)
    with pytest.raises(DriveFaulty, match="stable storage"):
        await put(drive, 20)
    with pytest.raises(DriveFaulty):
        await drive.query(REGISTER, False)


async def test_nothing_is_shown_between_write_and_flush(open_drive, monkeypatch):
    """The heart of group commit: a reader that saw an unflushed record would un-see it after a power cut."""
    drive = await open_drive()
    other = Register(SPACE, "other")
    await drive.commit(CommitRequest(other, Held(5, False, b"r", -1, None), CommitMode.PLAIN))
    written, release = threading.Event(), threading.Event()
    flush = drive._parts.engine.flush

    def slow_flush() -> None:
        written.set()
        assert release.wait(20)
        flush()

    monkeypatch.setattr(drive._parts.engine, "flush", slow_flush)
    commit = asyncio.create_task(put(drive, 10))
    await asyncio.to_thread(written.wait, 20)
    query = asyncio.ensure_future(drive.query(REGISTER, True))
    scan = asyncio.create_task(drive.scan(ScanRequest(SPACE)))
    assert (await drive.query(other, True)).records[0].stamp == 5
    done, _ = await asyncio.wait((commit, query, scan), timeout=0.2)
    assert not done
    release.set()
    assert await commit is CommitStatus.OK
    assert (await query).records[0].stamp == 10
    assert [entry.newest.stamp for entry in (await scan).entries] == [10, 5]


async def test_a_look_into_memory_counts_only_if_nothing_was_written_meanwhile(open_drive, monkeypatch):
    """Its rows are read one after the other: some from before a batch and some from after it fit no state there was."""
    drive = await open_drive()
    await put(drive, 10)
    engine, commits = drive._parts.engine, drive._parts.commits
    peek = engine.peek
    looks = []

    def slow_peek(keys):
        found = peek(keys)
        if not looks:
            writes = commits.writes
            newer = CommitRequest(REGISTER, Held(30, False, b"r", 0, None), CommitMode.PLAIN)
            looks.append(drive.commit(newer))
            deadline = time.monotonic() + 20
            while commits.writes < writes + 2 or commits._unsettled:
                assert time.monotonic() < deadline
                time.sleep(0.001)
        return found

    assert (await drive.query(REGISTER, False)).highest == 10
    monkeypatch.setattr(engine, "peek", slow_peek)
    assert (await drive.query(REGISTER, False)).highest == 30
    await asyncio.gather(*looks)


async def test_a_forgotten_staged_shard_is_removed_in_time(open_drive, tmp_path):
    drive = await open_drive()
    await stage(drive)
    drive._clock.advance(3000)
    await drive.reap()
    assert len(list((tmp_path / "staging").iterdir())) == 1
    drive._clock.advance(700)
    await drive.reap()
    assert list((tmp_path / "staging").iterdir()) == []
    assert await put(drive, 10, data_ids=(DATA_ID,)) is CommitStatus.NO_DATA


async def test_a_shard_that_is_being_unlinked_is_named_by_no_record_though_it_is_staged_anew(open_drive, monkeypatch):
    drive = await open_drive()
    await stage(drive)
    assert await put(drive, 10, data_ids=(DATA_ID,)) is CommitStatus.OK
    assert await put(drive, 20, tombstone=True) is CommitStatus.OK
    await drive.note(REGISTER, 20, True)
    drive._clock.advance(100)
    shards = drive._parts.shards
    begun, go_on = threading.Event(), threading.Event()
    real = shards.reclaim

    def reclaim(data_id, *arguments):
        begun.set()
        assert go_on.wait(30)
        real(data_id, *arguments)

    monkeypatch.setattr(shards, "reclaim", reclaim)
    reaping = asyncio.ensure_future(drive.reap())
    assert await asyncio.to_thread(begun.wait, 30)
    other = Register(SPACE, "another that names it")
    await stage(drive)
    request = CommitRequest(other, Held(30, False, b"r", 0, None, (DATA_ID,)), CommitMode.PLAIN)
    status = (await drive.commit(request)).status
    go_on.set()
    await reaping
    assert status is CommitStatus.NO_DATA
    await stage(drive)
    assert (await drive.commit(request)).status is CommitStatus.OK
    assert await drive.read_blocks(DATA_ID, 0, 3) == (BLOCKS, HASHES)


async def test_ballast_that_a_crash_left_empty_is_laid(open_drive, tmp_path):
    """Made and not yet allocated when the power failed: it would be there in name, and free nothing when it counts."""
    size = 1 << 20
    (tmp_path / "holdfast.ballast").write_bytes(b"")
    drive = await open_drive(settings=DriveSettings(reap_interval_seconds=None, reserve_bytes=0, ballast_bytes=size))
    drive._check()
    facts = (tmp_path / "holdfast.ballast").stat()
    assert (facts.st_size, facts.st_blocks * 512 >= size) == (size, True)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
async def test_a_witness_for_which_there_is_no_room_sets_no_drive_aside(open_drive, monkeypatch, number):
    """It proves less then; a full disk serves reads and deletes."""
    drive = await open_drive()
    await put(drive, 10)

    def fail(*arguments):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("holdfast_server.drives.parts.write_witness", fail)
    await drive._on_thread(drive._parts.point_readers, drive._check)
    assert drive.status().state is DriveState.FULL
    assert (await drive.query(REGISTER, False)).records[0].stamp == 10
    monkeypatch.undo()
    await drive._on_thread(drive._parts.point_readers, drive._check)
    assert (drive.path / "holdfast.reached").exists()


def full_disk(drive, monkeypatch) -> None:
    """As RocksDB has it: the first write that finds no room spoils its log for all that comes later."""
    spoilt = threading.Event()

    def write(changes):
        spoilt.set()
        raise EngineError("write failed: IO error: No space left on device: While appending to file: 000004.log")

    flush = drive._parts.engine.flush

    def flush_unless_spoilt():
        if spoilt.is_set():
            raise EngineError("the log did not reach stable storage: IO error: Writer has previous error.")
        flush()

    monkeypatch.setattr(drive._parts.engine, "write", write)
    monkeypatch.setattr(drive._parts.engine, "flush", flush_unless_spoilt)


async def test_a_table_that_met_a_full_disk_is_read_whatever_is_asked_of_it(open_drive, monkeypatch):
    """Its log takes no flush any more: who wants one is refused, and the drive is not set aside for that."""
    drive = await open_drive()
    assert await put(drive, 10) is CommitStatus.OK
    full_disk(drive, monkeypatch)
    for _ in range(2):
        with pytest.raises(DriveFull):
            await put(drive, 20, tombstone=True)
        with pytest.raises(DriveFull):
            await drive.fence(REGISTER, 30)
        with pytest.raises(DriveFull):
            await drive.keep(b"name", b"value", durable=True)
    # All that is in the table is durable: nothing keeps it from being told.
    reply = await drive.weigh_tombstones([Tombstone(REGISTER, 5)], 0)
    assert not reply.healing
    assert drive.status().state is DriveState.FULL
    assert (await drive.query(REGISTER, False)).records[0].stamp == 10
    await drive._on_thread(drive._parts.point_readers, drive._check)
    assert drive.status().state is DriveState.FULL


async def test_what_was_not_flushed_before_a_full_disk_is_not_told_as_durable(open_drive, monkeypatch):
    drive = await open_drive()
    await put(drive, 10)
    await put(drive, 20, tombstone=True)
    await drive.note(REGISTER, 20, True)  # lazy
    full_disk(drive, monkeypatch)
    with pytest.raises(DriveFull):
        await put(drive, 30)
    with pytest.raises(DriveFull):
        await drive.weigh_tombstones([Tombstone(REGISTER, 20)], 0)
    assert drive.status().state is DriveState.FULL


async def test_half_of_the_reserve_is_open_to_what_may_use_it(open_drive, monkeypatch):
    drive = await open_drive()
    available = drive.status().available_bytes
    monkeypatch.setattr(drive._parts.space, "_reserve_bytes", available * 3 // 2)
    assert drive.status().full
    for mode in (CommitMode.PLAIN, CommitMode.HEAL):
        with pytest.raises(DriveFull):
            await put(drive, 10, mode=mode)
    assert await put(drive, 10, from_reserve=True) is CommitStatus.OK
    assert await put(drive, 20, mode=CommitMode.ROLL_FORWARD) is CommitStatus.OK
    monkeypatch.setattr(drive._parts.space, "_reserve_bytes", available * 3)
    for mode, spare in ((CommitMode.PLAIN, True), (CommitMode.ROLL_FORWARD, False)):
        with pytest.raises(DriveFull):
            await put(drive, 30, mode=mode, from_reserve=spare)
    assert await put(drive, 30, tombstone=True) is CommitStatus.OK


async def test_a_shard_whose_commit_finds_no_room_goes_when_it_is_discarded(open_drive, tmp_path, monkeypatch):
    """It would have lain there for an hour, on a disk that is full, and in `shards` until the scanner came by."""
    drive = await open_drive()
    full_disk(drive, monkeypatch)
    for _ in range(2):  # the batch that meets the full disk, and one after it
        await stage(drive)
        with pytest.raises(DriveFull):
            await put(drive, 10, data_ids=(DATA_ID,))
        await drive.discard(DATA_ID)
        assert list((tmp_path / "staging").iterdir()) == []
    assert not shard_path(tmp_path).exists()


async def test_a_shard_that_a_record_names_stays_though_a_later_commit_of_it_finds_no_room(open_drive, monkeypatch):
    drive = await open_drive()
    monkeypatch.setattr(drive._parts.placing, "look", lambda: None)  # it waits in staging
    await stage(drive)
    assert await put(drive, 10, data_ids=(DATA_ID,)) is CommitStatus.OK
    full_disk(drive, monkeypatch)
    with pytest.raises(DriveFull):
        await put(drive, 20, data_ids=(DATA_ID,))
    await drive.discard(DATA_ID)
    assert await drive.read_blocks(DATA_ID, 0, 3) == (BLOCKS, HASHES)


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])
async def test_want_of_descriptors_sets_no_drive_aside(open_drive, tmp_path, monkeypatch, number):
    """Clients' connections take them, too: a pod that ran out of them would lose all of its drives at once."""
    drive = await open_drive()
    await stage(drive)
    assert await put(drive, 10, data_ids=(DATA_ID,)) is CommitStatus.OK
    drive._parts.shards.place((DATA_ID,))
    other = bytes(16)

    def fail(*arguments):
        raise OSError(number, os.strerror(number))

    def fail_in_table(*arguments):
        raise EngineError("read failed: IO error: While open a file for random read: /a.sst: Too many open files")

    with monkeypatch.context() as out:
        out.setattr(os, "open", fail)
        out.setattr(drive._parts.engine, "get", fail_in_table)
        out.setattr(drive._parts.engine, "peek", lambda _: None)
        for call in (
            drive.stage(other, 0, BLOCKS, HASHES, last=True),
            drive.read_blocks(DATA_ID, 0, 3),
            drive.query(REGISTER, False),
            drive._on_thread(drive._parts.point_readers, drive._check),
        ):
            with pytest.raises(DriveError) as failure:
                await call
            assert not isinstance(failure.value, DriveFaulty)
        assert drive.status().state is DriveState.FULL
    real = os.open

    def fail_for_folders(path, flags, *mode):
        return fail() if flags & os.O_DIRECTORY else real(path, flags, *mode)

    with monkeypatch.context() as out:
        out.setattr(os, "open", fail_for_folders)
        with pytest.raises(DriveError, match="open files"):
            await drive.stage(other, 0, BLOCKS, HASHES, last=True)
    assert drive.status().state is DriveState.FULL
    await drive.discard(other)
    await drive.stage(other, 0, BLOCKS, HASHES, last=True)
    assert await drive.read_blocks(DATA_ID, 0, 3) == (BLOCKS, HASHES)
    assert await put(drive, 20, data_ids=(other,)) is CommitStatus.OK


async def test_what_may_be_reclaimed_makes_room_though_the_table_has_none(open_drive, tmp_path, monkeypatch):
    """Nor does an upload whose parts are to be dropped hold that up, which takes room."""
    drive = await open_drive()
    await stage(drive)
    assert await put(drive, 10, data_ids=(DATA_ID,)) is CommitStatus.OK
    drive._parts.shards.place((DATA_ID,))
    assert await put(drive, 20, tombstone=True) is CommitStatus.OK
    await drive.note(REGISTER, 20, True)
    upload, part = Register(b"u" + SPACE[1:], "key", b"id"), Register(b"p" + SPACE[1:], "key", b"id\0\1")
    for register, tombstone in ((part, False), (upload, True)):
        held = Held(30, tombstone, b"r", -1, None)
        await drive.commit(CommitRequest(register, held, CommitMode.PLAIN))
    await drive.note(upload, 30, True)
    full_disk(drive, monkeypatch)
    drive._clock.advance(100)
    with pytest.raises(DriveFull):
        await drive.reap()
    assert not shard_path(tmp_path).exists()
    assert drive.status().state is DriveState.FULL


async def test_files_that_other_records_name_hold_up_no_reclaim_behind_them(open_drive, tmp_path, monkeypatch):
    """A completed upload leaves as many as it had parts, and they come before all that is deleted later."""
    monkeypatch.setattr(trash, "REAP_BATCH", 2)
    drive = await open_drive()
    named = [bytes((number,)) * 16 for number in range(1, 6)]
    for data_id in named:
        await stage(drive, data_id)
    await stage(drive)
    for number, data_id in enumerate(named):
        # As of an upload: its part, and the object that takes the part's file over.
        part, made = Register(SPACE, f"part{number}"), Register(SPACE, f"made{number}")
        for register in (part, made):
            held = Held(10, False, b"r", 0, None, (data_id,))
            assert (await drive.commit(CommitRequest(register, held, CommitMode.PLAIN))).status is CommitStatus.OK
        await drive.commit(CommitRequest(part, Held(20, True, b"r", -1, None), CommitMode.PLAIN))
        await drive.note(part, 20, True)
    assert await put(drive, 10, data_ids=(DATA_ID,)) is CommitStatus.OK
    drive._parts.shards.place((DATA_ID, *named))
    assert await put(drive, 20, tombstone=True) is CommitStatus.OK
    await drive.note(REGISTER, 20, True)
    drive._clock.advance(100)
    assert await drive.reap() == 1
    assert not shard_path(tmp_path).exists()
    for data_id in named:
        assert await drive.read_blocks(data_id, 0, 3) == (BLOCKS, HASHES)
    assert await drive.reap() == 0


@pytest.mark.parametrize(("number", "refused"), [(errno.ENOSPC, DriveFull), (errno.EMFILE, DriveError)])
async def test_a_drive_that_was_filled_and_cannot_say_so_yet_serves_on(
    open_drive, tmp_path, monkeypatch, number, refused
):
    drive = await open_drive(form=False)
    await drive.adopt(b"drive id 16 byte", 7, 5)

    def fail(*_):
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as out:
        out.setattr(identity, "write_identity", fail)
        with pytest.raises(refused) as failure:
            await drive.finish_healing(7)
    assert not isinstance(failure.value, DriveFaulty)
    assert drive.status().state is DriveState.HEALING
    await drive.finish_healing(7)
    assert drive.status().state is DriveState.FULL


@pytest.mark.parametrize("opened_before", [0, 1, 2])
async def test_want_of_descriptors_leaves_the_identity_as_it_was_wherever_it_strikes(
    open_drive, monkeypatch, opened_before
):
    drive = await open_drive(form=False)
    await drive.adopt(b"drive id 16 byte", 7, 5)
    real, opened = os.open, []

    def fail(path, *arguments, **named):
        if len(opened) == opened_before:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        opened.append(path)
        return real(path, *arguments, **named)

    with monkeypatch.context() as out:
        out.setattr(durable_files.os, "open", fail)
        with contextlib.suppress(DriveError):
            await drive.finish_healing(7)
    await drive._on_thread(drive._parts.point_readers, drive._check)
    await drive.finish_healing(7)
    assert drive.status().state is DriveState.FULL


async def test_a_drive_is_looked_after_while_it_reclaims(tmp_path, monkeypatch):
    """What many deletes left takes minutes; until it was over, a drive that had been full was so for everybody."""
    began, end = asyncio.Event(), asyncio.Event()
    checked = threading.Event()

    async def reap(_):
        began.set()
        await end.wait()

    check = LocalDrive._check

    def look(drive):
        if began.is_set():
            checked.set()
        check(drive)

    monkeypatch.setattr(LocalDrive, "reap", reap)
    monkeypatch.setattr(LocalDrive, "_check", look)
    settings = DriveSettings(reap_interval_seconds=0.05)
    drive = await LocalDrive.open(tmp_path, Slot("tenant-1", "main", 0, 0), SystemClock(), settings)
    await drive.format(b"drive id 16 byte", 7)
    try:
        assert await asyncio.to_thread(checked.wait, 20)
    finally:
        end.set()
        await drive.close()
