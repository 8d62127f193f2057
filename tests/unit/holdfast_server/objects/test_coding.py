"""What becomes of stripes on their way to drives: the same, whether they come in place or in pieces, and whenever."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
import xxhash

from holdfast_server.erasure.codec import Layout, codec
from holdfast_server.objects.coding import (
    DIGESTING_NICE,
    DIGESTING_THREADS,
    Coder,
    Column,
    coding_threads,
    digesting_threads,
)
from holdfast_server.objects.stripes import Batch

pytestmark = pytest.mark.real_threads

STRIPE_BYTES = 100_000
WAIT_SECONDS = 60.0
CODE = codec(2, 2)


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(3) as pool:
        yield pool


def stripes_of(data: bytes) -> list[bytes]:
    return [data[at : at + STRIPE_BYTES] for at in range(0, len(data), STRIPE_BYTES)]


def decoded(columns: list[Column], sizes: Sequence[int], shards: tuple[int, int]) -> bytes:
    data = b""
    for index, size in enumerate(sizes):
        blocks = {shard: columns[shard].blocks[index] for shard in shards}
        for shard, block in blocks.items():
            assert xxhash.xxh3_128_digest(block) == columns[shard].hashes[index]
        data += b"".join(map(bytes, CODE.join(blocks, size)))
    return data


@pytest.mark.parametrize("in_place", [True, False])
@pytest.mark.parametrize("apart", [True, False])
async def test_batches_become_columns_and_digests(threads: ThreadPoolExecutor, in_place: bool, apart: bool) -> None:
    data = random.Random(5).randbytes(5 * STRIPE_BYTES + 17)
    digests = [hashlib.md5(), hashlib.sha256()]
    coder = Coder(CODE, digests, threads, digesting=threads if apart else None)
    coding = []
    before = 0
    for stripes in (stripes_of(data)[:2], stripes_of(data)[2:]):
        sizes = list(map(len, stripes))
        if in_place:
            layout = Layout(CODE, sizes, before)
            before += sum(map(CODE.block_size_bytes, sizes))
            for index, stripe in enumerate(stripes):
                layout.fill(index, [stripe])
                coder.came(layout, index)
                await asyncio.sleep(0.001)  # the thread may have ended
            batch = Batch(sizes, [], layout)
        else:
            batch = Batch(sizes, [[stripe[:7], stripe[7:]] for stripe in stripes])
        coding.append((sizes, coder.finish(batch, len(stripes) > 2)))  # the next one comes meanwhile
    for shards in ((0, 1), (1, 3), (2, 3)):
        assert b"".join([decoded(await columns, sizes, shards) for sizes, columns in coding]) == data
    await coder.digested()
    assert [digest.digest() for digest in digests] == [hashlib.md5(data).digest(), hashlib.sha256(data).digest()]


class Digest:
    """One that does what it is told to."""

    def __init__(self, update: Callable[[], None]) -> None:
        self._update = update

    def update(self, data: object) -> None:
        self._update()


def raise_error() -> None:
    raise MemoryError("no room")


async def test_what_fails_on_the_thread_is_raised_once_and_nothing_is_done_after_it(
    threads: ThreadPoolExecutor,
) -> None:
    after = list[str]()
    coder = Coder(CODE, [Digest(raise_error)], threads)
    with pytest.raises(MemoryError):
        await coder.finish(Batch([3], [[b"abc"]]), False)
    coder._digests = [Digest(lambda: after.append("digested"))]
    with pytest.raises(MemoryError):
        await coder.finish(Batch([3], [[b"abc"]]), True)
    assert after == []
    await coder.stop()


async def test_blocks_are_there_while_their_digests_are_not(threads: ThreadPoolExecutor) -> None:
    go_on, digested = threading.Event(), list[int]()
    data = random.Random(6).randbytes(2 * STRIPE_BYTES)

    def wait() -> None:
        go_on.wait(30)
        digested.append(1)

    coder = Coder(CODE, [Digest(wait)], threads, digesting=threads)
    sizes = [STRIPE_BYTES, STRIPE_BYTES]
    columns = await coder.finish(Batch(sizes, [[stripe] for stripe in stripes_of(data)]), True)
    done = coder.digested()
    assert decoded(columns, sizes, (1, 2)) == data
    await asyncio.sleep(0.01)
    assert not done.done()
    assert digested == []
    go_on.set()
    await done
    assert len(digested) == 2 * CODE.data_shards


async def test_digests_that_fail_apart_are_told_to_who_waits_for_them(threads: ThreadPoolExecutor) -> None:
    coder = Coder(CODE, [Digest(raise_error)], threads, digesting=threads)
    await coder.finish(Batch([3], [[b"abc"]]), False)
    with pytest.raises(MemoryError):
        await coder.digested()
    after = list[str]()
    coder._digests = [Digest(lambda: after.append("digested"))]
    await coder.finish(Batch([3], [[b"abc"]]), True)
    with pytest.raises(MemoryError):
        await coder.digested()
    assert after == []


async def test_nobody_has_the_digests_in_hand_once_it_has_stopped(threads: ThreadPoolExecutor) -> None:
    go_on, updates = threading.Event(), list[int]()

    def wait() -> None:
        updates.append(1)
        go_on.wait(30)

    coder = Coder(CODE, [Digest(wait)], threads, digesting=threads)
    await coder.finish(Batch([3, 3], [[b"abc"], [b"def"]]), True)
    stopping = asyncio.ensure_future(coder.stop())
    await asyncio.sleep(0.01)
    assert not stopping.done()
    go_on.set()
    await stopping
    assert len(updates) <= CODE.data_shards  # what had begun, and not the next stripe


def test_digests_give_way_to_all_else_alike() -> None:
    """Also where the pool's own threads give it work."""

    def priority() -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    own = priority()
    with coding_threads() as coding, digesting_threads() as digesting:
        assert coding.submit(priority).result() == own
        together = threading.Barrier(DIGESTING_THREADS)

        def of_all() -> int:
            together.wait(30)
            return priority()

        def given_from_inside() -> list[int]:
            jobs = [digesting.submit(of_all) for _ in range(DIGESTING_THREADS - 1)]
            return [of_all(), *(job.result(30) for job in jobs)]

        assert digesting.submit(given_from_inside).result(30) == [min(own + DIGESTING_NICE, 19)] * DIGESTING_THREADS
    assert priority() == own


@pytest.mark.parametrize("most", [1, 2, DIGESTING_THREADS - 1])
async def test_where_fewer_threads_can_be_begun_those_do_the_work_of_all(
    monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    begin, running = threading.Thread.start, list[threading.Thread]()

    def begin_few(thread: threading.Thread) -> None:
        running[:] = [one for one in running if one.is_alive()]
        if thread.name.startswith("digesting"):
            if len(running) == most:
                raise RuntimeError("can't start new thread")
            running.append(thread)
        begin(thread)

    monkeypatch.setattr(threading.Thread, "start", begin_few)
    pool = digesting_threads()
    go_on = threading.Event()
    jobs = [pool.submit(go_on.wait, WAIT_SECONDS) for _ in range(3 * DIGESTING_THREADS)]
    go_on.set()
    assert all(job.result(WAIT_SECONDS) for job in jobs)
    pool.shutdown()


async def test_without_any_thread_who_wants_one_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail)
        pool = coding_threads()
        with pytest.raises(RuntimeError):
            pool.submit(len, "")
    assert pool.submit(len, "abc").result(WAIT_SECONDS) == 3
    pool.shutdown()
