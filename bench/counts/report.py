"""Bounds, what exceeds them, and the tables for people.  Pure.

`bounds.toml` has a table for each operation: the most that one request may take.  `messages` has its own bound for each
verb; a verb that is not named there may not be sent at all.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

Counts = Mapping[str, float]
Bounds = Mapping[str, "float | Mapping[str, float]"]

MESSAGES = "messages "
SLACK = {
    "calls": 1.05,
    "copied_bytes": 1.03,
    "memory_bytes": 1.25,
    "peers_bytes": 1.03,
    "read_bytes": 1.03,
    "tasks": 1.1,
    "from_threads": 1.1,
    "to_threads": 1.1,
    "written_bytes": 1.05,
}  # fmt: skip
"""What a bound is above the count it was made from; the others are exact."""
WORTH_A_BOUND = {"memory_bytes": 1 << 20, "copied_bytes": 64 << 10, "written_bytes": 1 << 10, "peers_bytes": 1 << 10}
"""Smaller counts of these are of the client's buffers, or nothing to speak of."""


UNSTEADY = (("GET 1.5 MiB", "copied_bytes"),)
"""What depends on the moment: no bound."""


def exceeded(counts: Counts, bounds: Bounds) -> list[str]:
    """What one operation takes above its bounds, in words.  What has no bound may not be at all, but for the bytes that
    are not worth one; what was not counted (without a compiler) is no fault."""
    verbs = bounds.get("messages", {})
    assert isinstance(verbs, Mapping)
    found = []
    for name, count in counts.items():
        if name.startswith(MESSAGES):
            limit = verbs.get(name.removeprefix(MESSAGES), 0)
        else:
            limit = bounds.get(name, WORTH_A_BOUND.get(name, 0))
        if isinstance(limit, int | float) and count > limit:
            found.append(f"{name} {count:,.0f}, at most {limit:,.0f}")
    return found


def table(counted: Mapping[str, Counts]) -> str:
    """Markdown: a row for each count, a column for each operation."""
    names = sorted({name for counts in counted.values() for name, count in counts.items() if count})
    lines = ["| | " + " | ".join(counted) + " |", "|---|" + "---:|" * len(counted)]
    for name in names:
        cells = (f"{counts[name]:,.0f}" if counts.get(name) else "–" for counts in counted.values())
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def as_bounds(counted: Mapping[str, Counts]) -> str:
    """What was counted as the tables of `bounds.toml`."""
    lines = []
    for operation, counts in counted.items():
        verbs = {name.removeprefix(MESSAGES): count for name, count in counts.items() if name.startswith(MESSAGES)}
        told = ", ".join(f"{verb} = {math.ceil(count)}" for verb, count in sorted(verbs.items()) if count)
        lines += ["", f'["{operation}"]', f"messages = {{ {told} }}"]
        for name, count in sorted(counts.items()):
            if not name.startswith(MESSAGES) and name != "messages" and count >= WORTH_A_BOUND.get(name, 0):
                bound = "inf" if (operation, name) in UNSTEADY else f"{_with_slack(name, count):_}"
                lines.append(f"{name} = {bound}")
    return "\n".join(lines) + "\n"


def _with_slack(name: str, count: float) -> int:
    """Rounded up, to three digits where it is no exact count."""
    bound = math.ceil(count * SLACK.get(name, 1.0))
    step = 10 ** max(0, len(str(bound)) - 3) if name in SLACK else 1
    return -(-bound // step) * step
