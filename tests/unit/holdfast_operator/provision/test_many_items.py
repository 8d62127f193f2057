"""A Tenant may declare hundreds of buckets and users, and a pass over it has a time limit."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

import pytest

from holdfast_operator.provision.bucket_settings import TAGGING
from holdfast_operator.provision.client import StoreFailed, StoreUnavailable
from holdfast_operator.provision.drift import find_drift
from holdfast_operator.provision.execute import FAILURES_IN_A_ROW, execute
from holdfast_operator.provision.plan import ProvisionPlan, UserKey, UserTask
from holdfast_operator.provision.together import AT_A_TIME, together
from holdfast_operator.testing.memory_store import MemoryStore
from holdfast_server.contract import admin

BUCKETS = tuple(f"bucket-{number:03d}" for number in range(60))


class SlowStore(MemoryStore):
    """Each call takes a while."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self._seconds = seconds
        self.running = self.most = 0

    async def _wait(self) -> None:
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await asyncio.sleep(self._seconds)
        finally:
            self.running -= 1

    async def create_bucket(self, name: str, of_any_account: bool = False) -> None:
        await self._wait()
        await super().create_bucket(name, of_any_account)

    async def put_policy(self, name: str, document: object) -> None:
        await self._wait()
        await super().put_policy(name, document)  # type: ignore[arg-type]

    async def put_user(self, access_key: str, user: admin.UserSpec) -> None:
        await self._wait()
        await super().put_user(access_key, user)

    async def bucket_setting(self, name: str, setting: str) -> bytes | None:
        await self._wait()
        return await super().bucket_setting(name, setting)


async def test_items_are_made_several_at_a_time_and_told_in_their_order() -> None:
    store = SlowStore(0.001)
    store.refuse_buckets = {"bucket-030"}
    users = tuple(UserTask(name, (UserKey(name.upper(), "secret"),), policies=("p",)) for name in ("a", "b"))
    outcome = await execute(ProvisionPlan(buckets=BUCKETS, policies=(("p", {}),), users=users), store)
    assert store.most == AT_A_TIME
    assert [item.name for item in outcome.buckets] == list(BUCKETS)
    assert [item.name for item in outcome.buckets if item.state != "Ready"] == ["bucket-030"]
    assert store.calls.index("put_policy p") < store.calls.index("put_user A"), "policies before those that have them"


async def test_what_there_was_no_time_for_is_made_by_the_next_and_nothing_twice() -> None:
    store = SlowStore(0.02)
    plan = ProvisionPlan(buckets=BUCKETS)
    outcome = await execute(plan, store, max_seconds=0.07)
    assert outcome.pending
    left = [item for item in outcome.buckets if item.state == "Pending"]
    assert 0 < len(left) < len(BUCKETS)
    assert {item.message for item in left} == {"there was no time for it yet"}
    before = list(store.calls)
    outcome = await execute(plan, store, outcome.made)
    assert outcome.complete
    assert sorted(store.calls) == sorted({*store.calls}), "each once"
    assert store.calls[: len(before)] == before


async def test_a_store_that_fails_every_call_is_not_asked_everything() -> None:
    store = SlowStore(0.001)
    store.fail_buckets = {*BUCKETS}
    outcome = await execute(ProvisionPlan(buckets=BUCKETS), store)
    assert {item.state for item in outcome.buckets} == {"Pending"}
    assert len(store.calls) <= AT_A_TIME + FAILURES_IN_A_ROW


async def test_buckets_are_looked_at_several_at_a_time() -> None:
    store = SlowStore(0.001)
    store.buckets = dict.fromkeys(BUCKETS, 0)
    plan = ProvisionPlan(buckets=BUCKETS, settings=tuple((name, {TAGGING: b"<Tagging/>"}) for name in BUCKETS))
    found = await find_drift(plan, store)
    assert found == tuple(f"tagging of bucket {name} was changed" for name in BUCKETS)
    assert store.most == AT_A_TIME


async def test_a_failure_is_raised_as_itself_and_ends_the_others() -> None:
    ended = []

    async def call(number: int) -> int:
        try:
            await asyncio.sleep(0 if number == 3 else 60)
        except asyncio.CancelledError:
            ended.append(number)
            raise
        raise StoreFailed("503")

    calls: list[Callable[[], Awaitable[int]]] = [partial(call, number) for number in range(20)]
    with pytest.raises(StoreUnavailable, match="503"):
        await together(calls)
    assert sorted(ended) == [0, 1, 2, 4, 5, 6, 7]
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_nothing_gives_nothing() -> None:
    assert await together([]) == []
