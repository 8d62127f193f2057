"""Objects over a set of drives: what is acknowledged is read back, what is not leaves nothing."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import random
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

import pytest

from holdfast_server.clock.stamp import HybridClock
from holdfast_server.drives.port import DriveError, DriveFaulty, DriveOffline
from holdfast_server.memory.limits import MemoryLimits
from holdfast_server.memory.pod_memory import PodMemory
from holdfast_server.objects import record
from holdfast_server.objects.port import Conflict, Crossed, OutOfSpace, Unavailable
from holdfast_server.objects.record import STRIPE_SIZE_BYTES, Record
from holdfast_server.objects.writing import LANE_DEPTH, LARGE_BATCH_STRIPES
from holdfast_server.testing.memory_cluster import BUCKET, BytesBody, MemoryCluster
from holdfast_server.testing.virtual_time import AtOnce

T = TypeVar("T")

SMALL = b"small enough to travel inside the record"
SIZES = [0, 1, 1000, 65_536, 65_537, STRIPE_SIZE_BYTES, STRIPE_SIZE_BYTES + 1, 6 * STRIPE_SIZE_BYTES - 7]
REGISTER = record.object_register(BUCKET, "k")


def noise(size: int) -> bytes:
    return random.Random(size).randbytes(size)


BIG_SIZE = 150_000
BIG = noise(BIG_SIZE)


class Refused(Exception):
    pass


def no_matter_what(_: Record | None) -> None:
    """A condition, so that the write is a conditional one."""


@pytest.mark.parametrize("size", SIZES)
async def test_what_was_put_is_read_from_any_k_drives(cluster: MemoryCluster, size: int) -> None:
    data = noise(size)
    await cluster.put("k", data)
    await cluster.settle()
    for away in itertools.chain([()], itertools.combinations(range(4), 2)):
        with cluster.away(*away):
            assert await cluster.get("k") == data


async def test_a_read_asks_as_many_drives_as_decide_it(cluster: MemoryCluster) -> None:
    await cluster.put("k", SMALL)
    await cluster.settle()
    cluster.calls.clear()
    assert await cluster.get("k") == SMALL
    assert [verb for _, verb in cluster.calls] == ["query"] * 2
    with cluster.away(cluster.calls[0][0]):
        assert await cluster.get("k") == SMALL


async def test_ranges(cluster: MemoryCluster) -> None:
    data = noise(5 * STRIPE_SIZE_BYTES + 99)
    await cluster.put("k", data)
    edges = [0, 1, STRIPE_SIZE_BYTES - 1, STRIPE_SIZE_BYTES, 4 * STRIPE_SIZE_BYTES + 1, len(data) - 1, len(data)]
    for away in ((), (0, 1), (2, 3)):
        with cluster.away(*away):
            for start, end in itertools.combinations(edges, 2):
                assert await cluster.get("k", start, end - start) == data[start:end]


@pytest.mark.parametrize("chunk", [1, 7, 65_536, STRIPE_SIZE_BYTES, 3 * STRIPE_SIZE_BYTES])
async def test_chunks_of_any_size_make_the_same_object(cluster: MemoryCluster, chunk: int) -> None:
    data = noise(2 * STRIPE_SIZE_BYTES + 5 if chunk > 7 else 66_000)
    await cluster.put("k", data, chunk_size_bytes=chunk)
    assert await cluster.get("k") == data


@pytest.mark.parametrize("size", [65_537, STRIPE_SIZE_BYTES, 2 * STRIPE_SIZE_BYTES, 11 * STRIPE_SIZE_BYTES + 3])
async def test_what_is_received_in_place_is_the_same_object(cluster: MemoryCluster, size: int) -> None:
    """Also where some of it is asked for before there is room for more."""
    data = noise(size)
    for limits in (MemoryLimits(), MemoryLimits(write_bytes=5 * STRIPE_SIZE_BYTES)):
        cluster.store.memory = PodMemory(limits)
        body = BytesBody(data, fills=True)
        await cluster.store.put_object(BUCKET, "k", body)
        assert body.finished == 1
        assert cluster.store.memory.writes.used == 0
        for away in ((), (0, 1), (2, 3)):
            with cluster.away(*away):
                assert await cluster.get("k") == data
    reader = await cluster.store.open_object(BUCKET, "k")
    assert reader is not None
    assert reader.record.etag == hashlib.md5(data, usedforsecurity=False).hexdigest()


@pytest.mark.parametrize("size", [BIG_SIZE, 7 * STRIPE_SIZE_BYTES])
async def test_a_body_that_breaks_off_while_it_is_received_in_place_leaves_nothing(
    cluster: MemoryCluster, size: int
) -> None:
    await cluster.put("k", b"before")
    for pieces in range(3):
        body = BytesBody(noise(size), fills=True, failure=Refused(), fails_after_fills=pieces)
        with pytest.raises(Refused):
            await cluster.store.put_object(BUCKET, "k", body)
    await cluster.settle()
    assert await cluster.get("k") == b"before"
    assert cluster.store.memory.writes.used == 0
    assert not cluster.unnamed_shards()


async def test_overwrite_and_delete(cluster: MemoryCluster) -> None:
    for data in (SMALL, BIG, SMALL[:5]):
        await cluster.put("k", data)
        assert await cluster.get("k") == data
    before = await cluster.store.delete_object(BUCKET, "k")
    assert before is not None
    assert before.size_bytes == 5
    assert await cluster.get("k") is None
    assert await cluster.store.head_object(BUCKET, "k") is None
    assert await cluster.store.delete_object(BUCKET, "k") is None
    await cluster.put("k", BIG)
    assert await cluster.get("k") == BIG


@pytest.mark.parametrize("data", [SMALL, BIG])
async def test_exactly_the_write_quorum_suffices(cluster: MemoryCluster, data: bytes) -> None:
    with cluster.away(2):
        await cluster.put("k", data)
    await cluster.settle()
    assert [len(stamps) for stamps in cluster.stamps(REGISTER)] == [1, 1, 0, 1]
    assert [drive.repair_queue_length for drive in cluster.drives] == [1, 1, 0, 1]
    with cluster.away(0):
        assert await cluster.get("k") == data


@pytest.mark.parametrize("data", [SMALL, BIG])
async def test_below_the_write_quorum_nothing_happens(cluster: MemoryCluster, data: bytes) -> None:
    await cluster.put("k", b"before")
    with cluster.away(1, 2):
        with pytest.raises(Unavailable):
            await cluster.put("k", data)
        with pytest.raises(Unavailable):
            await cluster.store.delete_object(BUCKET, "k")
        assert await cluster.get("k") == b"before"
    await cluster.settle()
    assert await cluster.get("k") == b"before"
    assert not cluster.unnamed_shards()


async def test_below_the_read_quorum_nothing_is_answered(cluster: MemoryCluster) -> None:
    await cluster.put("k", SMALL)
    with cluster.away(0, 1, 2):
        for key in ("k", "absent"):
            with pytest.raises(Unavailable):
                await cluster.get(key)


async def test_full_drives(cluster: MemoryCluster) -> None:
    await cluster.put("k", BIG)
    for drive in cluster.drives[:2]:
        drive.full = True
    for data in (SMALL, BIG):
        with pytest.raises(OutOfSpace):
            await cluster.put("other", data)
    await cluster.settle()
    assert not cluster.unnamed_shards()
    assert await cluster.get("k") == BIG
    await cluster.store.delete_object(BUCKET, "k")
    assert await cluster.get("k") is None
    # Who makes a rule that frees space, or takes a key from somebody, need not free some first.
    await cluster.store.put_document("rules", b"{}")
    await cluster.store.put_document("rules", b"{1}", no_matter_what)


async def test_a_client_that_tries_again_and_again_leaves_no_more_on_the_drives_that_have_room(
    cluster: MemoryCluster,
) -> None:
    """Each try left a record there, all in one row, until somebody read the key or the scanner came by."""
    for drive in cluster.drives[:2]:
        drive.full = True
    for condition in (None, no_matter_what) * 5:
        with pytest.raises(OutOfSpace):
            await cluster.new_store().put_object(BUCKET, "k", BytesBody(SMALL), condition)
        await cluster.settle()
    assert cluster.stamps(REGISTER) == [[]] * 4
    await cluster.store.delete_object(BUCKET, "other")
    for drive in cluster.drives[:2]:
        drive.full = False
    await cluster.put("k", SMALL)
    assert await cluster.get("k") == SMALL


@pytest.mark.parametrize("told", [True, False])
async def test_a_write_that_a_full_drive_refused_while_another_was_away_keeps_nobody_from_reading(
    cluster: MemoryCluster, told: bool
) -> None:
    """Two of four had the record, and the one that had not could not alone deny it: 503 until the fourth came back."""
    await cluster.put("k", SMALL)
    await cluster.settle()
    cluster.drives[1].full = True
    cluster.drives[1].full_is_news = not told
    with cluster.away(0):
        for condition in (None, no_matter_what):
            with pytest.raises(OutOfSpace):
                await cluster.store.put_object(BUCKET, "k", BytesBody(b"other"), condition)
            await cluster.settle()
            assert await cluster.get("k") == (SMALL if told else b"other")


# -------------------------------------------------------------------- bodies that fail


@pytest.mark.parametrize("data", [SMALL, BIG, noise(3 * STRIPE_SIZE_BYTES)])
@pytest.mark.parametrize("how", ["failure", "refusal"])
async def test_a_body_that_raises_leaves_nothing(cluster: MemoryCluster, data: bytes, how: str) -> None:
    await cluster.put("k", b"before")
    with pytest.raises(Refused):
        await cluster.put("k", data, **{how: Refused()})
    await cluster.settle()
    assert await cluster.get("k") == b"before"
    assert not cluster.unnamed_shards()


async def test_finish_is_called_once_and_before_anything_is_committed(cluster: MemoryCluster) -> None:
    committed_at_finish: list[bool] = []

    class Watching(BytesBody):
        def finish(self) -> Any:
            committed_at_finish.append(any(verb == "commit" for _, verb in cluster.calls))
            return super().finish()

    for data in (SMALL, BIG):
        cluster.calls.clear()
        await cluster.store.put_object(BUCKET, "k", Watching(data))
    assert committed_at_finish == [False, False]


class Later(AtOnce):
    """Does nothing before `go_on`, and then all at once."""

    def __init__(self) -> None:
        self._kept: list[Callable[[], object]] | None = []

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        if self._kept is None:
            return super().submit(fn, *args, **kwargs)
        self._kept.append(lambda: fn(*args, **kwargs))
        return Future()

    def go_on(self) -> None:
        kept, self._kept = self._kept, None
        for job in kept or []:
            job()


@pytest.mark.parametrize("fills", [True, False])
@pytest.mark.parametrize("refused", [True, False])
async def test_drives_seal_what_is_not_digested_yet(cluster: MemoryCluster, fills: bool, refused: bool) -> None:
    await cluster.put("k", b"before")
    digesting = cluster.store._digesting = Later()
    sealed: list[int] = []

    async def hook(position: int, verb: str, arguments: tuple[Any, ...]) -> None:
        if verb == "stage" and arguments[-1]:
            sealed.append(position)

    cluster.hook = hook
    data = noise(6 * STRIPE_SIZE_BYTES)
    body = BytesBody(data, fills=fills, refusal=Refused() if refused else None)
    put = asyncio.create_task(cluster.store.put_object(BUCKET, "k", body))
    await asyncio.sleep(5)
    assert sorted(sealed) == [0, 1, 2, 3]
    assert body.finished == 0
    assert cluster.store.memory.writes.used > 0
    digesting.go_on()
    if refused:
        with pytest.raises(Refused):
            await put
    else:
        assert (await put).etag == hashlib.md5(data, usedforsecurity=False).hexdigest()
    await cluster.settle()
    assert await cluster.get("k") == (b"before" if refused else data)
    assert cluster.store.memory.writes.used == 0
    assert not cluster.unnamed_shards()


async def test_no_drive_is_left_in_the_midst_of_sealing_what_is_refused(cluster: MemoryCluster) -> None:
    """It might go on, after it was told to discard what it did not have yet."""
    left: list[int] = []

    async def hook(position: int, verb: str, _: tuple[Any, ...]) -> None:
        if verb == "stage":
            try:
                await asyncio.sleep(1)
            except asyncio.CancelledError:
                left.append(position)
                raise

    cluster.hook = hook
    with pytest.raises(Refused):
        await cluster.put("k", noise(4 * STRIPE_SIZE_BYTES), fills=True, refusal=Refused())
    await cluster.settle()
    assert left == []
    assert not cluster.unnamed_shards()


async def test_a_body_is_not_asked_later_because_a_drive_hangs(cluster: MemoryCluster) -> None:
    """What it confirms (a bucket's lease) is not true for long."""
    asked: list[float] = []
    loop = asyncio.get_running_loop()

    class Timed(BytesBody):
        def finish(self) -> Any:
            asked.append(loop.time())
            return super().finish()

    async def hook(position: int, verb: str, _: tuple[Any, ...]) -> None:
        if verb == "stage" and position == 0:
            await asyncio.sleep(600)

    cluster.hook = hook
    data = noise(3 * LARGE_BATCH_STRIPES * STRIPE_SIZE_BYTES)
    began = loop.time()
    await cluster.store.put_object(BUCKET, "k", Timed(data, fills=True))
    assert asked[0] - began < 1
    assert await cluster.get("k") == data


async def test_no_more_than_three_batches_wait_to_be_digested(cluster: MemoryCluster) -> None:
    digesting = cluster.store._digesting = Later()
    data = noise(30 * STRIPE_SIZE_BYTES)
    put = asyncio.create_task(cluster.store.put_object(BUCKET, "k", BytesBody(data, fills=True)))
    await asyncio.sleep(5)
    cluster.calls.clear()
    await asyncio.sleep(5)
    assert not put.done()
    assert cluster.calls == []
    held = cluster.store.memory.writes.used
    assert held <= 2 * (LANE_DEPTH + 3) * LARGE_BATCH_STRIPES * STRIPE_SIZE_BYTES
    digesting.go_on()
    assert (await put).size_bytes == len(data)
    assert cluster.store.memory.writes.used == 0
    assert await cluster.get("k") == data


async def test_a_write_that_is_given_up_before_it_is_digested_leaves_nothing(cluster: MemoryCluster) -> None:
    digesting = cluster.store._digesting = Later()
    put = asyncio.create_task(cluster.store.put_object(BUCKET, "k", BytesBody(BIG * 20, fills=True)))
    await asyncio.sleep(5)
    put.cancel()
    await asyncio.sleep(1)
    assert not put.done()  # a thread may have the digests in hand
    digesting.go_on()
    with pytest.raises(asyncio.CancelledError):
        await put
    await cluster.settle()
    assert await cluster.get("k") is None
    assert cluster.store.memory.writes.used == 0
    assert not cluster.unnamed_shards()


# -------------------------------------------------------------------- every call fails once


async def _calls_of(cluster: MemoryCluster, work: Callable[[], Any]) -> int:
    cluster.calls.clear()
    await work()
    await cluster.settle()
    return len(cluster.calls)


@pytest.mark.parametrize("data", [SMALL, BIG])
@pytest.mark.parametrize("error", [DriveOffline, DriveFaulty])
async def test_one_failing_call_fails_no_request(
    make_cluster: Callable[..., MemoryCluster], data: bytes, error: type[DriveError]
) -> None:
    """One drive may fail at any moment of a put, a get and a delete: the client does not see it."""

    async def story(cluster: MemoryCluster) -> None:
        await cluster.put("k", b"old")
        await cluster.put("k", data)
        assert await cluster.get("k") == data
        await cluster.store.delete_object(BUCKET, "k")
        assert await cluster.get("k") is None

    quiet = make_cluster()
    total = await _calls_of(quiet, lambda: story(quiet))
    for failing in range(total):
        cluster = make_cluster()
        count = itertools.count()

        async def hook(*_: Any, count: Any = count, failing: int = failing) -> None:
            if next(count) == failing:
                raise error("this call fails")

        cluster.hook = hook
        await story(cluster)
        await cluster.settle()
        assert not cluster.unnamed_shards()


async def test_a_drive_that_fails_from_any_call_on(make_cluster: Callable[..., MemoryCluster]) -> None:
    """As above, but the drive stays gone without anybody having been told."""
    quiet = make_cluster()
    total = await _calls_of(quiet, lambda: quiet.put("k", BIG))
    for failing, position in itertools.product(range(total), (0, 3)):
        cluster = make_cluster()
        await cluster.put("k", b"old")
        await cluster.settle()
        count = itertools.count()

        async def hook(at: int, *_: Any, count: Any = count, failing: int = failing, position: int = position) -> None:
            if next(count) >= failing and at == position:
                raise DriveOffline("gone")

        cluster.hook = hook
        await cluster.put("k", BIG)
        assert await cluster.get("k") == BIG


async def test_a_hung_drive_costs_one_deadline(cluster: MemoryCluster) -> None:
    async def hook(position: int, *_: Any) -> None:
        if position == 1:
            await asyncio.sleep(3600)

    cluster.hook = hook
    began = cluster.clock.monotonic_seconds()
    await cluster.put("k", SMALL)
    assert await cluster.get("k") == SMALL
    assert cluster.clock.monotonic_seconds() - began < 12


async def test_a_slow_drive_does_not_slow_a_read(cluster: MemoryCluster) -> None:
    await cluster.put("k", BIG)
    await cluster.settle()
    for slow in range(4):

        async def hook(position: int, *_: Any, slow: int = slow) -> None:
            if position == slow:
                await asyncio.sleep(4)

        cluster.hook = hook
        began = cluster.clock.monotonic_seconds()
        assert await cluster.get("k") == BIG
        assert cluster.clock.monotonic_seconds() - began < 1
        cluster.hook = None


async def test_an_unexpected_exception_of_a_drive_leaves_no_task(cluster: MemoryCluster) -> None:
    await cluster.put("k", BIG)

    async def hook(position: int, verb: str, _: Any) -> None:
        if position:
            await asyncio.sleep(0.1)
        if verb in ("query", "commit", "read_blocks"):
            raise RuntimeError("a bug")

    cluster.hook = hook
    for work in (cluster.get("k"), cluster.put("k", BIG), cluster.store.delete_object(BUCKET, "k")):
        with pytest.raises(RuntimeError, match="a bug"):
            await work


# -------------------------------------------------------------------- cancellation


def exists(current: Record | None) -> None:
    if current is None:
        raise Refused


CHANGES: dict[str, tuple[Callable[[MemoryCluster], Any], bytes | None]] = {
    "put small": (lambda c: c.put("k", SMALL), SMALL),
    "put big": (lambda c: c.put("k", BIG), BIG),
    "put big if": (lambda c: c.store.put_object(BUCKET, "k", BytesBody(BIG), exists), BIG),
    "delete": (lambda c: c.store.delete_object(BUCKET, "k"), None),
    "delete if": (lambda c: c.store.delete_object(BUCKET, "k", exists), None),
}


@pytest.mark.parametrize("change", CHANGES)
async def test_a_change_cancelled_anywhere_is_whole_or_nothing(
    make_cluster: Callable[..., MemoryCluster], change: str
) -> None:
    """Cancelled after n turns of the loop, for every n until it is done before that."""
    work, after = CHANGES[change]
    outcomes = set()
    for turns in range(10_000):
        cluster = make_cluster()
        await cluster.put("k", b"old")
        await cluster.settle()
        task = asyncio.ensure_future(work(cluster))
        for _ in range(turns):
            await asyncio.sleep(0)
        finished = task.done()
        task.cancel()
        await asyncio.wait([task])
        await cluster.settle()
        found = await cluster.get("k")
        assert found in (b"old", after)
        assert not cluster.unnamed_shards()
        assert await cluster.heal("k"), "nothing is left half done"
        began = cluster.clock.monotonic_seconds()
        await cluster.put("k", b"next")
        assert cluster.clock.monotonic_seconds() == began, "no lease stands in the way"
        outcomes.add(found)
        if finished:
            break
    assert outcomes == {b"old", after}


# -------------------------------------------------------------------- undecided writes


@pytest.mark.parametrize("data", [SMALL, BIG])
@pytest.mark.parametrize("reach", [1, 2])
async def test_a_write_that_reached_too_few_is_undecided_and_settles(
    cluster: MemoryCluster, data: bytes, reach: int
) -> None:
    await cluster.put("k", b"old")
    await cluster.settle()

    async def hook(position: int, verb: str, _: Any) -> None:
        if verb == "commit" and position >= reach:
            raise DriveOffline("the commit is lost")

    cluster.hook = hook
    with pytest.raises(Unavailable):
        await cluster.put("k", data)
    cluster.hook = None
    first = await cluster.get("k")
    assert first == b"old", "with every drive answering, fewer than W is provably not committed"
    with cluster.away(3):
        if reach == 1:
            assert await cluster.get("k") == b"old"
        else:
            assert await cluster.get("k") == data, "it may have been acknowledged by the drive that is away"
            first = data
    await cluster.settle()
    assert await cluster.get("k") == first


@pytest.mark.parametrize("data", [b"", SMALL, BIG])
async def test_a_head_rolls_forward_as_a_get_does(cluster: MemoryCluster, data: bytes) -> None:
    async def hook(position: int, verb: str, _: Any) -> None:
        if verb == "commit" and position >= 2:
            raise DriveOffline("the commit is lost")

    cluster.hook = hook
    with pytest.raises(Unavailable):
        await cluster.put("k", data)
    cluster.hook = None
    with cluster.away(3):
        found = await cluster.store.head_object(BUCKET, "k")
        assert found is not None
        assert found.size_bytes == len(data)
    await cluster.settle()
    assert await cluster.get("k") == data


# -------------------------------------------------------------------- conditions


def absent(current: Record | None) -> None:
    if current is not None:
        raise Refused


async def test_conditional_put(cluster: MemoryCluster) -> None:
    await cluster.store.put_object(BUCKET, "k", BytesBody(SMALL), absent)
    with pytest.raises(Refused):
        await cluster.store.put_object(BUCKET, "k", BytesBody(BIG), absent)
    await cluster.settle()
    assert await cluster.get("k") == SMALL
    assert not cluster.unnamed_shards()
    await cluster.store.delete_object(BUCKET, "k")
    await cluster.store.put_object(BUCKET, "k", BytesBody(BIG), absent)
    assert await cluster.get("k") == BIG


async def test_of_many_conditional_puts_one_wins(cluster: MemoryCluster) -> None:
    stores = [cluster.store, *(cluster.new_store() for _ in range(5))]

    async def one(number: int) -> str:
        try:
            await stores[number].put_object(BUCKET, "k", BytesBody(b"%d" % number), absent)
        except (Refused, Conflict) as error:
            return type(error).__name__
        return "won"

    outcomes = await asyncio.gather(*map(one, range(6)))
    won = [number for number, outcome in enumerate(outcomes) if outcome == "won"]
    assert len(won) <= 1
    if won:
        assert await cluster.get("k") == b"%d" % won[0]


async def test_a_conditional_put_leaves_no_lease(cluster: MemoryCluster) -> None:
    """Whatever became of it, a plain put right afterwards reaches every drive."""
    cluster.drives[3]._healing = True
    await cluster.store.put_object(BUCKET, "k", BytesBody(SMALL), absent)
    await cluster.settle()
    cluster.drives[3]._healing = False
    with pytest.raises(Refused):
        await cluster.store.put_object(BUCKET, "k", BytesBody(SMALL), absent)
    await cluster.settle()
    await cluster.put("k", b"plain")
    await cluster.settle()
    assert [len(stamps) for stamps in cluster.stamps(REGISTER)] == [1, 1, 1, 1]


async def test_a_conditional_put_that_cannot_reach_its_quorum_commits_nowhere(cluster: MemoryCluster) -> None:
    """Staged on 0, 1, 2 and promised by 1, 2, 3: two drives could take it, so none is asked to."""

    async def hook(position: int, verb: str, _: Any) -> None:
        if (verb, position) in (("stage", 3), ("prepare", 0)):
            raise DriveOffline("this message is lost")

    cluster.hook = hook
    with pytest.raises(Unavailable):
        await cluster.store.put_object(BUCKET, "k", BytesBody(BIG), absent)
    await cluster.settle()
    assert "commit" not in {verb for _, verb in cluster.calls}
    assert not cluster.unnamed_shards()


async def test_a_plain_put_waits_for_a_lease_and_is_retriable_when_it_stands(cluster: MemoryCluster) -> None:
    erasure_set = cluster.set_of("k")
    promise = await erasure_set.promise(REGISTER, await erasure_set.read(REGISTER))
    assert promise is not None
    began = cluster.clock.monotonic_seconds()
    with pytest.raises(Unavailable):
        await cluster.put("k", SMALL)
    assert 2 < cluster.clock.monotonic_seconds() - began < 8
    waiting = asyncio.ensure_future(cluster.put("k", SMALL))
    await cluster.clock.sleep(0.1)
    erasure_set.release_later(promise)
    await waiting
    assert await cluster.get("k") == SMALL


# -------------------------------------------------------------------- documents


@pytest.mark.parametrize("body", [SMALL, bytes(200_000)])
async def test_plain_writes_that_cross_are_told_of_each_other(cluster: MemoryCluster, body: bytes) -> None:
    """Half of the drives had the other's newer write first: undecided (rule 6), though no drive failed."""
    ahead = cluster.new_store()
    ahead._stamps.observe(HybridClock(2).next(cluster.clock.now_ms() + 60_000))
    held, is_held, go_on = set[int](), True, asyncio.Event()

    async def hold(position: int, verb: str, _: Any) -> None:
        if verb == "commit" and position >= 2 and is_held:
            held.add(position)
            await go_on.wait()

    cluster.hook = hold
    put = asyncio.ensure_future(cluster.put("k", body))
    while held != {2, 3}:
        await asyncio.sleep(0.01)
    is_held = False
    await ahead.put_object(BUCKET, "k", BytesBody(b"theirs"))
    go_on.set()
    with pytest.raises(Crossed, match="other writes"):
        await put
    cluster.hook = None
    await cluster.settle()
    assert await cluster.get("k") == b"theirs"


async def test_documents(cluster: MemoryCluster) -> None:
    store = cluster.store
    await store.put_document("bucket/a", b"one")
    await store.put_document("bucket/b", b"two")
    await store.put_document("user/x", b"three")
    for away in itertools.combinations(range(4), 2):
        with cluster.away(*away):
            found = await store.get_document("bucket/a")
            assert found is not None
            assert found.body == b"one"
    listing = await store.list_documents("bucket/")
    assert [(e.key, e.record.body) for e in listing.entries] == [("bucket/a", b"one"), ("bucket/b", b"two")]
    with pytest.raises(Refused):
        await store.put_document("bucket/a", b"again", absent)
    await store.delete_document("bucket/a")
    assert await store.get_document("bucket/a") is None
    assert [e.key for e in (await store.list_documents("")).entries] == ["bucket/b", "user/x"]


async def test_an_undecided_document_is_rolled_forward_from_one_copy(cluster: MemoryCluster) -> None:
    async def hook(position: int, verb: str, _: Any) -> None:
        if verb == "commit" and position >= 2:
            raise DriveOffline("the commit is lost")

    cluster.hook = hook
    with pytest.raises(Unavailable):
        await cluster.store.put_document("d", b"body")
    cluster.hook = None
    with cluster.away(3):
        found = await cluster.store.get_document("d")
    assert found is not None
    assert found.body == b"body"
