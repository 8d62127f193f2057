"""Healing gives way to requests, and never stops.

The *share* is the part of its own time that healing works; the rest it rests.  It is 1 while no requests come; while
they do, it is at most `busy_share`, falls by a third with each unit of work while requests take much longer than
usual, and climbs back slowly, but it never falls below `least_share`.  The width (how much is done at once, and so
how long one unit keeps the loop and the drives busy) follows the share.

A pod that fills its drive loads the others, whose drives it reads, more than itself.  So the pods tell each other how
their requests fare, with every report (less than a second old), and the slowest counts.

Not here: measuring (`objects.foreground`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from holdfast_server.clock.port import Clock
from holdfast_server.heal.settings import HealSettings
from holdfast_server.objects.foreground import Foreground

FALL = 0.67
CLIMB = 0.02
BURDEN_SECONDS = 1.0
"""How long after a unit of work requests may still feel it."""
LONGEST_REST_SECONDS = 5.0


class Pacer:
    def __init__(
        self,
        clock: Clock,
        foreground: Foreground,
        settings: HealSettings,
        peers_slowdowns: Callable[[], Sequence[float]] = tuple,
    ) -> None:
        """`peers_slowdowns`: how many times the usual the requests of other pods wait, of those that have any."""
        self._peers_slowdowns = peers_slowdowns
        self._worked_at = float("-inf")
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
        self._worked_at = self._clock.monotonic_seconds()
        self.is_burdened()
        self._adapt()
        await self._clock.sleep(min(LONGEST_REST_SECONDS, worked_seconds * (1 / self.share - 1)))

    def is_burdened(self) -> None:
        """Some pod's healing is at work: what is slow now does not become the usual."""
        self._foreground.burdened_until = self._clock.monotonic_seconds() + BURDEN_SECONDS

    def told(self) -> tuple[float | None, bool]:
        """For the other pods: how many times the usual requests wait here, and whether healing worked just now."""
        now = self._clock.monotonic_seconds()
        return self._own_slowdown(), now - self._worked_at <= BURDEN_SECONDS

    def _own_slowdown(self) -> float | None:
        return self._foreground.slowdown(self._clock.monotonic_seconds(), self._settings.slack_seconds)

    def _adapt(self) -> None:
        settings = self._settings
        own = self._own_slowdown()
        slowdown = max((*self._peers_slowdowns(), *(() if own is None else (own,))), default=None)
        if slowdown is None:
            self.share = 1.0
        elif slowdown > settings.tolerated_slowdown:
            self.share = max(settings.least_share, self.share * FALL)
        else:
            self.share = min(settings.busy_share, self.share + CLIMB)
