"""Asking all drives of a set the same thing at once, and stopping when the answers suffice.

Every call ends: a drive that does not answer within the deadline counts as offline (rule: a hung drive adds at
most `DRIVE_CALL_TIMEOUT_SECONDS` to one request; after the first miss its peer marks it and it is skipped).
Calls that are no longer needed are cancelled; a cancelled commit may still take effect, so commits are never
stopped early.  Whatever ends `ask` (an exception that is not a DriveError, a cancelled caller), no call is left
running and no exception unlooked at.  Counting is `quorum`'s.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from typing import Any, TypeVar

from holdfast_server.drives.port import Drive, DriveError, DriveOffline, DriveState

DRIVE_CALL_TIMEOUT_SECONDS = 5.0

T = TypeVar("T")

_ASLEEP = (DriveState.OFFLINE, DriveState.FAULTY, DriveState.BLANK)


def awake(drives: Mapping[int, Drive]) -> dict[int, Drive]:
    """Those worth asking now."""
    return {position: drive for position, drive in drives.items() if drive.status().state not in _ASLEEP}


async def bounded(call: Awaitable[T], timeout_seconds: float = DRIVE_CALL_TIMEOUT_SECONDS) -> T:
    """One call under a deadline; raises DriveOffline when it passes."""
    try:
        async with asyncio.timeout(timeout_seconds):
            return await call
    except TimeoutError as error:
        raise DriveOffline(f"no answer within {timeout_seconds:g} s") from error


class Answers(dict[int, T]):
    """Answers by position; `errors` has what the others raised."""

    def __init__(self) -> None:
        super().__init__()
        self.errors: dict[int, DriveError] = {}


async def ask(
    drives: Mapping[int, Drive],
    call: Callable[[int, Drive], Awaitable[T]],
    enough: Callable[[Answers[T]], bool] | None = None,
    timeout_seconds: float = DRIVE_CALL_TIMEOUT_SECONDS,
) -> Answers[T]:
    """Ask all given drives concurrently; return when all have answered or failed, or `enough` says so."""
    answers: Answers[T] = Answers()

    async def one(position: int, drive: Drive) -> T:
        return await bounded(call(position, drive), timeout_seconds)

    tasks = {asyncio.ensure_future(one(position, drive)): position for position, drive in drives.items()}
    pending = set(tasks)
    uncollected = dict.fromkeys(tasks)
    try:
        while pending:
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            for task in [task for task in uncollected if task in done]:  # in order: a simulation must replay
                del uncollected[task]
                _collect(answers, tasks[task], task)
            if enough is not None and pending and enough(answers):
                break
    finally:
        for task in uncollected:
            let_go(task)
    return answers


def _collect(answers: Answers[T], position: int, task: asyncio.Future[T]) -> None:
    if task.cancelled():
        # Not by us: whatever carried the call was closed under it.
        answers.errors[position] = DriveOffline("the call was cut off")
        return
    error = task.exception()
    if error is None:
        answers[position] = task.result()
    elif isinstance(error, DriveError):
        answers.errors[position] = error
    else:
        raise error


def let_go(task: asyncio.Future[Any]) -> None:
    """Cancel a call whose answer is no longer wanted, and look at its exception, since nobody else will."""
    task.cancel()
    task.add_done_callback(_forget)


def _forget(task: asyncio.Future[Any]) -> None:
    if not task.cancelled():
        task.exception()


async def together(work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """All results in order.  The first failure cancels the others and is raised as it was."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one) for one in work]
    except BaseExceptionGroup as errors:
        raise only(errors) from None
    return [task.result() for task in tasks]


def only(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first exception of a group: what the caller would have seen without tasks."""
    first = errors.exceptions[0]
    return only(first) if isinstance(first, BaseExceptionGroup) else first
