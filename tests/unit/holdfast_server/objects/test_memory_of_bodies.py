"""What reads and writes take of their budgets: never more than there is, all of it given back, no deadlock."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
from collections.abc import AsyncIterator
from typing import Any

import pytest

from holdfast_server.drives.port import DriveFull
from holdfast_server.memory.budget import SLOW_SECONDS, Overloaded
from holdfast_server.memory.limits import MIB, MemoryLimits
from holdfast_server.memory.pod_memory import PodMemory
from holdfast_server.objects.port import TooSlow
from holdfast_server.objects.stripes import Batch
from holdfast_server.objects.writing import ALONE_BYTES, BATCH_STRIPES, LARGE_BATCH_STRIPES
from holdfast_server.testing.failures_left import no_failure_left
from holdfast_server.testing.memory_cluster import BUCKET, BytesBody, MemoryCluster

STRIPE_HELD_BYTES = 3 * MIB
"""Of a stripe of 1 MiB in a 2+2 set: in pieces, and twice that in shards."""
BATCH_HELD_BYTES = 6 * MIB


def limit(cluster: MemoryCluster, wait_seconds: float = 5.0, **limits: int) -> PodMemory:
    memory = cluster.store.memory = PodMemory(MemoryLimits(**limits), wait_seconds)
    return memory


async def read(cluster: MemoryCluster, key: str) -> bytes:
    reader = await cluster.store.open_object(BUCKET, key)
    assert reader is not None
    return b"".join([bytes(chunk) async for chunk in reader.chunks(0, reader.record.size_bytes)])


class StalledBody(BytesBody):
    """Sends its first piece, or so many bytes, then waits for `go_on`."""

    def __init__(self, data: bytes, after_bytes: int = 1) -> None:
        super().__init__(data)
        self.go_on = asyncio.Event()
        self._after_bytes = after_bytes

    async def chunks(self) -> AsyncIterator[bytes | memoryview]:
        left = self._after_bytes
        async for chunk in super().chunks():
            yield chunk
            left -= len(chunk)
            if left <= 0:
                await self.go_on.wait()


async def test_many_bodies_go_through_room_for_one_stripe_and_one_batch(cluster: MemoryCluster) -> None:
    memory = limit(cluster, 600.0, write_bytes=STRIPE_HELD_BYTES, read_bytes=BATCH_HELD_BYTES)
    bodies = {f"key-{number}": os.urandom(3 * MIB + number) for number in range(6)}
    bodies["long"] = os.urandom(11 * MIB)
    async with asyncio.TaskGroup() as group:
        for key, data in bodies.items():
            group.create_task(cluster.store.put_object(BUCKET, key, BytesBody(data)))
    assert memory.writes.used == 0
    found = await asyncio.gather(*(read(cluster, key) for key in bodies))
    assert found == list(bodies.values())
    assert memory.reads.used == 0


async def test_small_bodies_take_nothing(cluster: MemoryCluster) -> None:
    memory = limit(cluster, write_bytes=1)
    await memory.writes.take(1)
    await cluster.store.put_object(BUCKET, "small", BytesBody(bytes(64 << 10)))
    assert len(await read(cluster, "small")) == 64 << 10


async def test_a_write_that_finds_no_room_is_refused_before_its_body_is_asked_for(cluster: MemoryCluster) -> None:
    memory = limit(cluster, write_bytes=STRIPE_HELD_BYTES)
    await memory.writes.take(STRIPE_HELD_BYTES)
    body = BytesBody(bytes(MIB), failure=AssertionError("the body was asked for"))
    with pytest.raises(Overloaded):
        await cluster.store.put_object(BUCKET, "key", body)
    assert memory.writes.used == STRIPE_HELD_BYTES


async def test_a_read_that_finds_no_room_is_refused_before_its_first_byte(cluster: MemoryCluster) -> None:
    memory = limit(cluster)
    await cluster.store.put_object(BUCKET, "key", BytesBody(bytes(2 * MIB)))
    await memory.reads.take(memory.reads.capacity)
    with pytest.raises(Overloaded):
        await read(cluster, "key")


async def test_what_is_given_up_gives_everything_back(cluster: MemoryCluster) -> None:
    memory = limit(cluster)
    await cluster.store.put_object(BUCKET, "key", BytesBody(bytes(20 * MIB)))
    reader = await cluster.store.open_object(BUCKET, "key")
    assert reader is not None
    chunks = reader.chunks(0, 20 * MIB)
    await anext(chunks)
    assert memory.reads.used == 3 * BATCH_HELD_BYTES  # one, and ahead one of twice as many stripes
    await chunks.aclose()  # type: ignore[attr-defined]
    assert memory.reads.used == 0
    with pytest.raises(KeyError):
        await cluster.store.put_object(BUCKET, "key", BytesBody(bytes(3 * MIB), failure=KeyError()))
    stalled = asyncio.ensure_future(cluster.store.put_object(BUCKET, "key", StalledBody(bytes(3 * MIB))))
    await asyncio.sleep(1)
    assert memory.writes.used == STRIPE_HELD_BYTES
    stalled.cancel()
    await asyncio.wait((stalled,))
    assert memory.writes.used == 0
    await cluster.store.background.drained()
    assert cluster.unnamed_shards() == set()


async def test_an_upload_that_goes_on_keeps_nothing_of_what_the_drives_have(cluster: MemoryCluster) -> None:
    """Its first stripes were counted as given back, and stayed until its last."""
    memory = limit(cluster)
    body = StalledBody(bytes(12 * MIB), after_bytes=8 * MIB + MIB // 2)
    upload = asyncio.ensure_future(cluster.store.put_object(BUCKET, "key", body))
    async with asyncio.timeout(60):
        while memory.writes.used != STRIPE_HELD_BYTES:  # of the one that is being received
            await asyncio.sleep(0.1)
    assert [batch for batch in gc.get_objects() if isinstance(batch, Batch) and batch.pieces] == []
    body.go_on.set()
    await upload


async def test_nothing_of_a_write_that_a_drive_refused_or_that_is_cut_off_stays_in_memory(
    cluster: MemoryCluster,
) -> None:
    async def refuse(position: int, verb: str, arguments: tuple[Any, ...]) -> None:
        if verb == "stage" and position == 3:
            raise DriveFull("no room")

    async def stall() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await cluster.store.put_object(BUCKET, "key", StalledBody(bytes(12 * MIB), after_bytes=9 * MIB))

    cluster.hook = refuse
    with no_failure_left():
        await cluster.store.put_object(BUCKET, "key", BytesBody(bytes(5 * MIB)))
        stalled = asyncio.ensure_future(stall())
        await asyncio.sleep(1)
        stalled.cancel()
        await stalled
        await cluster.store.background.drained()


async def test_only_a_write_that_is_nearly_alone_takes_large_batches(cluster: MemoryCluster) -> None:
    memory = limit(cluster)
    batches: list[int] = []

    async def note(position: int, verb: str, arguments: tuple[Any, ...]) -> None:
        if verb == "stage":
            batches.append(len(arguments[2]))

    cluster.hook = note
    data = os.urandom(30 * MIB)
    await cluster.store.put_object(BUCKET, "alone", BytesBody(data))
    assert set(batches[:4]) == {max(batches)} == {LARGE_BATCH_STRIPES}  # from the first one on
    batches.clear()
    with memory.writes.hold() as others:
        await others.take(ALONE_BYTES + 1)
        await cluster.store.put_object(BUCKET, "among others", BytesBody(data))
    assert (set(batches[:4]), max(batches)) == ({1}, BATCH_STRIPES)
    assert await read(cluster, "alone") == await read(cluster, "among others") == data


async def test_a_slow_upload_gives_way_to_one_that_waits(cluster: MemoryCluster) -> None:
    memory = limit(cluster, write_bytes=STRIPE_HELD_BYTES)
    slow = asyncio.ensure_future(cluster.store.put_object(BUCKET, "slow", StalledBody(bytes(3 * MIB))))
    await asyncio.sleep(SLOW_SECONDS * 3)
    assert not slow.done()  # alone, it may take its time
    await cluster.store.put_object(BUCKET, "brisk", BytesBody(bytes(2 * MIB)))
    with pytest.raises(TooSlow):
        await slow
    assert (memory.writes.used, memory.writes.evicted) == (0, 1)
    assert await cluster.store.head_object(BUCKET, "slow") is None
