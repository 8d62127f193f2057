"""Work that outlives the request that caused it: notes, releases, read repair, commits that have begun.

Bounded: beyond `max_tasks` spawned work is dropped, which is safe because everything given to `spawn` is a
courtesy whose loss costs a message or a later repair, never data.  `shielded` work is bounded by its requests.
`close` waits for what is under way.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, TypeVar

from holdfast_server.drives.port import DriveError
from holdfast_server.objects.port import ObjectError

T = TypeVar("T")

log = logging.getLogger(__name__)


class Background:
    def __init__(self, max_tasks: int) -> None:
        self._max_tasks = max_tasks
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closed = False
        self.dropped = 0

    def spawn(self, work: Coroutine[Any, Any, object]) -> bool:
        """Run it some time; False if it was dropped."""
        if self._closed or len(self._tasks) >= self._max_tasks:
            work.close()
            self.dropped += 1
            return False
        task = asyncio.get_running_loop().create_task(self._run(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return True

    async def shielded(self, work: Coroutine[Any, Any, T]) -> T:
        """Await work that runs to its end even if the caller is cancelled: a commit that has begun."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        try:
            return await asyncio.shield(task)
        finally:
            del task  # it has its failure, which has this frame

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # retrieved, in case the caller is gone

    async def _run(self, work: Coroutine[Any, Any, object]) -> None:
        try:
            await work
        except (DriveError, ObjectError) as error:
            log.debug("background work failed: %s", error)
        except Exception:
            log.exception("background work failed")

    async def drained(self) -> None:
        """Returns when everything spawned so far has ended."""
        while self._tasks:
            await asyncio.wait(set(self._tasks))

    async def close(self, grace_seconds: float = 5.0) -> None:
        self._closed = True
        if self._tasks:
            _, pending = await asyncio.wait(set(self._tasks), timeout=grace_seconds)
            for task in pending:
                task.cancel()
            if pending:
                await asyncio.wait(pending)
