"""Keys with several erasure sets: what was written in one is found, ordered and let go of in the other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from holdfast_server.clock.stamp import HybridClock
from holdfast_server.drives import keys
from holdfast_server.drives.port import Drive, DriveOffline
from holdfast_server.drives.rules import RegisterState
from holdfast_server.heal.service import HealService
from holdfast_server.objects import quorum, record
from holdfast_server.objects.epochs import Epochs
from holdfast_server.objects.healing import OPERATION_DEADLINE_SECONDS
from holdfast_server.objects.look_up import LookUp
from holdfast_server.objects.port import Attributes, Conflict, PartRef, Unavailable, Versioning
from holdfast_server.objects.record import Kind, Record
from holdfast_server.objects.store import ObjectStore
from holdfast_server.testing.memory_cluster import BUCKET, BytesBody
from holdfast_server.testing.memory_drive import MemoryDrive
from holdfast_server.testing.sim.joining import NEW, OLD, pool_maps
from holdfast_server.testing.unreliable_network import CrashSwitch, Network, UnreliableDrive, Weather
from holdfast_server.testing.virtual_time import AtOnce, VirtualClock

MAPS = pool_maps(4, 2)
BIG = bytes(range(256)) * 1000


class Mismatch(Exception):
    pass


def absent(current: Record | None) -> None:
    if current is not None:
        raise Mismatch


class Tenant:
    """Two pools, and a coordinator at each epoch."""

    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.by_pool = {
            set_id.pool: [MemoryDrive(self.clock, pool=set_id.pool, position=p) for p in range(4)]
            for set_id in (OLD, NEW)
        }
        self.network = Network(1, Weather(usual_seconds=0.001))
        self.stores = {epoch: self._store(epoch) for epoch in MAPS}

    def _store(self, epoch: int, skew_ms: int = 0) -> ObjectStore:
        life = CrashSwitch(epoch)
        drives: dict[str, list[Drive]] = {
            pool: [UnreliableDrive(drive, self.network, life) for drive in drives]
            for pool, drives in self.by_pool.items()
        }
        return ObjectStore(
            MAPS[epoch], lambda pool, _: drives[pool], VirtualClock(epoch, skew_ms), HybridClock(epoch), AtOnce()
        )

    async def settle(self) -> None:
        for _ in range(3):
            for store in self.stores.values():
                await store.background.drained()
            await self.network.drained()

    async def put(self, epoch: int, data: bytes, key: str = "k") -> Record:
        return await self.stores[epoch].put_object(BUCKET, key, BytesBody(data))

    async def get(self, epoch: int, key: str = "k") -> bytes | None:
        reader = await self.stores[epoch].open_object(BUCKET, key)
        if reader is None:
            return None
        return b"".join([bytes(chunk) async for chunk in reader.chunks(0, reader.record.size_bytes)])

    async def listed(self, epoch: int, delimiter: str = "") -> list[str]:
        page = await self.stores[epoch].list_objects(BUCKET, delimiter=delimiter)
        return sorted([entry.key for entry in page.entries] + page.prefixes)

    def live_in(self, key: str = "k") -> set[str]:
        """The pools whose drives hold a version of the key that is no tombstone."""
        row = keys.row_key(record.object_register(BUCKET, key))
        return {
            pool
            for pool, drives in self.by_pool.items()
            for drive in drives
            if any(not held.tombstone for held in drive.state_of(row).records)
        }


@pytest.fixture
async def tenant() -> AsyncIterator[Tenant]:
    made = Tenant()
    yield made
    await made.settle()
    for store in made.stores.values():
        await store.close()


async def test_everybody_finds_what_the_older_and_the_newer_epoch_wrote(tenant: Tenant) -> None:
    await tenant.put(1, b"old")
    await tenant.settle()
    assert [await tenant.get(epoch) for epoch in (1, 2, 3)] == [b"old"] * 3
    await tenant.put(3, b"new")
    await tenant.settle()
    assert [await tenant.get(epoch) for epoch in (2, 3)] == [b"new"] * 2
    await tenant.put(2, b"newer, in the older set")
    await tenant.settle()
    assert [await tenant.get(epoch) for epoch in (2, 3)] == [b"newer, in the older set"] * 2


@pytest.mark.parametrize("newer_epoch", [2, 3])
async def test_a_later_write_wins_though_its_clock_lags(
    tenant: Tenant, newer_epoch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def write_both(key: str) -> None:
        ahead = tenant._store(5 - newer_epoch, skew_ms=60_000)
        tenant.stores[newer_epoch] = tenant._store(newer_epoch)
        await ahead.put_object(BUCKET, key, BytesBody(b"first"))
        await tenant.put(newer_epoch, b"second", key)
        await ahead.close()

    await write_both("k")
    assert await tenant.get(3) == b"second"

    async def unseen(*_: object) -> quorum.Replies:
        return {}

    monkeypatch.setattr(LookUp, "_look", unseen)
    await write_both("l")
    assert await tenant.get(3, "l") == b"first", "this is what asking the other set is for"


@pytest.mark.parametrize("data", [b"small", BIG])
async def test_the_space_of_what_is_superseded_comes_back(tenant: Tenant, data: bytes) -> None:
    await tenant.put(2, data)
    await tenant.settle()
    assert tenant.live_in() == {"main"}
    await tenant.put(3, data)
    await tenant.settle()
    assert tenant.live_in() == {"more"}
    await tenant.stores[2].delete_object(BUCKET, "k")
    await tenant.settle()
    assert tenant.live_in() == set()
    assert await tenant.get(3) is None
    for drive in [drive for drives in tenant.by_pool.values() for drive in drives]:
        await asyncio.sleep(OPERATION_DEADLINE_SECONDS)
        drive.reap()
        assert not drive.shard_ids()


async def test_of_two_creators_at_two_epochs_one_wins(tenant: Tenant) -> None:
    for number in range(20):
        key = f"key {number}"

        async def create(epoch: int, key: str = key) -> bool:
            try:
                await tenant.stores[epoch].put_object(BUCKET, key, BytesBody(b"%d" % epoch), absent)
            except (Mismatch, Conflict, Unavailable):
                return False
            return True

        won = await asyncio.gather(create(2), create(3))
        assert sum(won) <= 1, f"{key}: both were told that it was absent"
        await tenant.settle()
        if any(won):
            assert await tenant.get(2, key) == await tenant.get(3, key) == (b"2" if won[0] else b"3")


async def test_two_creators_at_two_epochs_would_both_win_if_the_other_set_were_left_open(
    tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def left_open(*_: object) -> None:
        return None

    monkeypatch.setattr(LookUp, "_close", left_open)
    creators = [tenant.stores[epoch].put_object(BUCKET, "k", BytesBody(b"x"), absent) for epoch in (2, 3)]
    assert len(await asyncio.gather(*creators)) == 2


async def test_an_upload_stays_where_it_began(tenant: Tenant) -> None:
    upload_id = await tenant.stores[2].create_upload(BUCKET, "k", {}, b"")
    first = await tenant.stores[2].put_part(BUCKET, "k", upload_id, 1, BytesBody(BIG))
    second = await tenant.stores[3].put_part(BUCKET, "k", upload_id, 2, BytesBody(b"end"))
    await tenant.put(3, b"written meanwhile")
    await tenant.settle()
    parts, _ = await tenant.stores[3].list_parts(BUCKET, "k", upload_id)
    assert [number for number, _ in parts] == [1, 2]
    refs = [PartRef(1, first.etag), PartRef(2, second.etag)]
    uploads, _, _ = await tenant.stores[3].list_uploads(BUCKET)
    assert [upload.upload_id for upload in uploads] == [upload_id]
    made = await tenant.stores[3].complete_upload(BUCKET, "k", upload_id, refs, lambda *_: Attributes(etag="whole"))
    await tenant.settle()
    assert [await tenant.get(epoch) for epoch in (2, 3)] == [BIG + b"end"] * 2
    assert tenant.live_in() == {"main"}, "what it superseded in the new pool is let go of"
    again = await tenant.stores[2].complete_upload(BUCKET, "k", upload_id, refs, lambda *_: Attributes(etag="whole"))
    assert again.stamp == made.stamp


async def test_a_deleted_key_is_not_listed_though_its_old_set_has_it_still(
    tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key in ("a/1", "a/2", "b/1", "c"):
        await tenant.put(1, b"old", key)
    await tenant.settle()

    async def not_now(*_: object) -> None:
        return None

    monkeypatch.setattr(LookUp, "_let_go", not_now)
    for key in ("a/1", "b/1", "c"):
        await tenant.stores[3].delete_object(BUCKET, key)
    await tenant.settle()
    assert tenant.live_in("c") == {"main"}, "nobody has come to let go of it"
    for epoch in (2, 3):
        assert await tenant.listed(epoch) == ["a/2"]
        assert await tenant.listed(epoch, delimiter="/") == ["a/"], "a group of deleted keys is no group"


async def test_a_tombstone_may_not_be_dropped_while_another_set_has_what_it_shadows(
    tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_go = LookUp._let_go

    async def not_now(*_: object) -> None:
        return None

    await tenant.put(1, b"old")
    await tenant.settle()
    monkeypatch.setattr(LookUp, "_let_go", not_now)
    await tenant.stores[3].delete_object(BUCKET, "k")
    await tenant.settle()
    register = record.object_register(BUCKET, "k")
    placed = tenant.stores[3].look_up(register)
    located = await placed.read()
    assert (located.erasure_set.set_id, located.live) == (NEW, None)
    assert not await placed.may_drop(located.erasure_set, located.current.stamp)
    monkeypatch.setattr(LookUp, "_let_go", let_go)
    await placed.settle()
    await tenant.settle()
    assert await placed.may_drop(located.erasure_set, located.current.stamp)
    tenant.by_pool["main"][0].offline = True
    assert not await placed.may_drop(located.erasure_set, located.current.stamp), "a silent drive may have it"


async def test_a_reader_between_two_sets_does_not_miss_what_moved(tenant: Tenant) -> None:
    await tenant.put(2, b"0")
    stop = False

    async def read() -> None:
        while not stop:
            assert await tenant.get(3) is not None
            assert await tenant.listed(2) == ["k"]

    readers = [asyncio.ensure_future(read()) for _ in range(4)]
    for number in range(30):
        await tenant.put(2 + number % 2, b"%d" % number)
        await asyncio.sleep(0.003)
    stop = True
    await asyncio.gather(*readers)


async def test_a_set_that_cannot_answer_makes_the_key_unavailable_not_absent(tenant: Tenant) -> None:
    await tenant.put(1, b"old")
    await tenant.settle()
    for drive in tenant.by_pool["main"][:3]:
        drive.offline = True
    with pytest.raises(Unavailable):
        await tenant.get(3)
    with pytest.raises(Unavailable):
        await tenant.put(3, b"new")


async def test_a_moved_version_is_marked_by_a_tombstone_of_its_stamp(tenant: Tenant) -> None:
    await tenant.put(2, b"old")
    await tenant.settle()
    made = await tenant.put(3, b"new")
    await tenant.settle()
    register = record.object_register(BUCKET, "k")
    left = await tenant.stores[3].erasure_set(OLD).read(register)
    assert left.record is not None
    assert (left.record.kind, left.stamp) == (Kind.MOVED, made.stamp)


def _undecided(epochs: Epochs) -> None:
    with epochs.writing():
        raise Unavailable("undecided")


async def test_an_epoch_is_reported_when_no_write_goes_by_an_older_map() -> None:
    clock = VirtualClock()
    epochs = Epochs(MAPS[1], clock)
    with epochs.writing() as pools:
        epochs.pools = MAPS[2]
        assert (pools.epoch, epochs.settled) == (1, 1)
    assert epochs.settled == 2
    with pytest.raises(Unavailable):
        _undecided(epochs)
    epochs.pools = MAPS[3]
    assert epochs.settled == 2, "a message of it may still be under way"
    await asyncio.sleep(OPERATION_DEADLINE_SECONDS + 1)
    assert epochs.settled == 3


@pytest.mark.parametrize("versioning", Versioning)
async def test_what_a_writer_that_died_did_not_let_go_of_the_scanner_finds(
    tenant: Tenant, monkeypatch: pytest.MonkeyPatch, versioning: Versioning
) -> None:
    """A key that nobody reads: nobody else would come upon what lies in its older set, be it a delete marker."""
    if versioning is Versioning.OFF:
        await tenant.put(2, BIG)
    else:
        await tenant.stores[2].delete_object(BUCKET, "k", versioning=versioning)
    await tenant.settle()
    with monkeypatch.context() as died:
        died.setattr(LookUp, "_let_go_of", lambda *_: None)
        await tenant.stores[3].put_object(BUCKET, "k", BytesBody(b"new", versioning=versioning))
        await tenant.settle()
    assert tenant.live_in() == {"main", NEW.pool}
    drive: Any = tenant.by_pool["main"][0]
    healing = HealService(tenant.stores[3], lambda: (drive,), tenant.clock)
    await tenant.clock.sleep(7300)
    await healing.scanner.scan_once(drive, healing.set_of(drive), healing.work_of(0).scan)
    await tenant.settle()
    assert tenant.live_in() == {NEW.pool}
    assert await tenant.get(3) == b"new"


async def test_a_stuck_version_gives_way_to_what_another_pool_has_and_not_to_a_deletion(
    tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Left by a coordinator that died before it let go of it, and past reading since."""
    register = record.object_register(BUCKET, "k")
    await tenant.put(1, BIG)
    await tenant.settle()
    row = keys.row_key(register)
    before = tenant.by_pool["main"][0].state_of(row)
    left = RegisterState(list(before.records), before.fence, before.mark)
    await tenant.put(3, b"new")
    await tenant.settle()
    assert tenant.live_in() == {"more"}
    for drive in tenant.by_pool["main"]:
        drive._put(row, left if drive.position == 0 else RegisterState())
        drive._healing = drive.position > 1
    await tenant.clock.sleep(OPERATION_DEADLINE_SECONDS + 10)
    with pytest.raises(Unavailable):
        await tenant.get(3)

    async def hang_up(_: object) -> Any:
        raise DriveOffline("gone at this moment")

    with monkeypatch.context() as away:
        for drive in tenant.by_pool["main"][:2]:
            away.setattr(drive, "commit", hang_up)
        with pytest.raises(Unavailable, match="too few drives"):
            await tenant.stores[3].resolve(register, keep=False)
    assert "another pool" in await tenant.stores[3].resolve(register, keep=False)
    await tenant.settle()
    assert await tenant.get(3) == b"new"
