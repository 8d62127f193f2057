"""A declared bucket's lifecycle rules as S3's document, and its quota as the admin API's.  Pure.

The elements stand in the order in which the store shows them: what it shows is the same where it means the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree import ElementTree

import msgspec

from holdfast_operator.tenant.spec import LifecycleRule, QuotaSpec
from holdfast_server.contract.buckets import BucketQuota

_Element = ElementTree.Element


def lifecycle_document(rules: Sequence[LifecycleRule]) -> bytes:
    root = _Element("LifecycleConfiguration")
    for rule in rules:
        row = ElementTree.SubElement(root, "Rule")
        _text(row, "ID", rule.id)
        _filter(row, rule)
        _text(row, "Status", "Enabled" if rule.enabled else "Disabled")
        _actions(row, rule)
    return ElementTree.tostring(root, encoding="utf-8")


def _filter(row: _Element, rule: LifecycleRule) -> None:
    terms: list[tuple[str, object]] = [("Prefix", rule.prefix)] if rule.prefix else []
    terms += [("Tag", pair) for pair in sorted(rule.tags.items())]
    for name, size in (
        ("ObjectSizeGreaterThan", rule.larger_than_bytes),
        ("ObjectSizeLessThan", rule.smaller_than_bytes),
    ):
        terms += [(name, size)] if size is not None else []
    into = ElementTree.SubElement(row, "Filter")
    if len(terms) > 1:
        into = ElementTree.SubElement(into, "And")
    for name, value in terms:
        if isinstance(value, tuple):
            tag = ElementTree.SubElement(into, name)
            _text(tag, "Key", value[0])
            _text(tag, "Value", value[1])
        else:
            _text(into, name, value)


def _actions(row: _Element, rule: LifecycleRule) -> None:
    expiration = _Element("Expiration")
    if rule.days is not None:
        _text(expiration, "Days", rule.days)
    if rule.date:
        _text(expiration, "Date", f"{rule.date}T00:00:00.000Z")
    if rule.expired_marker is not None:
        _text(expiration, "ExpiredObjectDeleteMarker", "true" if rule.expired_marker else "false")
    noncurrent = _Element("NoncurrentVersionExpiration")
    if rule.noncurrent_days is not None:
        _text(noncurrent, "NoncurrentDays", rule.noncurrent_days)
    if rule.newer_versions is not None:
        _text(noncurrent, "NewerNoncurrentVersions", rule.newer_versions)
    abort = _Element("AbortIncompleteMultipartUpload")
    if rule.abort_days is not None:
        _text(abort, "DaysAfterInitiation", rule.abort_days)
    row.extend(part for part in (expiration, noncurrent, abort) if len(part))


def _text(into: _Element, name: str, value: object) -> None:
    ElementTree.SubElement(into, name).text = str(value)


def quota_document(quota: QuotaSpec) -> bytes | None:
    """None takes it away."""
    if quota == QuotaSpec():
        return None
    return msgspec.json.encode(BucketQuota(size_bytes=quota.size_bytes, objects=quota.objects))


def shown_quota(document: bytes) -> bytes | None:
    """What the admin API answers, as it would be put; None where there is none."""
    quota = msgspec.json.decode(document, type=BucketQuota)
    return None if quota == BucketQuota() else msgspec.json.encode(quota)
