"""Notes for one drive that come up together are one call; nobody's failure or cancellation is another's."""

import asyncio
from collections.abc import Sequence

import pytest

from holdfast_server.drives.port import DriveOffline, Note, Register
from holdfast_server.peers.notes import MAX_NOTES_PER_CALL, NoteBatch

REGISTER = Register(b"o" + bytes(16), "k")


class Calls:
    def __init__(self, error: Exception | None = None) -> None:
        self.calls: list[list[Note]] = []
        self.error = error

    def send(self, notes: Sequence[Note]) -> asyncio.Future[None]:
        return asyncio.ensure_future(self._send(list(notes)))

    async def _send(self, notes: list[Note]) -> None:
        self.calls.append(notes)
        if self.error is not None:
            raise self.error


async def test_notes_that_come_up_together_are_one_call_in_order() -> None:
    calls = Calls()
    batch = NoteBatch(calls.send)
    await asyncio.gather(*(batch.add((REGISTER, stamp, True)) for stamp in range(10)))
    assert [[stamp for _, stamp, _ in notes] for notes in calls.calls] == [list(range(10))]
    await batch.add((REGISTER, 10, False))
    assert calls.calls[1] == [(REGISTER, 10, False)]


async def test_a_call_carries_no_more_than_its_bound() -> None:
    calls = Calls()
    batch = NoteBatch(calls.send)
    count = 2 * MAX_NOTES_PER_CALL + 3
    await asyncio.gather(*(batch.add((REGISTER, stamp, True)) for stamp in range(count)))
    assert [len(notes) for notes in calls.calls] == [MAX_NOTES_PER_CALL, MAX_NOTES_PER_CALL, 3]


async def test_a_failed_call_is_told_to_everybody_in_it_and_to_nobody_else() -> None:
    calls = Calls(DriveOffline("gone"))
    batch = NoteBatch(calls.send)
    outcomes = await asyncio.gather(*(batch.add((REGISTER, s, True)) for s in (1, 2)), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [DriveOffline, DriveOffline]
    calls.error = None
    await batch.add((REGISTER, 3, True))
    assert len(calls.calls) == 2


async def test_one_that_gives_up_takes_nobodys_note_with_it() -> None:
    calls = Calls()
    batch = NoteBatch(calls.send)
    first = batch.add((REGISTER, 1, True))
    second = batch.add((REGISTER, 2, True))
    first.cancel()
    await second
    with pytest.raises(asyncio.CancelledError):
        await first
    assert [len(notes) for notes in calls.calls] == [2]
