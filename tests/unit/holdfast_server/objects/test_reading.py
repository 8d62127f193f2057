"""Which drives a read takes shards from, what it makes of their answers, and how long it waits for them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable
from typing import Any, cast

import pytest

from holdfast_server.drives.port import Block, Drive, DriveState, Held, ShardCorrupt, ShardMissing
from holdfast_server.objects import record
from holdfast_server.objects.asking import DRIVE_CALL_TIMEOUT_SECONDS
from holdfast_server.objects.port import Reader, Unavailable
from holdfast_server.objects.reading import FETCH_ROUNDS, HEDGE_SECONDS
from holdfast_server.objects.record import STRIPE_SIZE_BYTES
from holdfast_server.objects.sources import order_sources
from holdfast_server.testing.memory_cluster import BUCKET, HookedDrive, MemoryCluster

DATA = random.Random(5).randbytes(3 * STRIPE_SIZE_BYTES + 7)
REGISTER = record.object_register(BUCKET, "k")


class _Place:
    """What the order of sources goes by."""

    def __init__(self, local: bool = False, state: DriveState = DriveState.FULL) -> None:
        self.local, self.state = local, state


def _order(drives: list[_Place], holders: Iterable[int], rotation: int, others: bool = True) -> list[tuple[int, int]]:
    """Positions and shards, of a set of two data shards and as many of parity as there are other drives."""
    held = {p: Held(1, False, b"", (p + rotation) % len(drives), None) for p in holders}
    sources = order_sources(held, cast("dict[int, Drive]", dict(enumerate(drives))), 2, others)
    return [(source.position, source.shard_index) for source in sources]


@pytest.mark.parametrize("rotation", range(4))
def test_the_own_drive_is_read_first_then_data_shards_that_nobody_was_asked_for(rotation: int) -> None:
    drives = [_Place(), _Place(local=True), _Place(), _Place()]
    order = _order(drives, [1, 2], rotation)
    assert order[0] == (1, (1 + rotation) % 4)
    assert order[1][1] < 2
    assert sorted(position for position, _ in order) == [0, 1, 2, 3]
    assert all(shard == (position + rotation) % 4 for position, shard in order)


def test_a_drive_that_said_it_has_its_shard_comes_before_one_that_was_not_asked() -> None:
    assert _order([_Place() for _ in range(4)], [1, 3], 0) == [(1, 1), (0, 0), (3, 3), (2, 2)]


def test_a_drive_that_is_being_healed_comes_last_unless_it_said_that_it_has_it() -> None:
    drives = [_Place(local=True, state=DriveState.HEALING), _Place(), _Place(), _Place()]
    assert _order(drives, [1, 2], 0) == [(1, 1), (2, 2), (3, 3), (0, 0)]
    assert _order(drives, [0, 2], 0)[0] == (0, 0)


def test_healing_reads_from_those_alone_that_said_they_have_it() -> None:
    assert _order([_Place() for _ in range(4)], [3, 0], 0, others=False) == [(0, 0), (3, 3)]


# -------------------------------------------------------------------- a client that takes its time


async def test_a_slow_download_ends_though_what_it_reads_is_overwritten(cluster: MemoryCluster) -> None:
    """A client that takes minutes for what was read to it is not told that the rest is gone."""
    data = DATA * 5
    await cluster.put("k", data)
    await cluster.settle()
    reader = await _opened(cluster)
    found = []
    async for chunk in reader.chunks(0, len(data)):
        if not found:
            await cluster.put("k", b"another")
            await cluster.settle()
        found.append(bytes(chunk))
        for _ in range(4):
            await asyncio.sleep(25)
            cluster.reap()
    assert b"".join(found) == data
    assert len(cluster.calls) < 4000


async def test_nobody_is_told_to_keep_what_was_read_to_its_end(cluster: MemoryCluster) -> None:
    data = DATA * 2
    await cluster.put("k", data)
    reader = await _opened(cluster)
    left = len(data)
    async for chunk in reader.chunks(0, len(data)):
        left -= len(chunk)
        if left < STRIPE_SIZE_BYTES:
            cluster.calls.clear()
            await asyncio.sleep(1000)
            assert not cluster.calls


async def _begun(cluster: MemoryCluster) -> Any:
    """A download of which the first chunk was taken."""
    data = DATA * 5
    await cluster.put("k", data)
    reader = await _opened(cluster)
    chunks = reader.chunks(0, len(data))
    await anext(aiter(chunks))
    return chunks


async def test_a_download_that_is_given_up_keeps_nothing(cluster: MemoryCluster) -> None:
    chunks = await _begun(cluster)
    await asyncio.sleep(15)
    cluster.calls.clear()
    await asyncio.sleep(10)
    assert {verb for _, verb in cluster.calls} == {"read_blocks"}
    await chunks.aclose()
    cluster.calls.clear()
    await asyncio.sleep(100)
    assert not cluster.calls


async def test_who_takes_nothing_for_an_hour_keeps_nothing(cluster: MemoryCluster) -> None:
    """Or what is deleted would free no room for as long as such a client likes."""
    chunks = await _begun(cluster)
    await asyncio.sleep(3500)
    assert cluster.calls
    await asyncio.sleep(200)
    cluster.calls.clear()
    await asyncio.sleep(1000)
    assert not cluster.calls
    await chunks.aclose()


# -------------------------------------------------------------------- what comes


def _distant(cluster: MemoryCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if all drives were on other pods."""
    monkeypatch.setattr(HookedDrive, "local", False)
    assert not any(drive.local for drive in cluster.store.set_of(REGISTER).drives().values())


async def _opened(cluster: MemoryCluster) -> Reader:
    reader = await cluster.store.open_object(BUCKET, "k")
    assert reader is not None
    return reader


async def _all(reader: Reader) -> bytes:
    return b"".join([bytes(chunk) async for chunk in reader.chunks(0, len(DATA))])


def _answering(
    monkeypatch: pytest.MonkeyPatch, changed: Callable[[int, tuple[list[Block], list[bytes]]], Any]
) -> list[int]:
    """Answers of `read_blocks` are replaced on their way, by position.  Who was asked."""
    asked: list[int] = []

    def read_blocks(self: HookedDrive, *arguments: Any) -> Any:
        async def call() -> Any:
            asked.append(self.position)
            return changed(self.position, await self._drive.read_blocks(*arguments))

        return call()

    monkeypatch.setattr(HookedDrive, "read_blocks", read_blocks, raising=False)
    return asked


@pytest.mark.parametrize("local", [False, True])
async def test_fewer_blocks_than_asked_for_are_none(
    cluster: MemoryCluster, monkeypatch: pytest.MonkeyPatch, local: bool
) -> None:
    await cluster.put("k", DATA)
    await cluster.settle()
    if not local:
        _distant(cluster, monkeypatch)
    asked = _answering(monkeypatch, lambda p, answer: (answer[0][1:], answer[1][1:]) if p == 1 else answer)
    assert await cluster.get("k") == DATA
    assert set(asked) >= {0, 2} or set(asked) >= {0, 3} or set(asked) >= {2, 3}


async def test_a_rotten_shard_is_reported_by_whoever_it_was_read_from(
    cluster: MemoryCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a drive that was not asked for the record, too; a shard that is missing there is no news."""
    await cluster.put("k", DATA)
    await cluster.settle()
    reader = await _opened(cluster)
    errors: list[type[Exception]] = [ShardMissing]
    monkeypatch.setattr(cluster.store, "_heal_later", lambda *_: reported.append(1))
    reported: list[int] = []
    sources = cast(Any, reader)._shards._sources
    unsure = [source.position for source in sources if not source.sure]
    assert len(unsure) == 2

    async def hook(position: int, verb: str, _: Any) -> None:
        if verb == "read_blocks" and position in unsure:
            raise errors[0]("gone")

    cluster.hook = hook
    sources.sort(key=lambda source: source.sure)
    assert await _all(reader) == DATA
    assert reported == []
    errors[0] = ShardCorrupt
    reader = await _opened(cluster)
    cast(Any, reader)._shards._sources.sort(key=lambda source: source.sure)
    assert await _all(reader) == DATA
    assert reported == [1]


# -------------------------------------------------------------------- how much at a time


@pytest.mark.parametrize(
    ("others_bytes", "expected"), [(0, [4, 8, 8, 1]), (16 << 20, [4, 4, 4, 4, 4, 1]), (56 << 20, [4, 4, 4, 4, 4, 1])]
)
async def test_batches_grow_only_while_few_others_read(
    cluster: MemoryCluster, others_bytes: int, expected: list[int]
) -> None:
    data = random.Random(6).randbytes(20 * STRIPE_SIZE_BYTES + 1)
    await cluster.put("k", data)
    await cluster.settle()
    budget = cluster.store.memory.reads
    counts: dict[int, list[int]] = {}
    most_used = 0

    async def hook(position: int, verb: str, arguments: Any) -> None:
        nonlocal most_used
        if verb == "read_blocks":
            counts.setdefault(position, []).append(arguments[2])
            most_used = max(most_used, budget.used)

    cluster.hook = hook
    with budget.hold() as hold:
        await hold.take(others_bytes)
        assert await cluster.get("k") == data
        assert budget.used == others_bytes, "all is given back"
    assert list(counts.values()) == [expected, expected]
    assert most_used <= budget.capacity


async def test_a_range_is_cut_alike_whatever_goes_together(cluster: MemoryCluster) -> None:
    data = random.Random(7).randbytes(22 * STRIPE_SIZE_BYTES)
    await cluster.put("k", data)
    await cluster.settle()
    for start, length in ((0, len(data)), (5, 21 * STRIPE_SIZE_BYTES), (4 * STRIPE_SIZE_BYTES - 1, 2), (7_000_000, 1)):
        assert await cluster.get("k", start, length) == data[start : start + length]


# -------------------------------------------------------------------- how long


async def test_drives_that_never_answer_are_given_up_in_time(cluster: MemoryCluster) -> None:
    await cluster.put("k", DATA)
    await cluster.settle()
    reader = await _opened(cluster)
    ended: list[int] = []

    async def hook(position: int, verb: str, _: Any) -> None:
        if verb == "read_blocks" and position != 2:
            try:
                await asyncio.Event().wait()
            finally:
                ended.append(position)

    cluster.hook = hook
    began = cluster.clock.monotonic_seconds()
    with pytest.raises(Unavailable, match=r"1 of the 2 shards needed can be read .*no answer within"):
        await _all(reader)
    took = cluster.clock.monotonic_seconds() - began
    assert took < FETCH_ROUNDS * (DRIVE_CALL_TIMEOUT_SECONDS + 2 * HEDGE_SECONDS) + 5
    assert set(ended) == {0, 1, 3}
    cluster.hook = None
    assert await cluster.get("k") == DATA


async def test_a_slow_drive_is_replaced_and_its_call_ends(cluster: MemoryCluster) -> None:
    await cluster.put("k", DATA)
    await cluster.settle()
    under_way: set[int] = set()

    async def hook(position: int, verb: str, _: Any) -> None:
        if verb == "read_blocks" and position == 0:
            under_way.add(position)
            try:
                await asyncio.sleep(100)
            finally:
                under_way.discard(position)

    cluster.hook = hook
    began = cluster.clock.monotonic_seconds()
    assert await cluster.get("k") == DATA
    assert HEDGE_SECONDS <= cluster.clock.monotonic_seconds() - began < 2 * HEDGE_SECONDS
    await asyncio.sleep(0)
    assert not under_way
