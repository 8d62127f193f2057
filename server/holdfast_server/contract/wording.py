"""How durations, shares and counts are told to people: the same words in status, command line and messages.  Pure.

Coarse on purpose: an estimate of 173 seconds is no better than "about 3 min", and a status that says so is not
rewritten every second.
"""

from __future__ import annotations

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


def filling_words(filling: FillingProgress) -> str:
    """`45 % filled, about 3 min left`."""
    text = f"{coarse_percent(filled_fraction(filling))} % filled"
    if filling.seconds_left is not None:
        text += f", about {about(filling.seconds_left)} left".replace("about a few", "a few")
    return text


def count_of(count: int, one: str, many: str) -> str:
    """`1 drive`, `1,234 drives`."""
    return f"{count:,} {one if count == 1 else many}"


def _rounded(value: float, step: int) -> int:
    return max(step, round(value / step) * step)
