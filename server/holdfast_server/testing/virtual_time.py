"""An event loop whose clock is a number: a simulated minute passes in the time its callbacks take.

The loop never waits: where a real one would sleep until the next timer, this one moves its clock there.  With
no timer and nothing ready, a real loop would wait for ever; this one raises `Deadlock`.  Work given to an
executor (to any by the loop, to `AtOnce` without it) runs at once on the loop's own thread, so that one seed gives
one history.

Not here: sockets and subprocesses; a simulation has neither.
"""

from __future__ import annotations

import asyncio
import random
import selectors
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor, Future
from typing import Any, TypeVar

T = TypeVar("T")

START_MS = 1_790_000_000_000


class Deadlock(Exception):
    """Every task waits for another."""


class _NeverWaits(selectors.SelectSelector):
    loop: VirtualLoop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise Deadlock(f"{len(asyncio.all_tasks(self.loop))} tasks wait for each other")
        if timeout > 0:
            self.loop.elapsed_seconds += timeout
        return []  # nothing is ever to be read: there are neither sockets nor threads, which would wake the loop


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        selector = _NeverWaits()
        selector.loop = self
        self.elapsed_seconds = 0.0
        super().__init__(selector)

    def time(self) -> float:
        return self.elapsed_seconds

    def run_in_executor(self, executor: object, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        """Done when it returns: no thread, so no order but the seed's."""
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        return future


class AtOnce(Executor):
    """Does what it is given before it returns, as the loop does."""

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        future: Future[T] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


def run(main: Coroutine[Any, Any, T]) -> T:
    """`asyncio.run` in virtual time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)


class VirtualClock:
    """`clock.port.Clock` over the running loop; every pod may have its own, with its own skew."""

    def __init__(self, seed: int = 1, skew_ms: int = 0) -> None:
        self._random = random.Random(seed)
        self.skew_ms = skew_ms

    def now_ms(self) -> int:
        return START_MS + self.skew_ms + int(self.monotonic_seconds() * 1000)

    def monotonic_seconds(self) -> float:
        return asyncio.get_running_loop().time()

    def random_bytes(self, count: int) -> bytes:
        return self._random.randbytes(count)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
