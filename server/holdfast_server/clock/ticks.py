"""When to do what is done again and again: at the same moments as all else of that kind, so that a process at rest is
woken once for all of it.  Pure.
"""

from __future__ import annotations


def seconds_to_next(now_seconds: float, interval_seconds: float) -> float:
    """Until the clock next shows a multiple of the interval: more than nothing, and at most the interval."""
    return interval_seconds - now_seconds % interval_seconds
