"""The peer port: another pod of the tenant.

Besides its drives, a pod asks its peers for three things: to forget what they cached (announcements), to let
go of a bucket that is being deleted, and what they remember of a drive slot (before a blank drive is formatted).
"""

from __future__ import annotations

from typing import Protocol

from holdfast_server.contract.admin import PodState
from holdfast_server.drives.port import Drive
from holdfast_server.drives.slot import SlotMemory


class PeerError(Exception):
    """The peer did not answer: unreachable, too late, or refused."""


class PeerRefused(PeerError):
    """It answered, and did not do what it was asked."""


class Peer(Protocol):
    pool: str
    ordinal: int
    node: int

    @property
    def online(self) -> bool: ...

    @property
    def epoch(self) -> int:
        """The newest pool-map epoch it reported; 0 before the first contact."""

    def drives(self) -> list[Drive]:
        """One per volume, in order; they exist (OFFLINE) even while the peer cannot be reached."""

    async def announce(self, topic: str, names: list[str]) -> None:
        """Cached documents have changed: `topic` is "documents", `names` theirs.  Raises PeerError."""

    async def fence_bucket(self, bucket_id: bytes) -> None:
        """Returns once no write to that bucket is under way on the peer and none will start until it has read
        the bucket's record anew (rule 12).  Raises PeerError."""

    async def remembered_slots(self) -> list[SlotMemory]:
        """Every slot of the tenant whose drive the peer has ever met, itself included.  Raises PeerError."""

    async def pod_state(self) -> PodState:
        """What the pod says of itself.  Raises PeerError."""

    async def start_scan(self) -> None:
        """Returns once the pod has been told to begin a scan pass of its drives.  Raises PeerError."""
