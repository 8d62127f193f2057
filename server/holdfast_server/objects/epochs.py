"""Which pool maps the writes under way go by, so that a pod says it has reached an epoch only when all of it has.

The operator lets a pool take writes once every pod has said that it looks there.  A pod's word must hold for its
writes that are under way, too: one that began before the new map knows nothing of the new pool, and neither does a
message of it that is still on its way to a drive.  So the *settled* epoch, which is what a pod reports, is that of
the oldest map that a write still goes by; a write that ended without saying how counts for as long as messages live.

Reads need no such care: one that began before a write in the new pool may miss it.

Not here: what a map says (`placement`), who is told (`wiring`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from holdfast_server.clock.port import Clock
from holdfast_server.objects.healing import OPERATION_DEADLINE_SECONDS
from holdfast_server.placement.map import PoolMap


class Epochs:
    def __init__(self, pools: PoolMap, clock: Clock) -> None:
        self.pools = pools
        self._clock = clock
        self._under_way: Counter[int] = Counter()
        self._undecided: dict[int, float] = {}
        """Epoch → when the last message of a write by it is dead for certain."""

    def had_former_life(self, epoch: int) -> None:
        """The process that was this pod before wrote by that epoch's map; messages of it may still be under way."""
        self._undecided[epoch] = self._clock.monotonic_seconds() + OPERATION_DEADLINE_SECONDS

    @contextmanager
    def writing(self) -> Iterator[PoolMap]:
        """The map that one write goes by, from its first question to its last answer."""
        pools = self.pools
        self._under_way[pools.epoch] += 1
        try:
            yield pools
        except BaseException:
            self._undecided[pools.epoch] = self._clock.monotonic_seconds() + OPERATION_DEADLINE_SECONDS
            raise
        finally:
            self._under_way[pools.epoch] -= 1
            if not self._under_way[pools.epoch]:
                del self._under_way[pools.epoch]

    @property
    def settled(self) -> int:
        """No write goes by an older map, nor will any message of one take effect."""
        now = self._clock.monotonic_seconds()
        self._undecided = {epoch: until for epoch, until in self._undecided.items() if until > now}
        return min((self.pools.epoch, *self._under_way, *self._undecided))
