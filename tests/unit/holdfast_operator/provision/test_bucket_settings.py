"""Declared settings of buckets against the real S3 API: put, shown, found alike, taken away."""

from __future__ import annotations

from typing import get_args

import pytest

from holdfast_operator.provision.bucket_settings import CORS, OWNERSHIP, POLICY, TAGGING, same, settings_of
from holdfast_operator.provision.client import HttpStoreClient, StoreRefused
from holdfast_operator.provision.drift import find_drift
from holdfast_operator.provision.execute import execute
from holdfast_operator.provision.plan import ProvisionPlan
from holdfast_operator.tenant.spec import BucketSpec, CorsRule
from holdfast_server.auth.principal import TENANT_ACCOUNT, canonical_id
from holdfast_server.contract.config import ObjectOwnership

RULES = (
    CorsRule(("https://*.example.org", "http://a"), ("GET", "PUT"), ("*",), ("ETag",), 60, "app"),
    CorsRule(("*",), ("HEAD",)),
)
POLICY_DOCUMENT = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::b01/*"}],
}
PUBLIC_GRANT = f"""<AccessControlPolicy><Owner><ID>{canonical_id(TENANT_ACCOUNT)}</ID></Owner><AccessControlList><Grant>
<Grantee xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:type="Group">
<URI>http://acs.amazonaws.com/groups/global/AllUsers</URI></Grantee><Permission>READ</Permission></Grant>
</AccessControlList></AccessControlPolicy>""".encode()
DECLARED = BucketSpec("b01", tags={"team": "one + two", "ünï": ""}, cors=RULES, policy=POLICY_DOCUMENT)


def plan_of(bucket: BucketSpec) -> ProvisionPlan:
    return ProvisionPlan(buckets=(bucket.name,), settings=((bucket.name, settings_of(bucket)),))


async def test_what_is_declared_is_made_found_and_taken_away(store: HttpStoreClient) -> None:
    outcome = await execute(plan_of(DECLARED), store)
    assert [(item.name, item.state, item.message) for item in outcome.buckets] == [("b01", "Ready", "")]
    assert await find_drift(plan_of(DECLARED), store) == ()
    empty = BucketSpec("b01", tags={}, cors=(), policy={})
    assert len(await find_drift(plan_of(empty), store)) == 3
    assert (await execute(plan_of(empty), store)).complete
    assert await find_drift(plan_of(empty), store) == ()
    assert [await store.bucket_setting("b01", setting) for setting in (TAGGING, CORS, POLICY)] == [None, None, None]


async def test_declared_versioning_is_set_and_kept_as_declared(store: HttpStoreClient) -> None:
    declared = BucketSpec("b01", versioning="Enabled")
    outcome = await execute(plan_of(declared), store)
    assert [(item.name, item.state, item.message) for item in outcome.buckets] == [("b01", "Ready", "")]
    assert await find_drift(plan_of(declared), store) == ()
    suspended = BucketSpec("b01", versioning="Suspended")
    assert await find_drift(plan_of(suspended), store) == ("versioning of bucket b01 was changed",)
    assert (await execute(plan_of(suspended), store)).complete
    assert await find_drift(plan_of(suspended), store) == ()
    assert await find_drift(plan_of(BucketSpec("b01")), store) == (), "what is not declared is left alone"


async def test_declared_object_ownership_is_set_and_kept_as_declared(store: HttpStoreClient) -> None:
    for ownership in get_args(ObjectOwnership):
        declared = BucketSpec("b01", object_ownership=ownership)
        assert (await execute(plan_of(declared), store)).complete
        assert await find_drift(plan_of(declared), store) == ()
        assert ownership.encode() in (await store.bucket_setting("b01", OWNERSHIP) or b"")
    await store.put_bucket_setting("b01", OWNERSHIP, None)
    assert await find_drift(plan_of(declared), store) == ("ownershipControls of bucket b01 was changed",)
    assert (await execute(plan_of(BucketSpec("b01")), store)).complete
    assert await store.bucket_setting("b01", OWNERSHIP) is None, "what is not declared is left alone"


async def test_declared_etags_are_set_and_kept_as_declared(store: HttpStoreClient) -> None:
    opaque = BucketSpec("b01", etag="Opaque")
    assert (await execute(plan_of(BucketSpec("b01")), store)).complete
    assert await find_drift(plan_of(opaque), store) == ("etag of bucket b01 was changed",)
    assert (await execute(plan_of(opaque), store)).complete
    assert await find_drift(plan_of(opaque), store) == ()
    assert await find_drift(plan_of(BucketSpec("b01", etag="MD5")), store) == ("etag of bucket b01 was changed",)
    assert (await execute(plan_of(BucketSpec("b01")), store)).complete
    assert await find_drift(plan_of(opaque), store) == (), "what is not declared is left alone"
    assert (await execute(plan_of(BucketSpec("b01", etag="MD5")), store)).complete
    assert await find_drift(plan_of(opaque), store) == ("etag of bucket b01 was changed",)


async def test_a_refused_setting_is_told_and_holds_up_no_other(store: HttpStoreClient) -> None:
    await execute(plan_of(BucketSpec("b01", object_ownership="ObjectWriter")), store)
    await store.put_bucket_setting("b01", "acl", PUBLIC_GRANT)
    declared = BucketSpec("b01", object_ownership="BucketOwnerEnforced", tags={"a": "b"}, policy=POLICY_DOCUMENT)
    outcome = await execute(plan_of(declared), store)
    assert outcome.buckets[0].state == "Failed"
    assert outcome.buckets[0].message.startswith("ownershipControls: InvalidBucketAclWithObjectOwnership")
    assert await find_drift(plan_of(declared), store) == ("ownershipControls of bucket b01 was changed",)


async def test_of_several_refused_settings_each_is_told(store: HttpStoreClient) -> None:
    await execute(plan_of(BucketSpec("b01", object_ownership="ObjectWriter")), store)
    await store.put_bucket_setting("b01", "acl", PUBLIC_GRANT)
    elsewhere = {"Statement": {**POLICY_DOCUMENT["Statement"][0], "Resource": "arn:aws:s3:::other/*"}}  # type: ignore[dict-item]
    declared = BucketSpec("b01", object_ownership="BucketOwnerEnforced", tags={"a": "b"}, policy=elsewhere)
    message = (await execute(plan_of(declared), store)).buckets[0].message
    assert "ownershipControls: InvalidBucketAclWithObjectOwnership" in message
    assert "; policy: MalformedPolicy" in message
    assert await store.bucket_setting("b01", TAGGING) is not None


async def test_what_somebody_changed_is_found_by_its_name(store: HttpStoreClient) -> None:
    await execute(plan_of(DECLARED), store)
    await store.put_bucket_setting("b01", TAGGING, settings_of(BucketSpec("b01", tags={"team": "other"}))[TAGGING])
    assert await find_drift(plan_of(DECLARED), store) == ("tagging of bucket b01 was changed",)
    await store.put_bucket_setting("b01", POLICY, None)
    assert "policy of bucket b01 was changed" in await find_drift(plan_of(DECLARED), store)
    await execute(plan_of(DECLARED), store)
    assert await find_drift(plan_of(DECLARED), store) == ()


async def test_what_is_not_declared_is_left_alone(store: HttpStoreClient) -> None:
    await execute(plan_of(DECLARED), store)
    bare = BucketSpec("b01")
    assert settings_of(bare) == {}
    assert (await execute(plan_of(bare), store)).complete
    assert await find_drift(plan_of(DECLARED), store) == ()


async def test_what_the_store_refuses_is_told_of_the_bucket(store: HttpStoreClient) -> None:
    elsewhere = {"Statement": {**POLICY_DOCUMENT["Statement"][0], "Resource": "arn:aws:s3:::other/*"}}  # type: ignore[dict-item]
    outcome = await execute(plan_of(BucketSpec("b01", policy=elsewhere)), store)
    assert outcome.buckets[0].state == "Failed"
    assert "policy: MalformedPolicy" in outcome.buckets[0].message
    with pytest.raises(StoreRefused):
        await store.put_bucket_setting("b01", TAGGING, b"<no>")


def test_only_the_meaning_is_compared() -> None:
    wanted = settings_of(DECLARED)
    assert same(POLICY, wanted[POLICY], b' {"Statement": [{"Resource": "arn:aws:s3:::b01/*", "Principal": "*", '
                b'"Action": "s3:GetObject", "Effect": "Allow"}], "Version": "2012-10-17"}')  # fmt: skip
    assert not same(TAGGING, wanted[TAGGING], b"not xml")
    assert not same(TAGGING, wanted[TAGGING], None)
    assert same(TAGGING, None, None)
