"""The part of a declared bucket that says how long its objects are kept and how much it may hold.

As in `parse`, a fault is noted and reading goes on.  What the store would refuse is refused here, with the field.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

from holdfast_operator.quantities import parse_quantity
from holdfast_operator.tenant import limits
from holdfast_operator.tenant.fields import Fields
from holdfast_operator.tenant.spec import LifecycleRule, QuotaSpec
from holdfast_server.contract.buckets import MAX_QUOTA_OBJECTS, MAX_QUOTA_SIZE_BYTES

_ACTIONS = ("expiration", "noncurrentVersionExpiration", "abortIncompleteMultipartUpload")


def parse_quota(fields: Fields) -> QuotaSpec:
    size_bytes = None
    if fields.has("size"):
        text = fields.text("size", max_size=32, pattern=limits.QUANTITY)
        size_bytes = int(parse_quantity(text)) if re.fullmatch(limits.QUANTITY, text) else 1
        if not 1 <= size_bytes <= MAX_QUOTA_SIZE_BYTES:
            fields.fault("size", f"{text} is not within 1 to {MAX_QUOTA_SIZE_BYTES} bytes")
    quota = QuotaSpec(size_bytes=size_bytes, objects=fields.integer("objects", None, low=1, high=MAX_QUOTA_OBJECTS))
    fields.finish()
    return quota


def parse_lifecycle(fields: Fields) -> tuple[LifecycleRule, ...]:
    """`fields`: of the bucket."""
    rules = tuple(map(_rule, fields.items("lifecycle", max_count=limits.MAX_LIFECYCLE_RULES)))
    seen: set[str] = set()
    for index, rule in enumerate(rules):
        if rule.id in seen:
            fields.fault(f"lifecycle[{index}].id", f"{rule.id!r} stands twice")
        seen.add(rule.id)
    return rules


def _rule(fields: Fields) -> LifecycleRule:
    chosen, expiration = fields.child("filter"), fields.child("expiration")
    noncurrent, abort = fields.child("noncurrentVersionExpiration"), fields.child("abortIncompleteMultipartUpload")
    has_marker = expiration.has("expiredObjectDeleteMarker")
    rule = LifecycleRule(
        id=fields.text("id", required=True, max_size=255),
        enabled=fields.flag("enabled", True),
        prefix=chosen.text("prefix", max_size=1024),
        tags=chosen.text_mapping("tags"),
        larger_than_bytes=chosen.integer("objectSizeGreaterThan", None, low=0, high=limits.MAX_FILTER_SIZE_BYTES),
        smaller_than_bytes=chosen.integer("objectSizeLessThan", None, low=1, high=limits.MAX_FILTER_SIZE_BYTES),
        days=expiration.integer("days", None, low=1, high=limits.MAX_LIFECYCLE_DAYS),
        date=expiration.text("date", max_size=10, pattern=limits.DATE),
        expired_marker=expiration.flag("expiredObjectDeleteMarker") if has_marker else None,
        noncurrent_days=noncurrent.integer("noncurrentDays", None, low=1, high=limits.MAX_LIFECYCLE_DAYS),
        newer_versions=noncurrent.integer("newerNoncurrentVersions", None, low=1, high=100),
        abort_days=abort.integer("daysAfterInitiation", None, low=1, high=limits.MAX_LIFECYCLE_DAYS),
    )
    for given, part, needed in (
        ("noncurrentVersionExpiration", noncurrent, "noncurrentDays"),
        ("abortIncompleteMultipartUpload", abort, "daysAfterInitiation"),
    ):
        if fields.has(given) and not part.has(needed):
            part.fault(needed, "is required")
    for part in (chosen, expiration, noncurrent, abort, fields):
        part.finish()
    _check(fields, chosen, expiration, rule)
    return rule


def _check(fields: Fields, chosen: Fields, expiration: Fields, rule: LifecycleRule) -> None:
    if not any(fields.has(action) for action in _ACTIONS):
        fields.fault("", f"needs at least one of {', '.join(_ACTIONS)}")
    if fields.has("expiration") and sum(map(expiration.has, ("days", "date", "expiredObjectDeleteMarker"))) != 1:
        expiration.fault("", "has exactly one of days, date and expiredObjectDeleteMarker")
    if rule.date and re.fullmatch(limits.DATE, rule.date):
        try:
            datetime.strptime(rule.date, "%Y-%m-%d").replace(tzinfo=UTC)
        except ValueError:
            expiration.fault("date", f"{rule.date!r} is no day")
    if len(rule.tags) > limits.MAX_OBJECT_TAGS:
        chosen.fault("tags", f"has {len(rule.tags)} entries, at most {limits.MAX_OBJECT_TAGS} are allowed")
    larger, smaller = rule.larger_than_bytes, rule.smaller_than_bytes
    if larger is not None and smaller is not None and smaller <= larger:
        chosen.fault("objectSizeLessThan", "must be greater than objectSizeGreaterThan")
    if rule.tags or larger is not None or smaller is not None:
        if rule.expired_marker is not None:
            expiration.fault("expiredObjectDeleteMarker", "goes with no filter but a prefix: markers have no content")
        if rule.abort_days is not None:
            fields.fault("abortIncompleteMultipartUpload", "goes with no filter but a prefix: uploads have no content")
