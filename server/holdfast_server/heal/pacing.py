"""Healing gives way to requests, and never stops.

The *share* is the part of its own time that healing works; the rest it rests.  It is 1 while no requests come; while
they do, it is at most `busy_share`, falls by a third with each unit of work while requests take much longer than
usual, and climbs back slowly, but it never falls below `least_share`.  The width (how much is done at once, and so
how long one unit keeps the loop and the drives busy) follows the share.

Blind spot: a pod sees the waits of its own requests.  A pod that serves none may slow down others whose drives it
works on; behind a Service every pod serves some.

Not here: measuring (`objects.foreground`).
"""

from __future__ import annotations

from holdfast_server.clock.port import Clock
from holdfast_server.heal.settings import HealSettings
from holdfast_server.objects.foreground import Foreground

FALL = 0.67
CLIMB = 0.02
BURDEN_SECONDS = 1.0
"""How long after a unit of work requests may still feel it."""
LONGEST_REST_SECONDS = 5.0


class Pacer:
    def __init__(self, clock: Clock, foreground: Foreground, settings: HealSettings) -> None:
        self._clock = clock
        self._foreground = foreground
        self._settings = settings
        self.share = 1.0

    @property
    def width(self) -> int:
        """Registers to heal at once."""
        self._adapt()
        return max(self._settings.least_width, int(self._settings.width * self.share))

    @property
    def latency_seconds(self) -> float:
        return self._foreground.recent_seconds(self._clock.monotonic_seconds())

    async def rest(self, worked_seconds: float) -> None:
        """After a unit of work that took so long."""
        now = self._clock.monotonic_seconds()
        self._foreground.burdened_until = now + BURDEN_SECONDS
        self._adapt()
        await self._clock.sleep(min(LONGEST_REST_SECONDS, worked_seconds * (1 / self.share - 1)))

    def _adapt(self) -> None:
        settings = self._settings
        slowdown = self._foreground.slowdown(self._clock.monotonic_seconds(), settings.slack_seconds)
        if slowdown is None:
            self.share = 1.0
        elif slowdown > settings.tolerated_slowdown:
            self.share = max(settings.least_share, self.share * FALL)
        else:
            self.share = min(settings.busy_share, self.share + CLIMB)
