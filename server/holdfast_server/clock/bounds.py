"""Between which two moments it is now, as far as anybody knows: for what must not end early because one clock is wrong.

A pod's own clock may be ahead by any amount, until somebody sets it right.  So what ends at a given time has ended only
once *every* clock that can be asked says so (`earliest_ms`), and what is to last for a time is counted from what the
*latest* of them shows (`latest_ms`).  A pod learns the others' clocks from their reports, which come with each ping;
in between it goes by its own monotonic clock, so that a step of its own wall clock changes nothing of what it knows
of others.  What was told a while ago was true when it was sent, so an estimate is never ahead of the clock it is of.

With a single pod there is one clock, and nobody to ask.  Not here: the order of writes (`stamp`), which needs no time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from holdfast_server.clock.port import Clock


class Reading(NamedTuple):
    """What another pod's clock showed."""

    told_ms: int
    age_seconds: float
    """How long ago it was heard, by this pod's monotonic clock."""


Readings = Callable[[], Iterable[Reading]]
"""The last of each pod that can be reached now."""


class TimeBounds:
    def __init__(self, clock: Clock, others: Readings = tuple) -> None:
        self._clock = clock
        self._others = others

    def earliest_ms(self) -> int:
        """Milliseconds since 1970 that have passed by every clock."""
        return min(self._clocks())

    def latest_ms(self) -> int:
        """Milliseconds since 1970 by the clock that is furthest ahead."""
        return max(self._clocks())

    def _clocks(self) -> list[int]:
        others = [told_ms + int(age_seconds * 1000) for told_ms, age_seconds in self._others()]
        return [self._clock.now_ms(), *others]
