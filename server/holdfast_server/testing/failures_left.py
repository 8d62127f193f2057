"""Whether failures stay in memory after they were handled.

One that is part of a cycle has all that its frames have, the blocks of a write among it, until Python's cycle collector
comes by: after twenty thousand objects (`wiring.process`), which may be gigabytes of such blocks.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
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
