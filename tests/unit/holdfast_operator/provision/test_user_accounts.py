"""A user's declared account against the real APIs: carried, found changed, put right, and what it means for buckets."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import aiohttp
import pytest

from holdfast_operator.credentials import KeyPair
from holdfast_operator.provision import client as store_client
from holdfast_operator.provision.client import HttpStoreClient, StoreRefused
from holdfast_operator.provision.drift import find_drift
from holdfast_operator.provision.execute import execute, user_spec
from holdfast_operator.provision.plan import ProvisionPlan, UserKey, UserTask
from holdfast_operator.tenant import limits
from holdfast_server.testing.memory_services import Endpoint, memory_services, served

KEYS = (UserKey("ACCESSKEY1", "secret-key-1"), UserKey("ACCESSKEY2", "secret-key-2"))


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    with served(memory_services()) as endpoint:
        monkeypatch.setattr(store_client.names, "S3_PORT", endpoint.port)
        yield endpoint


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
def store(endpoint: Endpoint, session: aiohttp.ClientSession) -> HttpStoreClient:
    return client_of(endpoint, session, KeyPair(endpoint.access_key, endpoint.secret_key))


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
