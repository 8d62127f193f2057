"""Committed shards are moved together, a moment later, and before a drive is closed."""

import asyncio
import threading
import weakref
from collections.abc import Sequence

from holdfast_server.drives.disk_threads import DiskThreads, Watch
from holdfast_server.drives.placing import PLACE_SECONDS, Placing


class _Places:
    def __init__(self) -> None:
        self.calls: list[list[bytes]] = []
        self.threads: set[str] = set()
        loop = asyncio.get_running_loop()
        self.workers = DiskThreads("test-write", 2, Watch(), loop)
        self.placing = Placing(self._place, self.workers, loop)

    def _place(self, data_ids: Sequence[bytes]) -> None:
        self.calls.append(list(data_ids))
        self.threads.add(threading.current_thread().name)

    async def end(self) -> None:
        await self.workers.drained()
        self.workers.shutdown()


async def test_what_is_committed_within_a_moment_is_moved_together() -> None:
    places = _Places()
    for number in range(5):
        places.placing.add([b"%d" % number])
        places.placing.look()
        await asyncio.sleep(0)
    assert not places.calls
    while not places.calls:
        await asyncio.sleep(PLACE_SECONDS)
    await places.end()
    assert places.calls == [[b"0", b"1", b"2", b"3", b"4"]]
    assert threading.current_thread().name not in places.threads


async def test_nothing_is_begun_where_nothing_was_committed() -> None:
    places = _Places()
    places.placing.look()
    places.placing.begin()
    await asyncio.sleep(2 * PLACE_SECONDS)
    await places.end()
    assert not places.calls


async def test_it_does_not_wait_at_the_end() -> None:
    places = _Places()
    places.placing.add([b"one", b"two"])
    places.placing.look()
    places.placing.begin()
    await places.end()
    assert places.calls == [[b"one", b"two"]]
    await asyncio.sleep(2 * PLACE_SECONDS)
    assert len(places.calls) == 1


async def test_threads_are_begun_as_they_are_needed_and_used_again() -> None:
    workers = DiskThreads("test-read", 3, Watch(), asyncio.get_running_loop())
    used: set[str] = set()
    gate = threading.Barrier(2)

    def alone() -> None:
        used.add(threading.current_thread().name)

    def together() -> None:
        gate.wait(30)
        alone()

    for _ in range(20):
        await workers.run(alone)
    assert used == {"test-read_0"}
    await asyncio.gather(workers.run(together), workers.run(together))
    assert len(used) == 2
    await workers.drained()
    workers.shutdown()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("test-read")]


async def test_what_a_job_held_is_let_go_of_while_nothing_follows() -> None:
    class Large:
        pass

    workers = DiskThreads("test-hold", 1, Watch(), asyncio.get_running_loop())
    large = Large()
    gone = weakref.ref(large)

    async def use(held: Large) -> None:
        await workers.run(lambda: repr(held))

    await use(large)
    del large
    while gone() is not None:
        await asyncio.sleep(0.01)
    await workers.drained()
    workers.shutdown()
