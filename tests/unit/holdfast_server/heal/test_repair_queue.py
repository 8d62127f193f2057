"""The repair queue is worked off whatever is in it: nothing holds up what is behind it, and nothing is forgotten."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from holdfast_server.drives import keys
from holdfast_server.drives.port import DriveOffline
from holdfast_server.heal.service import HealService
from holdfast_server.heal.settings import HealSettings
from holdfast_server.objects.healing import OPERATION_DEADLINE_SECONDS
from holdfast_server.objects.record import object_register
from holdfast_server.testing.memory_cluster import BUCKET, MemoryCluster

SETTINGS = HealSettings(queue_page=5, width=4, returned_delay_seconds=1e12, scan_rest_seconds=1e12)


def services(cluster: MemoryCluster, settings: HealSettings = SETTINGS) -> list[HealService]:
    made = []
    for position in range(4):
        drive: Any = cluster._hooked[0][position]
        made.append(HealService(cluster.new_store(), lambda drive=drive: (drive,), cluster.clock, settings))
    return made


async def work(cluster: MemoryCluster, pods: list[HealService], seconds: float) -> None:
    """As the pods do, but for the scanner and the comparing."""

    async def loop(pod: HealService) -> None:
        while True:
            if not await pod._everywhere(pod._work_off):
                await cluster.clock.sleep(pod.settings.interval_seconds)

    async with asyncio.TaskGroup() as group:
        running = [group.create_task(loop(pod)) for pod in pods]
        await cluster.clock.sleep(seconds)
        for task in running:
            task.cancel()
    await cluster.settle()


def queues(cluster: MemoryCluster) -> list[int]:
    return [drive.repair_queue_length for drive in cluster.drives]


def is_whole(cluster: MemoryCluster, key: str) -> bool:
    held = cluster.stamps(object_register(BUCKET, key))
    return all(len(stamps) == 1 and stamps == held[0] for stamps in held)


async def test_what_cannot_be_repaired_holds_up_nobody_behind_it(cluster: MemoryCluster) -> None:
    keys_of = [f"k{number:02d}" for number in range(30)]
    bad = {keys.row_key(object_register(BUCKET, key)) for key in keys_of[:12]}
    with cluster.away(1):
        for key in keys_of:
            await cluster.put(key, key.encode())
        await cluster.settle()

    async def hook(position: int, verb: str, arguments: tuple[Any, ...]) -> None:
        if verb == "commit" and keys.row_key(arguments[0].register) in bad:
            raise DriveOffline("this one never works")

    cluster.hook = hook
    pods = services(cluster)
    await work(cluster, pods, 60)
    assert all(is_whole(cluster, key) for key in keys_of[12:])
    assert not any(is_whole(cluster, key) for key in keys_of[:12])
    assert max(queues(cluster)) == 12
    cluster.hook = None
    await work(cluster, pods, 60)
    assert all(is_whole(cluster, key) for key in keys_of)
    assert queues(cluster) == [0] * 4


async def test_what_one_returned_drive_missed_is_repaired_while_another_is_away(cluster: MemoryCluster) -> None:
    with cluster.away(1):
        for number in range(10):
            await cluster.put(f"k{number}", b"data")
        await cluster.settle()
    pods = services(cluster)
    with cluster.away(3):
        await work(cluster, pods[:3], 30)
        for number in range(10):
            stamps = cluster.stamps(object_register(BUCKET, f"k{number}"))
            assert stamps[1] == stamps[0], "drive 1 is back; that 3 is away is no reason to leave it bare"
    assert max(queues(cluster)) == 10, "not whole, as far as anybody knows"
    await work(cluster, pods, 30)
    assert queues(cluster) == [0] * 4


async def test_a_queue_that_waits_for_a_lost_drive_costs_little(cluster: MemoryCluster) -> None:
    with cluster.away(3):
        for number in range(10):
            await cluster.put(f"k{number}", b"data")
        await cluster.settle()
        pods = services(cluster)
        await work(cluster, pods[:3], 60)
        cluster.calls.clear()
        await work(cluster, pods[:3], 300)
        assert sum(verb == "query_many" for _, verb in cluster.calls) == 0, "nothing has changed"


async def test_a_newer_miss_is_not_forgotten_with_the_older_one(cluster: MemoryCluster) -> None:
    """The drive that repairs missed the newer version: it has no entry of it, and tells the others to forget."""
    with cluster.away(1):
        await cluster.put("k", b"first")
        await cluster.settle()
    pods = services(cluster)
    armed = True
    written = asyncio.Event()

    async def hook(position: int, verb: str, _: Any) -> None:
        nonlocal armed
        if verb != "repaired":
            return
        if armed:
            armed = False
            with cluster.away(0):
                await cluster.put("k", b"second")
                await cluster.store.background.drained()
            written.set()
        await written.wait()

    cluster.hook = hook
    for pod in (pods[0],):
        for _ in range(8):
            await pod._everywhere(pod._work_off)
            await cluster.clock.sleep(1)
    cluster.hook = None
    assert not armed
    assert max(queues(cluster)) == 1, "somebody remembers"
    await work(cluster, pods, 30)
    assert is_whole(cluster, "k")
    assert await cluster.get("k") == b"second"


@pytest.mark.parametrize("when", range(1, 30, 3))
async def test_pods_that_restart_in_the_middle_forget_nothing(cluster: MemoryCluster, when: int) -> None:
    with cluster.away(2):
        for number in range(12):
            await cluster.put(f"k{number}", b"data" * 1000)
        await cluster.settle()
    calls = 0

    async def hook(position: int, verb: str, _: Any) -> None:
        nonlocal calls
        calls += 1
        if calls >= when:
            raise DriveOffline("the pod is dying")

    cluster.hook = hook
    await work(cluster, services(cluster), 5)
    cluster.hook = None
    for drive in cluster.drives:
        drive.restart()
    await work(cluster, services(cluster), 40)
    assert all(is_whole(cluster, f"k{number}") for number in range(12))
    assert queues(cluster) == [0] * 4


async def test_a_queue_lost_with_the_power_is_made_good_by_comparing(cluster: MemoryCluster) -> None:
    """Notes are not synced: a cut of everything takes the newest entries, and the marks with them."""
    with cluster.away(2):
        for number in range(12):
            await cluster.put(f"k{number}", b"data" * 1000)
        await cluster.settle()
    for drive in cluster.drives:
        drive.lose_power()
    lost = 12 - max(queues(cluster))
    assert lost > 0
    await cluster.clock.sleep(OPERATION_DEADLINE_SECONDS + 1)
    pods = services(cluster, HealSettings())
    for _ in range(30):
        for pod in pods:
            await pod.heal_once()
        await cluster.clock.sleep(1)
    await cluster.settle()
    assert all(is_whole(cluster, f"k{number}") for number in range(12))
    assert queues(cluster) == [0] * 4


async def test_the_age_of_the_oldest_entry_is_told(cluster: MemoryCluster) -> None:
    with cluster.away(3):
        await cluster.put("k", b"data")
        await cluster.settle()
        pods = services(cluster)
        await cluster.clock.sleep(100)
        await work(cluster, pods[:3], 3)
        told = pods[0].report()
        assert told.drives[0].queue_length == told.sets[0].queue_length == 1
        assert 100 <= told.drives[0].oldest_entry_seconds <= 110


async def test_a_queue_that_could_not_be_worked_off_while_a_drive_was_away_is_not_left_alone_once_it_is_back(
    cluster: MemoryCluster,
) -> None:
    """What was tried in vain then must not hold up what is missed later, when the queue was empty in between."""
    with cluster.away(1):
        await cluster.put("first", b"1")
        await cluster.settle()
        pods = services(cluster)
        await work(cluster, pods, 30)
    await work(cluster, pods, 30)
    assert queues(cluster) == [0] * 4

    for position, pod in enumerate(pods):
        # Whichever of them worked it off: an entry that only this one has must not wait.
        await cluster.drives[position].note(object_register(BUCKET, "first"), 0, False)
        assert queues(cluster)[position] == 1
        for _ in range(10):
            await pod._everywhere(pod._work_off)
            await cluster.clock.sleep(1)
        assert queues(cluster) == [0] * 4, position
