"""When a drive that was set aside is looked at again: the waiting, apart from the doing.  Pure.

What is wrong with the place (a volume mounted late, the wrong one, another process) is over when somebody has put
it right, and looking costs little: soon and often.  A medium that failed may fail again as soon as it is used, and
each time costs the writes it misses until they are repaired: seldom, and less often each time.  A drive that has
served for `WELL_SECONDS` has its history forgotten.

Damaged and retired drives are not opened again as they are: see `local_drives`.
"""

from __future__ import annotations

from dataclasses import dataclass

from holdfast_server.drives.faults import FaultKind

WELL_SECONDS = 600.0

FIRST_PAUSE_SECONDS = {
    FaultKind.PLACE: 1.0,
    FaultKind.READ_ONLY: 1.0,
    FaultKind.NO_ROOM: 1.0,
    FaultKind.DESCRIPTORS: 1.0,
    FaultKind.MEDIUM: 5.0,
}
LAST_PAUSE_SECONDS = {
    FaultKind.PLACE: 8.0,
    FaultKind.READ_ONLY: 8.0,
    FaultKind.NO_ROOM: 8.0,
    FaultKind.DESCRIPTORS: 8.0,
    FaultKind.MEDIUM: 320.0,
}
"""Each pause is twice the one before, up to this."""


@dataclass(slots=True)
class _Outage:
    tries: int
    due: float
    well_since: float | None = None


class Reopening:
    """The outages of one pod's drives, by volume.  Times in seconds of one monotonic clock."""

    def __init__(self) -> None:
        self._outages: dict[int, _Outage] = {}

    def due(self, volume: int, kind: FaultKind, now: float) -> bool:
        """Whether to try now; counts as tried if so."""
        outage = self._outages.get(volume)
        if outage is None:
            outage = self._outages[volume] = _Outage(0, now + pause_seconds(kind, 0))
        elif outage.well_since is not None:
            # It came back, and failed again.
            outage.due, outage.well_since = now + pause_seconds(kind, outage.tries), None
        if now < outage.due:
            return False
        outage.tries += 1
        outage.due = now + pause_seconds(kind, outage.tries)
        return True

    def well(self, volume: int, now: float) -> None:
        """It serves."""
        outage = self._outages.get(volume)
        if outage is None:
            return
        if outage.well_since is None:
            outage.well_since = now
        elif now - outage.well_since >= WELL_SECONDS:
            del self._outages[volume]


def pause_seconds(kind: FaultKind, tries: int) -> float:
    first = FIRST_PAUSE_SECONDS.get(kind, FIRST_PAUSE_SECONDS[FaultKind.MEDIUM])
    last = LAST_PAUSE_SECONDS.get(kind, LAST_PAUSE_SECONDS[FaultKind.MEDIUM])
    return float(min(last, first * 2 ** min(tries, 16)))
