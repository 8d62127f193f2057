"""One pass over a drive finds what rotted, what nobody noted, what leaked; and goes on where a restart cut it off."""

from __future__ import annotations

import random
from typing import Any

import pytest

from holdfast_server.drives.port import DriveOffline
from holdfast_server.heal import scanner
from holdfast_server.heal.service import HealService
from holdfast_server.heal.settings import HealSettings
from holdfast_server.objects import record
from holdfast_server.objects.healing import OPERATION_DEADLINE_SECONDS
from holdfast_server.objects.port import Versioning
from holdfast_server.objects.record import STRIPE_SIZE_BYTES, object_register
from holdfast_server.testing.memory_cluster import BUCKET, BytesBody, MemoryCluster

SETTINGS = HealSettings(scan_page=4, width=3, returned_delay_seconds=1e12)
BIG = random.Random(5).randbytes(STRIPE_SIZE_BYTES + 9)
HOUR_SECONDS = 3600.0


def service(cluster: MemoryCluster, position: int, settings: HealSettings = SETTINGS) -> HealService:
    drive: Any = cluster._hooked[0][position]
    return HealService(cluster.new_store(), lambda: (drive,), cluster.clock, settings)


async def scan_once(healing: HealService, cluster: MemoryCluster) -> None:
    (drive,) = healing._local_drives()
    await healing.scanner.scan_once(drive, healing.set_of(drive), healing.work_of(0).scan)
    await cluster.settle()


def shards_on(cluster: MemoryCluster, position: int) -> list[bytes]:
    return sorted(cluster.drives[position].shard_ids())


@pytest.mark.parametrize("position", range(4))
async def test_rot_at_rest_is_found_and_rebuilt_whichever_drive_it_is_on(cluster: MemoryCluster, position: int) -> None:
    for number in range(6):
        await cluster.put(f"k{number}", BIG)
    await cluster.settle()
    drive = cluster.drives[position]
    for number, data_id in enumerate(shards_on(cluster, position)):
        if number % 2:
            drive.rot(data_id, number % 3 % 2)
        else:
            del drive._shards[data_id]
    healing = service(cluster, position)
    await scan_once(healing, cluster)
    for data_id in shards_on(cluster, position):
        await drive.verify_shard(data_id)
    assert len(shards_on(cluster, position)) == 6
    told = healing.report().drives[0].scanner
    assert (told.rotten_found, told.registers) == (6, 6)
    await scan_once(healing, cluster)
    assert healing.report().drives[0].scanner.rotten_found == 6, "the second pass finds it sound"


async def test_a_write_that_no_drive_noted_becomes_whole(cluster: MemoryCluster) -> None:
    """Its coordinator died between the acknowledgement and the notes: no queue has it, one drive lacks it."""

    async def silent(position: int, verb: str, _: Any) -> None:
        if verb == "note":
            raise DriveOffline("the coordinator died")

    await cluster.put("k", b"old")
    await cluster.settle()
    cluster.hook = silent
    with cluster.away(1):
        await cluster.put("k", BIG)
        await cluster.settle()
    cluster.hook = None
    await cluster.clock.sleep(OPERATION_DEADLINE_SECONDS + 1)
    await scan_once(service(cluster, 0), cluster)
    held = cluster.stamps(object_register(BUCKET, "k"))
    assert all(stamps == held[0] and len(stamps) == 1 for stamps in held)
    assert cluster.drives[0].repair_queue_length == 0


async def test_a_failed_write_is_taken_back_by_the_scanner(cluster: MemoryCluster) -> None:
    await cluster.put("k", b"old")

    async def lost(position: int, verb: str, _: Any) -> None:
        if verb == "commit" and position != 2:
            raise DriveOffline("lost")

    cluster.hook = lost
    with pytest.raises(Exception, match="quorum"):
        await cluster.put("k", BIG)
    cluster.hook = None
    await cluster.clock.sleep(OPERATION_DEADLINE_SECONDS + 1)
    await scan_once(service(cluster, 2), cluster)
    assert len({tuple(stamps) for stamps in cluster.stamps(object_register(BUCKET, "k"))}) == 1
    assert await cluster.get("k") == b"old"


async def test_orphan_shards_go_when_they_are_old(cluster: MemoryCluster) -> None:
    await cluster.put("k", BIG)
    await cluster.settle()
    drive = cluster.drives[0]
    orphan = b"\x07" + bytes(15)
    drive._shards[orphan] = drive._shards[shards_on(cluster, 0)[0]]
    healing = service(cluster, 0)
    await scan_once(healing, cluster)
    assert orphan in drive.shard_ids(), "too young"
    await cluster.clock.sleep(2 * HOUR_SECONDS)
    await scan_once(healing, cluster)
    await cluster.clock.sleep(60)
    drive.reap()
    assert orphan not in drive.shard_ids()
    assert healing.report().drives[0].scanner.orphans_removed == 1
    assert await cluster.get("k") == BIG


async def upload_with_parts(cluster: MemoryCluster, key: str) -> bytes:
    upload = await cluster.store.create_upload(BUCKET, key, {}, b"")
    for number in (1, 2):
        await cluster.store.put_part(BUCKET, key, upload, number, BytesBody(BIG))
    await cluster.settle()
    return upload


async def test_parts_that_outlived_their_upload_are_deleted_and_those_of_open_ones_stay(cluster: MemoryCluster) -> None:
    open_upload = await upload_with_parts(cluster, "open")
    ended = await upload_with_parts(cluster, "ended")
    parts = [record.part_register(BUCKET, "ended", ended, number) for number in (1, 2)]
    before = [dict(drive._states) for drive in cluster.drives]
    await cluster.store.abort_upload(BUCKET, "ended", ended)
    await cluster.settle()
    for position in (0, 1, 3):  # the parts are back on some drives, as if put while the upload was aborted
        drive = cluster.drives[position]
        for row, state in before[position].items():
            if row not in drive._states:
                drive._put(row, state)
    assert any(cluster.stamps(parts[0]))
    await cluster.clock.sleep(2 * HOUR_SECONDS)
    healing = service(cluster, 0)
    await scan_once(healing, cluster)
    assert healing.report().drives[0].scanner.parts_removed == 2
    for part in parts:
        assert await cluster.store.live(part) is None
    left, _ = await cluster.store.list_parts(BUCKET, "open", open_upload)
    assert [number for number, _ in left] == [1, 2]


async def test_a_part_dropped_by_one_drive_already_is_not_copied_back(cluster: MemoryCluster) -> None:
    upload = await upload_with_parts(cluster, "k")
    part = record.part_register(BUCKET, "k", upload, 1)

    async def late(position: int, verb: str, arguments: tuple[Any, ...]) -> None:
        if verb == "note" and position in (0, 1, 2):
            raise DriveOffline("has not heard that the upload ended")

    cluster.hook = late
    await cluster.store.abort_upload(BUCKET, "k", upload)
    await cluster.settle()
    cluster.hook = None
    assert [len(stamps) for stamps in cluster.stamps(part)] == [1, 1, 1, 0]
    await cluster.clock.sleep(OPERATION_DEADLINE_SECONDS + 1)
    await scan_once(service(cluster, 0), cluster)
    assert await cluster.store.live(part) is None


@pytest.mark.parametrize("units", [1, 2, 3, 5, 100])
async def test_a_restarted_pod_scans_on_where_it_was(
    cluster: MemoryCluster, units: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scanner, "UNIT_BYTES", 1)  # a large object ends a unit in the middle of a page
    for number in range(18):
        await cluster.put(f"k{number:02d}", BIG if number % 4 == 1 else b"small")
    await cluster.settle()
    first = service(cluster, 0)
    (drive,) = first._local_drives()
    for _ in range(units):
        await first.scanner._unit(drive, first.set_of(drive), first.work_of(0).scan)
    seen = first.report().drives[0].scanner.registers
    cluster.drives[0].restart()
    second = service(cluster, 0)
    await scan_once(second, cluster)
    assert seen + second.report().drives[0].scanner.registers == 18


async def test_any_call_may_fail_during_a_scan(cluster: MemoryCluster) -> None:
    n = calls = 0
    while calls >= n:
        n += 1
        made = MemoryCluster(cluster.clock, 4, 2, 1)
        for number in range(5):
            await made.put(f"k{number}", BIG if number % 2 else b"small")
        await made.settle()
        made.drives[0].rot(shards_on(made, 0)[0])
        calls = 0

        async def hook(position: int, verb: str, _: Any, n: int = n) -> None:
            nonlocal calls
            if verb in ("trash_orphans", "keep"):
                return  # hundreds of them, one like the other
            calls += 1
            if calls == n:
                raise DriveOffline(f"call {n}")

        made.hook = hook
        healing = service(made, 0)
        for _ in range(2):
            try:
                await scan_once(healing, made)
            except DriveOffline:
                await scan_once(healing, made)
        made.hook = None
        for data_id in shards_on(made, 0):
            await made.drives[0].verify_shard(data_id)
        await made.close()
    assert n > 15


async def test_a_pass_is_spread_over_its_time(cluster: MemoryCluster) -> None:
    for number in range(20):
        await cluster.put(f"k{number}", b"small")
    await cluster.settle()
    settings = HealSettings(scan_page=5, scan_pass_seconds=1000.0, returned_delay_seconds=1e12)
    healing = service(cluster, 0, settings)
    began = cluster.clock.monotonic_seconds()
    while healing.report().drives[0].scanner.last_pass_ended_ms == 0:
        await healing.heal_once()
        await cluster.clock.sleep(1)
    took = cluster.clock.monotonic_seconds() - began
    assert 200 < took <= 1100
    healing.start_scan()
    began = cluster.clock.monotonic_seconds()
    ended = healing.report().drives[0].scanner.last_pass_ended_ms
    while healing.report().drives[0].scanner.last_pass_ended_ms == ended:
        await healing.heal_once()
    assert cluster.clock.monotonic_seconds() - began < 10, "asked for, it does not wait"


async def test_a_shard_that_takes_long_to_read_is_no_end_of_the_scan(
    cluster: MemoryCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of five gigabytes takes longer than any fixed time from a slow disk: the pass would stand there for ever."""
    monkeypatch.setattr(scanner, "VERIFY_TIMEOUT_SECONDS", 1.0)
    monkeypatch.setattr(scanner, "SLOWEST_BYTES_PER_SECOND", 4096, raising=False)
    for number in range(3):
        await cluster.put(f"k{number}", BIG)
    await cluster.settle()

    async def slow(position: int, verb: str, _: Any) -> None:
        if verb == "verify_shard":
            await cluster.clock.sleep(100.0)

    cluster.hook = slow
    healing = service(cluster, 0)
    await scan_once(healing, cluster)
    assert healing.report().drives[0].scanner.last_pass_ended_ms


async def test_an_upload_that_cannot_be_decided_is_no_end_of_the_scan(cluster: MemoryCluster) -> None:
    """It may stay so until a person decides; what comes behind its parts is looked at all the same."""
    await upload_with_parts(cluster, "k")
    await cluster.put("k", BIG)
    await cluster.settle()
    await cluster.clock.sleep(2 * HOUR_SECONDS)

    async def undecided(position: int, verb: str, arguments: tuple[Any, ...]) -> None:
        if verb == "query" and arguments[0].space[:1] == record.UPLOAD_SPACE:
            raise DriveOffline("stuck")

    cluster.hook = undecided
    healing = service(cluster, 0)
    await scan_once(healing, cluster)
    told = healing.report().drives[0].scanner
    assert told.last_pass_ended_ms
    assert told.parts_removed == 0


async def test_a_pass_that_began_by_a_clock_that_was_ahead_does_not_put_off_the_next_for_long(
    cluster: MemoryCluster,
) -> None:
    await cluster.put("k", b"x")
    await cluster.settle()
    healing = service(cluster, 0)
    (drive,) = healing._local_drives()
    state = healing.work_of(0).scan
    year_ms = 365 * 24 * 3_600_000
    state.present = scanner.ScanPass(drive.status().drive_id, cluster.clock.now_ms() + year_ms)
    state.hurry = True
    while await healing.scanner.step(drive, healing.set_of(drive), state):
        pass
    assert healing.report().drives[0].scanner.last_pass_ended_ms
    assert state.due_at - cluster.clock.monotonic_seconds() <= SETTINGS.scan_pass_seconds


async def test_a_null_version_that_was_replaced_by_a_writer_that_died_gives_its_space_back(
    cluster: MemoryCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No list shows it and nobody asks for it, but it was counted, and its shards lay there, for ever."""
    store = cluster.store
    monkeypatch.setattr(store.versions, "_forget_later", lambda resting: None)
    for data, versioning in (
        (BIG, Versioning.SUSPENDED),
        (b"with an id", Versioning.ENABLED),
        (b"another null", Versioning.SUSPENDED),
    ):
        await store.put_object(BUCKET, "k", BytesBody(data, versioning=versioning))
        await cluster.clock.sleep(1)
    await cluster.settle()
    assert len(shards_on(cluster, 0)) == 1
    healing = service(cluster, 0)
    await scan_once(healing, cluster)
    assert len(shards_on(cluster, 0)) == 1, "its writer may be at it yet"
    await cluster.clock.sleep(2 * HOUR_SECONDS)
    await scan_once(healing, cluster)
    await cluster.clock.sleep(60)
    for drive in cluster.drives:
        drive.reap()
        assert not drive.shard_ids()
    listed = await store.list_versions(BUCKET)
    assert [(one.record.null, one.latest) for one in listed.entries] == [(True, True), (False, False)]


async def test_a_shard_that_never_comes_is_no_end_of_the_scan(
    cluster: MemoryCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk may try a bad sector for minutes, each time it is asked; what lies behind it was never looked at."""
    monkeypatch.setattr(scanner, "VERIFY_TIMEOUT_SECONDS", 1.0)
    for number in range(6):
        await cluster.put(f"k{number}", BIG)
    await cluster.settle()
    drive = cluster.drives[0]
    bad, *others = [data_id for _, data_id in sorted(_named(drive))]
    drive.rot(others[-1], 0)

    async def slow(position: int, verb: str, arguments: tuple[Any, ...]) -> None:
        if verb == "verify_shard" and arguments[0] == bad:
            await cluster.clock.sleep(100_000.0)

    cluster.hook = slow
    healing = service(cluster, 0)
    await scan_once(healing, cluster)
    told = healing.report().drives[0].scanner
    assert told.last_pass_ended_ms
    assert told.rotten_found == 1
    await drive.verify_shard(others[-1])


def _named(drive: Any) -> list[tuple[bytes, bytes]]:
    return [(row, data_id) for row in drive.rows() for held in drive.state_of(row).records for data_id in held.data_ids]
