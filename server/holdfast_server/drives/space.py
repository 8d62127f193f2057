"""How much room a drive has, and when new data is refused.

A reserve is kept so that what frees space (tombstones, notes, reclaim, compaction) always has room to work in.  Half
of it is open to what is small and must not wait for room: records that a delete leaves in the place of others (markers,
for one), documents, by which buckets, rules and users are changed, and undecided versions that a read makes committed.
`statvfs` is asked at most once a second, never on the event loop; what was staged since is counted against it.
"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from pathlib import Path

from holdfast_server.clock.port import Clock

RESERVE_BYTES = 64 << 20
RESERVE_FRACTION = 0.01
FRESH_SECONDS = 1.0
LEAST_WRITE_BYTES = 128 << 10
"""A drive with no room for so much beside the reserve is called full: more than a small object has on one drive."""


@dataclass(frozen=True, slots=True)
class Room:
    total_bytes: int = 0
    available_bytes: int = 0
    used_bytes: int = 0


class Space:
    """Safe from any thread; `refresh`, `refuses` may block on the file system."""

    def __init__(self, folder: Path, clock: Clock, reserve_bytes: int | None = None) -> None:
        self._folder = folder
        self._clock = clock
        self._reserve_bytes = reserve_bytes
        self._lock = threading.Lock()
        self._asked = float("-inf")
        self._taken_bytes = 0
        self.room = Room()
        """As last seen."""

    def refresh(self, at_once: bool = False) -> Room:
        """Ask the file system unless it was asked a moment ago.  Raises OSError."""
        with self._lock:
            now = self._clock.monotonic_seconds()
            if at_once or now - self._asked >= FRESH_SECONDS:
                facts = os.statvfs(self._folder)
                unit = facts.f_frsize
                used = (facts.f_blocks - facts.f_bfree) * unit
                self.room = Room(facts.f_blocks * unit, facts.f_bavail * unit, used)
                self._asked, self._taken_bytes = now, 0
            return self.room

    def reserve_bytes(self, room: Room) -> int:
        """What is kept from new data on a file system of that size."""
        if self._reserve_bytes is not None:
            return self._reserve_bytes
        return max(RESERVE_BYTES, int(room.total_bytes * RESERVE_FRACTION))

    @property
    def full(self) -> bool:
        """Whether there was no room for new data when it was last looked at."""
        return self.room.available_bytes <= self.reserve_bytes(self.room) + LEAST_WRITE_BYTES

    def refuses(self, size_bytes: int, from_reserve: bool = False) -> bool:
        """Whether new data of that size would cut into the reserve (`from_reserve`: into the half that stays closed to
        that, too); counts it as taken if not."""
        room = self.refresh()
        reserve = self.reserve_bytes(room) // (2 if from_reserve else 1)
        with self._lock:
            if room.available_bytes - self._taken_bytes - size_bytes < reserve:
                return True
            self._taken_bytes += size_bytes
            return False
