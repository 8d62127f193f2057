"""How long requests wait for records, so that background work can tell when it is in their way.  Pure.

Two kinds are watched, each against what is usual for it: looking a version up, and committing one.  Both take the
same few messages whatever the object's size and however slow the client, so that what is above the usual is
queueing: for the loop, for a drive, for a peer.

`usual` follows falls at once and rises slowly; while background work is going on (`burdened`) it hardly rises, or the
slowness that the work causes would become what is usual.

Not here: what to do about it (`heal.pacing`).
"""

from __future__ import annotations

from dataclasses import dataclass, field

RECENT_WEIGHT = 0.1
FALL_WEIGHT = 0.05
RISE_WEIGHT = 0.01
BURDENED_RISE_WEIGHT = 0.0005
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
        self.seen_at = now
        self.usual_seconds = self.usual_seconds or seconds
        self.recent_seconds += (seconds - self.recent_seconds) * RECENT_WEIGHT
        if seconds < self.usual_seconds:
            weight = FALL_WEIGHT
        else:
            weight = BURDENED_RISE_WEIGHT if burdened else RISE_WEIGHT
        self.usual_seconds += (seconds - self.usual_seconds) * weight


@dataclass(slots=True)
class Foreground:
    lookups: Waits = field(default_factory=Waits)
    commits: Waits = field(default_factory=Waits)
    burdened_until: float = float("-inf")
    """Until then background work may be the reason of what is slow."""

    def looked_up(self, seconds: float, now: float) -> None:
        self.lookups.add(seconds, now, now < self.burdened_until)

    def committed(self, seconds: float, now: float) -> None:
        self.commits.add(seconds, now, now < self.burdened_until)

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
        kinds = (self.lookups, self.commits)
        return [kind for kind in kinds if now - kind.seen_at <= ACTIVE_SECONDS and kind.usual_seconds > 0]
