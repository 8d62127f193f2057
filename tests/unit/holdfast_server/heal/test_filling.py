"""A drive gets what it lacks: everything, if it is new; once, however often its pod restarts; and only then is full."""

from __future__ import annotations

import random
from typing import Any

import pytest

from holdfast_server.clock.stamp import MAX_CLOCK_SKEW_MS, floor_stamp
from holdfast_server.drives import keys
from holdfast_server.drives.port import DriveOffline, DriveState
from holdfast_server.heal.service import HealService
from holdfast_server.heal.settings import HealSettings
from holdfast_server.objects.healing import OPERATION_DEADLINE_SECONDS
from holdfast_server.objects.port import ObjectError, Unavailable
from holdfast_server.objects.record import STRIPE_SIZE_BYTES, object_register
from holdfast_server.testing.memory_cluster import BUCKET, MemoryCluster
from holdfast_server.testing.memory_drive import MemoryDrive

PAGES = HealSettings(compare_page=5, width=3, returned_delay_seconds=0.0)
LOST = 2


def replace(cluster: MemoryCluster, position: int = LOST) -> None:
    """An empty drive in the place of one that is lost, adopted now (rule 11)."""
    fresh = MemoryDrive(
        cluster.clock,
        position=position,
        drive_id=b"a fresh drive id",
        healing=True,
        incarnation=99,
        watermark=floor_stamp(cluster.clock.now_ms() + 5000),
    )
    cluster.drives[position] = fresh
    cluster._hooked[0][position]._drive = fresh  # type: ignore[attr-defined]


def service(cluster: MemoryCluster, position: int = LOST, settings: HealSettings = PAGES) -> HealService:
    """The heal service of a pod that has just started."""
    drive: Any = cluster._hooked[0][position]
    return HealService(cluster.new_store(), lambda: (drive,), cluster.clock, settings)


async def content(cluster: MemoryCluster, count: int = 23) -> dict[str, bytes | None]:
    """Small ones, large ones, deleted ones."""
    rng = random.Random(count)
    written: dict[str, bytes | None] = {}
    for number in range(count):
        size = STRIPE_SIZE_BYTES + 5 if number % 7 == 3 else rng.choice([0, 10, 5000])
        written[f"key-{number:03d}"] = rng.randbytes(size)
        await cluster.put(f"key-{number:03d}", written[f"key-{number:03d}"] or b"")
        if number % 5 == 4:
            await cluster.store.delete_object(BUCKET, f"key-{number:03d}")
            written[f"key-{number:03d}"] = None
    await cluster.settle()
    return written


async def require_whole(cluster: MemoryCluster, written: dict[str, bytes | None]) -> None:
    """Every drive holds the one version, and any two of them give it back."""
    await cluster.settle()
    for key, data in written.items():
        held = cluster.stamps(object_register(BUCKET, key))
        assert all(stamps == held[0] for stamps in held), key
        for away in ((0, 1), (1, 3), (0, 3)):
            with cluster.away(*away):
                assert await cluster.get(key) == data, (key, away)


async def fill(healing: HealService, cluster: MemoryCluster, rounds: int = 100) -> int:
    """Until it is full; how many rounds that took."""
    for done in range(rounds):
        if cluster.drives[LOST].status().state is DriveState.FULL:
            return done
        await healing.heal_once()
        await cluster.clock.sleep(1)
    raise AssertionError(f"not full after {rounds} rounds")


async def test_an_empty_drive_gets_everything_and_is_full_then(cluster: MemoryCluster) -> None:
    written = await content(cluster)
    replace(cluster)
    healing = service(cluster)
    assert await fill(healing, cluster) >= 5, "a page is a unit of work"
    await require_whole(cluster, written)
    assert healing.filling.drives_filled == 1
    assert healing.report().drives[0].filling is None


async def test_progress_is_told_while_it_goes_on(cluster: MemoryCluster) -> None:
    await content(cluster)
    replace(cluster)
    healing = service(cluster)
    seen = []
    while cluster.drives[LOST].status().state is DriveState.HEALING:
        await healing.heal_once()
        filling = healing.report().drives[0].filling
        if filling is not None:
            seen.append((filling.registers_done, filling.registers_total, filling.replacement))
    assert [done for done, _, _ in seen] == [5, 10, 15, 20]
    assert {(total, replacement) for _, total, replacement in seen} == {(23, True)}


@pytest.mark.parametrize("restarts_after", range(1, 5))
async def test_a_restarted_pod_goes_on_where_it_was(cluster: MemoryCluster, restarts_after: int) -> None:
    written = await content(cluster)
    replace(cluster)
    first = service(cluster)
    for _ in range(restarts_after):
        await first.heal_once()
    await cluster.settle()
    cluster.drives[LOST].restart()
    cluster.calls.clear()
    await fill(service(cluster), cluster)
    scans = sum(1 for position, verb in cluster.calls if position == LOST and verb == "scan")
    assert scans == 5 - restarts_after, "no page is compared again"
    await require_whole(cluster, written)


async def test_a_pass_of_another_incarnation_says_nothing(cluster: MemoryCluster) -> None:
    """A drive whose folder came back with an older place in it: everything is compared."""
    written = await content(cluster)
    replace(cluster)
    first = service(cluster)
    for _ in range(3):
        await first.heal_once()
    kept = dict(cluster.drives[LOST]._kept)
    replace(cluster)
    cluster.drives[LOST]._incarnation = 100
    cluster.drives[LOST]._kept = kept
    await fill(service(cluster), cluster)
    await require_whole(cluster, written)


async def test_what_could_not_be_healed_keeps_the_drive_from_being_full_even_over_a_restart(
    cluster: MemoryCluster,
) -> None:
    written = await content(cluster)
    replace(cluster)
    hidden = keys.row_key(object_register(BUCKET, "key-001"))

    async def hook(position: int, verb: str, arguments: tuple[Any, ...]) -> None:
        if verb == "query_many" and hidden in map(keys.row_key, arguments[0]):
            raise DriveOffline("not now")

    cluster.hook = hook
    first = service(cluster)
    await first.heal_once()
    assert first.registers.failed == 0, "a query that fails everywhere leaves the register undecided"
    cluster.hook = None
    second = service(cluster)
    for _ in range(4):
        await second.heal_once()
    assert cluster.drives[LOST].status().state is DriveState.HEALING, "the first page left something out"
    await fill(second, cluster)
    await require_whole(cluster, written)


async def test_something_that_was_being_written_at_every_moment_costs_no_second_pass(cluster: MemoryCluster) -> None:
    """Steady traffic: whenever a page is healed, one of its registers cannot be; each of them can a little later."""
    written = await content(cluster)
    replace(cluster)
    refused: set[bytes] = set()

    async def hook(position: int, verb: str, arguments: tuple[Any, ...]) -> None:
        if verb == "commit" and position == LOST:
            row = keys.row_key(arguments[0].register)
            number = int(arguments[0].register.key[-3:])
            if number % 5 == 1 and row not in refused:
                refused.add(row)
                raise DriveOffline("just now it is being written")

    cluster.hook = hook
    healing = service(cluster)
    cluster.calls.clear()
    await fill(healing, cluster)
    assert len(refused) == 5
    scans = sum(1 for position, verb in cluster.calls if position == LOST and verb == "scan")
    assert scans == 5, "what was left is healed by itself; no page is compared again"
    await require_whole(cluster, written)


async def test_any_call_may_fail(cluster: MemoryCluster) -> None:
    """For every n, the n-th call of a filling fails: nothing is lost, and the drive is full only when it is whole."""
    n = calls = 0
    while calls >= n:
        n += 1
        made = MemoryCluster(cluster.clock, 4, 2, 1)
        written = await content(made, 9)
        replace(made)
        calls = 0

        async def hook(position: int, verb: str, _: Any, n: int = n) -> None:
            nonlocal calls
            calls += 1
            if calls == n:
                raise DriveOffline(f"call {n}, {verb} on {position}")

        made.hook = hook
        try:
            await fill(service(made), made)
        finally:
            made.hook = None
        await require_whole(made, written)
        await made.close()
    assert n > 30


async def test_an_unmarked_version_does_not_hide_what_lies_beneath(cluster: MemoryCluster) -> None:
    """The replacement took a write that may yet be taken back: the acknowledged version must be there, too."""
    wide = MemoryCluster(cluster.clock, 6, 1, 1)
    await wide.put("k", b"acknowledged")
    await wide.settle()
    (acknowledged,) = wide.stamps(object_register(BUCKET, "k"))[0]
    replace(wide)
    await wide.clock.sleep(10)

    async def refuse(position: int, verb: str, _: Any) -> None:
        if verb == "commit" and position not in (LOST, 3, 4):
            raise DriveOffline("lost")

    wide.hook = refuse
    with pytest.raises(Unavailable):
        await wide.put("k", b"on three of six: as many as are compared")
    await wide.settle()
    wide.hook = None
    await fill(service(wide), wide)
    assert acknowledged in wide.stamps(object_register(BUCKET, "k"))[LOST]
    await wide.close()


async def test_a_drive_is_not_full_before_a_write_that_it_may_owe_is_decided(cluster: MemoryCluster) -> None:
    """Acknowledged by three, one of which is replaced; nobody was told, and the clock it was stamped by was ahead by as
    much as clocks may be: by the others', its coordinator may be at it still when the replacement joins."""
    await cluster.put("k", b"before")
    await cluster.settle()

    async def refuse(position: int, verb: str, _: Any) -> None:
        if verb == "note" or (verb == "commit" and position == 3):
            raise DriveOffline("lost")

    cluster.hook = refuse
    cluster.store._stamps.observe(floor_stamp(cluster.clock.now_ms() + MAX_CLOCK_SKEW_MS))
    await cluster.put("k", b"acknowledged")
    await cluster.settle()
    cluster.hook = None
    await cluster.clock.sleep(OPERATION_DEADLINE_SECONDS)
    replace(cluster)
    await fill(service(cluster), cluster)
    await cluster.settle()
    assert await cluster.get("k") == b"acknowledged"


async def test_a_write_begun_since_does_not_keep_a_drive_from_being_full(cluster: MemoryCluster) -> None:
    """It was offered to the drive, or lies on others that promised: a busy key would hold up every replacement."""
    await cluster.put("k", b"before")
    await cluster.settle()
    replace(cluster)

    async def refuse(position: int, verb: str, _: Any) -> None:
        if verb == "note" or (verb == "commit" and position != 3):
            raise DriveOffline("lost")

    await cluster.clock.sleep(10)
    cluster.hook = refuse
    with pytest.raises(Unavailable):
        await cluster.put("k", b"on one drive, and nobody knows how it ends")
    await cluster.settle()
    cluster.hook = None
    began = cluster.clock.monotonic_seconds()
    await fill(service(cluster), cluster)
    assert cluster.clock.monotonic_seconds() - began < OPERATION_DEADLINE_SECONDS / 2


async def test_writes_that_go_on_meanwhile_are_there_in_the_end(cluster: MemoryCluster) -> None:
    written = await content(cluster)
    replace(cluster)
    healing = service(cluster)
    number = 0
    while cluster.drives[LOST].status().state is DriveState.HEALING:
        await healing.heal_once()
        for key in (f"key-{number * 7 % 23:03d}", f"new-{number:03d}"):
            written[key] = b"%d" % number * 100
            await cluster.put(key, written[key] or b"")
        number += 1
        await cluster.clock.sleep(0.3)
    for _ in range(60):
        for position in range(4):
            await service(cluster, position).heal_once()
        await cluster.clock.sleep(1)
    await require_whole(cluster, written)


async def test_a_drive_that_was_away_is_looked_through_for_what_no_queue_knows(cluster: MemoryCluster) -> None:
    """The notes were lost with the coordinator: no drive knows that one missed the writes."""

    async def silent(position: int, verb: str, _: Any) -> None:
        if verb == "note":
            raise DriveOffline("the coordinator died")

    cluster.hook = silent
    written: dict[str, bytes | None] = {}
    with cluster.away(LOST):
        for number in range(12):
            written[f"k{number}"] = b"%d" % number
            await cluster.put(f"k{number}", written[f"k{number}"] or b"")
        await cluster.settle()
    cluster.hook = None
    assert [drive.repair_queue_length for drive in cluster.drives] == [0] * 4
    await cluster.clock.sleep(OPERATION_DEADLINE_SECONDS + 1)
    healing = service(cluster)
    for _ in range(5):
        await healing.heal_once()
        await cluster.clock.sleep(1)
    await require_whole(cluster, written)
    cluster.calls.clear()
    await healing.heal_once()
    scans = [verb for position, verb in cluster.calls if verb == "scan" and position != LOST]
    assert len(scans) <= 2, "once is enough; what remains is the scanner's page"


@pytest.mark.parametrize("how", ["cut off", "hanging", "set aside", "another pod restarts"])
async def test_a_drive_is_looked_through_again_when_others_could_write_without_it(
    cluster: MemoryCluster, how: str
) -> None:
    await content(cluster, 6)
    healing = service(cluster)
    for _ in range(4):
        await healing.heal_once()
        await cluster.clock.sleep(1)
    away = {"cut off": (0, 1, 3), "hanging": (LOST,), "set aside": (), "another pod restarts": (0,)}[how]
    with cluster.away(*away):
        cluster.drives[LOST].faulty = "input/output error" if how == "set aside" else ""
        await healing.heal_once()
        await cluster.clock.sleep(1)
    cluster.drives[LOST].faulty = ""  # the same drive, opened anew
    cluster.calls.clear()
    for _ in range(4):
        await healing._everywhere(healing._fill)
        await cluster.clock.sleep(1)
    scans = sum(1 for position, verb in cluster.calls if position == LOST and verb == "scan")
    assert scans == (0 if how == "another pod restarts" else 2), "two pages of five"


async def test_two_pods_fill_and_repair_the_same_registers_at_once(cluster: MemoryCluster) -> None:
    written = await content(cluster)
    with cluster.away(LOST):
        for key in list(written)[::2]:
            written[key] = b"missed " + key.encode()
            await cluster.put(key, written[key] or b"")
        await cluster.settle()
    replace(cluster)
    services = [service(cluster, position) for position in range(4)]
    for _ in range(30):
        for healing in services:
            cluster.store.background.spawn(healing.heal_once())
        await cluster.clock.sleep(1)
        await cluster.settle()
    assert cluster.drives[LOST].status().state is DriveState.FULL
    await require_whole(cluster, written)
    assert [drive.repair_queue_length for drive in cluster.drives] == [0] * 4


async def test_nothing_is_compared_with_too_few_full_drives(cluster: MemoryCluster) -> None:
    await content(cluster, 5)
    replace(cluster)
    healing = service(cluster)
    with cluster.away(0, 1):
        for _ in range(3):
            await healing.heal_once()
        assert cluster.drives[LOST].status().state is DriveState.HEALING
    try:
        await fill(healing, cluster)
    except ObjectError as error:  # pragma: no cover
        raise AssertionError("an error of one unit ended the service") from error
