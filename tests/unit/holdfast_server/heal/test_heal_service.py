"""Missed writes are made good, whichever drive missed them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from holdfast_server.drives.port import Drive, Held, QueryReply
from holdfast_server.heal.registers import most_at_once
from holdfast_server.heal.service import HealService
from holdfast_server.objects.port import Unavailable
from holdfast_server.objects.record import object_register
from holdfast_server.testing.memory_cluster import BUCKET, MemoryCluster
from holdfast_server.testing.virtual_time import VirtualClock

KEYS = [f"key-{number}" for number in range(40)]
ENOUGH_SECONDS = 30


def only(drive: Drive) -> Callable[[], Sequence[Drive]]:
    return lambda: (drive,)


@pytest.mark.parametrize("missing", range(4))
async def test_every_missed_write_is_made_good_whichever_drive_missed_it(cluster: MemoryCluster, missing: int) -> None:
    """The drive that was away has no entry in its queue; none may wait for it."""
    with cluster.away(missing):
        for key in KEYS:
            await cluster.put(key, key.encode())
        await cluster.settle()
    drives = cluster.set_of(KEYS[0]).drives().values()
    services = [HealService(cluster.new_store(), only(drive), cluster.clock) for drive in drives]
    async with asyncio.TaskGroup() as group:
        running = [group.create_task(service.run()) for service in services]
        await cluster.clock.sleep(ENOUGH_SECONDS)
        for task in running:
            task.cancel()
    await cluster.settle()
    assert [drive.repair_queue_length for drive in cluster.drives] == [0, 0, 0, 0]
    for key in KEYS:
        held = cluster.stamps(object_register(BUCKET, key))
        assert all(len(stamps) == 1 and stamps == held[0] for stamps in held), key
    healed = sum(service.work_of(0).queue.repaired for service in services)
    assert healed < 2 * len(KEYS), "one pod does the work, not each"


@pytest.mark.parametrize(("set_size", "parity"), [(1, 0), (2, 1)])
async def test_the_smallest_sets_have_their_passes_too(
    set_size: int, parity: int, caplog: pytest.LogCaptureFixture
) -> None:
    """A drive that is alone has nobody to be compared with, and must not wait for somebody."""
    cluster = MemoryCluster(VirtualClock(), set_size, parity, 1)
    await cluster.put("k", b"data")
    services = [HealService(cluster.new_store(), only(drive), cluster.clock) for drive in cluster.drives]
    with caplog.at_level(logging.INFO):
        async with asyncio.TaskGroup() as group:
            running = [group.create_task(service.run()) for service in services]
            await cluster.clock.sleep(ENOUGH_SECONDS)
            for task in running:
                task.cancel()
    assert not [record for record in caplog.records if "healing will go on later" in record.message]
    assert all(service.work_of(0).filling.done for service in services)
    assert await cluster.get("k") == b"data"
    await cluster.close()


async def test_an_error_nobody_thought_of_in_one_kind_of_work_stops_no_other(
    cluster: MemoryCluster, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Begun anew all together, they would all be cut off again by the same bad page, at the same place."""
    with cluster.away(2):
        for key in KEYS:
            await cluster.put(key, b"data")
        await cluster.settle()
    services = [
        HealService(cluster.new_store(), only(drive), cluster.clock) for drive in cluster.set_of("k").drives().values()
    ]
    failed = 0

    async def fail(*_: object) -> bool:
        nonlocal failed
        failed += 1
        raise KeyError("nobody thought of this")

    for one in services:
        monkeypatch.setattr(one.scanner, "step", fail)
    running = [asyncio.create_task(one.run()) for one in services]
    await cluster.clock.sleep(ENOUGH_SECONDS)
    assert not any(task.done() for task in running)
    for task in running:
        task.cancel()
    await asyncio.wait(running)
    await cluster.settle()
    assert [drive.repair_queue_length for drive in cluster.drives] == [0, 0, 0, 0]
    assert len(services) < failed <= len(services) * 4, "tried again, and not all the time"
    assert "nobody thought of this" in caplog.text


async def test_a_pod_that_is_behind_the_others_tells_what_it_does_all_the_same(
    cluster: MemoryCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may look at no drives then; its health, its metrics and what it tells other pods have this in them."""
    drive: Any = cluster._hooked[0][0]
    healing = HealService(cluster.store, lambda: (drive,), cluster.clock)

    def behind(pool: str, index: int) -> Any:
        raise Unavailable("this pod's configuration is of epoch 1, and it has been at 2 before")

    monkeypatch.setattr(cluster.store, "_drives", behind)
    (told,) = healing.report().drives
    assert told.state == "ok"


def test_large_records_are_asked_for_a_few_at_a_time() -> None:
    """All drives answer at once, and each has all of every record."""

    def batch(count: int, record_bytes: int) -> list[dict[int, QueryReply]]:
        held = Held(5, False, bytes(record_bytes), 0, None)
        return [{p: QueryReply((held,), 5, 5, 0, False) for p in range(4)} for _ in range(count)]

    assert most_at_once(4, batch(4, 700_000)) == 5
    assert most_at_once(5, batch(5, 700_000)) == 5
    assert most_at_once(5, batch(5, 9 << 20)) == 1
    assert most_at_once(1, batch(1, 200)) == 8
    assert most_at_once(8, batch(8, 200)) == 16
    assert most_at_once(64, batch(64, 200)) == 64
    assert most_at_once(64, [{}]) == 64
    assert most_at_once(64, []) == 64
