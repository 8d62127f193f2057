"""A drive's place: which tenant, pool, erasure set and position it is meant to fill.

`Slot` is what the configuration says of a place, `SlotMemory` what a pod remembers of the drive it once met
there.  The memory decides, together with the peers' memories, whether a blank drive may be formatted or is a
replacement that has to heal (rule 11 of `docs/quorum.md`); deciding is the wiring's business, not done here.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

Place = tuple[str, int, int]
"""Pool, set index, position."""


@dataclass(frozen=True, slots=True)
class Slot:
    """The place a drive is opened for; a drive whose identity names another place is refused."""

    tenant_id: str
    pool: str
    set_index: int
    position: int

    def __str__(self) -> str:
        return f"tenant {self.tenant_id}, pool {self.pool}, set {self.set_index}, position {self.position}"


class SlotMemory(msgspec.Struct, frozen=True, array_like=True):
    """What a pod remembers of a drive slot, its own or another's.  The newest incarnation wins."""

    pool: str
    set_index: int
    position: int
    drive_id: bytes
    incarnation: int
