"""Headers changed in place: drives that missed the shards, writes that come in between, a crash on the way."""

from __future__ import annotations

import asyncio
import random

import pytest

from holdfast_server.objects.port import ObjectError
from holdfast_server.objects.record import Record
from holdfast_server.testing.memory_cluster import BUCKET, BytesBody, MemoryCluster

SIZES = [0, 100, 1_500_000]


def data_of(size_bytes: int) -> bytes:
    return random.Random(size_bytes).randbytes(size_bytes)


def tagged(value: str):
    def change(found: Record) -> dict[str, str]:
        return {**found.headers, "tags": value}

    return change


async def amend(cluster: MemoryCluster, value: str) -> Record | None:
    return await cluster.store.amend_object(BUCKET, "k", tagged(value))


@pytest.mark.parametrize("size_bytes", SIZES)
@pytest.mark.parametrize("missed", [0, 3])
async def test_a_drive_that_missed_the_bytes_takes_part_in_the_amendment(
    cluster: MemoryCluster, size_bytes: int, missed: int
) -> None:
    data = data_of(size_bytes)
    with cluster.away(missed):
        await cluster.store.put_object(BUCKET, "k", BytesBody(data))
    with cluster.away(1):
        # K copies of the record and of the bytes are there; the write quorum needs the drive that missed both.
        amended = await amend(cluster, "1")
    assert amended is not None
    await cluster.settle()
    for away in range(4):
        with cluster.away(away):
            assert await cluster.get("k") == data
            head = await cluster.store.head_object(BUCKET, "k")
            assert head is not None
            assert head.headers["tags"] == "1"


@pytest.mark.parametrize("size_bytes", SIZES)
async def test_an_amendment_never_brings_back_what_was_overwritten(cluster: MemoryCluster, size_bytes: int) -> None:
    await cluster.store.put_object(BUCKET, "k", BytesBody(b"old" + data_of(size_bytes)))
    new = b"new" + data_of(size_bytes)
    outcomes = await asyncio.gather(
        *(amend(cluster, str(number)) for number in range(3)),
        cluster.store.put_object(BUCKET, "k", BytesBody(new)),
        return_exceptions=True,
    )
    assert all(not isinstance(outcome, BaseException) or isinstance(outcome, ObjectError) for outcome in outcomes)
    assert isinstance(outcomes[-1], Record)
    await cluster.settle()
    assert await cluster.get("k") == new


async def test_of_two_amendments_at_once_both_are_kept(cluster: MemoryCluster) -> None:
    await cluster.store.put_object(BUCKET, "k", BytesBody(b"x"))

    def add(name: str):
        return lambda found: {**found.headers, name: "1"}

    await asyncio.gather(*(cluster.store.amend_object(BUCKET, "k", add(name)) for name in ("a", "b")))
    head = await cluster.store.head_object(BUCKET, "k")
    assert head is not None
    assert (head.headers.get("a"), head.headers.get("b")) == ("1", "1")


async def test_an_amendment_of_what_was_deleted_meanwhile_finds_nothing(cluster: MemoryCluster) -> None:
    await cluster.store.put_object(BUCKET, "k", BytesBody(b"x"))
    outcomes = await asyncio.gather(
        amend(cluster, "1"), cluster.store.delete_object(BUCKET, "k"), return_exceptions=True
    )
    assert not isinstance(outcomes[1], BaseException)
    await cluster.settle()
    assert await cluster.get("k") is None
    assert await amend(cluster, "2") is None
