"""Whole bodies whose shards travel with the commits: when, what is held meanwhile, and what is left of a failure."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest

from holdfast_server.clock.stamp import HybridClock
from holdfast_server.drives.port import DriveFull, DriveOffline
from holdfast_server.memory.limits import MIB, MemoryLimits
from holdfast_server.memory.pod_memory import PodMemory
from holdfast_server.objects.port import OutOfSpace, Unavailable, Versioning
from holdfast_server.objects.writing import CARRIED_ROOM_BYTES
from holdfast_server.testing.memory_cluster import BUCKET, BytesBody, MemoryCluster

CHUNK = os.urandom(3 * MIB // 2)


def verbs(cluster: MemoryCluster) -> set[str]:
    return {verb for _, verb in cluster.calls}


async def test_a_plain_put_of_a_whole_body_is_one_call_to_each_drive_and_a_note(cluster: MemoryCluster) -> None:
    await cluster.put("k", CHUNK)
    await cluster.settle()
    assert sorted(cluster.calls) == sorted((position, verb) for position in range(4) for verb in ("commit", "note"))
    assert await cluster.get("k") == CHUNK


@pytest.mark.parametrize("left_bytes", [0, CARRIED_ROOM_BYTES - 1])
async def test_shards_go_ahead_where_a_drive_may_soon_be_full(cluster: MemoryCluster, left_bytes: int) -> None:
    """Half of the drives could have committed what the others had no room for."""
    cluster.drives[2].total_bytes = left_bytes
    await cluster.put("k", CHUNK)
    assert (2, "stage") in cluster.calls
    cluster.calls.clear()
    cluster.drives[2].total_bytes = 2 * CARRIED_ROOM_BYTES
    await cluster.put("k", CHUNK)
    assert "stage" not in verbs(cluster)


async def test_shards_go_ahead_where_something_else_is_done_to_the_register_first(cluster: MemoryCluster) -> None:
    def allow(_: Any) -> None:
        return

    await cluster.store.put_object(BUCKET, "k", BytesBody(CHUNK), allow)
    assert "stage" in verbs(cluster)
    cluster.calls.clear()
    await cluster.store.put_object(BUCKET, "k", BytesBody(CHUNK, versioning=Versioning.ENABLED))
    assert "stage" in verbs(cluster)


async def test_what_is_carried_is_held_of_the_budget_until_the_drives_have_answered(cluster: MemoryCluster) -> None:
    memory = cluster.store.memory = PodMemory(MemoryLimits(), 5.0)
    answer = asyncio.Event()

    async def slow(_: int, verb: str, __: Any) -> None:
        if verb == "commit":
            await answer.wait()

    cluster.hook = slow
    put = asyncio.ensure_future(cluster.put("k", CHUNK))
    while "commit" not in verbs(cluster):
        await asyncio.sleep(0.01)
    assert memory.writes.used >= 2 * len(CHUNK)
    put.cancel()  # the client leaves; the commit has begun, and needs them
    await asyncio.wait((put,))
    assert memory.writes.used >= 2 * len(CHUNK)
    answer.set()
    await cluster.settle()
    assert memory.writes.used == 0
    assert await cluster.get("k") == CHUNK


@pytest.mark.parametrize(("error", "told"), [(DriveOffline("lost"), Unavailable), (DriveFull("full"), OutOfSpace)])
async def test_a_write_that_no_drive_took_leaves_no_shard_and_nothing_of_the_budget(
    cluster: MemoryCluster, error: Exception, told: type[Exception]
) -> None:
    memory = cluster.store.memory = PodMemory(MemoryLimits(), 5.0)
    await cluster.put("k", b"before")

    async def refuse(_: int, verb: str, __: Any) -> None:
        if verb == "commit":
            raise error

    cluster.hook = refuse
    with pytest.raises(told):
        await cluster.put("k", CHUNK)
    cluster.hook = None
    await cluster.settle()
    assert memory.writes.used == 0
    assert not cluster.unnamed_shards()
    assert await cluster.get("k") == b"before"


async def test_a_new_stamp_is_offered_without_the_shards_which_are_there_by_then(cluster: MemoryCluster) -> None:
    """Another pod with a faster clock wrote the key: nobody takes the first stamp."""
    ahead = cluster.new_store()
    ahead._stamps.observe(HybridClock(2).next(cluster.clock.now_ms() + 60_000))
    await ahead.put_object(BUCKET, "k", BytesBody(b"before"))
    await cluster.settle()
    cluster.calls.clear()
    await cluster.put("k", CHUNK)
    assert sum(verb == "commit" for _, verb in cluster.calls) == 8
    await cluster.settle()
    assert await cluster.get("k") == CHUNK
    assert not cluster.unnamed_shards()
