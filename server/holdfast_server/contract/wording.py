"""How durations, shares and counts are told to people: the same words in status, command line and messages.  Pure.

Coarse on purpose: an estimate of 173 seconds is no better than "about 3 min", and a status that says so is not
rewritten every second.
"""

from __future__ import annotations

from collections.abc import Sequence

from holdfast_server.contract.healing import FillingProgress

PERCENT_STEP = 5


def coarse_percent(fraction: float) -> int:
    """Rounded down to steps of `PERCENT_STEP`; 100 only where nothing is left."""
    bounded = min(max(fraction, 0.0), 1.0)
    return int(bounded * 100) // PERCENT_STEP * PERCENT_STEP


def about(seconds: float) -> str:
    """A duration in one unit: `12 s`, `3 min`, `5 h`, `2 d`; below ten seconds, `a few seconds`."""
    if seconds < 10:
        return "a few seconds"
    if seconds < 50:
        return f"{_rounded(seconds, 10)} s"
    minutes = seconds / 60
    if minutes < 50:
        return f"{max(1, round(minutes))} min" if minutes < 10 else f"{_rounded(minutes, 5)} min"
    hours = minutes / 60
    if hours < 36:
        return f"{max(1, round(hours))} h"
    return f"{round(hours / 24)} d"


def filled_fraction(filling: FillingProgress) -> float:
    """0 to 1, as far as is known; never 1 before the drive counts as full."""
    if filling.registers_total <= 0:
        return 0.0
    return min(filling.registers_done / filling.registers_total, 0.99)


def how_far(filling: FillingProgress) -> str:
    """`45 %, about 3 min left`; the time only where it is known."""
    text = f"{coarse_percent(filled_fraction(filling))} %"
    if filling.seconds_left is None:
        return text
    left = about(filling.seconds_left)
    return f"{text}, {left} left" if left.startswith("a ") else f"{text}, about {left} left"


def count_of(count: int, one: str, many: str) -> str:
    """`1 drive`, `1,234 drives`."""
    return f"{count:,} {one if count == 1 else many}"


def first_of(named: Sequence[str], most: int, between: str = ", ") -> str:
    """All of them, or the first few and that there are more."""
    return between.join(named[:most]) + (" and more" if len(named) > most else "")


def _rounded(value: float, step: int) -> int:
    return max(step, round(value / step) * step)


def coarse_count(count: int) -> int:
    """Two digits that count, the rest zeros: `1,234` is `1,200`."""
    step = 10 ** max(0, len(str(count)) - 2)
    return count // step * step
