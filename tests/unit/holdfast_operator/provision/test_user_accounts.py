"""A user's declared account against the real APIs: carried, found changed, put right, and what it means for buckets."""

from __future__ import annotations

import asyncio

import aiohttp
import boto3
import pytest

from holdfast_operator.credentials import KeyPair
from holdfast_operator.provision.client import HttpStoreClient, StoreRefused
from holdfast_operator.provision.drift import find_drift
from holdfast_operator.provision.execute import execute, user_spec
from holdfast_operator.provision.plan import ProvisionPlan, UserKey, UserTask
from holdfast_operator.tenant import limits
from holdfast_server.testing.memory_services import Endpoint

KEYS = (UserKey("ACCESSKEY1", "secret-key-1"), UserKey("ACCESSKEY2", "secret-key-2"))


def client_of(endpoint: Endpoint, session: aiohttp.ClientSession, keys: KeyPair) -> HttpStoreClient:
    return HttpStoreClient(session, [endpoint.host], keys, "us-east-1")


def plan_of(account: str) -> ProvisionPlan:
    return ProvisionPlan(users=(UserTask("loki", KEYS, account=account, policies=("readwrite",)),))


async def test_every_key_of_a_user_is_in_its_account_and_a_change_is_found(store: HttpStoreClient) -> None:
    assert (await execute(plan_of("team-a"), store)).complete
    assert {user.account for user in (await store.list_users()).values()} == {"team-a"}
    assert await find_drift(plan_of("team-a"), store) == ()
    (elsewhere,) = plan_of("team-b").users
    await store.put_user(KEYS[1].access_key, user_spec(elsewhere, KEYS[1]))
    assert await find_drift(plan_of("team-a"), store) == ("user loki was changed",)
    assert (await execute(plan_of("team-a"), store)).complete
    assert await find_drift(plan_of("team-a"), store) == ()


async def test_a_user_without_an_account_is_kept_in_the_tenants_own(store: HttpStoreClient) -> None:
    await execute(plan_of("team-a"), store)
    assert len(await find_drift(plan_of(""), store)) == len(KEYS)
    assert (await execute(plan_of(""), store)).complete
    assert {user.account for user in (await store.list_users()).values()} == {""}


async def test_a_bucket_belongs_to_its_makers_account_and_stays_there(
    store: HttpStoreClient, endpoint: Endpoint, session: aiohttp.ClientSession
) -> None:
    await execute(plan_of("team-a"), store)
    user = client_of(endpoint, session, KeyPair(KEYS[0].access_key, KEYS[0].secret_key))
    await user.create_bucket("theirs")
    with pytest.raises(StoreRefused, match="BucketAlreadyExists"):
        await store.create_bucket("theirs")
    assert (await execute(ProvisionPlan(buckets=("theirs",)), store)).buckets[0].state == "Failed"
    await execute(plan_of("team-b"), store)
    with pytest.raises(StoreRefused, match="AccessDenied"):
        await user.bucket_setting("theirs", "tagging")


@pytest.mark.parametrize("account", [limits.RESERVED_ACCOUNT, "a b", "é", "a" * (limits.MAX_ACCOUNT_NAME_SIZE + 1)])
async def test_what_the_tenant_refuses_the_store_refuses_too(store: HttpStoreClient, account: str) -> None:
    (item,) = (await execute(plan_of(account), store)).users
    assert item.state == "Failed"
    assert "account: must be at most 128" in item.message


@pytest.mark.parametrize("account", ["A", "-.@=+,_", "a" * limits.MAX_ACCOUNT_NAME_SIZE])
async def test_what_the_tenant_accepts_the_store_accepts_too(store: HttpStoreClient, account: str) -> None:
    assert (await execute(plan_of(account), store)).complete


async def test_accounts_are_made_kept_as_declared_and_forgotten(store: HttpStoreClient) -> None:
    plan = ProvisionPlan(accounts=(("team-a", "The A team"), ("team-b", "")))
    done = await execute(plan, store)
    assert done.complete
    assert [(item.name, item.state) for item in done.accounts] == [("team-a", "Ready"), ("team-b", "Ready")]
    assert await store.account_names() == {"team-a": "The A team", "team-b": "team-b"}
    assert await find_drift(plan, store) == ()
    await store.put_account("team-a", "Somebody else")
    await store.delete_account("team-b")
    assert await find_drift(plan, store) == ("account team-a was changed", "account team-b is gone")
    gone = await execute(ProvisionPlan(departed_accounts=("team-a",)), store)
    assert gone.removed.accounts == ("team-a",)
    assert "team-a" not in await store.account_names()


async def test_the_root_of_an_account_is_kept_as_such_and_clients_users_are_left_alone(
    store: HttpStoreClient, endpoint: Endpoint
) -> None:
    plan = ProvisionPlan(users=(UserTask("boss", KEYS[:1], account="team-a", account_root=True),))
    assert (await execute(plan, store)).complete
    iam = boto3.client(
        "iam", endpoint_url=endpoint.url, region_name="us-east-1", aws_access_key_id=KEYS[0].access_key,
        aws_secret_access_key=KEYS[0].secret_key,
    )  # fmt: skip
    await asyncio.to_thread(iam.create_user, UserName="made-by-clients")
    key = (await asyncio.to_thread(iam.create_access_key, UserName="made-by-clients"))["AccessKey"]["AccessKeyId"]
    assert await find_drift(plan, store) == (), "what clients made is no drift"
    (no_root,) = ProvisionPlan(users=(UserTask("boss", KEYS[:1], account="team-a"),)).users
    await store.put_user(KEYS[0].access_key, user_spec(no_root, KEYS[0]))
    assert await find_drift(plan, store) == ("user boss was changed",)
    assert (await execute(plan, store)).complete
    assert await find_drift(plan, store) == ()
    assert key in await store.list_users()
