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
from typing import Any, Generic, TypeVar

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
    poll: _Poll[T] = _Poll(asyncio.get_running_loop(), enough)
    try:
        for position, drive in drives.items():
            poll.add(position, asyncio.ensure_future(call(position, drive)))
        await poll.settled(timeout_seconds)
    finally:
        poll.end()
    return poll.answers


class _Poll(Generic[T]):
    """The calls of one `ask`.  One timer and one wake-up for all of them: this is on every request's path."""

    def __init__(self, loop: asyncio.AbstractEventLoop, enough: Callable[[Answers[T]], bool] | None) -> None:
        self.answers: Answers[T] = Answers()
        self._enough = enough
        self._loop = loop
        self._pending: dict[asyncio.Future[T], int] = {}
        self._settled: asyncio.Future[None] = loop.create_future()

    def add(self, position: int, task: asyncio.Future[T]) -> None:
        self._pending[task] = position
        task.add_done_callback(self._done)

    async def settled(self, timeout_seconds: float) -> None:
        if not self._pending:
            return
        timer = self._loop.call_later(timeout_seconds, self._expire, timeout_seconds)
        try:
            await self._settled
        finally:
            timer.cancel()

    def end(self) -> None:
        for task in self._pending:
            let_go(task)

    def _done(self, task: asyncio.Future[T]) -> None:
        position = self._pending.pop(task, None)
        if self._settled.done() or position is None:
            _forget(task)
            return
        error = None if task.cancelled() else task.exception()
        if task.cancelled():
            # Not by us: whatever carried the call was closed under it.
            self.answers.errors[position] = DriveOffline("the call was cut off")
        elif error is None:
            self.answers[position] = task.result()
        elif isinstance(error, DriveError):
            self.answers.errors[position] = error
        else:
            self._settled.set_exception(error)
            return
        if not self._pending or (self._enough is not None and self._enough(self.answers)):
            self._settled.set_result(None)

    def _expire(self, timeout_seconds: float) -> None:
        for position in self._pending.values():
            self.answers.errors[position] = DriveOffline(f"no answer within {timeout_seconds:g} s")
        if not self._settled.done():
            self._settled.set_result(None)


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
