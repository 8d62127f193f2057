"""Waiting for a budget, giving back, and giving way."""

from __future__ import annotations

import asyncio

import pytest

from holdfast_server.memory import budget as budget_module
from holdfast_server.memory.budget import Budget, Overloaded

pytestmark = pytest.mark.virtual_time


async def test_what_is_held_comes_back_whatever_happens() -> None:
    budget = Budget("bytes", 10, wait_seconds=5, most_waiting=9)

    async def fails() -> None:
        with budget.hold() as hold:
            await hold.take(4)
            assert hold.try_take(3)
            assert not hold.try_take(4)
            hold.give(1)
            assert (hold.held, budget.used) == (6, 6)
            raise KeyError

    with pytest.raises(KeyError):
        await fails()
    assert budget.used == 0


async def test_a_claim_waits_for_its_turn() -> None:
    budget = Budget("bytes", 10, wait_seconds=5, most_waiting=9)
    first = budget.hold()
    await first.take(10)
    second = asyncio.ensure_future(budget.take(6))
    await asyncio.sleep(0)
    assert budget.waiting == 1
    first.close()
    await second
    assert budget.used == 6


async def test_too_long_and_too_many_are_refused() -> None:
    budget = Budget("bytes", 10, wait_seconds=0.05, most_waiting=1)
    await budget.take(10)
    waiting = asyncio.ensure_future(budget.take(1))
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await budget.take(1)
    with pytest.raises(Overloaded):
        await waiting
    assert (budget.refused, budget.used, budget.waiting) == (2, 10, 0)


async def test_a_cancelled_claim_leaves_nothing_behind() -> None:
    budget = Budget("bytes", 10, wait_seconds=5, most_waiting=9)
    await budget.take(10)
    waiting = [asyncio.ensure_future(budget.take(5)) for _ in range(2)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    budget.give(10)  # grants both; the first is cancelled before it hears of it
    await asyncio.wait(waiting)
    assert waiting[0].cancelled()
    assert budget.used == 5


async def test_who_is_too_slow_gives_way_only_while_others_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget_module, "SLOW_SECONDS", 0.2)
    monkeypatch.setattr(budget_module, "LOOK_AROUND_SECONDS", 0.02)
    budget = Budget("bytes", 10, wait_seconds=5, most_waiting=9)
    told = []

    async def client(amount: int, progresses: bool) -> None:
        with budget.hold() as hold:
            await hold.take(amount)
            try:
                while True:
                    await asyncio.sleep(0.02)
                    if progresses:
                        hold.progressed()
            except asyncio.CancelledError:
                told.append((amount, hold.evicted))

    slow, brisk = asyncio.ensure_future(client(6, False)), asyncio.ensure_future(client(4, True))
    await asyncio.sleep(0.4)
    assert not slow.done()  # nobody wants it
    await budget.take(5)
    await asyncio.wait_for(slow, 5)
    assert told == [(6, True)]
    assert not brisk.done()
    brisk.cancel()
    await asyncio.wait((brisk,))
    assert (budget.evicted, budget.used) == (1, 5)


async def test_who_waits_for_a_place_is_relieved_by_those_who_are_too_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget_module, "SLOW_SECONDS", 0.1)
    monkeypatch.setattr(budget_module, "LOOK_AROUND_SECONDS", 0.02)
    bytes_ = Budget("bytes", 100, wait_seconds=5, most_waiting=9)
    places = Budget("places", 1, wait_seconds=5, most_waiting=9, relieved_by=(bytes_,))

    async def slow() -> None:
        await places.take(1)
        try:
            with bytes_.hold() as hold:
                await hold.take(1)
                await asyncio.sleep(3600)
        finally:
            places.give(1)

    holder = asyncio.ensure_future(slow())
    await asyncio.sleep(0)
    await places.take(1)
    await asyncio.wait((holder,))
    assert holder.cancelled()
    assert (bytes_.evicted, bytes_.used, places.used) == (1, 0, 1)
