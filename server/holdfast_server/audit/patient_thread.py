"""A thread of its own for calls that may block for ever: a pipe that nobody reads, a disk that hangs.

Not one of a pool: those are shared with work that matters more, and the interpreter waits for them at its end.
This one is a daemon, so that a pod whose log collector hangs can still be stopped.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable


class PatientThread:
    """Runs one call at a time, in order."""

    def __init__(self, name: str) -> None:
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    async def call(self, work: Callable[[], None]) -> None:
        """Raises what `work` raises.  Cancelled, it leaves the call to itself."""
        loop = asyncio.get_running_loop()
        done = loop.create_future()

        def settle(error: BaseException | None) -> None:
            if done.done():
                return
            if error is None:
                done.set_result(None)
            else:
                done.set_exception(error)

        def run() -> None:
            failure: BaseException | None = None
            try:
                work()
            except BaseException as error:
                failure = error
            try:
                loop.call_soon_threadsafe(settle, failure)
            except RuntimeError:
                return  # the loop has ended meanwhile

        self._calls.put(run)
        await done

    def end(self, last: Callable[[], None] | None = None) -> None:
        """After the calls it has and `last`, which must not raise; does not wait for them."""
        if last is not None:
            self._calls.put(last)
        self._calls.put(None)

    def _work(self) -> None:
        while (run := self._calls.get()) is not None:
            run()
