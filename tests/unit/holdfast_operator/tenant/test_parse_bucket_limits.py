"""Lifecycle rules and quotas of declared buckets: what is read, and which fault names which field."""

from __future__ import annotations

from typing import Any

import pytest

from holdfast_operator.tenant.parse import parse_tenant
from holdfast_operator.tenant.spec import LifecycleRule, QuotaSpec

AT = "spec.buckets[0]"


def faults(tenant_body: Any, **bucket: Any) -> list[str]:
    parsed = parse_tenant(tenant_body(buckets=[{"name": "b01", **bucket}], users=[]))
    return [str(fault) for fault in parsed.faults]


def test_rules_and_quotas_are_read_and_their_absence_kept_apart_from_emptiness(tenant_body: Any) -> None:
    rule = {
        "id": "r",
        "enabled": False,
        "filter": {"prefix": "p/", "tags": {"a": "1"}, "objectSizeGreaterThan": 5, "objectSizeLessThan": 9},
        "expiration": {"date": "2030-01-31"},
        "noncurrentVersionExpiration": {"noncurrentDays": 3, "newerNoncurrentVersions": 2},
    }
    buckets = [
        {"name": "b01", "lifecycle": [rule], "quota": {"size": "2Gi", "objects": 7}},
        {"name": "b02", "lifecycle": [], "quota": {}},
        {"name": "b03"},
    ]
    tenant = parse_tenant(tenant_body(buckets=buckets, users=[])).spec
    assert tenant is not None
    full, empty, absent = tenant.buckets
    assert full.lifecycle == (
        LifecycleRule(
            "r", enabled=False, prefix="p/", tags={"a": "1"}, larger_than_bytes=5, smaller_than_bytes=9,
            date="2030-01-31", noncurrent_days=3, newer_versions=2,
        ),
    )  # fmt: skip
    assert full.quota == QuotaSpec(2 << 30, 7)
    assert (empty.lifecycle, empty.quota) == ((), QuotaSpec())
    assert (absent.lifecycle, absent.quota) == (None, None)


DAYS = {"expiration": {"days": 1}}


@pytest.mark.parametrize(
    ("rule", "fault"),
    [
        (DAYS, "id: is required"),
        ({"id": "r"}, ": needs at least one of"),
        ({"id": "r", "expiration": {}}, "expiration: has exactly one of"),
        ({"id": "r", "expiration": {"days": 1, "date": "2030-01-01"}}, "expiration: has exactly one of"),
        ({"id": "r", "expiration": {"days": 0}}, "expiration.days: 0 is not within 1 to"),
        ({"id": "r", "expiration": {"date": "2030-02-30"}}, "expiration.date: '2030-02-30' is no day"),
        ({"id": "r", "expiration": {"date": "tomorrow"}}, "expiration.date: 'tomorrow' does not match"),
        ({"id": "r", "noncurrentVersionExpiration": {}}, "noncurrentVersionExpiration.noncurrentDays: is required"),
        (
            {"id": "r", "noncurrentVersionExpiration": {"noncurrentDays": 1, "newerNoncurrentVersions": 101}},
            "noncurrentVersionExpiration.newerNoncurrentVersions: 101 is not within",
        ),
        (
            {"id": "r", "abortIncompleteMultipartUpload": {}},
            "abortIncompleteMultipartUpload.daysAfterInitiation: is required",
        ),
        (
            {"id": "r", "filter": {"tags": {"a": "1"}}, "expiration": {"expiredObjectDeleteMarker": True}},
            "expiration.expiredObjectDeleteMarker: goes with no filter but a prefix",
        ),
        (
            {"id": "r", "filter": {"objectSizeGreaterThan": 5, "objectSizeLessThan": 5}, **DAYS},
            "filter.objectSizeLessThan: must be greater",
        ),
        ({"id": "r", "filter": {"suffix": ".log"}, **DAYS}, "filter.suffix: is not a field this operator knows"),
        ({"id": "r", "transition": {}, **DAYS}, "transition: is not a field this operator knows"),
    ],
)
def test_a_fault_of_a_rule_names_its_field(tenant_body: Any, rule: dict[str, Any], fault: str) -> None:
    told = faults(tenant_body, lifecycle=[rule])
    assert any(one.startswith(f"{AT}.lifecycle[0]") and fault in one for one in told), told


def test_two_rules_of_one_name_are_refused(tenant_body: Any) -> None:
    assert faults(tenant_body, lifecycle=[{"id": "r", **DAYS}] * 2) == [f"{AT}.lifecycle[1].id: 'r' stands twice"]


@pytest.mark.parametrize(
    ("quota", "fault"),
    [
        ({"size": "much"}, "quota.size: 'much' does not match"),
        ({"size": "0"}, "quota.size: 0 is not within"),
        ({"size": "9999999Ei"}, "quota.size: 9999999Ei is not within"),
        ({"objects": 0}, "quota.objects: 0 is not within"),
        ({"bytes": 1}, "quota.bytes: is not a field this operator knows"),
    ],
)
def test_a_fault_of_a_quota_names_its_field(tenant_body: Any, quota: dict[str, Any], fault: str) -> None:
    assert any(one.startswith(f"{AT}.{fault}") for one in faults(tenant_body, quota=quota))
