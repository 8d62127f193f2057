"""A disk that neither answers nor fails: who waits is let go, who comes later does not wait, and it comes back."""

from __future__ import annotations

import asyncio
import os
import threading
import time
import weakref
from typing import ClassVar

import pytest
import xxhash

from holdfast_server.drives import disk_threads, durable_files, local
from holdfast_server.drives.disk_threads import DiskThreads, Watch
from holdfast_server.drives.faults import FaultKind
from holdfast_server.drives.port import (
    CommitMode,
    CommitRequest,
    CommitStatus,
    DriveError,
    DriveFaulty,
    DriveOffline,
    DriveState,
    Held,
    Register,
    ScanRequest,
    ShardMissing,
)

SPACE = b"o" + bytes(16)
DATA_ID = bytes(range(16))
BLOCK = b"a" * 5000
HASH = xxhash.xxh3_128_digest(BLOCK)


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """Of what is held up, and of nothing else: a busy disk takes as long for an fsync."""
    monkeypatch.setattr(local, "HANG_SECONDS", 0.3)
    monkeypatch.setattr(local, "WATCH_INTERVAL_SECONDS", 0.02)
    longest = Watch.longest
    monkeypatch.setattr(Watch, "longest", lambda watch: longest(watch) if Hold.in_force else (0.0, ""))
    yield
    Hold.in_force.clear()


def commit(drive, key: str, stamp: int = 10):
    return drive.commit(CommitRequest(Register(SPACE, key), Held(stamp, False, b"r", 0, None), CommitMode.PLAIN))


async def until(condition) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.01)


async def is_offline_at_once(call) -> None:
    """Without waiting for anything, be it a disk or a deadline."""
    task = asyncio.ensure_future(call)
    for _ in range(5):
        await asyncio.sleep(0)
    assert task.done()
    with pytest.raises(DriveOffline):
        await task


class Hold:
    """Holds up a method until it is released."""

    in_force: ClassVar[set] = set()
    """Those that hold something up."""

    def __init__(self, monkeypatch, target, name: str) -> None:
        self.begun, self._release = threading.Event(), threading.Event()
        real = getattr(target, name)

        def held(*arguments):
            self.in_force.add(self)
            self.begun.set()
            assert self._release.wait(100)
            self.in_force.discard(self)
            return real(*arguments)

        monkeypatch.setattr(target, name, held)

    def release(self) -> None:
        self._release.set()
        self.in_force.discard(self)


async def test_a_hung_fsync_lets_everybody_go_and_the_drive_comes_back(open_drive, monkeypatch):
    drive = await open_drive()
    await commit(drive, "before")
    hold = Hold(monkeypatch, drive._parts.engine, "flush")
    try:
        first = asyncio.ensure_future(commit(drive, "first"))
        await asyncio.to_thread(hold.begun.wait, 60)
        behind = [asyncio.ensure_future(commit(drive, f"behind{number}")) for number in range(20)]
        for task in (first, *behind):
            with pytest.raises(DriveOffline, match="does not answer since"):
                await task
        status = drive.status()
        assert status.state is DriveState.OFFLINE
        assert "a batch of commits has been under way" in status.message
        assert status.drive_id == b"drive id 16 byte"
        for call in (
            commit(drive, "later"),
            drive.query(Register(SPACE, "before"), True),
            drive.scan(ScanRequest(SPACE)),
        ):
            await is_offline_at_once(call)
        assert drive._parts.commits._queue.qsize() == 0
    finally:
        hold.release()
    await until(lambda: drive.status().state is DriveState.FULL)
    assert (await commit(drive, "after")).status is CommitStatus.OK
    assert (await drive.query(Register(SPACE, "before"), True)).records[0].stamp == 10
    # What had begun took effect, as after any lost answer; what had not was dropped.
    assert (await drive.query(Register(SPACE, "first"), True)).records[0].stamp == 10
    assert (await drive.query(Register(SPACE, "behind0"), True)).records == ()


async def test_a_hung_read_of_a_shard_lets_everybody_go_and_holds_no_more_threads_than_there_are(
    open_drive, monkeypatch
):
    drive = await open_drive()
    await drive.stage(DATA_ID, 0, [BLOCK], [HASH])
    await drive.seal(DATA_ID)
    threads = threading.active_count()
    hold = Hold(monkeypatch, drive._parts.shards, "read")
    try:
        reads = [asyncio.create_task(drive.read_blocks(DATA_ID, 0, 1)) for _ in range(50)]
        for task in reads:
            with pytest.raises(DriveOffline):
                await task
        for _ in range(50):
            with pytest.raises(DriveOffline):
                await drive.read_blocks(DATA_ID, 0, 1)
        assert threading.active_count() <= threads + 5
        assert not drive._parts.shard_readers._waiting
    finally:
        hold.release()
    await until(lambda: drive.status().state is DriveState.FULL)
    assert await drive.read_blocks(DATA_ID, 0, 1) == ([BLOCK], [HASH])


@pytest.mark.parametrize(("where", "call"), [(os, "fdatasync"), (durable_files, "fsync_folder")])
async def test_a_seal_whose_caller_was_let_go_counts_once_it_has_ended(open_drive, monkeypatch, where, call):
    drive = await open_drive()
    await drive.stage(DATA_ID, 0, [BLOCK], [HASH])
    hold = Hold(monkeypatch, where, call)
    sealing = asyncio.create_task(drive.seal(DATA_ID))
    with pytest.raises(DriveOffline):
        await sealing
    shards = drive._parts.shards
    assert not shards.is_staged(DATA_ID)
    with pytest.raises(ShardMissing):
        shards.read(DATA_ID, 0, 1)
    hold.release()
    await until(lambda: drive.status().state is DriveState.FULL and shards.is_staged(DATA_ID))
    await drive.stage(DATA_ID, 0, [BLOCK], [HASH])
    await drive.seal(DATA_ID)
    held = Held(10, False, b"r", 0, None, (DATA_ID,))
    request = CommitRequest(Register(SPACE, "key"), held, CommitMode.HEAL, watermark=0)
    assert (await drive.commit(request)).status is CommitStatus.OK
    assert await drive.read_blocks(DATA_ID, 0, 1) == ([BLOCK], [HASH])


async def test_a_commit_is_not_begun_where_its_shard_hung_or_took_too_long(open_drive, monkeypatch):
    """Whoever sent it has given up, and may have told others that it failed."""
    drive = await open_drive()
    register = Register(SPACE, "key")
    request = CommitRequest(register, Held(10, False, b"r", 0, None, (DATA_ID,)), CommitMode.PLAIN)
    hold = Hold(monkeypatch, os, "fdatasync")
    with pytest.raises(DriveOffline):
        await drive.commit_with_shard(request, [BLOCK], [HASH])
    hold.release()
    shards = drive._parts.shards
    await until(lambda: drive.status().state is DriveState.FULL and shards.is_staged(DATA_ID))
    assert (await drive.query(register, False)).records == ()
    monkeypatch.setattr(local, "STAGED_FOR_COMMIT_SECONDS", -1.0)
    with pytest.raises(DriveOffline, match="took too long"):
        await drive.commit_with_shard(request, [BLOCK], [HASH])
    assert (await drive.query(register, False)).records == ()
    monkeypatch.undo()
    assert (await drive.commit_with_shard(request, [BLOCK], [HASH])).status is CommitStatus.OK


async def test_a_drive_that_comes_back_only_to_hang_again_is_not_used(open_drive, monkeypatch):
    drive = await open_drive()
    hold = Hold(monkeypatch, drive._parts.engine, "flush")
    first = asyncio.ensure_future(commit(drive, "first"))
    with pytest.raises(DriveOffline):
        await first
    again = Hold(monkeypatch, drive._parts.engine, "flush")
    hold.release()
    await asyncio.to_thread(again.begun.wait, 60)
    deadline = time.monotonic() + 1.0
    while time.monotonic() < deadline:
        assert drive.status().state is DriveState.OFFLINE
        await asyncio.sleep(0.005)
    with pytest.raises(DriveOffline):
        await commit(drive, "second")
    again.release()
    await until(lambda: drive.status().state is DriveState.FULL)


async def test_a_drive_that_met_a_full_disk_comes_back_from_a_hang_and_is_read(open_drive, monkeypatch):
    drive = await open_drive()
    await commit(drive, "before")
    drive._parts.commits.no_room = "no space left for the table"
    hold = Hold(monkeypatch, drive._parts.shards, "read")
    with pytest.raises(DriveOffline):
        await drive.read_blocks(DATA_ID, 0, 1)
    hold.release()
    await until(lambda: drive.status().state is DriveState.FULL)
    assert drive.status().full
    assert (await drive.query(Register(SPACE, "before"), True)).records[0].stamp == 10


async def test_a_drive_that_is_slow_to_open_holds_up_nobody(tmp_path, open_drive, monkeypatch):
    await (await open_drive()).close()
    monkeypatch.setattr(local, "OPEN_PATIENCE_SECONDS", 0.05)
    hold = Hold(monkeypatch, local.folder_layout, "open_engine")
    drive = await open_drive(form=False)
    try:
        assert drive.status().state is DriveState.OFFLINE
        assert drive.status().message == "it is being opened"
        with pytest.raises(DriveOffline):
            await commit(drive, "early")
    finally:
        hold.release()
    await until(lambda: drive.status().state is DriveState.FULL)
    assert (await commit(drive, "late")).status is CommitStatus.OK


async def test_closing_a_hung_drive_ends_with_the_hang(open_drive, monkeypatch):
    drive = await open_drive()
    hold = Hold(monkeypatch, drive._parts.engine, "flush")
    first = asyncio.ensure_future(commit(drive, "first"))
    await asyncio.to_thread(hold.begun.wait, 60)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await drive.close()
    hold.release()
    await asyncio.wait((first,))
    first.exception()
    await drive.close()
    assert (await open_drive()).status().state is DriveState.FULL


async def test_what_waits_for_threads_is_bounded_and_first_come_first_served(monkeypatch):
    monkeypatch.setattr(disk_threads, "MAX_WAITING_JOBS", 3)
    threads = DiskThreads("test", 1, Watch(), asyncio.get_running_loop())
    release, done = threading.Event(), []
    running = asyncio.create_task(threads.run(lambda: release.wait(20)))
    await asyncio.sleep(0)
    waiting = [asyncio.create_task(threads.run(lambda n=n: done.append(n))) for n in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(DriveError, match="are waiting for this drive"):
        await threads.run(lambda: None)
    waiting[1].cancel()
    release.set()
    await asyncio.gather(running, *waiting, return_exceptions=True)
    await threads.drained()
    assert done == [0, 2]
    threads.shutdown()


async def test_what_was_to_be_done_for_somebody_who_has_left_is_let_go_of_at_once(monkeypatch):
    monkeypatch.setattr(disk_threads, "MAX_WAITING_JOBS", 3)
    threads = DiskThreads("test", 1, Watch(), asyncio.get_running_loop())
    release = threading.Event()
    running = asyncio.create_task(threads.run(lambda: release.wait(20)))
    await asyncio.sleep(0)

    class Blocks:
        pass

    def work(blocks):
        return lambda: blocks

    left, kept = [], []
    for _ in range(3):
        blocks = Blocks()
        kept.append(weakref.ref(blocks))
        left.append(asyncio.create_task(threads.run(work(blocks))))
        del blocks
    await asyncio.sleep(0)
    for task in left:
        task.cancel()
    await asyncio.wait(left)
    left.clear()
    del task
    assert [ref() for ref in kept] == [None] * 3
    behind = [asyncio.create_task(threads.run(lambda: "done")) for _ in range(3)]
    await asyncio.sleep(0)
    release.set()
    assert await asyncio.gather(*behind) == ["done"] * 3
    await running
    await threads.drained()
    threads.shutdown()


async def test_a_drive_that_fails_to_open_in_a_way_nobody_thought_of_says_so(tmp_path, open_drive, monkeypatch):
    """And is opened again like any other: a task that nobody awaits must not leave it "being opened" for ever."""
    await (await open_drive()).close()
    with monkeypatch.context() as patch:
        patch.setattr(local.folder_layout, "open_engine", lambda *_: {}["nobody thought of this"])
        drive = await open_drive(form=False)
    status = drive.status()
    assert status.state is DriveState.FAULTY
    assert "nobody thought of this" in status.message
    assert drive.fault_kind is FaultKind.MEDIUM
    await drive.close()
    assert (await open_drive(form=False)).status().state is DriveState.FULL


async def test_shards_that_take_long_to_verify_hold_up_no_reads(open_drive, monkeypatch):
    """Each is given up in time, and another is begun; the threads they are read on are not those of requests."""
    drive = await open_drive()
    await drive.stage(DATA_ID, 0, [BLOCK], [HASH])
    await drive.seal(DATA_ID)
    request = CommitRequest(Register(SPACE, "k"), Held(10, False, b"r", 0, None, (DATA_ID,)), CommitMode.PLAIN)
    assert (await drive.commit(request)).status is CommitStatus.OK
    hold = Hold(monkeypatch, drive._parts.shards, "verify")
    try:
        for _ in range(8):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(drive.verify_shard(DATA_ID), 0.05)
        async with asyncio.timeout(20):
            assert await drive.read_blocks(DATA_ID, 0, 1) == ([BLOCK], [HASH])
    finally:
        hold.release()
    assert drive.status().state is DriveState.FULL


@pytest.mark.parametrize("closed", [False, True])
async def test_what_hangs_on_a_drive_that_was_set_aside_lets_everybody_go(open_drive, monkeypatch, closed):
    """Its life cycle waits for it, too: a pod that is not told opens none of its drives anew."""
    drive = await open_drive()
    hold = Hold(monkeypatch, drive._parts.engine, "flush")
    read = Hold(monkeypatch, drive._parts.shards, "read")
    closing = None
    try:
        waiting = [asyncio.ensure_future(commit(drive, "first"))]
        await asyncio.to_thread(hold.begun.wait, 60)
        waiting += [asyncio.ensure_future(drive.kept(b"name")), asyncio.create_task(drive.read_blocks(DATA_ID, 0, 1))]
        await asyncio.to_thread(read.begun.wait, 60)
        drive.set_aside("it was replaced here")
        if closed:
            closing = asyncio.ensure_future(drive.close())
        async with asyncio.timeout(30):
            for task in waiting:
                with pytest.raises(DriveOffline):
                    await task
        assert drive.status().state is DriveState.FAULTY
        assert drive.status().message == "it was replaced here"
        with pytest.raises(DriveFaulty):
            await commit(drive, "later")
    finally:
        hold.release()
        read.release()
    await (closing or drive.close())
    assert drive.status().state is DriveState.FAULTY


class Unstarted(threading.Thread):
    """As where the container may have no more processes."""

    def start(self) -> None:
        raise RuntimeError("can't start new thread")


async def test_want_of_threads_fails_the_calls_that_wanted_one_and_no_others(monkeypatch):
    threads = DiskThreads("test", 2, Watch(), asyncio.get_running_loop())
    with monkeypatch.context() as patch:
        patch.setattr(disk_threads.threading, "Thread", Unstarted)
        threads.post(lambda: None)
        with pytest.raises(DriveError, match="start new thread") as failure:
            await threads.run(lambda: None)
        assert not isinstance(failure.value, DriveFaulty)
    assert await threads.run(lambda: "done") == "done"
    with monkeypatch.context() as patch:
        patch.setattr(disk_threads.threading, "Thread", Unstarted)
        # The one there is does the work of both.
        assert await asyncio.gather(*(threads.run(lambda n=n: n) for n in range(3))) == [0, 1, 2]
    assert await asyncio.gather(*(threads.run(lambda n=n: n) for n in range(3))) == [0, 1, 2]
    async with asyncio.timeout(30):
        await threads.drained()
    threads.shutdown()


async def test_a_drive_that_finds_no_thread_serves_on_and_can_be_closed(open_drive, monkeypatch):
    drive = await open_drive()
    with monkeypatch.context() as patch:
        patch.setattr(disk_threads.threading, "Thread", Unstarted)
        with pytest.raises(DriveError):
            await drive.stage(DATA_ID, 0, [BLOCK], [HASH])
        assert drive.status().state is DriveState.FULL
    await drive.stage(DATA_ID, 0, [BLOCK], [HASH])
    async with asyncio.timeout(60):
        await drive.close()


async def test_a_drive_for_whose_opening_there_is_no_thread_says_so(open_drive, monkeypatch):
    await (await open_drive()).close()

    def none_left(*_):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(local.LocalDrive, "_in_life", none_left)
        drive = await open_drive(form=False)
    assert drive.status().state is DriveState.FAULTY
    assert "start new thread" in drive.status().message
    await drive.close()
    assert (await open_drive(form=False)).status().state is DriveState.FULL


async def test_a_drive_that_no_thread_could_open_is_closed_without_one_and_opened_later(open_drive, monkeypatch):
    await (await open_drive()).close()
    with monkeypatch.context() as patch:
        patch.setattr(disk_threads.threading, "Thread", Unstarted)
        drive = await open_drive(form=False)
        assert drive.status().state is DriveState.FAULTY
        await drive.close()
        await drive.close()
    assert (await open_drive(form=False)).status().state is DriveState.FULL


async def test_a_drive_that_took_long_to_close_can_be_asked_what_is_in_its_folder(open_drive, tmp_path):
    """As its pod does with one that is damaged, and did not close in the time it gave it."""
    drive = await open_drive()
    drive.set_aside("it was replaced here")
    await drive.close()
    assert not await drive.folder_changed()
    (tmp_path / "holdfast.json").unlink()
    assert await drive.folder_changed()
