"""Pages, batches and closing: bounded and orderly whatever is under way."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from holdfast_server.drives import scanning
from holdfast_server.drives.port import (
    CommitMode,
    CommitReply,
    CommitRequest,
    CommitStatus,
    DriveError,
    DriveState,
    Held,
    QueryReply,
    Register,
    ScanRequest,
)

SPACE = b"o" + bytes(16)


def request(number: int, record: bytes = b"r", tombstone: bool = False) -> CommitRequest:
    return CommitRequest(Register(SPACE, f"{number:05}"), Held(number, tombstone, record, -1, None), CommitMode.PLAIN)


async def test_a_page_of_large_records_is_short_and_goes_on(open_drive):
    drive = await open_drive()
    await asyncio.gather(*(drive.commit(request(number, bytes(1 << 20))) for number in range(1, 11)))
    sizes, start = [], b""
    for _ in itertools.count():
        page = await drive.scan(ScanRequest(SPACE, start=start))
        sizes.append(len(page.entries))
        if page.next_start is None:
            break
        start = page.next_start
    assert sizes == [4, 4, 2]


async def pages_of(drive):
    pages, start = [], b""
    while start is not None:
        page = await drive.scan(ScanRequest(SPACE, start=start, tombstones=False))
        pages.append([entry.register.key for entry in page.entries])
        start = page.next_start
    return pages


async def test_a_page_of_registers_that_yield_nothing_ends_and_goes_on(open_drive, monkeypatch):
    drive = await open_drive()
    await asyncio.gather(*(drive.fence(Register(SPACE, f"{number:05}"), number) for number in range(1, 31)))
    await drive.commit(request(31))
    monkeypatch.setattr(scanning.scan_page, "__defaults__", (10,))
    assert await pages_of(drive) == [[], [], [], ["00031"]]


async def test_a_listing_does_not_walk_over_the_dead(open_drive, monkeypatch):
    drive = await open_drive()
    await asyncio.gather(*(drive.commit(request(number, tombstone=True)) for number in range(1, 31)))
    await asyncio.gather(*(drive.note(Register(SPACE, f"{number:05}"), number, True) for number in range(1, 31)))
    await drive.commit(request(31))
    monkeypatch.setattr(scanning.scan_page, "__defaults__", (10,))
    assert await pages_of(drive) == [["00031"]]


async def test_one_batch_decides_in_the_order_of_arrival(open_drive):
    drive = await open_drive()
    register = Register(SPACE, "key")
    replies = await asyncio.gather(
        *(
            drive.commit(CommitRequest(register, Held(stamp, False, b"r", -1, None), CommitMode.PLAIN))
            for stamp in (10, 30, 20, 40)
        )
    )
    ok, stale = CommitStatus.OK, CommitStatus.STALE
    assert replies == [CommitReply(ok, 10), CommitReply(ok, 30), CommitReply(stale, 30), CommitReply(ok, 40)]


async def test_closing_finishes_what_was_taken_and_refuses_the_rest(open_drive):
    drive = await open_drive()
    commits = [asyncio.ensure_future(drive.commit(request(number))) for number in range(1, 200)]
    queries = [asyncio.ensure_future(drive.query(Register(SPACE, f"{number:05}"), True)) for number in range(1, 200)]
    await asyncio.sleep(0)
    await drive.close()
    assert [reply.status for reply in await asyncio.gather(*commits)] == [CommitStatus.OK] * 199
    assert {type(answer) for answer in await asyncio.gather(*queries, return_exceptions=True)} <= {
        DriveError,
        QueryReply,
    }
    with pytest.raises(DriveError, match="closed"):
        await drive.commit(request(1000))
    assert drive.status().state is DriveState.FULL
    drive = await open_drive()
    for number in range(1, 200):
        assert len((await drive.query(Register(SPACE, f"{number:05}"), False)).records) == 1


async def test_a_cancelled_verb_does_not_disturb_the_batch(open_drive):
    drive = await open_drive()
    commits = [asyncio.ensure_future(drive.commit(request(number))) for number in range(1, 50)]
    await asyncio.sleep(0)
    for task in commits[::2]:
        task.cancel()
    replies = await asyncio.gather(*commits, return_exceptions=True)
    assert {reply.status for reply in replies[1::2]} == {CommitStatus.OK}
    assert all(isinstance(reply, asyncio.CancelledError) for reply in replies[::2])
    assert (await drive.commit(request(100))).status is CommitStatus.OK
