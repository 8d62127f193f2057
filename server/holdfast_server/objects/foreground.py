"""How long requests wait for records, so that background work can tell when it is in their way.  Pure.

Three kinds are watched, each against what is usual for it: looking a version up, committing one, and committing one
along with its shards.  The first two take the same few messages whatever the object's size, the third those and at most
a few MiB, all however slow the client, so that what is above the usual is queueing: for the loop, for a drive, for a
peer.

`usual` is a mean over some seconds; while background work is going on (`burdened`) it hardly rises, or the slowness
that the work causes would become what is usual.

Not here: what to do about it (`heal.pacing`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import expm1

RECENT_WEIGHT = 0.1
"""Per request."""
LEARN_SECONDS = 30.0
"""In which two thirds of a change become usual, by the clock and not by the number of requests."""
BURDENED_FALL_SECONDS = 60.0
BURDENED_RISE_SECONDS = 600.0
ACTIVE_SECONDS = 2.0
"""A kind of request not seen for so long says nothing any more."""
LONGEST_SECONDS = 1.0
"""One request that waited for a lost pod must not count as a hundred slow ones."""


@dataclass(slots=True)
class Waits:
    """One kind of request."""

    recent_seconds: float = 0.0
    usual_seconds: float = 0.0
    seen_at: float = float("-inf")

    def add(self, seconds: float, now: float, burdened: bool) -> None:
        seconds = min(seconds, LONGEST_SECONDS)
        if now - self.seen_at > ACTIVE_SECONDS:
            self.recent_seconds = self.usual_seconds or seconds
        since_last = min(now - self.seen_at, ACTIVE_SECONDS)
        self.seen_at = now
        self.usual_seconds = self.usual_seconds or seconds
        self.recent_seconds += (seconds - self.recent_seconds) * RECENT_WEIGHT
        learn_seconds = LEARN_SECONDS
        if burdened:
            learn_seconds = BURDENED_FALL_SECONDS if seconds < self.usual_seconds else BURDENED_RISE_SECONDS
        self.usual_seconds += (seconds - self.usual_seconds) * -expm1(-since_last / learn_seconds)


@dataclass(slots=True)
class Foreground:
    lookups: Waits = field(default_factory=Waits)
    commits: Waits = field(default_factory=Waits)
    carried: Waits = field(default_factory=Waits)
    burdened_until: float = float("-inf")
    """Until then background work may be the reason of what is slow."""

    def looked_up(self, seconds: float, now: float) -> None:
        self.lookups.add(seconds, now, now < self.burdened_until)

    def committed(self, seconds: float, now: float) -> None:
        self.commits.add(seconds, now, now < self.burdened_until)

    def carried_along(self, seconds: float, now: float) -> None:
        """A commit with its shards."""
        self.carried.add(seconds, now, now < self.burdened_until)

    def slowdown(self, now: float, slack_seconds: float) -> float | None:
        """How many times the usual the slower kind takes now, `slack_seconds` forgiven; None without requests."""
        active = self._active(now)
        if not active:
            return None
        return max((kind.recent_seconds - slack_seconds) / kind.usual_seconds for kind in active)

    def recent_seconds(self, now: float) -> float:
        """Of the slower kind; 0 without requests."""
        return max((kind.recent_seconds for kind in self._active(now)), default=0.0)

    def _active(self, now: float) -> list[Waits]:
        kinds = (self.lookups, self.commits, self.carried)
        return [kind for kind in kinds if now - kind.seen_at <= ACTIVE_SECONDS and kind.usual_seconds > 0]
