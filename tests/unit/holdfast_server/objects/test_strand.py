"""Jobs of one owner: in order, one at a time, on no more threads than are busy; with real threads."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import pytest

from holdfast_server.objects.strand import TURN_JOBS, Strand, settle

pytestmark = pytest.mark.real_threads

T = TypeVar("T")
WAIT_SECONDS = 60.0


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as pool:
        yield pool


async def held_up(strand: Strand, then: Callable[[], None] = lambda: None) -> threading.Event:
    """A first job is being done; it ends, with what is given, once the event is set."""
    begun, go_on = threading.Event(), threading.Event()

    def first() -> None:
        begun.set()
        assert go_on.wait(WAIT_SECONDS)
        then()

    strand.add(first)
    await asyncio.to_thread(begun.wait, WAIT_SECONDS)
    return go_on


async def test_jobs_are_done_in_order_and_never_two_at_once(threads: ThreadPoolExecutor) -> None:
    strand, done, busy = Strand(threads), list[int](), threading.Lock()

    def job(number: int) -> None:
        assert busy.acquire(blocking=False)
        done.append(number)
        busy.release()

    last: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    for number in range(500):
        strand.add(lambda number=number: job(number))  # type: ignore[misc]
        if number % 50 == 0:
            await asyncio.sleep(0.001)  # so that it runs dry now and then
    strand.add(lambda: settle(last, None))
    await asyncio.wait_for(last, WAIT_SECONDS)
    assert done == list(range(500))


async def test_who_has_nothing_to_do_keeps_no_thread() -> None:
    with ThreadPoolExecutor(1) as threads:
        idle, busy = Strand(threads), Strand(threads)
        for strand in (idle, busy, idle):
            done: asyncio.Future[str] = asyncio.get_running_loop().create_future()
            strand.add(lambda done=done: settle(done, "done"))  # type: ignore[misc]
            assert await asyncio.wait_for(done, WAIT_SECONDS) == "done"


async def test_who_has_much_to_do_lets_others_have_their_turn() -> None:
    with ThreadPoolExecutor(1) as threads:
        greedy, modest, done = Strand(threads), Strand(threads), list[str]()
        last: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        go_on = await held_up(greedy)
        for _ in range(10 * TURN_JOBS):
            greedy.add(lambda: done.append("greedy"))
        greedy.add(lambda: settle(last, None))
        modest.add(lambda: done.append("modest"))
        go_on.set()
        await asyncio.wait_for(last, WAIT_SECONDS)
        assert done.index("modest") < TURN_JOBS
        assert len(done) == 10 * TURN_JOBS + 1


async def test_what_was_added_is_done_though_the_threads_end(threads: ThreadPoolExecutor) -> None:
    strand, done = Strand(threads), list[int]()
    last: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    go_on = await held_up(strand)
    for number in range(5 * TURN_JOBS):
        strand.add(lambda number=number: done.append(number))  # type: ignore[misc]
    strand.add(lambda: settle(last, None))
    threads.shutdown(wait=False)
    go_on.set()
    await asyncio.wait_for(last, WAIT_SECONDS)
    assert done == list(range(5 * TURN_JOBS))


async def test_stopping_waits_for_what_is_being_done_and_drops_the_rest(threads: ThreadPoolExecutor) -> None:
    strand, done = Strand(threads), list[str]()
    go_on = await held_up(strand, lambda: done.append("first"))
    strand.add(lambda: done.append("second"))
    stopping = asyncio.ensure_future(strand.stop())
    await asyncio.sleep(0.01)
    assert not stopping.done()
    go_on.set()
    await asyncio.wait_for(stopping, WAIT_SECONDS)
    assert done == ["first"]
    await strand.stop()  # nothing is left to wait for


async def test_a_failure_is_told_to_who_waits_and_to_nobody_else(threads: ThreadPoolExecutor) -> None:
    loop = asyncio.get_running_loop()
    told, unwanted = loop.create_future(), loop.create_future()
    unwanted.cancel()
    strand = Strand(threads)
    strand.add(lambda: settle(unwanted, None, ValueError("not asked for")))
    strand.add(lambda: settle(told, None, ValueError("asked for")))
    with pytest.raises(ValueError, match=r"^asked for"):
        await asyncio.wait_for(told, WAIT_SECONDS)


async def test_without_threads_who_adds_is_told(threads: ThreadPoolExecutor) -> None:
    threads.shutdown()
    strand = Strand(threads)
    for _ in range(2):
        with pytest.raises(RuntimeError):
            strand.add(lambda: None)
    await strand.stop()


class NoFurtherThread(ThreadPoolExecutor):
    """What `submit` does where a process may begin no more threads: the job is queued, and RuntimeError raised."""

    refusing = False

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        future = super().submit(fn, *args, **kwargs)
        if self.refusing:
            time.sleep(random.choice((0, 0, 0.0005)))  # so that another thread has it already, now and then
            raise RuntimeError("can't start new thread")
        return future


async def test_jobs_stay_in_order_where_no_further_thread_can_be_begun() -> None:
    with NoFurtherThread(4) as threads:
        strand, done, busy = Strand(threads), list[int](), threading.Lock()

        def job(number: int) -> None:
            assert busy.acquire(blocking=False)
            time.sleep(0.0001)
            done.append(number)
            busy.release()

        go_on = await held_up(strand)
        for number in range(30 * TURN_JOBS):
            strand.add(lambda number=number: job(number))  # type: ignore[misc]
        last: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        strand.add(lambda: settle(last, None))
        threads.refusing = True
        go_on.set()
        await asyncio.wait_for(last, WAIT_SECONDS)
        assert done == list(range(30 * TURN_JOBS))
