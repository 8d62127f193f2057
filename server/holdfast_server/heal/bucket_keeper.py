"""What the walk over buckets asks of the layer that knows what buckets are.

A port: `api.expiring` implements it; the walk (`bucket_walk`) finds what may be due on one drive, the keeper looks
again, decides and carries out.  Every verb may be called twice for the same thing, by two pods at once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from holdfast_server.contract.healing import BucketUsage
from holdfast_server.objects.record import Record
from holdfast_server.s3.expiry import Calendar, Facts, Why
from holdfast_server.s3.lifecycle import LifecycleRule


@dataclass(frozen=True, slots=True)
class WalkedBucket:
    name: str
    rules: Sequence[LifecycleRule] = ()
    """Those in force; disabled ones are left out."""
    versioned: bool = False
    """It keeps versions, or did so once."""


@dataclass(frozen=True, slots=True)
class Buckets:
    """All buckets of the tenant, at the beginning of a pass."""

    by_id: Mapping[bytes, WalkedBucket]
    deleted: frozenset[bytes]
    """Ids of buckets that were deleted so long ago that nothing in them can be under way, and never come back."""


@dataclass(slots=True)
class Outcome:
    """What was carried out."""

    done: Counter[Why] = field(default_factory=Counter)
    failed: int = 0
    """Could not be done now; a later pass finds it again."""
    locked: int = 0
    """Due, and kept by a lock."""

    def add(self, other: Outcome) -> None:
        self.done.update(other.done)
        self.failed += other.failed
        self.locked += other.locked


class BucketKeeper(Protocol):
    calendar: Calendar

    def now_ms(self) -> int:
        """A time that has passed by every pod's clock: what it makes due no pod's clock that is ahead made so."""

    def facts(self, found: Record) -> Facts:
        """What rules ask of a version."""

    async def look(self) -> Buckets:
        """Raises Unavailable."""

    async def expire(self, bucket_id: bytes, bucket: WalkedBucket, key: str, stamp: int) -> Outcome:
        """The current version of a key in a bucket that never kept versions, if it is that one still and is due.
        Raises nothing but CancelledError; so do the others."""

    async def settle(self, bucket_id: bytes, bucket: WalkedBucket, key: str) -> Outcome:
        """Look at all versions of a key, and end those that are due."""

    async def end_upload(self, bucket_id: bytes, bucket: WalkedBucket, key: str, upload_id: bytes) -> Outcome: ...

    async def begin_count(self, set_name: str, bucket_id: bytes) -> None:
        """What is written from now on may or may not be in the count that follows; raises nothing."""

    def counted(self, set_name: str, usage: BucketUsage, counted_ms: int) -> None:
        """What an erasure set holds of a bucket."""
