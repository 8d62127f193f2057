"""Which Kubernetes Events a change of the status is worth.  Pure.

An event is told when a condition's status or reason changes, never when only its message does: progress is told
in messages, every few percent, and would bury everything else in `kubectl describe`.  `Ready` carries the reason
of whatever keeps the Tenant from it, so the conditions behind it have no events of their own; `SpecValid` has,
because only its message names the fields.  `Progressing` changes with every pod that starts and every roll, which
the pods' own events tell better: it is told only where it waits for a person.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

MAX_NOTE_SIZE = 1024
"""The API server refuses longer messages."""
_WELL = {"Ready": "True", "SpecValid": "True", "Degraded": "False"}
"""The conditions that are told, and the status that is good news."""
_STARTING = frozenset({"Starting", "Pending", "NoPodAnswers", "NoPodReady"})
"""Why a new Tenant is not ready yet: no news, unless it was ready before."""
_ON_THE_MEND = frozenset({"DrivesHealing", "CatchingUp"})
"""Why a Tenant is still degraded though nothing more is missing: good news."""
_NEEDS_A_PERSON = frozenset({"RollBlocked", "VolumesCannotGrow", "PassFails"})

EventType = Literal["Normal", "Warning"]


@dataclass(frozen=True, slots=True)
class TenantEvent:
    """One event about a Tenant."""

    type: EventType
    condition: str
    reason: str
    message: str


def condition_events(
    before: Iterable[Mapping[str, Any]], after: Iterable[Mapping[str, Any]]
) -> tuple[TenantEvent, ...]:
    """In the order of the conditions; each gives at most one, and an unchanged list none."""
    known = {condition.get("type"): condition for condition in before}
    found = []
    for condition in after:
        old = known.get(condition["type"], {})
        changed = (old.get("status"), old.get("reason")) != (condition["status"], condition["reason"])
        event_type = _type(condition, old) if changed else None
        if event_type is not None:
            found.append(TenantEvent(event_type, condition["type"], condition["reason"], _note(condition)))
    return tuple(found)


def _type(condition: Mapping[str, Any], before: Mapping[str, Any]) -> EventType | None:
    """How loud, if at all."""
    kind, status, reason = condition["type"], condition["status"], condition["reason"]
    if kind not in _WELL:
        return "Warning" if reason in _NEEDS_A_PERSON else None
    was_bad = before.get("status") not in (None, "Unknown", _WELL[kind])
    if status == _WELL[kind]:
        return "Normal" if was_bad or kind == "Ready" else None
    if status == "Unknown":
        return None
    starting = reason in _STARTING and before.get("status") != "True"
    return "Normal" if starting or reason in _ON_THE_MEND else "Warning"


def _note(condition: Mapping[str, Any]) -> str:
    text = condition.get("message") or f"{condition['type']} is {condition['status']}"
    return text if len(text) <= MAX_NOTE_SIZE else text[: MAX_NOTE_SIZE - 1] + "…"
