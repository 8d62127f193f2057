"""Declared lifecycle rules and quotas: made, found unchanged by what the store shows, corrected, taken away."""

from __future__ import annotations

from holdfast_operator.provision.bucket_settings import LIFECYCLE, QUOTA, settings_of
from holdfast_operator.provision.client import HttpStoreClient
from holdfast_operator.provision.drift import find_drift
from holdfast_operator.provision.execute import execute
from holdfast_operator.provision.plan import ProvisionPlan
from holdfast_operator.tenant.spec import BucketSpec, LifecycleRule, QuotaSpec

RULES = (
    LifecycleRule("all & more", days=30, noncurrent_days=7, newer_versions=3, abort_days=2),
    LifecycleRule("one", prefix="tmp/", date="2030-01-31", enabled=False),
    LifecycleRule("several", prefix="p", tags={"b": "2", "a": "1"}, larger_than_bytes=0, smaller_than_bytes=9, days=1),
    LifecycleRule("markers", expired_marker=True),
    LifecycleRule("by size", larger_than_bytes=5, days=2),
    LifecycleRule("by tag", tags={"k": "v"}, days=2),
)
DECLARED = BucketSpec("b01", lifecycle=RULES, quota=QuotaSpec(1 << 30, 1000))


def plan_of(bucket: BucketSpec) -> ProvisionPlan:
    return ProvisionPlan(buckets=(bucket.name,), settings=((bucket.name, settings_of(bucket)),))


async def test_what_is_declared_is_made_found_and_taken_away(store: HttpStoreClient) -> None:
    outcome = await execute(plan_of(DECLARED), store)
    assert [(item.name, item.state, item.message) for item in outcome.buckets] == [("b01", "Ready", "")]
    assert await find_drift(plan_of(DECLARED), store) == ()
    empty = BucketSpec("b01", lifecycle=(), quota=QuotaSpec())
    assert len(await find_drift(plan_of(empty), store)) == 2
    assert (await execute(plan_of(empty), store)).complete
    assert await find_drift(plan_of(empty), store) == ()
    assert [await store.bucket_setting("b01", setting) for setting in (LIFECYCLE, QUOTA)] == [None, None]


async def test_what_somebody_changed_is_found_and_what_is_not_declared_is_left_alone(store: HttpStoreClient) -> None:
    await execute(plan_of(DECLARED), store)
    await store.put_bucket_setting("b01", QUOTA, b'{"objects": 5}')
    await store.put_bucket_setting("b01", LIFECYCLE, None)
    assert set(await find_drift(plan_of(DECLARED), store)) == {
        "lifecycle of bucket b01 was changed",
        "quota of bucket b01 was changed",
    }
    assert await find_drift(plan_of(BucketSpec("b01")), store) == ()
    assert (await execute(plan_of(DECLARED), store)).complete
    assert await find_drift(plan_of(DECLARED), store) == ()
