"""Two things at once on one drive: what one of them saw must not be undone, or misread, by the other."""

from __future__ import annotations

import asyncio
import os
import threading

import pytest
import xxhash

from holdfast_server.drives import keys, register_rows
from holdfast_server.drives.disk_threads import DiskThreads, Watch
from holdfast_server.drives.port import (
    CommitMode,
    CommitRequest,
    CommitStatus,
    DriveError,
    DriveFull,
    DriveState,
    Held,
    ListRequest,
    Register,
    ScanRequest,
)

SPACE = b"o" + bytes(16)
REGISTER = Register(SPACE, "key")
DATA_ID = bytes(range(16))
BLOCK = b"a" * 5000
HOUR_SECONDS = 3600.0
HASH = xxhash.xxh3_128_digest(BLOCK)


async def stage(drive) -> None:
    await drive.stage(DATA_ID, 0, [BLOCK], [HASH], last=True)


async def put(drive, stamp: int, mode=CommitMode.PLAIN, data_ids=(), **facts) -> CommitStatus:
    held = Held(stamp, facts.pop("tombstone", False), b"r", 0, None, data_ids)
    return (await drive.commit(CommitRequest(REGISTER, held, mode, **facts))).status


async def test_a_shard_that_is_being_reclaimed_is_not_named_by_a_record(open_drive, monkeypatch):
    """Healed in the very moment in which its former copy is unlinked, it would be unlinked with it."""
    drive = await open_drive()
    await stage(drive)
    await put(drive, 10, data_ids=(DATA_ID,))
    await put(drive, 20, tombstone=True)
    await drive.note(REGISTER, 20, True)
    drive._clock.advance(100)
    reclaim = drive._parts.shards.reclaim
    condemned, go_on = threading.Event(), threading.Event()

    def slowly(*arguments) -> None:
        condemned.set()
        assert go_on.wait(20)
        reclaim(*arguments)

    monkeypatch.setattr(drive._parts.shards, "reclaim", slowly)
    reaping = asyncio.create_task(drive.reap())
    await asyncio.to_thread(condemned.wait, 20)
    await stage(drive)
    status = await put(drive, 30, CommitMode.HEAL, (DATA_ID,))
    go_on.set()
    assert await reaping == 1
    if status is CommitStatus.NO_DATA:
        await stage(drive)
        status = await put(drive, 30, CommitMode.HEAL, (DATA_ID,))
    assert status is CommitStatus.OK
    assert await drive.read_blocks(DATA_ID, 0, 1) == ([BLOCK], [HASH])


def rot(drive) -> None:
    """The row fails its checksum."""
    row = keys.records_key(keys.row_key(REGISTER))
    stored = bytearray(drive._parts.engine.get([row])[0])
    stored[-1] ^= 0x55
    drive._parts.engine.write([(row, bytes(stored))])


@pytest.mark.parametrize("ask", ["query", "scan", "list"])
async def test_a_read_that_began_on_a_damaged_register_denies_nothing_though_it_is_healed_meanwhile(
    open_drive, monkeypatch, ask
):
    """What it saw was a hole.  Told as the word of a full drive, it would be a vote that the record never was."""
    drive = await open_drive()
    await put(drive, 10)
    await drive.note(REGISTER, 10, True)
    rot(drive)
    assert (await drive.query(REGISTER, False)).healing
    engine, walk, commits = drive._parts.engine, drive._parts.walk, drive._parts.commits
    looked, go_on = threading.Event(), threading.Event()

    def hold(real):
        def held(*arguments, **facts):
            found = real(*arguments, **facts)
            if threading.current_thread().name.startswith(str(drive.path)) and not go_on.is_set():
                looked.set()
                assert go_on.wait(20)
            return found

        return held

    monkeypatch.setattr(engine, "peek", lambda _: None)  # the table has grown out of memory
    if ask == "query":
        real_get = engine.get
        wanted = list(register_rows.wanted(keys.row_key(REGISTER)))

        def slow_get(some):
            found = real_get(some)
            if list(some) == wanted and "query" in threading.current_thread().name and not go_on.is_set():
                looked.set()
                assert go_on.wait(20)
            return found

        monkeypatch.setattr(engine, "get", slow_get)
        asking = asyncio.ensure_future(drive.query(REGISTER, False))
    elif ask == "scan":
        monkeypatch.setattr(commits, "if_settled", hold(commits.if_settled))
        asking = asyncio.ensure_future(drive.scan(ScanRequest(SPACE)))
    else:
        monkeypatch.setattr(commits, "if_settled", hold(commits.if_settled))
        asking = asyncio.ensure_future(drive.list_registers(ListRequest(SPACE)))
    await asyncio.to_thread(looked.wait, 20)
    assert await put(drive, 10, CommitMode.HEAL) is CommitStatus.OK
    go_on.set()
    answer = await asking
    told = answer.records if ask == "query" else answer.entries if ask == "scan" else answer.stamps
    assert answer.healing or told, "a full drive says that it never had it"
    assert walk is drive._parts.walk
    later = await drive.query(REGISTER, False)
    assert (later.healing, [held.stamp for held in later.records]) == (False, [10])


async def test_a_register_is_damaged_until_what_heals_it_is_durable(open_drive, monkeypatch):
    drive = await open_drive()
    await put(drive, 10)
    rot(drive)
    assert (await drive.query(REGISTER, False)).healing
    accepted, go_on = threading.Event(), threading.Event()
    saw = drive._parts.verbs._saw

    def slow_saw(transaction, stamp) -> None:
        """The last step of a commit; nothing is written yet."""
        accepted.set()
        assert go_on.wait(20)
        saw(transaction, stamp)

    monkeypatch.setattr(drive._parts.verbs, "_saw", slow_saw)
    healing = asyncio.create_task(put(drive, 10, CommitMode.HEAL))
    await asyncio.to_thread(accepted.wait, 20)
    asking = asyncio.ensure_future(drive.query(REGISTER, False))
    await asyncio.wait((asking,), timeout=0.2)
    go_on.set()
    assert await healing is CommitStatus.OK
    answer = await asking
    assert answer.healing or answer.records


async def test_a_read_that_began_on_a_drive_being_filled_denies_nothing_though_it_is_full_meanwhile(
    open_drive, monkeypatch
):
    drive = await open_drive(form=False)
    await drive.adopt(b"drive id 16 byte", 7, 5)
    engine = drive._parts.engine
    monkeypatch.setattr(engine, "peek", lambda _: None)
    looked, go_on = threading.Event(), threading.Event()
    get = engine.get

    def slow_get(some):
        found = get(some)
        if "query" in threading.current_thread().name and not go_on.is_set():
            looked.set()
            assert go_on.wait(20)
        return found

    monkeypatch.setattr(engine, "get", slow_get)
    asking = asyncio.ensure_future(drive.query(REGISTER, False))
    await asyncio.to_thread(looked.wait, 20)
    assert await put(drive, 10, CommitMode.HEAL) is CommitStatus.OK
    await drive.finish_healing(7)
    go_on.set()
    answer = await asking
    assert answer.healing or answer.records, "a full drive says that it never had it"


async def test_threads_that_ended_take_nothing_more_and_leave_nobody_waiting():
    """Work that came one after the other: the next piece comes in the moment in which the last has ended."""
    threads = DiskThreads("test", 1, Watch(), asyncio.get_running_loop())
    done = []

    async def pieces() -> None:
        for number in range(5):
            await threads.run(lambda number=number: done.append(number))

    working = asyncio.create_task(pieces())
    await asyncio.sleep(0)
    await threads.drained()
    await asyncio.to_thread(threads.shutdown)
    async with asyncio.timeout(5):
        try:
            await working
        except DriveError:
            pass
    with pytest.raises(DriveError, match="closed"):
        async with asyncio.timeout(5):
            await threads.run(lambda: None)


async def test_a_rotten_row_that_is_met_where_nothing_can_be_written_sets_no_drive_aside(open_drive, monkeypatch):
    """That it is damaged cannot be noted then; it is found again, as often as it is asked for."""
    drive = await open_drive()
    await put(drive, 10)
    rot(drive)
    drive._parts.commits.no_room = "no space left for the table"
    for _ in range(3):
        with pytest.raises(DriveFull):
            await drive.query(REGISTER, False)
    assert drive.status().state is DriveState.FULL
    assert drive.repair_queue_length == 0
    drive._parts.commits.no_room = None  # as if it were opened anew
    assert (await drive.query(REGISTER, False)).healing
    assert drive.repair_queue_length == 1
    assert await put(drive, 10, CommitMode.HEAL) is CommitStatus.OK
    reply = await drive.query(REGISTER, False)
    assert (reply.healing, [held.stamp for held in reply.records]) == (False, [10])


async def test_a_rotten_row_that_a_refused_repair_comes_upon_sets_no_drive_aside(open_drive, monkeypatch):
    """A repair that finds the reserve reached is refused, and all it found out with it."""
    drive = await open_drive()
    await put(drive, 10)
    await put(drive, 20)
    rot(drive)
    monkeypatch.setattr(drive._parts.space, "refuses", lambda *_: True)
    for _ in range(3):
        with pytest.raises(DriveFull):
            await put(drive, 30, CommitMode.HEAL)
    assert drive.status().state is DriveState.FULL
    assert (await drive.query(REGISTER, False)).healing


async def test_what_lies_beside_a_rotten_row_goes_with_it(open_drive):
    drive = await open_drive()
    large = Held(10, False, b"r", 0, b"i" * 5000)
    await drive.commit(CommitRequest(REGISTER, large, CommitMode.PLAIN))
    rot(drive)
    assert (await drive.query(REGISTER, True)).healing
    newer = Held(20, False, b"r", 0, b"j" * 5000)
    await drive.commit(CommitRequest(REGISTER, newer, CommitMode.HEAL))
    assert (await drive.query(REGISTER, True)).records == (newer,)
    assert len(drive._parts.engine.items(keys.INLINE)) == 1


@pytest.mark.parametrize("ending", ["newer", "same", "nothing"])
async def test_a_shard_that_only_a_rotten_row_named_is_found_by_the_scanner(open_drive, ending):
    """What the row named cannot be told, so its references stay; they must not keep the file for ever."""
    drive = await open_drive()
    await stage(drive)
    await put(drive, 10, data_ids=(DATA_ID,))
    async with asyncio.timeout(20):
        while drive._parts.shards.is_staged(DATA_ID):
            await asyncio.sleep(0.005)
    old = drive._clock.now_ms() / 1000 - 2 * HOUR_SECONDS
    os.utime(drive.path / "shards" / DATA_ID.hex()[:2] / DATA_ID.hex(), (old, old))
    rot(drive)
    assert (await drive.query(REGISTER, False)).healing
    assert await drive.trash_orphans(DATA_ID[0], HOUR_SECONDS) == 0, "it may be the one that is healed"
    if ending == "newer":
        assert await put(drive, 20, CommitMode.HEAL) is CommitStatus.OK
    elif ending == "same":
        assert await put(drive, 10, CommitMode.HEAL, (DATA_ID,)) is CommitStatus.OK
    else:
        await drive.remove(REGISTER, 11)
    count = 0 if ending == "same" else 1
    assert await drive.trash_orphans(DATA_ID[0], HOUR_SECONDS) == count
    drive._clock.advance(100)
    assert await drive.reap() == count
    assert drive._parts.shards.is_placed(DATA_ID) == (count == 0)
    assert len(drive._parts.engine.items(keys.REFERENCE)) == 1 - count


async def test_a_damaged_register_of_which_nothing_was_committed_is_empty_and_keeps_its_promises(open_drive):
    drive = await open_drive()
    await put(drive, 10)
    await drive.fence(Register(SPACE, "another"), 30)
    rot(drive)
    reply = await drive.query(REGISTER, False)
    assert (reply.healing, reply.highest) == (True, 30)
    await drive.remove(REGISTER, 30)  # as one version is taken back: that says nothing of the others
    assert (await drive.query(REGISTER, False)).healing
    await drive.remove(REGISTER, 31)
    reply = await drive.query(REGISTER, False)
    assert (reply.healing, reply.records) == (False, ())
    assert await put(drive, 30) is CommitStatus.STALE
    assert await put(drive, 40) is CommitStatus.OK
    await drive.close()
    again = await open_drive()
    reply = await again.query(REGISTER, False)
    assert (reply.healing, [held.stamp for held in reply.records]) == (False, [40])
    assert again.status().message == ""
