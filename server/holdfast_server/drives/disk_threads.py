"""Threads for disk work, and the watch over calls that do not come back.

A disk can hang: a read or an fsync that neither succeeds nor fails for a minute.  Whoever waits for it must not
wait with it.  Every piece of work is entered in the drive's `Watch` while it runs; once one has been running for
`HANG_SECONDS` the drive is *stuck* (`local`): everybody who waits is told DriveOffline, what has not begun is
dropped, and new calls are refused at once, until the work has come back and a probe has succeeded.

The bound: a drive that hangs adds at most `HANG_SECONDS + WATCH_INTERVAL_SECONDS` to the requests under way at
that moment, and nothing to those that follow.  What waits is bounded too, by `MAX_WAITING_JOBS` for each group of
threads: a drive that is merely too slow refuses work instead of collecting it.

A hand-over is most of what a small piece of work costs, so the threads are ours: they take jobs off one queue, and
no future of theirs is made that nobody looks at.

Where a process may begin no more threads (a container's limit), those there are do the work of all; only where there is
none at all do calls fail, and no more than those.

The thread itself cannot be freed: it ends when the kernel lets go of it.  So a hang holds as many threads as the
drive has, and the memory of the work that had begun on them, for as long as it lasts, and never more.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from bisect import bisect_left
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from holdfast_server.drives.port import DriveError, DriveOffline

HANG_SECONDS = 2.5
"""How long one piece of work (a few blocks, one batch of commits with its fsync, one page of a listing) may be
under way.  Far above what a healthy disk under load needs, and below what a client's time-out or a peer's deadline
(`peers.messages.CONTROL_TIMEOUT_SECONDS`) allows."""
WATCH_INTERVAL_SECONDS = 0.25
MAX_WAITING_JOBS = 1024

T = TypeVar("T")


CALL_BOUNDS_SECONDS = (0.001, 0.005, 0.025, 0.1, 0.5, 2.5)
"""Of the histogram of disk work; the last is where a drive counts as hanging."""


class CallTimes:
    """How long the disk work of a drive has taken since it was opened."""

    __slots__ = ("counts", "failed", "seconds")

    def __init__(self) -> None:
        self.counts = [0] * (len(CALL_BOUNDS_SECONDS) + 1)
        """By the bound they were within; the last: longer than all of them."""
        self.seconds = 0.0
        self.failed = 0
        """Pieces of work that ended in an error of the operating system."""

    def add(self, seconds: float) -> None:
        self.counts[bisect_left(CALL_BOUNDS_SECONDS, seconds)] += 1
        self.seconds += seconds


class Watch:
    """Which work is under way on a drive, and since when.  Safe from any thread."""

    def __init__(self) -> None:
        self.times = CallTimes()
        self._lock = threading.Lock()
        self._began: dict[int, tuple[float, str]] = {}
        self._last = 0
        self._mine = threading.local()

    def begin(self, what: str) -> int:
        with self._lock:
            self._last += 1
            self._began[self._last] = (time.monotonic(), what)
            self._mine.number = self._last
            return self._last

    def go_on(self) -> None:
        """The work that this thread began last is at its next piece, which may take as long as a whole one."""
        number: int = self._mine.number
        now = time.monotonic()
        with self._lock:
            began, what = self._began.pop(number)
            self.times.add(now - began)
            self._began[number] = (now, what)

    def end(self, number: int, error: BaseException | None = None) -> None:
        with self._lock:
            began, _ = self._began.pop(number)
            self.times.add(time.monotonic() - began)
            self.times.failed += isinstance(error, OSError)

    def longest(self) -> tuple[float, str]:
        """Seconds for which the oldest piece of work has been under way, and what it is; (0, "") if there is none."""
        with self._lock:
            if not self._began:
                return 0.0, ""
            began, what = next(iter(self._began.values()))
        return time.monotonic() - began, what


class _Job(Generic[T]):
    __slots__ = ("future", "watched", "work")

    def __init__(self, work: Callable[[], T], future: asyncio.Future[T] | None, watched: bool = True) -> None:
        self.work = work
        self.future = future
        """None: nobody waits for it."""
        self.watched = watched


class DiskThreads:
    """A few threads and a bounded queue before them.  Called on the loop it was made for."""

    def __init__(self, name: str, threads: int, watch: Watch, loop: asyncio.AbstractEventLoop) -> None:
        self._name = name
        self._threads = threads
        self._watch = watch
        self._loop = loop
        self._begun: list[threading.Thread] = []
        """They begin when they are needed first."""
        self._jobs: queue.SimpleQueue[_Job[Any] | None] = queue.SimpleQueue()
        """Those that run, or will as soon as a thread has woken up."""
        self._waiting: deque[_Job[Any]] = deque()
        self._running: set[_Job[Any]] = set()
        self._stuck: str | None = None
        self._ended = False
        self._idle = asyncio.Event()
        self._idle.set()

    async def run(self, work: Callable[[], T], watched: bool = True) -> T:
        """Do it on a thread.  Raises what it raises; DriveOffline if the drive is or becomes stuck.

        `watched` False: it rightly takes long (a whole shard is read), and says nothing about the disk.
        """
        if self._stuck is not None:
            raise DriveOffline(self._stuck)
        if self._ended:
            raise DriveError(f"the drive is closed ({self._name})")
        if len(self._waiting) >= MAX_WAITING_JOBS:
            raise DriveError(f"{MAX_WAITING_JOBS} calls are waiting for this drive ({self._name})")
        job = _Job(work, self._loop.create_future(), watched)
        self._add(job)
        assert job.future is not None
        try:
            return await job.future
        except asyncio.CancelledError:
            if job in self._waiting:
                # Nobody counts what it holds any more, and it takes the place of one that is waited for.
                self._waiting.remove(job)
            raise
        finally:
            del job  # it has its failure, which has this frame, and with it what was to be written

    def post(self, work: Callable[[], object]) -> None:
        """Do it when its turn comes; nobody waits for it and it may be dropped."""
        self._add(_Job(work, None))

    def stick(self, reason: str) -> None:
        """Nobody waits any longer, and nothing more is begun, until `resume`."""
        self._stuck = reason
        for job in (*self._waiting, *self._running):
            if job.future is not None and not job.future.done():
                job.future.set_exception(DriveOffline(reason))
        self._waiting.clear()

    def resume(self) -> None:
        self._stuck = None

    async def drained(self) -> None:
        """Until nothing is under way or waiting; nothing more is taken then.

        Who waited for the last piece goes on first, and may have brought the next one.
        """
        while not self._idle.is_set():
            await self._idle.wait()
        self._ended = True

    def shutdown(self) -> None:
        """Once drained; from any thread.  Waits for the threads."""
        for _ in self._begun:
            self._jobs.put(None)
        for thread in self._begun:
            thread.join()

    def _add(self, job: _Job[Any]) -> None:
        if not self._ended and (self._stuck is None or job.future is not None):
            self._waiting.append(job)
            self._idle.clear()
            self._start()

    def _start(self) -> None:
        while self._waiting and len(self._running) < self._threads:
            job = self._waiting.popleft()
            if job.future is not None and job.future.done():
                continue  # its caller has left
            if len(self._begun) <= len(self._running) and (error := self._begin_thread()) is not None:
                if self._begun:
                    self._waiting.appendleft(job)  # for one of those that are busy
                    return
                if job.future is not None:
                    job.future.set_exception(DriveError(f"{self._name}: {error}"))
                continue
            self._running.add(job)
            self._jobs.put(job)
        if not self._running and not self._waiting:
            self._idle.set()

    def _begin_thread(self) -> RuntimeError | None:
        """Why there is none."""
        # A daemon: one that hangs in the kernel must not keep the process from ending.
        thread = threading.Thread(target=self._run, name=f"{self._name}_{len(self._begun)}", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            return error
        self._begun.append(thread)
        return None

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            self._work(job)
            del job  # what it holds is not kept until the next one comes

    def _work(self, job: _Job[Any]) -> None:
        number = self._watch.begin(self._name) if job.watched else 0
        result, error = None, None
        try:
            result = job.work()
        except BaseException as raised:  # handed to the caller, whatever it is
            error = raised
        finally:
            if job.watched:
                self._watch.end(number, error)
        try:
            self._loop.call_soon_threadsafe(self._finished, job, result, error)
        except RuntimeError:
            return  # the loop is closed: nobody is waiting any more
        finally:
            del job, error  # as in `run`

    def _finished(self, job: _Job[Any], result: Any, error: BaseException | None) -> None:
        self._running.discard(job)
        if job.future is not None and not job.future.done():
            if error is not None:
                job.future.set_exception(error)
            else:
                job.future.set_result(result)
        self._start()
