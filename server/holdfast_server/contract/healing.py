"""The JSON of healing: what a pod's drives still lack, how far it is, and when it will be done.

One `HealProgress` per pod, about its *own* drives; whoever wants a tenant's adds up those of its pods.  Counters
are since the pod's start, unless said otherwise.  Usage is counted on every drive of a set, and each counts the
whole set: take one drive per set, never the sum of several.
"""

from __future__ import annotations

from typing import Literal

import msgspec


class _Struct(msgspec.Struct, frozen=True, rename="camel"):
    pass


class FillingProgress(_Struct, frozen=True, kw_only=True):
    """A drive being compared with the others of its set, and given what it lacks."""

    replacement: bool
    """True: an empty drive being filled, which does not count before it is done.  False: a full drive that was
    away, or is due, and is looked through for what it missed."""
    registers_done: int = 0
    """Compared so far in this pass (which goes on where it was after a restart)."""
    registers_total: int = 0
    """Estimated from the other drives' counts; 0: not known yet."""
    registers_copied: int = 0
    bytes_copied: int = 0
    """Of shards brought to the drive."""
    registers_left: int = 0
    """Could not be healed in this pass; a replacement begins another one then."""
    registers_per_second: float = 0.0
    bytes_per_second: float = 0.0
    seconds_left: float | None = None
    """Estimated; None: not known yet."""


class ScannerProgress(_Struct, frozen=True, kw_only=True):
    """The endless slow pass over one drive."""

    fraction: float = 0.0
    """How much of the present pass is done, 0 to 1, as far as the last pass lets one tell."""
    pass_began_ms: int = 0
    last_pass_ended_ms: int = 0
    """0: no pass has been completed since the drive was made."""
    last_pass_seconds: float = 0.0
    registers: int = 0
    """Looked at since the pod's start; the following, too."""
    bytes_verified: int = 0
    rotten_found: int = 0
    not_whole_found: int = 0
    orphans_removed: int = 0
    """Shard files that no record named."""
    parts_removed: int = 0
    """Parts of uploads that had ended."""


class BucketUsage(_Struct, frozen=True, kw_only=True):
    """What one erasure set holds of one bucket, as of the last walk over it."""

    bucket_id: str
    """Hexadecimal."""
    objects: int
    size_bytes: int
    """As clients see it, without parity; of all versions."""
    versions: int = 0
    """Objects, versions that were replaced, and delete markers."""
    parts: int = 0
    """Of uploads that are neither completed nor aborted."""
    parts_size_bytes: int = 0


class BucketWalkProgress(_Struct, frozen=True, kw_only=True):
    """The walk over what buckets hold: lifecycle, usage, what deleted buckets left.  Counters since the pod's start."""

    leads: bool = False
    """This drive walks for its set, and a pass is under way."""
    fraction: float = 0.0
    last_pass_ended_ms: int = 0
    """0: no pass has been completed by this drive."""
    registers: int = 0
    expired: dict[str, int] = {}
    """Versions and uploads that lifecycle rules ended, by reason (`s3.expiry.Why`)."""
    locked: int = 0
    """Times a version was due and kept by a lock."""
    failed: int = 0
    """Times something due could not be ended; a later pass finds it again."""
    strays_removed: int = 0
    """What had been left in buckets that were deleted."""
    unknown_buckets: int = 0
    """Ids of buckets that nobody knows and nobody is known to have deleted; what lies there is left alone."""


class DriveHealing(_Struct, frozen=True, kw_only=True):
    pool: str
    set_index: int
    position: int
    volume: int
    state: str
    """As in `health.DriveHealth`."""
    queue_length: int = 0
    """Registers that some drive of the set missed."""
    oldest_entry_seconds: float = 0.0
    """Since the oldest of them was written; 0 where the queue is empty."""
    filling: FillingProgress | None = None
    scanner: ScannerProgress = ScannerProgress()
    usage: list[BucketUsage] = []
    usage_counted_ms: int = 0
    """When the pass that counted was complete; 0: never."""
    buckets: BucketWalkProgress = BucketWalkProgress()


RegisterKind = Literal["object", "version", "upload", "part", "document"]
"""`version`: one that is not current."""


class StuckRegister(_Struct, frozen=True, kw_only=True):
    """A version that the drives can neither decide nor rebuild: an admin's decision, `heal resolve`."""

    kind: str
    """A `RegisterKind`."""
    bucket_id: str
    """Hexadecimal."""
    key: str
    version: str
    """Hexadecimal: of a version its id, of an upload its; empty for an object."""
    stamp: int
    copies: int
    copies_needed: int
    since_ms: int


class SetHealing(_Struct, frozen=True, kw_only=True):
    """Of a set of which this pod has drives."""

    pool: str
    index: int
    queue_length: int = 0
    """The longest queue of this pod's drives of the set: holders keep the same entries."""
    oldest_entry_seconds: float = 0.0
    stuck: int = 0
    stuck_samples: list[StuckRegister] = []
    """At most `MAX_STUCK_SAMPLES`."""


MAX_STUCK_SAMPLES = 20


class HealProgress(_Struct, frozen=True, kw_only=True):
    drives: list[DriveHealing] = []
    sets: list[SetHealing] = []
    registers_repaired: int = 0
    """Made whole again from the repair queue."""
    copies_made: int = 0
    """Records brought to a drive that lacked them, and shards rebuilt in place."""
    failed: int = 0
    """Attempts that ended in an error and will be made again."""
    drives_filled: int = 0
    read_repairs: int = 0
    read_repairs_dropped: int = 0
    """Because too many were waiting; the scanner finds what they would have found."""
    work_share: float = 1.0
    """How much of its time healing takes for itself now, 0 to 1; the rest is left to requests."""
    tombstones_dropped: int = 0
    """Deletes of which nothing is left."""
    tombstones_waiting: int = 0
    """Met in the present or last pass and not dropped: some drive is away, heals, or has not settled them."""
    foreground_latency_seconds: float = 0.0
    """Of reads and writes of records now, smoothed; 0: no requests lately."""
