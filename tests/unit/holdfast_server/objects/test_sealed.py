"""Sealed objects in the real store: nothing readable on drives, repairs without keys, and no byte of what was meddled
with."""

from __future__ import annotations

import itertools
import random

import msgspec
import pytest
import xxhash

from holdfast_server.objects.port import Attributes, Damaged, PartRef, Record
from holdfast_server.objects.record import STRIPE_SIZE_BYTES, Extent, decode, encode
from holdfast_server.objects.sealed import Opener, ties_of
from holdfast_server.sealing.chunks import CHUNK_SIZE_BYTES, PAYLOAD_SIZE_BYTES, plain_size, stripe_payload
from holdfast_server.sealing.envelope import RANDOM_SIZE_BYTES, SSE_S3, Seal, Sealing, new_seal, tie_parts, ties_key
from holdfast_server.testing.memory_cluster import BUCKET, BytesBody, MemoryCluster

MASTER = b"m" * 32
STRIPE_PAYLOAD = stripe_payload(STRIPE_SIZE_BYTES)
TEXT = b"plain text that must not be found on any drive. "
SIZES = [0, 1, 1000, 65520, 65536, 65537, STRIPE_PAYLOAD, STRIPE_PAYLOAD + 1, 2 * STRIPE_SIZE_BYTES + 77]


def seal_of(key: str, number: int = 1) -> Seal:
    return new_seal(
        Sealing(SSE_S3, "default.1"), MASTER, BUCKET, key, random.Random(number).randbytes(RANDOM_SIZE_BYTES)
    )


def content(size: int) -> bytes:
    return (TEXT * (size // len(TEXT) + 1))[:size]


async def put(cluster: MemoryCluster, key: str, data: bytes, seal: Seal) -> Record:
    return await cluster.store.put_object(BUCKET, key, BytesBody(data), seal=seal)


async def get(cluster: MemoryCluster, key: str, seal: Seal | None, start: int = 0, length: int | None = None) -> bytes:
    reader = await cluster.store.open_object(BUCKET, key)
    assert reader is not None
    if seal is not None:
        reader.unlock(seal)
    wanted = reader.record.size_bytes - start if length is None else length
    return b"".join([bytes(chunk) async for chunk in reader.chunks(start, wanted)])


def stored_bytes(cluster: MemoryCluster) -> bytes:
    shards = [b"".join(shard.blocks) for drive in cluster.drives for shard in drive._shards.values()]
    inline = [held.inline or b"" for drive in cluster.drives for s in drive._states.values() for held in s.records]
    return b"".join(shards + inline)


@pytest.mark.parametrize("size", SIZES)
async def test_it_comes_back_whole_and_in_ranges_and_lies_nowhere_in_the_clear(
    cluster: MemoryCluster, size: int
) -> None:
    data, seal = content(size), seal_of("k")
    made = await put(cluster, "k", data, seal)
    assert made.size_bytes == size
    assert sum(plain_size(extent.size_bytes) for extent in made.extents) == size
    assert await get(cluster, "k", seal) == data
    for start, end in itertools.combinations(sorted({0, size // 3, max(size - 1, 0), size, min(size, 65521)}), 2):
        assert await get(cluster, "k", seal, start, end - start) == data[start:end]
    if size > 2 * len(TEXT):
        assert TEXT not in stored_bytes(cluster)
        await cluster.put("open", data)
        assert TEXT[:20] in stored_bytes(cluster), "the search would find it"


@pytest.mark.parametrize("size", [1000, 2 * STRIPE_SIZE_BYTES + 77])
async def test_it_is_not_read_without_its_key_nor_with_another(cluster: MemoryCluster, size: int) -> None:
    await put(cluster, "k", content(size), seal_of("k"))
    for other in (None, seal_of("k", 2)):
        with pytest.raises(Damaged):
            await get(cluster, "k", other)


@pytest.mark.parametrize("size", [1000, 2 * STRIPE_SIZE_BYTES + 77])
async def test_repairs_need_no_key(cluster: MemoryCluster, size: int) -> None:
    data, seal = content(size), seal_of("k")
    with cluster.away(2):
        await put(cluster, "k", data, seal)
    await cluster.settle()
    assert await cluster.heal("k", verify=True)
    for away in itertools.combinations(range(4), 2):
        with cluster.away(*away):
            assert await get(cluster, "k", seal) == data


async def test_a_shard_that_was_changed_with_its_checksum_is_noticed(cluster: MemoryCluster) -> None:
    """What no checksum shows: every shard says that it is whole."""
    data, seal = content(2 * STRIPE_SIZE_BYTES), seal_of("k")
    await put(cluster, "k", data, seal)
    for drive in cluster.drives:
        for shard in drive._shards.values():
            block = shard.blocks[0]
            shard.blocks[0] = block[:500] + bytes((block[500] ^ 1,)) + block[501:]
            shard.hashes[0] = xxhash.xxh3_128_digest(shard.blocks[0])
    with pytest.raises(Damaged):
        await get(cluster, "k", seal)
    tail = 2 * STRIPE_SIZE_BYTES - 10
    assert await get(cluster, "k", seal, tail, 10) == data[tail:], "other chunks are as they were"


async def upload(cluster: MemoryCluster, seal: Seal, parts: dict[int, bytes]) -> Record:
    store = cluster.store
    upload_id = await store.create_upload(BUCKET, "m", {}, b"", seal.sealing)
    refs = []
    for number, data in parts.items():
        # Sent twice: the first one must not be mistaken for the second.
        await store.put_part(BUCKET, "m", upload_id, number, BytesBody(data[::-1]), seal)
        part = await store.put_part(BUCKET, "m", upload_id, number, BytesBody(data), seal)
        refs.append(PartRef(number, part.etag))

    def assemble(upload: Record, stored: object) -> Attributes:
        numbered = ((ref.number, part) for ref, part in stored)  # type: ignore[attr-defined]
        assert upload.sealing is not None
        tied = msgspec.structs.replace(upload.sealing, ties=tie_parts(ties_key(seal.key), ties_of(numbered)))
        return Attributes(etag="e", sealing=tied)

    return await store.complete_upload(BUCKET, "m", upload_id, refs, assemble)


async def test_parts_make_one_sealed_object(cluster: MemoryCluster) -> None:
    seal = seal_of("m")
    parts = {1: content(STRIPE_SIZE_BYTES + 3), 2: content(100), 7: content(3 * PAYLOAD_SIZE_BYTES)}
    made = await upload(cluster, seal, parts)
    data = b"".join(parts.values())
    assert made.size_bytes == len(data)
    opened = Seal(made.sealing, seal.key) if made.sealing is not None else seal
    assert await get(cluster, "m", opened) == data
    edge = len(parts[1])
    assert await get(cluster, "m", opened, edge - 5, 120) == data[edge - 5 : edge + 115]
    assert TEXT not in stored_bytes(cluster)
    with cluster.away(0, 1):
        assert await get(cluster, "m", opened) == data


async def test_other_parts_than_it_was_completed_with_are_noticed(cluster: MemoryCluster) -> None:
    seal = seal_of("m")
    made = await upload(cluster, seal, {1: content(CHUNK_SIZE_BYTES * 2), 2: content(CHUNK_SIZE_BYTES * 2)})
    assert made.sealing is not None
    opened = Seal(made.sealing, seal.key)
    Opener(made, opened)
    one, two = made.extents
    first, second = made.parts
    for extents, parts, size in (
        ((one,), (first,), first.size_bytes),
        ((two, one), (first, second), made.size_bytes),
        ((two, one), (second, first), made.size_bytes),
        ((one, Extent(two.data_id, two.size_bytes - 1)), (first, second), made.size_bytes - 1),
        ((one, two), (first, second), made.size_bytes - 1),
        ((one, two), (first,), made.size_bytes),
    ):
        meddled = msgspec.structs.replace(made, extents=extents, parts=parts, size_bytes=size)
        with pytest.raises(Damaged):
            Opener(meddled, opened)


async def test_the_record_keeps_how_it_is_sealed_and_others_are_as_they_were(cluster: MemoryCluster) -> None:
    made = await put(cluster, "k", b"x", seal_of("k"))
    assert decode(encode(made)) == made
    plain = msgspec.structs.replace(made, sealing=None)
    assert len(encode(plain)) < len(encode(made))
    assert decode(encode(plain)).sealing is None
