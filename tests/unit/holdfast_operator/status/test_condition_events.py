"""What is worth an event."""

from __future__ import annotations

from typing import Any

import pytest

from holdfast_operator.status.events import MAX_NOTE_SIZE, condition_events


def condition(kind: str, status: str, reason: str, message: str = "words") -> dict[str, Any]:
    return {"type": kind, "status": status, "reason": reason, "message": message}


READY = condition("Ready", "True", "Serving")
WHOLE = condition("Degraded", "False", "Whole")


def told(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(event.type, event.reason) for event in condition_events(before, after)]


@pytest.mark.parametrize(
    ("before", "after", "events"),
    [
        ([], [READY, WHOLE], [("Normal", "Serving")]),
        ([], [condition("Ready", "False", "Starting")], [("Normal", "Starting")]),
        ([READY], [condition("Ready", "False", "NoPodAnswers")], [("Warning", "NoPodAnswers")]),
        ([READY, WHOLE], [READY, condition("Degraded", "True", "DrivesMissing")], [("Warning", "DrivesMissing")]),
        ([condition("Degraded", "True", "DrivesHealing")], [WHOLE], [("Normal", "Whole")]),
        ([WHOLE], [condition("Degraded", "Unknown", "NoPodAnswers")], []),
        ([condition("SpecValid", "True", "Valid")], [condition("SpecValid", "False", "Invalid")],
         [("Warning", "Invalid")]),
        ([], [condition("SpecValid", "True", "Valid")], []),
        ([condition("Progressing", "False", "Settled")], [condition("Progressing", "True", "Rolling")], []),
        ([condition("Progressing", "True", "Rolling")], [condition("Progressing", "False", "RollBlocked")],
         [("Warning", "RollBlocked")]),
        ([condition("Progressing", "True", "VolumesGrowing")], [condition("Progressing", "False", "VolumesCannotGrow")],
         [("Warning", "VolumesCannotGrow")]),
        ([condition("BucketsReady", "True", "Provisioned")], [condition("BucketsReady", "False", "Failed")], []),
    ],
)  # fmt: skip
def test_a_change_is_told_as_loudly_as_it_deserves(
    before: list[dict[str, Any]], after: list[dict[str, Any]], events: list[tuple[str, str]]
) -> None:
    assert told(before, after) == events


def test_progress_within_a_condition_is_no_event() -> None:
    before = [condition("Degraded", "True", "DrivesHealing", "40 %")]
    assert told(before, [condition("Degraded", "True", "DrivesHealing", "45 %")]) == []


def test_a_long_message_is_cut() -> None:
    (event,) = condition_events([], [condition("Ready", "False", "QuorumLost", "x" * 5000)])
    assert len(event.message) == MAX_NOTE_SIZE
