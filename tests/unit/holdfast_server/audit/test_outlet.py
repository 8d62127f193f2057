"""The queue of an outlet: bounded, in order, never in anybody's way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from holdfast_server.audit import outlet as outlet_module
from holdfast_server.audit.outlet import LINE_OVERHEAD_BYTES, DeliveryError, Outlet, OutletCounts

pytestmark = pytest.mark.virtual_time


class Kept:
    """A sink in memory that can refuse or hang."""

    name = "stdout"

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.failures: list[DeliveryError] = []
        self.hangs = False
        self.attempts = 0
        self.closed = False

    async def deliver(self, lines: Sequence[bytes]) -> None:
        self.attempts += 1
        if self.hangs:
            await asyncio.Event().wait()
        if self.failures:
            raise self.failures.pop(0)
        self.lines += lines

    async def close(self) -> None:
        self.closed = True


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outlet_module, "GATHER_SECONDS", 0.001)
    monkeypatch.setattr(outlet_module, "FIRST_PAUSE_SECONDS", 0.001)
    monkeypatch.setattr(outlet_module, "FLUSH_SECONDS", 0.05)


@asynccontextmanager
async def running(outlet: Outlet) -> AsyncIterator[None]:
    task = asyncio.create_task(outlet.run())
    try:
        yield
    finally:
        outlet.retire()
        await task


async def until(condition: object) -> None:
    async with asyncio.timeout(5):
        while not condition():  # type: ignore[operator]
            await asyncio.sleep(0.001)


async def test_lines_leave_in_order_and_what_is_there_at_the_end_gets_away() -> None:
    sink, counts = Kept(), OutletCounts("stdout")
    outlet = Outlet(sink, counts)
    lines = [f"{number}\n".encode() for number in range(1000)]
    async with running(outlet):
        for line in lines[:500]:
            outlet.offer(line)
        await until(lambda: len(sink.lines) == 500)
        for line in lines[500:]:
            outlet.offer(line)
    assert sink.lines == lines
    assert (counts.written, counts.dropped, counts.waiting_bytes) == (1000, 0, 0)
    assert sink.closed


async def test_a_sink_that_hangs_costs_lines_and_nothing_else() -> None:
    sink, counts = Kept(), OutletCounts("webhook")
    outlet = Outlet(sink, counts, queue_bytes=10 * (100 + LINE_OVERHEAD_BYTES))
    sink.hangs = True
    async with running(outlet):
        outlet.offer(b"x" * 100)
        await until(lambda: sink.attempts == 1)
        for _ in range(100):
            outlet.offer(b"x" * 100)
        assert counts.dropped == 91, "what is being delivered counts towards the bound"
        assert counts.waiting_bytes == 10 * (100 + LINE_OVERHEAD_BYTES)
    assert (counts.written, counts.dropped, counts.waiting_bytes) == (0, 101, 0)


async def test_what_may_be_taken_later_is_tried_again_and_what_never_will_be_is_dropped(
    caplog: pytest.LogCaptureFixture,
) -> None:
    sink, counts = Kept(), OutletCounts("webhook")
    sink.failures = [DeliveryError("down"), DeliveryError("still down"), DeliveryError("refused", permanent=True)]
    outlet = Outlet(sink, counts)
    async with running(outlet):
        outlet.offer(b"never")
        await until(lambda: counts.dropped == 1)
        outlet.offer(b"later")
        await until(lambda: counts.written == 1)
    assert sink.lines == [b"later"]
    assert sink.attempts == 4
    told = [vars(record) for record in caplog.records if record.getMessage() == "audit lines are not taken"]
    assert [(one["reason"], one["outcome"]) for one in told] == [("down", "tried again"), ("refused", "dropped")]


async def test_batches_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outlet_module, "BATCH_BYTES", 25)
    sink = Kept()
    outlet = Outlet(sink, OutletCounts("file"))
    for _ in range(5):
        outlet.offer(b"0123456789")
    async with running(outlet):
        await until(lambda: len(sink.lines) == 5)
    assert sink.attempts == 3


async def test_a_retired_outlet_takes_nothing() -> None:
    sink, counts = Kept(), OutletCounts("file")
    outlet = Outlet(sink, counts)
    async with running(outlet):
        pass
    outlet.offer(b"late")
    assert (sink.lines, counts.dropped) == ([], 1)
