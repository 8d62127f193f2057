"""Whether failures stay in memory after they were handled.

One that is part of a cycle has all that its frames have, the blocks of a write among it, until Python's cycle collector
comes by: after twenty thousand objects (`wiring.process`), which may be gigabytes of such blocks.
"""

from __future__ import annotations

import gc
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager


@contextmanager
def no_failure_left() -> Iterator[None]:
    """Of what is done meanwhile, in this process: AssertionError names those that only the cycle collector found."""
    gc.collect()
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        left = [repr(found) for found in gc.garbage if isinstance(found, BaseException)]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        if enabled:
            gc.enable()
    assert not left, f"only the cycle collector frees {left}"


async def refused_without_a_trace(calls: Sequence[Callable[[], Awaitable[object]]], failure: type[Exception]) -> None:
    """AssertionError where one of the calls does not raise that failure, or any failure is left of them."""
    count = 0
    with no_failure_left():
        for call in calls:
            try:
                await call()
            except failure:  # nobody keeps it
                count += 1
    assert count == len(calls)
