"""An operator of which a part has ended ends, whatever way that part did."""

from __future__ import annotations

import asyncio

import pytest

from holdfast_operator.parts import PartEnded, Parts

WAIT_SECONDS = 60.0


async def for_ever() -> None:
    await asyncio.Event().wait()


async def returns() -> None:
    return


async def breaks() -> None:
    raise ValueError("broken")


async def is_cancelled_by_nobody() -> None:
    raise asyncio.CancelledError


async def run(**parts: object) -> None:
    """As the operator does, whose own part here is to wait for ever."""
    async with asyncio.timeout(WAIT_SECONDS), asyncio.TaskGroup() as group:
        running = Parts(group, **parts)  # type: ignore[arg-type]
        try:
            await for_ever()
        finally:
            running.stop()


@pytest.mark.parametrize("part", [returns, is_cancelled_by_nobody])
async def test_a_part_that_ends_without_a_word_ends_the_operator(part: object) -> None:
    with pytest.raises(ExceptionGroup) as failed:
        await run(passes=part(), mirrors=for_ever())  # type: ignore[operator]
    assert [type(error) for error in failed.value.exceptions] == [PartEnded]
    assert "passes" in str(failed.value.exceptions[0])


async def test_a_part_that_breaks_is_all_that_is_told() -> None:
    with pytest.raises(ExceptionGroup) as failed:
        await run(passes=for_ever(), mirrors=breaks())
    assert [str(error) for error in failed.value.exceptions] == ["broken"]


async def test_being_told_to_stop_is_no_failure() -> None:
    async with asyncio.timeout(WAIT_SECONDS), asyncio.TaskGroup() as group:
        parts = Parts(group, passes=for_ever(), mirrors=for_ever())
        await asyncio.sleep(0)
        parts.stop()
        parts.stop()


async def test_ending_the_operator_from_without_is_no_failure() -> None:
    running = asyncio.create_task(run(passes=for_ever(), mirrors=for_ever()))
    await asyncio.sleep(0.01)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
