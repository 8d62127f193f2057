"""Asking many drives: every call ends, every exception is looked at, nothing runs on."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

from holdfast_server.drives.port import DriveFaulty, DriveOffline
from holdfast_server.objects.asking import (
    DRIVE_CALL_TIMEOUT_SECONDS,
    MAX_PATIENCE_SECONDS,
    MIN_PATIENCE_SECONDS,
    Answers,
    Patience,
    ask,
    together,
)
from holdfast_server.objects.background import Background

DRIVES: dict[int, Any] = dict.fromkeys(range(4))


@pytest.fixture(autouse=True)
async def _complaints() -> Any:
    """What nobody looked at reaches the loop's exception handler."""
    heard: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: heard.append(context))
    yield
    await asyncio.sleep(1)
    gc.collect()
    assert not heard


async def test_answers_and_errors_by_position() -> None:
    async def call(position: int, _: Any) -> int:
        if position == 2:
            raise DriveFaulty("rot")
        return position * 10

    answers = await ask(DRIVES, call)
    assert answers == {0: 0, 1: 10, 3: 30}
    assert list(answers.errors) == [2]


async def test_a_hung_drive_counts_as_offline_after_the_deadline() -> None:
    async def call(position: int, _: Any) -> int:
        await asyncio.sleep(3600 if position == 1 else 0.1)
        return position

    began = asyncio.get_running_loop().time()
    answers = await ask(DRIVES, call)
    assert asyncio.get_running_loop().time() - began == pytest.approx(DRIVE_CALL_TIMEOUT_SECONDS)
    assert set(answers) == {0, 2, 3}
    assert isinstance(answers.errors[1], DriveOffline)


@pytest.mark.parametrize(
    ("trouble", "asked", "seconds"),
    [
        (None, [2, 3], 0.01),
        ("fails", [2, 3, 0, 1], 0.02),
        ("is slow", [2, 3, 0, 1], MIN_PATIENCE_SECONDS + 0.01),
        ("says something else", [2, 3, 0, 1], 0.02),
    ],
)
async def test_others_are_asked_only_where_the_first_do_not_do(
    trouble: str | None, asked: list[int], seconds: float
) -> None:
    seen: list[int] = []

    async def call(position: int, _: Any) -> int:
        seen.append(position)
        if position == 3 and trouble == "is slow":
            await asyncio.sleep(3600)
        await asyncio.sleep(0.01)
        if position == 3 and trouble == "fails":
            raise DriveFaulty("rot")
        return 1 if position == 3 and trouble is not None else 0

    began = asyncio.get_running_loop().time()
    answers = await ask(DRIVES, call, lambda answers: list(answers.values()).count(0) >= 2, first=[2, 3])
    assert seen == asked
    assert list(answers.values()).count(0) >= 2
    assert asyncio.get_running_loop().time() - began == pytest.approx(seconds)


def test_patience_follows_those_that_do_alone_within_bounds() -> None:
    patience = Patience()
    alone, widened = Answers[int](), Answers[int]()
    widened.widened = True
    assert patience.seconds == MIN_PATIENCE_SECONDS
    for _ in range(1000):
        patience.learn(widened, 5.0)
    assert patience.seconds == MIN_PATIENCE_SECONDS
    for _ in range(1000):
        patience.learn(alone, 0.05)
    assert patience.seconds == pytest.approx(0.2, rel=0.01)
    for _ in range(1000):
        patience.learn(alone, 5.0)
    assert patience.seconds == MAX_PATIENCE_SECONDS


async def test_a_call_that_is_cut_off_counts_as_offline() -> None:
    async def call(position: int, _: Any) -> int:
        if position == 1:
            raise asyncio.CancelledError
        return position

    answers = await ask(DRIVES, call)
    assert set(answers) == {0, 2, 3}
    assert isinstance(answers.errors[1], DriveOffline)


@pytest.mark.parametrize("end", ["enough", "bug", "cancel"])
async def test_what_is_not_wanted_any_more_is_cancelled(end: str) -> None:
    ended = []

    async def call(position: int, _: Any) -> int:
        try:
            await asyncio.sleep(position)
            if position == 1 and end == "bug":
                raise ZeroDivisionError
            return position
        except asyncio.CancelledError:
            ended.append(position)
            raise DriveOffline("cut off") from None

    asking = asyncio.ensure_future(ask(DRIVES, call, enough=lambda got: end == "enough" and len(got) == 2))
    await asyncio.sleep(0.5)
    if end == "cancel":
        asking.cancel()
    await asyncio.wait([asking])
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert ended == ([1, 2, 3] if end == "cancel" else [2, 3])
    if end == "bug":
        with pytest.raises(ZeroDivisionError):
            asking.result()


async def test_together_raises_the_first_failure_as_it_is_and_stops_the_rest() -> None:
    done = []

    async def work(number: int) -> int:
        await asyncio.sleep(number)
        if number == 2:
            raise KeyError(number)
        done.append(number)
        return number

    assert await together(map(work, (0, 1))) == [0, 1]
    with pytest.raises(KeyError):
        await together(map(work, (1, 2, 3)))
    assert done == [0, 1, 1]


async def test_together_leaves_no_cancellation_counted() -> None:
    """One left would make a later time limit of the task, when it runs out, end the task (before Python 3.11.3)."""

    async def work(number: int) -> None:
        await asyncio.sleep(0.01 * number)
        raise DriveFaulty(str(number))

    task = asyncio.current_task()
    assert task is not None
    for slowest in range(3):
        with pytest.raises(DriveFaulty):
            await together(map(work, range(slowest, -1, -1)))
        assert task.cancelling() == 0
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await asyncio.sleep(60)


MAX_TASKS = 1000


async def test_background_work_is_bounded_and_drained() -> None:
    background = Background(MAX_TASKS)
    done = []

    async def work(number: int) -> None:
        await asyncio.sleep(1)
        done.append(number)

    started = [background.spawn(work(number)) for number in range(MAX_TASKS + 3)]
    assert started.count(False) == background.dropped == 3
    await background.drained()
    assert len(done) == MAX_TASKS
    await background.close()
    assert not background.spawn(work(0))


async def test_shielded_work_outlives_its_caller(caplog: pytest.LogCaptureFixture) -> None:
    background = Background(MAX_TASKS)
    done = []

    async def work(fails: bool) -> None:
        await asyncio.sleep(1)
        done.append(fails)
        if fails:
            raise DriveOffline("nobody is there to be told")

    for fails in (False, True):
        caller = asyncio.ensure_future(background.shielded(work(fails)))
        await asyncio.sleep(0.5)
        caller.cancel()
        await asyncio.wait([caller])
        assert caller.cancelled()
    await background.drained()
    assert done == [False, True]


async def test_closing_ends_what_does_not_end_by_itself() -> None:
    background = Background(MAX_TASKS)
    background.spawn(asyncio.sleep(3600))
    began = asyncio.get_running_loop().time()
    await background.close(grace_seconds=2)
    assert asyncio.get_running_loop().time() - began == pytest.approx(2)
