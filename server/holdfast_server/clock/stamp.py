"""Stamps: a total order of writes over all pods, from a hybrid logical clock.  Pure.

A stamp is one integer below 2**63: 43 bits of milliseconds since 1970 (until the year 2248), ten bits of
counter and ten bits of pod number, so comparing stamps is comparing integers and two pods never mint the
same one.  The clock never runs behind any stamp it was shown, so a pod whose wall clock lags still orders
its writes after those it has seen (Kulkarni et al., "Logical Physical Clocks", 2014).  A full counter
borrows from the milliseconds.

Not here: restarts.  Whoever builds the clock shows it the greatest stamp the pod's drives know, so that a
wall clock that was set back does not mint an old stamp again.
"""

from __future__ import annotations

NODE_BITS = 10
COUNTER_BITS = 10
MAX_NODE = (1 << NODE_BITS) - 1
MAX_STAMP = (1 << 63) - 1
MAX_CLOCK_SKEW_MS = 2_000
"""The greatest difference of two pods' clocks that is allowed for."""


def stamp_ms(stamp: int) -> int:
    """The wall-clock part, milliseconds since 1970."""
    return stamp >> (NODE_BITS + COUNTER_BITS)


def stamp_node(stamp: int) -> int:
    return stamp & MAX_NODE


def floor_stamp(now_ms: int) -> int:
    """The smallest stamp of that millisecond."""
    return now_ms << (NODE_BITS + COUNTER_BITS)


class HybridClock:
    """Mints the stamps of one pod."""

    def __init__(self, node: int, greatest_seen: int = 0) -> None:
        if not 0 <= node <= MAX_NODE:
            raise ValueError(f"pod number {node} is not within 0 to {MAX_NODE}")
        self.node = node
        self._last = greatest_seen >> NODE_BITS

    def observe(self, stamp: int) -> None:
        """Later stamps will be greater than this one."""
        self._last = max(self._last, stamp >> NODE_BITS)

    def next(self, now_ms: int) -> int:
        """A stamp greater than every one minted or observed before."""
        self._last = max(now_ms << COUNTER_BITS, self._last + 1)
        return self._last << NODE_BITS | self.node

    @property
    def greatest(self) -> int:
        return self._last << NODE_BITS | self.node
