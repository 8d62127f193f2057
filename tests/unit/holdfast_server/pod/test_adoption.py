"""What may become of a blank drive, case by case."""

import dataclasses

import pytest

from holdfast_server.drives.port import DriveState
from holdfast_server.pod.adoption import Action, BlankDrive, decide

FULL, HEALING, BLANK = DriveState.FULL, DriveState.HEALING, DriveState.BLANK
OFFLINE, FAULTY = DriveState.OFFLINE, DriveState.FAULTY

FIRST_START = BlankDrive(formatting=True, remembered=False, set_size=4, parity=2, others=[BLANK] * 3, seconds_left=20.0)
REPLACED = BlankDrive(formatting=False, remembered=True, set_size=4, parity=2, others=[FULL] * 3, seconds_left=0.0)


@pytest.mark.parametrize(
    ("facts", "changes", "action", "message"),
    [
        # The first start: all pods are up and nobody remembers anything.
        (FIRST_START, {}, Action.FORMAT, ""),
        # Others were quicker.
        (FIRST_START, {"others": [FULL] * 3}, Action.FORMAT, ""),
        (FIRST_START, {"set_size": 1, "parity": 0, "others": []}, Action.FORMAT, ""),
        # Somebody has not been asked yet: it may remember.
        (FIRST_START, {"silent_pods": ("logs-2", "logs-3")}, Action.WAIT, "missing: logs-2, logs-3"),
        (FIRST_START, {"silent_pods": ("logs-2",), "others": [FULL, FULL, OFFLINE]}, Action.WAIT, "missing: logs-2"),
        # A drive that cannot be opened may be the one that remembers.
        (FIRST_START, {"silent_drives": 1, "others": [FAULTY, BLANK, BLANK]}, Action.WAIT, "1 drives"),
        # A drive lost while formatting is still permitted is a replacement all the same.
        (FIRST_START, {"remembered": True, "others": [FULL] * 3, "seconds_left": 0}, Action.ADOPT, ""),
        (FIRST_START, {"remembered": True, "others": [BLANK] * 3, "seconds_left": 0}, Action.WAIT, "DrivesBlank"),
        # Replacements.
        (REPLACED, {}, Action.ADOPT, ""),
        (REPLACED, {"remembered": False}, Action.ADOPT, ""),
        (REPLACED, {"others": [FULL, FULL, OFFLINE]}, Action.ADOPT, ""),
        (REPLACED, {"others": [FULL, FULL, BLANK]}, Action.ADOPT, ""),
        (REPLACED, {"others": [FULL, FULL, HEALING]}, Action.ADOPT, ""),
        (REPLACED, {"seconds_left": 7.2}, Action.WAIT, "joins in 7 s"),
        # More than P empty, or perhaps so.
        (REPLACED, {"others": [FULL, BLANK, BLANK]}, Action.WAIT, "DrivesBlank"),
        (REPLACED, {"others": [FULL, HEALING, OFFLINE]}, Action.WAIT, "DrivesBlank"),
        (REPLACED, {"others": [FULL, OFFLINE, OFFLINE]}, Action.WAIT, "DrivesBlank"),
        (REPLACED, {"others": [BLANK] * 3}, Action.WAIT, "DrivesBlank"),
        # Nothing to fill it from.
        (REPLACED, {"set_size": 1, "parity": 0, "others": []}, Action.WAIT, "DrivesBlank"),
        (REPLACED, {"set_size": 2, "parity": 1, "others": [FULL]}, Action.ADOPT, ""),
    ],
)
def test_decisions(facts: BlankDrive, changes: dict[str, object], action: Action, message: str) -> None:
    decision = decide(dataclasses.replace(facts, **changes))  # type: ignore[arg-type]
    assert decision.action is action
    assert message in decision.message
    assert bool(decision.message) == (action is Action.WAIT)


def test_at_most_parity_drives_are_ever_adopted_at_once() -> None:
    """Whatever the others say, an adoption leaves K full drives."""
    states = [FULL, HEALING, BLANK, OFFLINE, FAULTY]
    for a in states:
        for b in states:
            for c in states:
                decision = decide(dataclasses.replace(REPLACED, others=[a, b, c]))
                assert (decision.action is Action.ADOPT) == ([a, b, c].count(FULL) >= 2)
