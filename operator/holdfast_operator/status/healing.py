"""What is not whole, in words and in figures: for the condition `Degraded` and `status.pools[].healing`.

Read at three in the morning: first how much is missing and what still works, then which drives, then what happens
next and whether a person is needed.  Figures are coarse (`contract.wording`), so that a status that is looked at
every second is not rewritten every second.  Pure.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from holdfast_operator import labels
from holdfast_operator.observe.redundancy import BLANK, FAULTY, HEALING, OFFLINE, OK, DriveView, Redundancy
from holdfast_server.contract.wording import (
    about,
    coarse_count,
    coarse_percent,
    count_of,
    filled_fraction,
    first_of,
    how_far,
)

TROUBLES_NAMED = 8
"""Drives, or pods with drives alike, that a message names."""
DRIVES_LISTED = 32
"""Healing drives that the status lists, per pool."""
_STATES = (FAULTY, BLANK, OFFLINE, HEALING)
"""Worst first."""
_PROSPECTS = {
    OFFLINE: "what an offline drive misses is written to it when its pod is back",
    HEALING: "a healing drive is filled from the others and counts again when that is done",
    FAULTY: "a faulty drive comes back once what is wrong has passed, or is filled anew if its folder is emptied",
}


def derive_healing(redundancy: Redundancy) -> dict[str, Any]:
    """Of one pool; empty where there is nothing to heal."""
    found: dict[str, Any] = {}
    waiting = sum(view.queue_length for view in redundancy.sets)
    if waiting:
        found["queue"] = coarse_count(waiting)
    if redundancy.stuck:
        found["stuck"] = redundancy.stuck
    drives = [_progress(drive) for drive in redundancy.drives if drive.state == HEALING]
    if drives:
        found["drives"] = drives[:DRIVES_LISTED]
    return found


def _progress(drive: DriveView) -> dict[str, Any]:
    listed: dict[str, Any] = {"server": drive.ordinal, "volume": drive.volume}
    if drive.filling is not None:
        listed["percent"] = coarse_percent(filled_fraction(drive.filling))
        if drive.filling.seconds_left is not None:
            listed["left"] = about(drive.filling.seconds_left)
    return listed


def doomed_words(claims: Sequence[str]) -> str:
    """Of claims that were deleted and are held by their pods alone."""
    if not claims:
        return ""
    verb = "claim is" if len(claims) == 1 else "claims are"
    return (
        f"{len(claims)} {verb} being deleted and will go, with the data, as soon as the pod ends: "
        f"{first_of(claims, TROUBLES_NAMED)}; delete such pods one at a time, each once nothing heals any more, and "
        "their volumes are filled anew"
    )


def summary(redundancy: Redundancy) -> str:
    """`1 of 8 drives is offline, 1 is healing (45 %, about 3 min left)`."""
    counts: list[str] = []
    total = len(redundancy.drives)
    for state in _STATES:
        drives = [drive for drive in redundancy.drives if drive.state == state]
        if drives:
            of = f" of {count_of(total, 'drive', 'drives')}" if not counts else ""
            verb = "is" if len(drives) == 1 else "are"
            counts.append(f"{len(drives)}{of} {verb} {state}{_how_far(drives)}")
    return ", ".join(counts)


def _how_far(drives: list[DriveView]) -> str:
    """Of the drive that is last to be done."""
    known = [drive.filling for drive in drives if drive.state == HEALING and drive.filling is not None]
    if not known:
        return ""
    slowest = min(known, key=lambda filling: (filled_fraction(filling), -(filling.seconds_left or 0.0)))
    return f" ({how_far(slowest)})"


def service(redundancy: Redundancy) -> str:
    """What still works, and what more may happen before it does not."""
    if not redundancy.writable:
        return "reads are served, writes are refused" if redundancy.readable else "nothing is served"
    left = min((view.losses_left for view in redundancy.sets), default=0)
    if left == 0:
        return "reads and writes go on, but with one more drive lost writes would stop"
    return f"reads and writes go on, also with {count_of(left, 'more drive', 'more drives')} of a set lost"


def drive_troubles(redundancy: Redundancy, tenant_name: str, but_of: Collection[tuple[str, int]] = ()) -> str:
    """The drives that are not `ok`, those of a pod that fare alike together; empty if all are.  `but_of`: pods (pool,
    ordinal) that are told of already, whose drives are offline for no reason of their own."""
    alike: dict[tuple[str, int, str, str], list[str]] = {}
    for drive in redundancy.drives:
        if drive.state == OFFLINE and (drive.pool, drive.ordinal) in but_of:
            continue
        if drive.state != OK:
            key = (drive.pool, drive.ordinal, drive.state, drive.message)
            alike.setdefault(key, []).append(f"data{drive.volume}")
    named = [
        f"{labels.pod_name(tenant_name, pool, ordinal)}: {', '.join(volumes)} {state}"
        + (f" ({message})" if message else "")
        for (pool, ordinal, state, message), volumes in alike.items()
    ]
    more = [f"and drives of {len(named) - TROUBLES_NAMED} more"] if len(named) > TROUBLES_NAMED else []
    return "; ".join([*named[:TROUBLES_NAMED], *more])


def full_words(redundancy: Redundancy, tenant_name: str) -> str:
    """The drives without room; empty if there are none."""
    full = [drive for drive in redundancy.drives if drive.full]
    if not full:
        return ""
    named = [f"{labels.pod_name(tenant_name, drive.pool, drive.ordinal)}/data{drive.volume}" for drive in full]
    more = f" and {len(named) - TROUBLES_NAMED} more" if len(named) > TROUBLES_NAMED else ""
    verb = "takes" if len(full) == 1 else "take"
    return (
        f"{len(full)} of {count_of(len(redundancy.drives), 'drive', 'drives')} {verb} no new data for want of room "
        f"({', '.join(named[:TROUBLES_NAMED])}{more}): delete, or let the pool's volumes grow"
    )


def drive_prospects(redundancy: Redundancy) -> str:
    """What becomes of the drives that are not `ok`, and which of them wait for a person."""
    states = {drive.state for drive in redundancy.drives}
    return "; ".join(sentence for state, sentence in _PROSPECTS.items() if state in states)


def waiting_words(count: int, redundancy: Redundancy) -> str:
    """`1 missed write is being …`, `about 1,200 missed writes are being brought to the drives`; of drives that are away
    they are yet to be."""
    coarse = coarse_count(count)
    away = not all(drive.answers for drive in redundancy.drives)
    verb = f"{'is' if coarse == 1 else 'are'} {'yet to be' if away else 'being'}"
    approximately = "about " if coarse != count or count >= 100 else ""
    return f"{approximately}{count_of(coarse, 'missed write', 'missed writes')} {verb} brought to the drives"


def stuck_words(count: int) -> str:
    return (
        f"{count_of(count, 'version', 'versions')} can neither be decided nor rebuilt from the drives that answer; a "
        "person decides: `holdfast admin heal list-stuck`, then `heal resolve`"
    )
