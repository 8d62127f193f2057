"""Commits for one drive that come up while another is under way are one call; each has its own answer and end."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from holdfast_server.drives.port import (
    CommitMode,
    CommitReply,
    CommitRequest,
    CommitStatus,
    DriveFull,
    DriveOffline,
    Held,
    Register,
)
from holdfast_server.peers.commits import MAX_BYTES_PER_CALL, MAX_COMMITS_PER_CALL, CommitQueue


def request(stamp: int, record: bytes = b"record") -> CommitRequest:
    return CommitRequest(Register(b"o" + bytes(16), "k"), Held(stamp, False, record, 0, None), CommitMode.PLAIN)


class Drive:
    """Answers when it is told to, with each commit's stamp."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []
        self.gathered: list[bool] = []
        self.pending: list[asyncio.Future[Any]] = []
        self.queue = CommitQueue(self._one, self._many)

    def add(self, stamp: int, record: bytes = b"record") -> asyncio.Future[CommitReply]:
        return self.queue.add(request(stamp, record))

    def _one(self, one: CommitRequest) -> asyncio.Future[CommitReply]:
        return self._begin([one.held.stamp], False)

    def _many(self, many: Sequence[CommitRequest]) -> asyncio.Future[list[CommitReply | None]]:
        return self._begin([one.held.stamp for one in many], True)

    def _begin(self, stamps: list[int], gathered: bool) -> asyncio.Future[Any]:
        self.calls.append(stamps)
        self.gathered.append(gathered)
        self.pending.append(asyncio.get_running_loop().create_future())
        return self.pending[-1]

    async def answer(self, full: Sequence[int] = ()) -> None:
        call, stamps = self.pending[-1], self.calls[-1]
        replies = [None if stamp in full else CommitReply(CommitStatus.OK, stamp) for stamp in stamps]
        call.set_result(replies if self.gathered[-1] else replies[0])
        await asyncio.sleep(0)
        await asyncio.sleep(0)


async def test_alone_a_commit_goes_out_at_once() -> None:
    drive = Drive()
    for stamp in (1, 2):
        drive.calls.clear()
        reply = drive.add(stamp)
        assert drive.calls == [[stamp]]
        await drive.answer()
        assert (await reply).highest == stamp


async def test_what_comes_up_meanwhile_is_one_call_in_order_with_an_answer_each() -> None:
    drive = Drive()
    replies = [drive.add(stamp) for stamp in range(1, 5)]
    assert drive.calls == [[1]]
    await drive.answer()
    assert drive.calls == [[1], [2, 3, 4]]
    assert not any(reply.done() for reply in replies[1:])
    await drive.answer(full=[3])
    assert (await replies[1]).highest == 2
    with pytest.raises(DriveFull):
        await replies[2]
    assert (await replies[3]).highest == 4


async def test_a_call_carries_no_more_than_its_bound() -> None:
    drive = Drive()
    replies = [drive.add(stamp) for stamp in range(MAX_COMMITS_PER_CALL + 3)]
    await drive.answer()
    await drive.answer()
    await drive.answer()
    assert [len(call) for call in drive.calls] == [1, MAX_COMMITS_PER_CALL, 2]
    assert all(reply.done() for reply in replies)


async def test_what_nobody_waits_for_any_more_is_not_sent_and_takes_nobody_with_it() -> None:
    drive = Drive()
    first, second, third = (drive.add(stamp) for stamp in (1, 2, 3))
    second.cancel()
    await drive.answer()
    assert drive.calls == [[1], [3]]
    await drive.answer()
    assert (await first).highest == 1
    assert (await third).highest == 3


async def test_who_gives_up_while_its_call_is_under_way_lets_the_next_go() -> None:
    drive = Drive()
    first = drive.add(1)
    second = drive.add(2)
    first.cancel()
    await asyncio.sleep(0)
    assert drive.calls == [[1], [2]]
    await drive.answer()
    assert (await second).highest == 2


async def test_a_call_that_fails_fails_all_in_it_and_the_next_are_sent() -> None:
    drive = Drive()
    first, *rest = [drive.add(stamp) for stamp in (1, 2, 3)]
    drive.pending[-1].set_exception(DriveOffline("gone"))
    await asyncio.sleep(0)
    with pytest.raises(DriveOffline):
        await first
    drive.pending[-1].set_exception(DriveOffline("gone"))
    outcomes = await asyncio.gather(*rest, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [DriveOffline, DriveOffline]
    assert not drive.add(4).done()
    assert drive.calls == [[1], [2, 3], [4]]


async def test_large_records_go_in_several_calls() -> None:
    """All that wait would not fit into a frame; one that is larger than the bound alone still goes."""
    drive = Drive()
    replies = [drive.add(stamp, bytes(3 << 19)) for stamp in range(1, 8)]
    replies.append(drive.add(8, bytes(MAX_BYTES_PER_CALL + 1)))
    for _ in replies:
        if not drive.pending[-1].done():
            await drive.answer()
    assert drive.calls == [[1], [2, 3, 4], [5, 6, 7], [8]]
    assert [(await reply).highest for reply in replies] == list(range(1, 9))
