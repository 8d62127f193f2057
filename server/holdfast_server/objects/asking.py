"""Asking all drives of a set the same thing at once, and stopping when the answers suffice.

Every call ends: a drive that does not answer within the deadline counts as offline (rule: a hung drive adds at
most `DRIVE_CALL_TIMEOUT_SECONDS` to one request; after the first miss its peer marks it and it is skipped).
Where some drives' answers will usually do, only those are asked at first, the others after some patience, or as soon
as the first have failed or do not suffice (`Patience` learns how long that is: on a machine that is busy everybody is
slow, and asking more would make it slower).  Calls that are no longer needed are cancelled; a cancelled commit may
still take effect, so commits are never stopped early.  Whatever ends `ask` (an exception that is not a DriveError, or a
caller that is cancelled), no call is left running and no exception unlooked at.  Counting is `quorum`'s.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Mapping
from typing import Any, Generic, NoReturn, TypeVar

from holdfast_server.drives.port import Drive, DriveError, DriveOffline, DriveState

DRIVE_CALL_TIMEOUT_SECONDS = 5.0
MIN_PATIENCE_SECONDS = 0.03
"""Several times what an answer takes from a pod that is well, and no delay that anybody notices."""
MAX_PATIENCE_SECONDS = 0.5
_PATIENCE_FACTOR = 4.0
_RECENT_WEIGHT = 0.05

T = TypeVar("T")
E = TypeVar("E", bound=BaseException)

_ASLEEP = (DriveState.OFFLINE, DriveState.FAULTY, DriveState.BLANK)


def awake(drives: Mapping[int, Drive]) -> dict[int, Drive]:
    """Those worth asking now."""
    return {position: drive for position, drive in drives.items() if drive.state not in _ASLEEP}


async def bounded(call: Awaitable[T], timeout_seconds: float = DRIVE_CALL_TIMEOUT_SECONDS) -> T:
    """One call under a deadline; raises DriveOffline when it passes."""
    try:
        async with asyncio.timeout(timeout_seconds):
            return await call
    except TimeoutError as error:
        raise DriveOffline(f"no answer within {timeout_seconds:g} s") from error
    finally:
        del call  # it may have its failure, which has this frame


class Answers(dict[int, T]):
    """Answers by position; `errors` has what the others raised."""

    def __init__(self) -> None:
        super().__init__()
        self.errors: dict[int, DriveError] = {}
        self.widened = False
        """The first did not do: others were asked, too."""


class Patience:
    """How long the first drives that are asked get before others are: several times what they usually take."""

    def __init__(self) -> None:
        self._usual_seconds = 0.0

    @property
    def seconds(self) -> float:
        return min(MAX_PATIENCE_SECONDS, max(MIN_PATIENCE_SECONDS, self._usual_seconds * _PATIENCE_FACTOR))

    def learn(self, answers: Answers[T], took_seconds: float) -> None:
        """From those that were enough alone, or a drive that hangs would teach everybody to wait for it."""
        if not answers.widened:
            self._usual_seconds += (took_seconds - self._usual_seconds) * _RECENT_WEIGHT


async def ask(
    drives: Mapping[int, Drive],
    call: Callable[[int, Drive], Awaitable[T]],
    enough: Callable[[Answers[T]], bool] | None = None,
    timeout_seconds: float = DRIVE_CALL_TIMEOUT_SECONDS,
    first: Collection[int] | None = None,
    patience_seconds: float = MIN_PATIENCE_SECONDS,
) -> Answers[T]:
    """Ask all given drives concurrently; return when all have answered or failed, or `enough` says so.

    `first`: the positions whose answers will usually be `enough`; others are asked after `patience_seconds`.
    """
    poll: _Poll[T] = _Poll(asyncio.get_running_loop(), enough)

    def begin(some: Iterable[int]) -> None:
        for position in some:
            poll.add(position, asyncio.ensure_future(call(position, drives[position])))

    try:
        if first is None:
            begin(drives)
        else:
            begin(first)
            poll.hold_back(lambda: begin(p for p in drives if p not in first), patience_seconds)
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
        self._others: Callable[[], None] | None = None
        """Asks those that were not asked yet."""
        self._hedge: asyncio.TimerHandle | None = None

    def hold_back(self, others: Callable[[], None], seconds: float) -> None:
        self._others = others
        self._hedge = self._loop.call_later(seconds, self._ask_others)

    def _ask_others(self) -> None:
        others, self._others = self._others, None
        if others is not None and not self._settled.done():
            self.answers.widened = True
            others()

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
        if self._hedge is not None:
            self._hedge.cancel()
        self._others = None  # it knows this poll
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
        if self._enough is not None and self._enough(self.answers):
            self._settled.set_result(None)
            return
        if self._others is not None and (position in self.answers.errors or not self._pending):
            self._ask_others()
        if not self._pending:
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


def without_frames(error: E) -> E:
    """A failure that is kept beyond its handling.  Its frames, and those of what brought it about, have all that was at
    hand (the blocks of a write, and whoever keeps it): that would stay until the cycle collector comes by."""
    error.__traceback__ = error.__cause__ = error.__context__ = None
    return error


async def together(work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """All results in order.  The first failure cancels the others and is raised as it was."""
    tasks: list[asyncio.Task[T]] = []
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one) for one in work]
            # Not left to the group: until Python 3.13 one whose task fails while the group itself waits leaves the
            # caller with a cancellation counted that nobody asked for, and until 3.11.3 each later time limit of the
            # caller that runs out then ends it as if it had been cancelled: a healer would stop for good.
            return [await task for task in tasks]
    except BaseExceptionGroup as errors:
        raise_first(errors)
    finally:
        del tasks  # they have the failure, which has this frame


def raise_first(errors: BaseExceptionGroup[BaseException]) -> NoReturn:
    """Raise the first exception of a group: what the caller would have seen without tasks.

    Without the group as its context: each would have the other, and all that the frames of a failed request have (its
    body's memory, for one) would stay until the cycle collector comes by.
    """
    first: BaseException = errors
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    try:
        raise first
    finally:
        first.__context__ = None
        errors.__traceback__ = None  # the task group's own frame has it
        del first, errors
