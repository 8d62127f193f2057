"""Which of a drive's records may be due: the first look, from one drive and without asking anybody.  Pure.

In a bucket that never kept versions a record says all there is to know.  Where versions are kept a key is named if any
record of it may be due; the whole of it is looked at then (`s3.expiry.due_versions`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from holdfast_server.drives.port import ScanEntry
from holdfast_server.heal.bucket_keeper import WalkedBucket
from holdfast_server.objects import record
from holdfast_server.objects.record import Record
from holdfast_server.s3.expiry import Calendar, Facts, expires_at, may_be_due, upload_ends_at


class Due(NamedTuple):
    key: str
    stamp: int = 0
    """Of the version that was judged; 0 where the whole key is to be looked at."""
    upload_id: bytes = b""


def find_due(
    bucket: WalkedBucket,
    records: Iterable[tuple[ScanEntry, Record]],
    facts_of: Callable[[Record], Facts],
    now_ms: int,
    calendar: Calendar,
) -> list[Due]:
    found: list[Due] = []
    for entry, one in records:
        register = entry.register
        kind, key = register.space[:1], register.key
        if kind == record.UPLOAD_SPACE:
            ends = upload_ends_at(bucket.rules, key, one.modified_ms, calendar)
            if ends is not None and ends[0] <= now_ms:
                found.append(Due(key, upload_id=register.version))
        elif kind not in (record.OBJECT_SPACE, record.VERSION_SPACE):
            continue
        elif bucket.versioned:
            facts = Facts(one.modified_ms, one.size_bytes, one.marker)
            if found and found[-1].key == key:
                continue
            if may_be_due(bucket.rules, key, facts, kind == record.OBJECT_SPACE, now_ms, calendar):
                found.append(Due(key))
        elif not one.marker:
            expires = expires_at(bucket.rules, key, facts_of(one), calendar)
            if expires is not None and expires[0] <= now_ms:
                found.append(Due(key, entry.newest.stamp))
    return found
