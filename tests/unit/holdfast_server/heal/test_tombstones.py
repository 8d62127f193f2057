"""Tombstones go when nothing can bring back what was deleted, and not before (rule 10)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from holdfast_server.drives.port import (
    CommitMode,
    CommitRequest,
    CommitStatus,
    DriveOffline,
    DriveState,
    Register,
    Tombstone,
    TombstoneState,
)
from holdfast_server.heal.service import HealService
from holdfast_server.heal.settings import HealSettings
from holdfast_server.heal.tombstones import TURN_MS, judge
from holdfast_server.objects import record
from holdfast_server.objects.port import Attributes, Missing, PartRef, Versioning
from holdfast_server.objects.record import object_register
from holdfast_server.testing.memory_cluster import BUCKET, BytesBody, MemoryCluster

SETTINGS = HealSettings(drop_page=7, drop_interval_seconds=0.0)
RIPE_SECONDS = SETTINGS.age_seconds + 1

SETTLED, YOUNG, UNNOTED, GONE, OTHER = TombstoneState


class Pods:
    """One heal service per drive, as the pods of a set have."""

    def __init__(self, cluster: MemoryCluster, settings: HealSettings = SETTINGS) -> None:
        self._cluster = cluster
        self.services = []
        for drive in cluster._hooked[0]:
            own: Any = (drive,)
            self.services.append(HealService(cluster.new_store(), lambda own=own: own, cluster.clock, settings))

    async def drop(self, rounds: int = 1) -> int:
        """A turn of every pod; how many tombstones went."""
        for _ in range(rounds * len(self.services)):
            for service in self.services:
                drive = service._local_drives()[0]
                while await service.tombstones.step(drive, service.set_of(drive), service.work_of(0).drop):
                    pass
            await self._cluster.settle()
            await self._cluster.clock.sleep(TURN_MS / 1000)
        return sum(service.work_of(0).drop.dropped_ever for service in self.services)


def rows(cluster: MemoryCluster) -> list[int]:
    return [len(drive.rows()) for drive in cluster.drives]


async def delete(cluster: MemoryCluster, *keys: str) -> None:
    for key in keys:
        await cluster.put(key, b"x")
        await cluster.store.delete_object(BUCKET, key)
    await cluster.settle()


async def test_a_deleted_bucket_leaves_nothing_behind(cluster: MemoryCluster) -> None:
    await cluster.put("lives", b"1")
    await delete(cluster, *(f"{n:03}" for n in range(40)))
    pods = Pods(cluster)
    assert await pods.drop() == 0, "all are too young"
    assert rows(cluster) == [41] * 4
    await cluster.clock.sleep(RIPE_SECONDS)
    assert await pods.drop() == 40
    assert rows(cluster) == [1] * 4
    assert [e.key for e in (await cluster.store.list_objects(BUCKET)).entries] == ["lives"]
    await cluster.put("005", b"again")
    assert await cluster.get("005") == b"again"


@pytest.mark.parametrize("away", [0, 3])
async def test_nothing_is_dropped_while_a_drive_is_away_and_what_it_missed_stays_deleted(
    cluster: MemoryCluster, away: int
) -> None:
    await cluster.put("a", b"")  # an empty object: one copy would do to serve it
    await cluster.settle()
    with cluster.away(away):
        await cluster.store.delete_object(BUCKET, "a")
        await cluster.settle()
        await cluster.clock.sleep(RIPE_SECONDS)
        assert await Pods(cluster).drop(2) == 0
    # It comes back with the old version; that is healed first, and only then is there something to wait for.
    pods = Pods(cluster)
    assert await pods.drop() == 0
    assert await cluster.get("a") is None
    await cluster.clock.sleep(RIPE_SECONDS)
    assert await pods.drop() == 1
    assert rows(cluster) == [0] * 4
    assert await cluster.get("a") is None


async def test_nothing_is_dropped_while_a_drive_heals(cluster: MemoryCluster) -> None:
    await delete(cluster, "a")
    cluster.drives[1]._healing = True
    await cluster.clock.sleep(RIPE_SECONDS)
    assert await Pods(cluster).drop(2) == 0
    cluster.drives[1]._healing = False
    assert await Pods(cluster).drop() == 1


@pytest.mark.parametrize("verb", ["weigh_tombstones", "drop_tombstones"])
async def test_half_a_drop_is_finished_later(cluster: MemoryCluster, verb: str) -> None:
    await delete(cluster, "a", "b")
    await cluster.clock.sleep(RIPE_SECONDS)

    async def hook(position: int, called: str, _: Any) -> None:
        if called == verb and position in (1, 2):
            raise DriveOffline("gone")

    cluster.hook = hook
    pods = Pods(cluster)
    await pods.drop()
    assert rows(cluster) == ([2] * 4 if verb == "weigh_tombstones" else [0, 2, 2, 0])
    assert await cluster.get("a") is None
    assert (await cluster.store.list_objects(BUCKET)).entries == []
    cluster.hook = None
    await pods.drop()
    assert rows(cluster) == [0] * 4


async def test_a_pass_that_lay_still_while_a_drive_was_away_goes_on_soon_after(cluster: MemoryCluster) -> None:
    """Hours without a turn are no work: they must not be rested from tenfold."""
    await delete(cluster, "a")
    await cluster.clock.sleep(RIPE_SECONDS)

    async def hook(_: int, called: str, __: Any) -> None:
        if called == "drop_tombstones":
            raise DriveOffline("gone")

    cluster.hook = hook
    pods = Pods(cluster)
    for service in pods.services:  # one kind of registers each: nobody's pass comes to its end
        drive = service._local_drives()[0]
        for _ in range(4 * TURN_MS // 1000):
            if service.work_of(0).drop.seen:
                break
            await service.tombstones.step(drive, service.set_of(drive), service.work_of(0).drop)
            await cluster.clock.sleep(1.0)
    cluster.hook = None
    assert sum(service.work_of(0).drop.seen for service in pods.services) > 0
    with cluster.away(2):
        await cluster.clock.sleep(10 * 3600.0)
    assert await pods.drop(2) == 1
    assert rows(cluster) == [0] * 4


async def test_a_drive_that_lost_its_note_is_told_again(cluster: MemoryCluster) -> None:
    async def hook(position: int, called: str, arguments: Any) -> None:
        if called == "note" and position == 2:
            raise DriveOffline("lost")

    await cluster.put("a", b"x")
    await cluster.settle()
    cluster.hook = hook
    await cluster.store.delete_object(BUCKET, "a")
    await cluster.settle()
    cluster.hook = None
    await cluster.clock.sleep(RIPE_SECONDS)
    pods = Pods(cluster)
    assert await pods.drop() == 0
    assert [len(stamps) for stamps in cluster.stamps(object_register(BUCKET, "a"))] == [1] * 4
    await cluster.clock.sleep(RIPE_SECONDS)
    assert await pods.drop() == 1


async def test_what_a_drive_told_of_a_tombstone_survives_a_loss_of_power(cluster: MemoryCluster) -> None:
    await cluster.put("a", b"")
    await cluster.settle()
    await cluster.store.delete_object(BUCKET, "a")
    await cluster.settle()
    await cluster.clock.sleep(RIPE_SECONDS)
    assert cluster.drives[3].unsynced_count

    async def hook(position: int, called: str, _: Any) -> None:
        if called == "drop_tombstones" and position == 3:
            cluster.drives[3].lose_power()
            raise DriveOffline("no power")

    cluster.hook = hook
    await Pods(cluster).drop()
    cluster.hook = None
    assert rows(cluster) == [0, 0, 0, 1]
    for away in ((0, 1), (0, 2), (1, 2)):
        with cluster.away(*away):
            assert await cluster.get("a") is None


async def test_a_write_in_between_stays(cluster: MemoryCluster) -> None:
    await delete(cluster, "a", "b")
    await cluster.clock.sleep(RIPE_SECONDS)
    written = False

    async def hook(_: int, called: str, __: Any) -> None:
        nonlocal written
        if called == "drop_tombstones" and not written:
            written = True
            await cluster.put("a", b"new")

    cluster.hook = hook
    await Pods(cluster).drop()
    assert await cluster.get("a") == b"new"
    assert [e.key for e in (await cluster.store.list_objects(BUCKET)).entries] == ["a"]


async def test_a_late_commit_of_the_deleted_version_is_refused(cluster: MemoryCluster) -> None:
    await cluster.put("a", b"old")
    await cluster.settle()
    register = object_register(BUCKET, "a")
    old = (await cluster.drives[0].query(register, True)).records[0]
    before = [(await drive.query(register, True)).watermark for drive in cluster.drives]
    await cluster.store.delete_object(BUCKET, "a")
    await cluster.settle()
    await cluster.clock.sleep(RIPE_SECONDS)
    assert await Pods(cluster).drop() == 1
    for drive, watermark in zip(cluster.drives, before, strict=True):
        for mode in CommitMode:
            request = CommitRequest(register, old, mode, b"", watermark)
            assert (await drive.commit(request)).status in (CommitStatus.STALE, CommitStatus.REFUSED)
    assert await cluster.get("a") is None


async def test_a_coordinator_whose_clock_lags_is_not_refused_for_good(cluster: MemoryCluster) -> None:
    await delete(cluster, "a")
    await cluster.clock.sleep(RIPE_SECONDS)
    assert await Pods(cluster).drop() == 1
    lagging = cluster.new_store()
    lagging._stamps.next = _first_mints(lagging._stamps.next, 5 << 20)  # type: ignore[method-assign]
    await lagging.put_object(BUCKET, "a", BytesBody(b"after all"))
    assert await cluster.get("a") == b"after all"


def _first_mints(mint: Callable[[int], int], stamp: int) -> Callable[[int], int]:
    minted: list[int] = []

    def once(now_ms: int) -> int:
        minted.append(now_ms)
        return stamp if len(minted) == 1 else mint(now_ms)

    return once


async def test_an_acknowledged_version_below_the_watermark_can_still_be_rolled_forward(cluster: MemoryCluster) -> None:
    """No note of it was sent, a holder is away, and deletes of the same range were dropped since."""

    async def hook(_: int, called: str, arguments: Any) -> None:
        if called == "note" and arguments[0].key == "kept":
            raise DriveOffline("lost")
        if called in ("commit", "stage") and _ == 3 and "kept" in repr(arguments):
            raise DriveOffline("lost")

    cluster.hook = hook
    await cluster.put("kept", b"acknowledged")
    await delete(cluster, *(f"{n}" for n in range(400)))
    cluster.hook = None
    await cluster.clock.sleep(RIPE_SECONDS)
    assert await Pods(cluster).drop() == 400
    reply = await cluster.drives[3].query(object_register(BUCKET, "kept"), False)
    for drive in cluster.drives:
        drive._watermarks = [max(drive._watermarks)] * len(drive._watermarks)
    assert reply.records == ()
    with cluster.away(1):
        assert await cluster.get("kept") == b"acknowledged"


async def test_a_completed_upload_answers_again_for_an_hour(cluster: MemoryCluster) -> None:
    store = cluster.store
    upload_id = await store.create_upload(BUCKET, "big", {}, b"")
    part = await store.put_part(BUCKET, "big", upload_id, 1, BytesBody(b"part"))
    await store.put_part(BUCKET, "big", upload_id, 2, BytesBody(b"left out"))
    parts = [PartRef(1, part.etag)]

    async def complete() -> record.Record:
        return await store.complete_upload(BUCKET, "big", upload_id, parts, lambda *_: Attributes(etag="whole-1"))

    made = await complete()
    await cluster.settle()
    await cluster.clock.sleep(RIPE_SECONDS)
    pods = Pods(cluster)
    assert await pods.drop() == 0
    assert await complete() == made
    await cluster.clock.sleep(3600)
    assert await pods.drop() == 1
    with pytest.raises(Missing):
        await complete()
    assert await cluster.get("big") == b"part"
    assert rows(cluster) == [1] * 4


async def test_documents_are_dropped_too(cluster: MemoryCluster) -> None:
    await cluster.store.put_document("bucket/a", b"{}")
    await cluster.store.delete_document("bucket/a")
    await cluster.settle()
    await cluster.clock.sleep(RIPE_SECONDS)
    assert await Pods(cluster).drop() == 1
    assert await cluster.store.get_document("bucket/a") is None


async def test_deleted_versions_leave_nothing_behind(cluster: MemoryCluster) -> None:
    for number in range(12):
        body = BytesBody(str(number).encode(), versioning=Versioning.ENABLED)
        await cluster.store.put_object(BUCKET, f"k{number // 4}", body)
    await cluster.settle()
    for entry in (await cluster.store.list_versions(BUCKET)).entries:
        if entry.key != "k2":
            await cluster.store.delete_version(BUCKET, entry.key, entry.record.place)
    await cluster.settle()
    await cluster.clock.sleep(RIPE_SECONDS)
    await Pods(cluster).drop()
    assert rows(cluster) == [4] * 4
    assert [entry.key for entry in (await cluster.store.list_versions(BUCKET)).entries] == ["k2"] * 4
    assert await cluster.get("k2") == b"11"


async def test_only_one_pod_has_the_turn_and_the_turn_goes_round(cluster: MemoryCluster) -> None:
    await delete(cluster, "a")
    await cluster.clock.sleep(RIPE_SECONDS)
    pods = Pods(cluster)
    had = []
    for _ in range(4):
        for number, service in enumerate(pods.services):
            drive = service._local_drives()[0]
            if service.tombstones._has_turn(drive, service.set_of(drive)):
                had.append(number)
        await cluster.clock.sleep(TURN_MS / 1000)
    assert sorted(had) == [0, 1, 2, 3]
    assert cluster.drives[0].status().state is DriveState.FULL


@pytest.mark.parametrize(
    ("said", "becomes"),
    [
        ((SETTLED, SETTLED, SETTLED), "drop"),
        ((SETTLED, GONE, GONE), "drop"),
        ((SETTLED, YOUNG, SETTLED), ""),
        ((SETTLED, UNNOTED, GONE), "note"),
        ((SETTLED, OTHER, SETTLED), "heal"),
        ((SETTLED, OTHER, UNNOTED), "heal"),
    ],
)
def test_what_becomes_of_a_tombstone(said: tuple[TombstoneState, ...], becomes: str) -> None:
    tombstone = Tombstone(Register(b"o", "a"), 0)
    states = {position: [state] for position, state in enumerate(said)}
    judged = judge([tombstone], states, 62_000, 62.0)
    assert (judged.drop, judged.heal) == (
        [tombstone] if becomes == "drop" else [],
        [tombstone.register] if becomes == "heal" else [],
    )
    assert judged.note == ({1: [tombstone]} if becomes == "note" else {})
    assert judge([tombstone], states, 61_999, 62.0).drop == [], "too young"
