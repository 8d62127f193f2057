"""What may become of a blank drive: the decision, apart from gathering its facts and acting on it.  Pure.

A drive without identity is either *new*, which may be formatted as full: its absence of records is the truth;
or a *replacement* of one that had records, which may only be adopted as healing, or its emptiness would
outvote the drives that still know (rule 11 of `docs/quorum.md`).

It is taken for new only while the operator permits formatting for the pool, and every other pod of the pool
has answered, and none of them, nor a drive of this pod, remembers a drive in that place.  A drive that cannot
be opened, or has not been yet, may be the one that remembers, so none of the pool's may be faulty or silent.

A replacement is adopted once at least N − P drives of its set are known to be full (so that at most P are
empty, healing or unknown), and not before the operations of its predecessor's time have died.  Else the drive
stays blank and serves nothing, and says `DrivesBlank`: a set that lost more than P drives needs a person's
decision.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from holdfast_server.drives.port import DriveState


class Action(Enum):
    FORMAT = "format"
    ADOPT = "adopt"
    WAIT = "wait"


@dataclass(frozen=True, slots=True, kw_only=True)
class BlankDrive:
    """The facts about one blank drive."""

    formatting: bool
    """The operator permits formatting in this pool."""
    silent_pods: tuple[str, ...] = ()
    """Pods of the pool that have not answered or still open their drives."""
    remembered: bool
    """Some pod that answered remembers a drive in this place."""
    silent_drives: int = 0
    """Drives of the pool that cannot be opened, were set aside, or are being opened still."""
    set_size: int
    parity: int
    others: Sequence[DriveState]
    """The other N − 1 drives of the set, as they are known now."""
    seconds_left: float
    """Until nothing of the predecessor's time can still be under way."""


@dataclass(frozen=True, slots=True)
class Decision:
    action: Action
    message: str = ""
    """For people: why it waits."""


def decide(facts: BlankDrive) -> Decision:
    """See the module."""
    if facts.formatting and not facts.remembered:
        if facts.silent_pods:
            return Decision(Action.WAIT, f"not formatted before every pod answers; missing: {_names(facts)}")
        if facts.silent_drives:
            return Decision(
                Action.WAIT, f"not formatted while {facts.silent_drives} drives of the pool are faulty or do not answer"
            )
        return Decision(Action.FORMAT)
    full = sum(1 for state in facts.others if state is DriveState.FULL)
    needed = facts.set_size - facts.parity
    if facts.parity == 0 or full < needed:
        return Decision(
            Action.WAIT,
            f"DrivesBlank: empty, and {full} of the set's {facts.set_size} drives are known to be full; "
            f"{needed} are needed to fill it again",
        )
    if facts.seconds_left > 0:
        return Decision(Action.WAIT, f"a replacement: joins in {facts.seconds_left:.0f} s")
    return Decision(Action.ADOPT)


def _names(facts: BlankDrive) -> str:
    return ", ".join(facts.silent_pods)
