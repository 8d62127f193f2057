"""What keeps a version from being deleted: a retention until a date, a legal hold until it is lifted.  Pure.

Both are kept among a version's headers, under names that are never sent; so they travel with its record wherever that
goes (to rest, current again, healed, into another pool), and an object that is copied takes none of them along.

- A *retention* has a mode.  GOVERNANCE: whoever may bypass it can delete the version, shorten or take away the
  retention.  COMPLIANCE: nobody can, until its date is past; it can be made longer.
- A *legal hold* keeps the version while it is on, whatever the retention.

`protects` is what everything that deletes versions asks, last under the promise of the very write that deletes
(`versions`).  The time it is given must be one that has passed by every clock that can be asked (`clock.bounds`): else
a lock would end early because one pod's clock is ahead.  What cannot be read (a later release wrote it) protects.

Not here: who may set or bypass what (`api.object_lock`).  Reference: "Locking objects with Object Lock", S3 user guide.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from holdfast_server.objects.record import Record

GOVERNANCE = "GOVERNANCE"
COMPLIANCE = "COMPLIANCE"
MODES = (GOVERNANCE, COMPLIANCE)

RETENTION = "x-holdfast-retention"
"""`<mode> <milliseconds since 1970>`."""
LEGAL_HOLD = "x-holdfast-legal-hold"
"""`ON` or `OFF`; absent where it was never set."""
BY_DEFAULT = "DEFAULT"
"""In the place of a retention, until its version is committed: what the bucket gives then, if anything."""
_ON, _OFF = "ON", "OFF"


class Retention(msgspec.Struct, frozen=True):
    mode: str
    until_ms: int
    """Since 1970."""


_UNREADABLE = Retention(COMPLIANCE, 1 << 62)


def retention_of(headers: Mapping[str, str]) -> Retention | None:
    """Of a version with these headers, whether or not its date is past."""
    text = headers.get(RETENTION)
    if text is None:
        return None
    mode, _, until = text.partition(" ")
    if mode not in MODES or not until.isdecimal():
        return _UNREADABLE
    return Retention(mode, int(until))


def with_retention(headers: Mapping[str, str], retention: Retention | None) -> dict[str, str]:
    kept = {name: value for name, value in headers.items() if name != RETENTION}
    if retention is not None:
        kept[RETENTION] = f"{retention.mode} {retention.until_ms}"
    return kept


def legal_hold_of(headers: Mapping[str, str]) -> bool | None:
    """None where it was never set."""
    text = headers.get(LEGAL_HOLD)
    return None if text is None else text != _OFF


def with_legal_hold(headers: Mapping[str, str], on: bool) -> dict[str, str]:
    return {**headers, LEGAL_HOLD: _ON if on else _OFF}


def protects(record: Record, earliest_ms: int, bypass_governance: bool = False) -> bool:
    """Whether this version must not be deleted.

    `earliest_ms`: a time since 1970 that has passed by every clock (`TimeBounds.earliest_ms`).  `bypass_governance`:
    whoever deletes it asked for that, and may.
    """
    return bool(legal_hold_of(record.headers)) or retains(retention_of(record.headers), earliest_ms, bypass_governance)


def retains(retention: Retention | None, earliest_ms: int, bypass_governance: bool = False) -> bool:
    """Whether the retention is in force for this asker."""
    if retention is None or retention.until_ms <= earliest_ms:
        return False
    return retention.mode != GOVERNANCE or not bypass_governance


def allows(before: Retention | None, after: Retention | None, earliest_ms: int, bypass_governance: bool) -> bool:
    """Whether one retention may take the place of another: in force, it can only be made longer."""
    if before is None or not retains(before, earliest_ms, bypass_governance):
        return True
    return after is not None and after.mode == before.mode and after.until_ms >= before.until_ms
