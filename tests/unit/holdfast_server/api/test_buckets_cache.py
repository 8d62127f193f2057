"""Leases and fences: no write commits into a bucket whose record it has not seen lately enough."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from holdfast_server.api import bucket_record
from holdfast_server.api.bucket_record import BucketRecord
from holdfast_server.api.buckets_cache import LEASE_SECONDS, BucketBusy, BucketCache, BucketGone
from holdfast_server.clock.system import SystemClock
from holdfast_server.objects.port import Unavailable
from holdfast_server.testing.memory_objects import MemoryObjects

WAIT_SECONDS = 60.0
BUCKET = BucketRecord(id=b"0" * 16, name="b", owner="root", region="us-east-1", created_ms=1)


class HandClock(SystemClock):
    def __init__(self) -> None:
        self.seconds = 0.0

    def monotonic_seconds(self) -> float:
        return self.seconds


class Fixture:
    def __init__(self) -> None:
        self.clock = HandClock()
        self.objects = MemoryObjects(self.clock)
        self.reads = 0
        self.objects.failure = self._count
        self.cache = BucketCache(self.objects, self.clock)

    def _count(self, verb: str) -> None:
        self.reads += verb == "get_document"

    async def store(self, record: BucketRecord) -> None:
        await self.objects.put_document(bucket_record.document_name(record.name), bucket_record.encode(record))


@pytest.fixture
async def fixture() -> Fixture:
    made = Fixture()
    await made.store(BUCKET)
    return made


async def test_a_record_is_read_once_per_lease(fixture: Fixture) -> None:
    await asyncio.gather(*(fixture.cache.get("b") for _ in range(10)))
    fixture.clock.seconds = LEASE_SECONDS
    await fixture.cache.get("b")
    assert fixture.reads == 1
    fixture.clock.seconds = LEASE_SECONDS + 0.1
    await fixture.cache.get("b")
    assert fixture.reads == 2


async def test_a_bucket_that_is_being_deleted_is_looked_at_each_time(fixture: Fixture) -> None:
    """It may be gone, and another pod may have said so already: seen absent stays absent."""
    await fixture.store(msgspec.structs.replace(BUCKET, state=bucket_record.DELETING, mark=b"m" * 16))
    assert (await fixture.cache.get("b")).deleting
    await fixture.objects.delete_document(bucket_record.document_name("b"))
    with pytest.raises(BucketGone):
        await fixture.cache.get("b")


async def test_absence_is_not_cached(fixture: Fixture) -> None:
    with pytest.raises(BucketGone):
        await fixture.cache.get("new")
    await fixture.store(msgspec.structs.replace(BUCKET, name="new"))
    assert (await fixture.cache.get("new")).name == "new"


async def test_an_old_lease_is_not_confirmed_unless_renewed(fixture: Fixture) -> None:
    async with fixture.cache.writing("b") as lease:
        fixture.clock.seconds = LEASE_SECONDS + 1
        with pytest.raises(Unavailable):
            lease.confirm()
        await lease.renew()
        lease.confirm()


async def test_a_fenced_lease_is_not_confirmed_and_sees_the_mark_when_renewed(fixture: Fixture) -> None:
    async with fixture.cache.writing("b") as lease:
        await fixture.store(msgspec.structs.replace(BUCKET, state="deleting"))
        await fixture.cache.fence(BUCKET.id)
        with pytest.raises(Unavailable):
            lease.confirm()
        with pytest.raises(BucketBusy):
            await lease.renew()


async def test_a_fence_waits_for_writes_that_are_confirmed(fixture: Fixture) -> None:
    async with fixture.cache.writing("b") as lease:
        lease.confirm()
        fence = asyncio.create_task(fixture.cache.fence(BUCKET.id))
        await asyncio.sleep(0.01)
        assert not fence.done()
    await asyncio.wait_for(fence, WAIT_SECONDS)


async def test_a_read_that_a_fence_overtook_confirms_nothing(fixture: Fixture) -> None:
    entered = asyncio.Event()
    go_on = asyncio.Event()
    get_document = fixture.objects.get_document

    async def slow(name: str):
        found = await get_document(name)
        entered.set()
        await go_on.wait()
        return found

    fixture.objects.get_document = slow  # type: ignore[method-assign]

    async def write() -> None:
        async with fixture.cache.writing("b") as lease:
            lease.confirm()

    task = asyncio.create_task(write())
    await entered.wait()
    await fixture.cache.fence(BUCKET.id)
    go_on.set()
    with pytest.raises(Unavailable):
        await task


async def test_a_bucket_made_again_is_another_bucket(fixture: Fixture) -> None:
    async with fixture.cache.writing("b") as lease:
        await fixture.store(msgspec.structs.replace(BUCKET, id=b"1" * 16))
        await fixture.cache.fence(BUCKET.id)
        with pytest.raises(BucketGone):
            await lease.renew()


async def test_a_marked_bucket_takes_no_writes_and_is_read_anew_each_time(fixture: Fixture) -> None:
    await fixture.store(msgspec.structs.replace(BUCKET, state="deleting"))
    with pytest.raises(BucketBusy):
        async with fixture.cache.writing("b"):
            pass
    await fixture.store(BUCKET)
    async with fixture.cache.writing("b") as lease:
        lease.confirm()
