"""The parts of the operator that run until it is told to stop; one that ends before ends the process.

An operator of which a part has ended would stand there, answer its liveness probe and do nothing.  A part that ends as
if somebody had cancelled it, though nobody has, counts too: a group of tasks takes that for an orderly end, and until
Python 3.11.3 a time limit can do it to a task that was left with a cancellation counted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any


class PartEnded(Exception):
    """Nobody had asked it to."""


class Parts:
    """Tasks of a group, by name."""

    def __init__(self, group: asyncio.TaskGroup, **parts: Coroutine[Any, Any, None]) -> None:
        self._stopping = False
        self._tasks = [group.create_task(self._run(name, part), name=name) for name, part in parts.items()]

    def stop(self) -> None:
        """Idempotent."""
        self._stopping = True
        for task in self._tasks:
            task.cancel()

    async def _run(self, name: str, part: Coroutine[Any, Any, None]) -> None:
        try:
            await part
        except asyncio.CancelledError:
            if self._stopping:
                raise
        except BaseException:
            self._stopping = True  # the group ends the others
            raise
        self._stopping = True
        raise PartEnded(f"the operator's {name} ended")
