"""An event loop whose clock can be slowed down and moved on: what timers do is then the same on any machine.

A request that takes long on a busy machine meets timers that it would not meet on an idle one: other drives are asked,
too, pings and renewals come in between.  With the loop's clock, and that of the pods, a hundred times slower, they do
not; and what is put off by some milliseconds (notes) happens when the clock is moved on by them.

The watch over work on disks goes by it, too, or a busy machine would be taken for a drive that hangs.
"""

from __future__ import annotations

import asyncio
import selectors
import time
from types import SimpleNamespace
from typing import Any

from holdfast_server.clock.system import SystemClock
from holdfast_server.drives import disk_threads

SLOW = 100.0
"""So many times slower than the machine's clock."""


class _Patient(selectors.DefaultSelector):
    """Waits as long as the loop's clock needs to get there."""

    loop: SteadyLoop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        return super().select(None if timeout is None else timeout * self.loop.slowness)


class SteadyLoop(asyncio.SelectorEventLoop):
    """Counts what threads hand over to it, and the tasks that are begun on it."""

    def __init__(self) -> None:
        self.slowness = 1.0
        self._shown, self._at = 0.0, time.monotonic()
        """What the clock showed at a moment of the machine's."""
        self.handed_over = 0
        self.tasks = 0
        selector = _Patient()
        selector.loop = self
        super().__init__(selector)
        self.set_task_factory(_count_tasks)

    def time(self) -> float:
        return self._shown + (time.monotonic() - self._at) / self.slowness

    def slow_down(self, slowness: float = SLOW) -> None:
        self.move_on(0.0)
        self.slowness = slowness

    def move_on(self, seconds: float) -> None:
        """What is due by then is done next."""
        self._shown, self._at = self.time() + seconds, time.monotonic()

    async def pause(self, seconds: float) -> None:
        """By the machine's clock: for threads to get on."""
        await asyncio.sleep(seconds / self.slowness)

    def call_soon_threadsafe(self, *args: Any, **options: Any) -> asyncio.Handle:
        self.handed_over += 1
        return super().call_soon_threadsafe(*args, **options)


def _count_tasks(loop: Any, coro: Any, **options: Any) -> Any:
    loop.tasks += 1
    return asyncio.Task(coro, loop=loop, **options)


def follow(loop: SteadyLoop) -> None:
    """Have the pods of this process go by the loop's clock."""
    began_ms = time.time_ns() // 1_000_000 - int(loop.time() * 1000)
    SystemClock.monotonic_seconds = lambda self: loop.time()  # type: ignore[method-assign]
    SystemClock.now_ms = lambda self: began_ms + int(loop.time() * 1000)  # type: ignore[method-assign]
    disk_threads.time = SimpleNamespace(monotonic=loop.time)  # type: ignore[assignment]
