"""Whose a declared bucket is: read, made so, given over, put right when it was changed."""

from __future__ import annotations

from typing import Any

import aiohttp
import pytest

from holdfast_operator.credentials import KeyPair
from holdfast_operator.provision import client as store_client
from holdfast_operator.provision.bucket_settings import OWNER, owner_document, settings_of
from holdfast_operator.provision.client import HttpStoreClient
from holdfast_operator.provision.drift import find_drift
from holdfast_operator.provision.execute import execute
from holdfast_operator.provision.plan import ProvisionPlan
from holdfast_operator.tenant.parse import parse_tenant
from holdfast_operator.tenant.spec import BucketSpec
from holdfast_server.contract.admin import UserSpec
from holdfast_server.testing.memory_services import Endpoint


@pytest.fixture
async def clients(
    store: HttpStoreClient, endpoint: Endpoint, session: aiohttp.ClientSession
) -> tuple[HttpStoreClient, HttpStoreClient]:
    """The operator's, and one of a user of the account `sales`."""
    user = UserSpec(secret_key="secretsecret", name="ann", policies=["readwrite"], account="sales")
    await store.put_user("annskey", user)
    return store, HttpStoreClient(session, [endpoint.host], KeyPair("annskey", "secretsecret"), "us-east-1")


def plan_of(bucket: BucketSpec) -> ProvisionPlan:
    return ProvisionPlan(buckets=(bucket.name,), settings=((bucket.name, settings_of(bucket)),))


def faults_of(body: dict[str, Any]) -> list[str]:
    return [str(fault) for fault in parse_tenant(body).faults]


def test_it_is_read_and_must_be_an_account(tenant_body: Any) -> None:
    found = parse_tenant(tenant_body(buckets=[{"name": "b01", "owner": "sales"}, {"name": "b02"}], users=[]))
    assert found.spec is not None
    assert [bucket.owner for bucket in found.spec.buckets] == ["sales", None]
    declared = {"buckets": [{"name": "b01", "owner": "sales"}], "users": [], "accounts": [{"name": "other"}]}
    assert faults_of(tenant_body(**declared)) == ["spec.buckets[0].owner: 'sales' is not in spec.accounts"]
    (fault,) = faults_of(tenant_body(buckets=[{"name": "b01", "owner": "root"}], users=[]))
    assert fault.startswith("spec.buckets[0].owner: 'root' is how")
    (fault,) = faults_of(tenant_body(buckets=[{"name": "b01", "owner": "a b"}], users=[]))
    assert fault.startswith("spec.buckets[0].owner: 'a b' does not match")


async def test_a_bucket_is_made_for_its_owner(clients: tuple[HttpStoreClient, HttpStoreClient]) -> None:
    store, ann = clients
    declared = plan_of(BucketSpec("b01", owner="sales"))
    for _ in range(2):
        outcome = await execute(declared, store)
        assert [(item.name, item.state, item.message) for item in outcome.buckets] == [("b01", "Ready", "")]
    assert await find_drift(declared, store) == ()
    assert await ann.bucket_names() == {"b01"}
    await ann._call("PUT", "/b01/k", b"hers")
    await store.put_bucket_setting("b01", OWNER, owner_document(""))
    assert await ann.bucket_names() == frozenset()
    assert await find_drift(declared, store) == ("owner of bucket b01 was changed",)
    assert (await execute(declared, store)).complete
    assert await ann._call("GET", "/b01/k") == b"hers"


async def test_a_bucket_of_others_is_given_over_only_where_that_is_declared(
    clients: tuple[HttpStoreClient, HttpStoreClient],
) -> None:
    store, ann = clients
    await ann.create_bucket("b01")
    (item,) = (await execute(plan_of(BucketSpec("b01")), store)).buckets
    told = "BucketAlreadyExists: it is there and belongs to the account 'sales': spec.buckets[].owner has to say so"
    assert (item.state, item.message) == ("Failed", told)
    assert (await execute(plan_of(BucketSpec("b01", owner="finance")), store)).complete
    assert await ann.bucket_names() == frozenset()


async def test_buckets_are_found_however_many_pages_they_take(
    clients: tuple[HttpStoreClient, HttpStoreClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_client, "BUCKETS_PER_PAGE", 2)
    store, _ = clients
    names = {f"b{number:02}" for number in range(5)}
    for name in names:
        await store.create_bucket(name)
    assert await store.bucket_names() == names
