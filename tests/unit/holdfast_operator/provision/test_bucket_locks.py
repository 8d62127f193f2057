"""A bucket's declared object lock: read from the Tenant, made, kept as declared; what is locked outlives the bucket's
`deletionPolicy: Delete`."""

from __future__ import annotations

from typing import Any

import pytest

from holdfast_operator.provision.bucket_settings import OBJECT_LOCK, VERSIONING, settings_of
from holdfast_operator.provision.client import HttpStoreClient, StoreRefused
from holdfast_operator.provision.drift import find_drift
from holdfast_operator.provision.execute import execute
from holdfast_operator.provision.plan import ProvisionPlan
from holdfast_operator.tenant.parse import parse_tenant
from holdfast_operator.tenant.spec import BucketSpec, ObjectLockSpec


def plan_of(bucket: BucketSpec) -> ProvisionPlan:
    return ProvisionPlan(buckets=(bucket.name,), settings=((bucket.name, settings_of(bucket)),))


def parsed(tenant_body: Any, bucket: dict[str, Any]) -> tuple[BucketSpec | None, list[str]]:
    found = parse_tenant(tenant_body(buckets=[{"name": "b01", **bucket}], users=[]))
    faults = [str(fault) for fault in found.faults]
    return (None if found.spec is None else found.spec.buckets[0]), faults


def test_it_is_read_with_its_default(tenant_body: Any) -> None:
    for given, expected in (
        ({"enabled": True}, ObjectLockSpec()),
        ({"enabled": True, "mode": "COMPLIANCE", "days": 30}, ObjectLockSpec("COMPLIANCE", days=30)),
        ({"enabled": True, "mode": "GOVERNANCE", "years": 7}, ObjectLockSpec("GOVERNANCE", years=7)),
        ({"enabled": False}, None),
    ):
        bucket, faults = parsed(tenant_body, {"objectLock": given})
        assert faults == []
        assert bucket is not None
        assert bucket.object_lock == expected


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        ({"objectLock": {"enabled": True, "mode": "COMPLIANCE"}}, "objectLock.mode: needs either days or years"),
        (
            {"objectLock": {"enabled": True, "mode": "COMPLIANCE", "days": 1, "years": 1}},
            "objectLock.mode: needs either days or years",
        ),
        ({"objectLock": {"enabled": True, "days": 1}}, "objectLock.mode: is required where days or years are given"),
        (
            {"objectLock": {"enabled": False, "mode": "GOVERNANCE", "days": 1}},
            "objectLock.enabled: must be true for a default retention",
        ),
        (
            {"objectLock": {"enabled": True}, "versioning": "Suspended"},
            "versioning: cannot be Suspended: objectLock keeps versions",
        ),
    ],
)
def test_what_cannot_be_is_told_by_its_field(tenant_body: Any, given: dict[str, Any], fault: str) -> None:
    assert parsed(tenant_body, given)[1] == [f"spec.buckets[0].{fault}"]


async def test_it_is_made_with_its_versions_and_kept_as_declared(store: HttpStoreClient) -> None:
    declared = BucketSpec("b01", object_lock=ObjectLockSpec("GOVERNANCE", days=30))
    outcome = await execute(plan_of(declared), store)
    assert [(item.name, item.state, item.message) for item in outcome.buckets] == [("b01", "Ready", "")]
    assert b"Enabled" in (await store.bucket_setting("b01", VERSIONING) or b"")
    assert await find_drift(plan_of(declared), store) == ()
    bare = BucketSpec("b01", object_lock=ObjectLockSpec())
    assert await find_drift(plan_of(bare), store) == (f"{OBJECT_LOCK} of bucket b01 was changed",)
    assert (await execute(plan_of(bare), store)).complete
    assert b"Days" not in (await store.bucket_setting("b01", OBJECT_LOCK) or b"")
    assert await find_drift(plan_of(declared), store) == (f"{OBJECT_LOCK} of bucket b01 was changed",)
    assert await find_drift(plan_of(BucketSpec("b01")), store) == (), "what is not declared is left alone"


async def test_a_bucket_that_is_there_begins_to_lock(store: HttpStoreClient) -> None:
    await store.create_bucket("b01")
    declared = BucketSpec("b01", object_lock=ObjectLockSpec("COMPLIANCE", years=1))
    assert len(await find_drift(plan_of(declared), store)) == 2
    assert (await execute(plan_of(declared), store)).complete
    assert await find_drift(plan_of(declared), store) == ()
    suspended = await execute(plan_of(BucketSpec("b01", versioning="Suspended")), store)
    assert [item.state for item in suspended.buckets] == ["Failed"]
    assert "InvalidBucketState" in suspended.buckets[0].message


async def test_what_is_locked_outlives_a_bucket_that_is_declared_no_more(store: HttpStoreClient) -> None:
    await execute(plan_of(BucketSpec("b01", object_lock=ObjectLockSpec())), store)
    await store._call("PUT", "/b01/k", b"kept")
    retention = b"<Retention><Mode>COMPLIANCE</Mode><RetainUntilDate>2140-01-01T00:00:00Z</RetainUntilDate></Retention>"
    await store._call("PUT", "/b01/k?retention", retention)
    await store._call("DELETE", "/b01/k")
    outcome = await execute(ProvisionPlan(doomed_buckets=("b01",)), store)
    assert [(item.name, item.state) for item in outcome.buckets] == [("b01", "NotEmpty")]
    versions = await store._call("GET", "/b01?versions")
    version = versions.partition(b"<Version><Key>k</Key><VersionId>")[2].partition(b"<")[0].decode()
    with pytest.raises(StoreRefused, match="AccessDenied"):
        await store._call("DELETE", f"/b01/k?versionId={version}")
    assert await store._call("GET", f"/b01/k?versionId={version}") == b"kept"
