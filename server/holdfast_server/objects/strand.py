"""Jobs of one owner on a pool of threads: in order, and never two of them at the same time.

A thread goes on with whatever was added meanwhile, and ends when nothing is left: who adds slowly keeps no thread, and
who adds fast pays for one hand-over for many jobs.  After `TURN_JOBS` others have their turn first.

A pool that can begin no further thread raises RuntimeError, and may yet have taken what it was given.  So a turn is
taken up once, by whoever comes first: the thread it was given to, or the one that could not give it.

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
        """Over all here."""
        self._working = False
        """Whether a thread has a turn, or one is given to the pool."""
        self._given: object | None = None
        """The turn that nobody has taken up."""

    def add(self, job: Callable[[], None]) -> None:
        """Do this after what was added before; it may not raise.  Raises RuntimeError while the pod ends."""
        with self._lock:
            self._jobs.append(job)
            if self._working:
                return
            self._working = True
            turn = self._given = object()
        try:
            self._executor.submit(self._work, turn)
        except BaseException:
            if not self._take_up(turn):
                return
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

    def _take_up(self, turn: object) -> bool:
        """False if somebody did before."""
        with self._lock:
            if self._given is not turn:
                return False
            self._given = None
            return True

    def _work(self, turn: object) -> None:
        while self._take_up(turn):
            for _ in range(TURN_JOBS):
                with self._lock:
                    if not self._jobs:
                        self._working = False
                        return
                    job = self._jobs.popleft()
                job()
                del job  # what it was for is let go of before the next one is there
            with self._lock:
                turn = self._given = object()
            try:
                self._executor.submit(self._work, turn)
            except RuntimeError:
                continue  # nobody else will want this thread: the pod ends, or can begin no other
            return


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
