"""Jobs of one owner on a pool of threads: in order, and never two of them at the same time.

A thread goes on with whatever was added meanwhile, and ends when nothing is left: who adds slowly keeps no thread, and
who adds fast pays for one hand-over for many jobs.  After `TURN_JOBS` others have their turn first.

Not here: results and failures; a job keeps both to itself.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from functools import partial
from typing import TypeVar, cast

T = TypeVar("T")

TURN_JOBS = 8


class Strand:
    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._jobs: deque[Callable[[], None]] = deque()
        self._lock = threading.Lock()
        """Over the jobs, and whether a thread works."""
        self._working = False

    def add(self, job: Callable[[], None]) -> None:
        """Do this after what was added before; it may not raise.  Raises RuntimeError while the pod ends."""
        with self._lock:
            self._jobs.append(job)
            if self._working:
                return
            self._working = True
        try:
            self._executor.submit(self._work)
        except BaseException:
            with self._lock:
                self._jobs.clear()
                self._working = False
            raise

    async def stop(self) -> None:
        """Forget what was not begun; nothing is being done any more after this."""
        with self._lock:
            self._jobs.clear()
            if not self._working:
                return
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.add(partial(settle, done, None))
        await done

    def _work(self) -> None:
        for _ in range(TURN_JOBS):
            with self._lock:
                if not self._jobs:
                    self._working = False
                    return
                job = self._jobs.popleft()
            job()
            del job  # what it was for is let go of before the next one is there
        try:
            self._executor.submit(self._work)
        except RuntimeError:
            self._work()  # the pod ends: nobody else will want this thread


def settle(future: asyncio.Future[T], result: T | None, error: BaseException | None = None) -> None:
    """From a thread.  Nothing happens if nobody waits any more, or the loop has ended."""

    def on_loop() -> None:
        if future.done():
            return
        if error is None:
            future.set_result(cast(T, result))
        else:
            future.set_exception(error)

    loop = future.get_loop()
    try:
        loop.call_soon_threadsafe(on_loop)
    except RuntimeError:
        if not loop.is_closed():
            raise
