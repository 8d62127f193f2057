"""How eagerly a pod heals.  One value, given to the service; every default says why."""

from __future__ import annotations

from dataclasses import dataclass

from holdfast_server.clock.stamp import MAX_CLOCK_SKEW_MS
from holdfast_server.objects.healing import OPERATION_DEADLINE_SECONDS


@dataclass(frozen=True, slots=True, kw_only=True)
class HealSettings:
    interval_seconds: float = 1.0
    """Between two rounds when there is nothing to do; so a missed write waits about that long."""
    width: int = 64
    """Registers healed at once while no requests come: enough that commits share their fsyncs."""
    least_width: int = 4
    """The same under the slowest requests."""
    least_share: float = 0.1
    """Healing never takes less of its own time than this, however slow requests are: redundancy must come back."""
    busy_share: float = 0.5
    """Nor more than this while requests come at all."""
    tolerated_slowdown: float = 2.0
    """Requests may take so many times the usual before healing gives way."""
    slack_seconds: float = 0.002
    """What requests may take longer in any case: below it there is nothing to be felt."""
    queue_page: int = 1000
    """Entries of the repair queue looked at in one unit of work."""
    retry_seconds: float = 15.0
    """Before entries that could not be repaired, though every drive answers, are tried again."""
    leftovers_seconds: float = 2.0
    """Before what a filling left is tried again: it was most often being written, and is not for long."""
    retry_degraded_seconds: float = 600.0
    """The same while a drive is away: most entries wait for that very drive."""
    compare_page: int = 1000
    """Registers of which drives are compared in one unit of work."""
    returned_delay_seconds: float = 5.0
    """After a drive was opened, before it is looked through for what it missed: the repair queues of the others
    bring most of that, and peers have to be found first."""
    scan_pass_seconds: float = 24 * 3600.0
    """In which the scanner goes once over a drive, where it can; it reads the drive's shards that fast."""
    scan_page: int = 250
    """Registers of one unit of the scanner's work."""
    scan_folders: int = 1
    """Folders of shards looked through in one unit of the scanner's work; the simulation has no time for 256."""
    scan_rest_seconds: float = 0.02
    """Between two units at the least, so that a pass over few registers is spread out too."""
    scan_longest_rest_seconds: float = 60.0
    bucket_pass_seconds: float = 3600.0
    """Between the beginnings of two walks over what buckets hold (`bucket_walk`): how late after midnight an object may
    expire, and how old a count of what a bucket holds may be."""
    bucket_share: float = 0.02
    """Of the time, what that walk may take; where one pass needs more, the next begins later."""
    bucket_page: int = 1000
    """Records of one unit of that walk."""
    orphan_age_seconds: float = 3600.0
    """A shard file that no record names may be on its way to being named for far less than this."""
    part_age_seconds: float = 3600.0
    """A part whose upload has ended is removed only when it is so old, long after every operation upon it died."""
    settled_seconds: float = OPERATION_DEADLINE_SECONDS + MAX_CLOCK_SKEW_MS / 1000
    """A tombstone is dropped only after every drive has held nothing else for so long (`heal.tombstones`)."""
    age_seconds: float = 2 * OPERATION_DEADLINE_SECONDS + MAX_CLOCK_SKEW_MS / 1000
    """And only when its stamp is so old."""
    upload_seconds: float = 3600.0
    """The tombstone of an upload answers a client that repeats its CompleteMultipartUpload; clients repeat for
    minutes."""
    drop_page: int = 512
    """Tombstones weighed and dropped in one unit of work."""
    drop_interval_seconds: float = 5.0
    """Between two passes over a drive's tombstones."""
