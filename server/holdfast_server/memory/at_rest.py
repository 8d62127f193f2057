"""Memory that work has left free goes back to the kernel once the work is over.

glibc keeps what is free between blocks that are in use: after an hour of uploads a pod that does nothing has twice the
memory resident that it needs.  Giving it back at every opportunity would cost page faults in the midst of work
(`wiring.process` has set thresholds against that), so it is done once, when a pod that has worked comes to rest.

Python's cycle collector comes by when enough objects have been made, so at rest it does not; it is asked to, first.

At rest is a matter of CPU time: what a pod does may come from clients, from peers or from itself.

Not here: how much may be taken (`limits`, `budget`).
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import time

LOOK_SECONDS = 10.0
REST_FRACTION = 0.05
"""Of a core.  A pod that nobody asks anything takes less than 0.01."""


class Rest:
    """Tells when rest has followed work.  Pure."""

    def __init__(self, cpu_seconds: float) -> None:
        """What the process has taken by now."""
        self._cpu_seconds = cpu_seconds
        self._worked = True  # the start is work, too

    def begins(self, cpu_seconds: float, passed_seconds: float) -> bool:
        """Whether the first quiet `passed_seconds` since some work are over.  `cpu_seconds`: as at the beginning."""
        taken, self._cpu_seconds = cpu_seconds - self._cpu_seconds, cpu_seconds
        if taken > REST_FRACTION * passed_seconds:
            self._worked = True
            return False
        worked, self._worked = self._worked, False
        return worked


def give_back() -> bool:
    """Blocks for some milliseconds, and whoever allocates meanwhile; whether the C library has such a thing (glibc)."""
    gc.collect()
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        return False
    trim(0)
    return True


async def give_back_at_rest() -> None:
    """Until cancelled."""
    rest = Rest(time.process_time())
    looked_at = time.monotonic()
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        now = time.monotonic()
        if rest.begins(time.process_time(), now - looked_at):
            await asyncio.to_thread(give_back)
        looked_at = now
