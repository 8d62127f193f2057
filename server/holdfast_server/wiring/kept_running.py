"""Background work that goes on for as long as a pod serves.

A fault in it must not take down the pod: it is logged, and the work begun anew.  So it is where the work ends as if
somebody had cancelled it, though nobody has: until Python 3.11.3 that is what a time limit can do in a task that was
left with a cancellation counted, and a pod whose healing had ended without a word would look well.

Not here: what the work is (`storage_pod`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from typing import Any

RESTART_WORK_SECONDS = 5.0

Work = Callable[[], Coroutine[Any, Any, None]]

log = logging.getLogger(__name__)


@asynccontextmanager
async def kept_running(work: Mapping[str, Work]) -> AsyncIterator[None]:
    """Each by its name, until the end of the block."""
    stopping = False

    async def keep(name: str, run: Work) -> None:
        while True:
            try:
                await run()
            except Exception:
                log.exception("background work failed and is begun anew", extra={"work": name})
            except asyncio.CancelledError:
                if stopping:
                    raise
                _forget_cancellations()
                log.exception("background work ended as if it were cancelled, and is begun anew", extra={"work": name})
            await asyncio.sleep(RESTART_WORK_SECONDS)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(keep(name, run)) for name, run in work.items()]
        try:
            yield
        finally:
            stopping = True
            for task in tasks:
                task.cancel()


def _forget_cancellations() -> None:
    """Or the next time limit would end the work just so."""
    task = asyncio.current_task()
    assert task is not None
    while task.uncancel():
        pass
