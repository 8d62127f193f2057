"""What lifecycle rules make due: which versions of a key, which uploads, at a given time.

Days are counted as S3 documents it: so many times 24 hours after an object was written (a version replaced, an upload
begun), then up to the next midnight UTC.  A `Calendar` with another length of a day, which only tests have, counts from
the very moment and does not round.

- What is current expires by Days or Date.  Where versions are kept a delete marker takes its place; a marker stays,
  unless it is alone: then it is removed, by ExpiredObjectDeleteMarker, or by Days once it is old enough itself.
- What has been replaced expires by NoncurrentDays after that, if more than NewerNoncurrentVersions of those replaced
  are newer.
- Of several rules that apply the earliest counts; a version that is locked is passed over by whoever carries this out.

The decision is about versions as they were read; carrying it out is conditional on that (`api.expiring`).  Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple
from urllib.parse import quote

import msgspec

from holdfast_server.s3.headers import http_date
from holdfast_server.s3.lifecycle import DAY_MS, LATEST_MS, LifecycleRule

EXPIRATION_HEADER = "x-amz-expiration"


class Calendar(msgspec.Struct, frozen=True):
    """How long a rule's day is."""

    day_ms: int = DAY_MS

    def after(self, moment_ms: int, days: int) -> int:
        """When what is to last so many days from a moment is over, in milliseconds since 1970."""
        end_ms = moment_ms + days * self.day_ms
        return end_ms if self.day_ms != DAY_MS else -(-end_ms // DAY_MS) * DAY_MS


class Why(StrEnum):
    """What becomes of something, for metrics and audit lines."""

    EXPIRED = "expired"
    """A current version is deleted, or hidden by a delete marker where versions are kept."""
    NONCURRENT = "noncurrent"
    MARKER = "delete_marker"
    """A delete marker that hid nothing any more is removed."""
    UPLOAD = "upload"
    """An unfinished upload is aborted."""


class Facts(NamedTuple):
    """One version, as far as rules ask."""

    modified_ms: int
    size_bytes: int = 0
    marker: bool = False
    tags: Mapping[str, str] = {}


class Due(NamedTuple):
    """Something that is to go."""

    place: int
    """Of the version among those of its key; 0 is current."""
    why: Why
    rule: str
    since_ms: int


def expires_at(rules: Iterable[LifecycleRule], key: str, version: Facts, calendar: Calendar) -> tuple[int, str] | None:
    """When a current version that is no marker expires, and by which rule; None if never."""
    found: tuple[int, str] | None = None
    for rule in rules:
        if not rule.enabled or (rule.days is None and rule.date_ms is None):
            continue
        at_ms = calendar.after(version.modified_ms, rule.days) if rule.days is not None else rule.date_ms
        assert at_ms is not None
        if (found is None or at_ms < found[0]) and rule.names(key, version.size_bytes, lambda: version.tags):
            found = at_ms, rule.id
    return found


def due_versions(
    rules: Sequence[LifecycleRule],
    key: str,
    versions: Sequence[Facts],
    now_ms: int,
    calendar: Calendar,
    preceding: int = 0,
) -> list[Due]:
    """Of the versions of one key, newest first, those that are due, oldest first.

    All of its versions; or a run of them, before which there are `preceding` newer ones: then the first of the run says
    only when the second was replaced.
    """
    if not versions:
        return []
    due = [
        found
        for place in range(len(versions) - 1, 0, -1)
        if (found := _noncurrent(rules, key, versions, place, preceding, now_ms, calendar)) is not None
    ]
    if preceding:
        return due
    current = versions[0]
    if current.marker:
        ended = _lone_marker(rules, key, current, calendar) if len(versions) == 1 else None
        why = Why.MARKER
    else:
        ended, why = expires_at(rules, key, current, calendar), Why.EXPIRED
    if ended is not None and ended[0] <= now_ms:
        due.append(Due(0, why, ended[1], ended[0]))
    return due


def _noncurrent(
    rules: Sequence[LifecycleRule],
    key: str,
    versions: Sequence[Facts],
    place: int,
    preceding: int,
    now_ms: int,
    calendar: Calendar,
) -> Due | None:
    version, replaced_ms = versions[place], versions[place - 1].modified_ms
    replaced_since = preceding + place - 1
    for rule in rules:
        if not rule.enabled or rule.noncurrent_days is None or replaced_since < (rule.newer_versions or 0):
            continue
        since_ms = calendar.after(replaced_ms, rule.noncurrent_days)
        if since_ms > now_ms:
            continue
        if rule.names_bare(key) if version.marker else rule.names(key, version.size_bytes, lambda: version.tags):
            return Due(place, Why.NONCURRENT, rule.id, since_ms)
    return None


def _lone_marker(rules: Iterable[LifecycleRule], key: str, marker: Facts, calendar: Calendar) -> tuple[int, str] | None:
    """When a delete marker that hides nothing goes."""
    found: tuple[int, str] | None = None
    for rule in rules:
        if not rule.enabled or not rule.names_bare(key):
            continue
        at_ms = marker.modified_ms if rule.expired_marker else None
        if rule.days is not None:
            at_ms = calendar.after(marker.modified_ms, rule.days)
        elif rule.date_ms is not None:
            at_ms = rule.date_ms
        if at_ms is not None and (found is None or at_ms < found[0]):
            found = at_ms, rule.id
    return found


def may_be_due(
    rules: Iterable[LifecycleRule], key: str, version: Facts, current: bool, now_ms: int, calendar: Calendar
) -> bool:
    """Whether a look at all versions of the key could show that this one is due.  Never wrongly no."""
    for rule in rules:
        if not rule.enabled or (rule.prefix and not key.startswith(rule.prefix)):
            continue
        days = rule.days if current else rule.noncurrent_days
        if current and version.marker and rule.expired_marker:
            return True
        if current and rule.date_ms is not None and rule.date_ms <= now_ms:
            return True
        # What was replaced was so no earlier than it was written.
        if days is not None and calendar.after(version.modified_ms, days) <= now_ms:
            return True
    return False


def upload_ends_at(
    rules: Iterable[LifecycleRule], key: str, begun_ms: int, calendar: Calendar
) -> tuple[int, str] | None:
    """When an upload that is not completed is aborted, and by which rule; None if never."""
    ends = [
        (calendar.after(begun_ms, rule.abort_days), rule.id)
        for rule in rules
        if rule.enabled and rule.abort_days is not None and rule.names_bare(key)
    ]
    return min(ends, default=None)


def expiration_header(rules: Sequence[LifecycleRule], key: str, version: Facts) -> dict[str, str]:
    """`x-amz-expiration` of a current version; nothing where no rule applies to it."""
    found = expires_at(rules, key, version, Calendar()) if rules else None
    if found is None:
        return {}
    return {EXPIRATION_HEADER: f'expiry-date="{_shown(found[0])}", rule-id="{quote(found[1], safe="")}"'}


def abort_headers(rules: Sequence[LifecycleRule], key: str, begun_ms: int) -> dict[str, str]:
    """`x-amz-abort-date` and `x-amz-abort-rule-id` of an upload."""
    found = upload_ends_at(rules, key, begun_ms, Calendar()) if rules else None
    if found is None:
        return {}
    return {"x-amz-abort-date": _shown(found[0]), "x-amz-abort-rule-id": quote(found[1], safe="")}


def _shown(moment_ms: int) -> str:
    """A rule may have more days than there are in the calendar."""
    return http_date(min(moment_ms, LATEST_MS))
