"""Background work is begun anew, whatever way it ended, until the pod stops."""

from __future__ import annotations

import asyncio

import pytest

from holdfast_server.wiring import kept_running as module
from holdfast_server.wiring.kept_running import kept_running

WAIT_SECONDS = 60.0


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RESTART_WORK_SECONDS", 0.0)


class Work:
    """Ends so once, then goes on."""

    def __init__(self, end: BaseException | None) -> None:
        self.begun = 0
        self.again = asyncio.Event()
        self.ended = False
        self._end = end

    async def run(self) -> None:
        self.begun += 1
        if self.begun == 1:
            if self._end is not None:
                raise self._end
            return
        self.again.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.ended = True


@pytest.mark.parametrize("end", [ValueError("broken"), asyncio.CancelledError(), None])
async def test_work_that_ends_is_begun_anew(end: BaseException | None) -> None:
    work, other = Work(end), Work(None)
    async with asyncio.timeout(WAIT_SECONDS), kept_running({"healing": work.run, "other": other.run}):
        await work.again.wait()
        await other.again.wait()
    assert work.begun == 2
    assert work.ended
    assert other.ended


async def test_a_cancellation_that_stayed_counted_does_not_end_it_again() -> None:
    """What a group of tasks can leave behind, before Python 3.13."""
    counted, again = list[int](), asyncio.Event()

    async def run() -> None:
        task = asyncio.current_task()
        assert task is not None
        counted.append(task.cancelling())
        if len(counted) == 2:
            again.set()
            await asyncio.Event().wait()
        task.cancel()
        await asyncio.sleep(0)

    async with asyncio.timeout(WAIT_SECONDS), kept_running({"healing": run}):
        await again.wait()
    assert counted == [0, 0]


async def test_a_pod_that_fails_ends_its_work() -> None:
    work = Work(None)

    async def serve() -> None:
        async with asyncio.timeout(WAIT_SECONDS), kept_running({"healing": work.run}):
            await work.again.wait()
            raise ValueError("the pod")

    with pytest.raises(ExceptionGroup) as failed:
        await serve()
    assert [str(error) for error in failed.value.exceptions] == ["the pod"]
    assert work.ended
