"""Whether two statuses differ in nothing but progress: how much is healed, how full the drives are.  Pure.

Such a change can wait: every write of a status is an event for everybody who watches Tenants, and a drive heals for
hours.  What changes what a person would do (a condition's status or reason, a drive lost or back, a bucket) never
waits.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PROGRESS_SECONDS = 15.0
"""Between two writes of a status in which only progress has changed."""
_TOLD_BY_MESSAGE = frozenset({"Ready", "Degraded", "PoolsReady"})
"""Conditions whose message tells how far things are."""


def only_progress(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    """True also where nothing differs."""
    return bool(before) and _without_progress(before) == _without_progress(after)


def _without_progress(status: Mapping[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in status.items() if key != "capacity"}
    kept["conditions"] = [
        {
            key: value
            for key, value in condition.items()
            if key != "message" or condition["type"] not in _TOLD_BY_MESSAGE
        }
        for condition in status.get("conditions") or []
    ]
    kept["pools"] = [
        {key: value for key, value in pool.items() if key != "healing"} for pool in status.get("pools") or []
    ]
    return kept
