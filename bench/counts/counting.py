"""One run: four pods in this process, every operation several times, and what it usually took of each count.

A request is sent once the one before has left nothing that still goes on: notes, files moved into place.  What comes
seldom (a renewal, a ping, a compaction) is in a few of an operation's turns, and not in what it usually takes.
"""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from bench.client import Connection
from bench.counts.exchange import Exchanges
from bench.counts.observing import MemoryPeak, Observer
from bench.counts.operations import Operation, Request, make_buckets, operations
from bench.counts.steady_loop import SteadyLoop, follow
from bench.target import Target
from holdfast_server.testing.whole_pods import ACCESS_KEY, SECRET_KEY, FourPods, until

WARM_UP, TURNS, PEAK_TURNS = 2, 7, 3
_START_SECONDS = 300.0
_LEAST = ("calls", "copied_bytes")
_NETWORK = "127.0.57."
_STEPS, _STEP_SECONDS = 3, 0.006
"""Notes are put off by some milliseconds, and once more where they arrive (`peers.notes`, `drives.group_commit`)."""
_LOOK_SECONDS, _STILL_LOOKS, _MOST_LOOKS = 0.002, 3, 1000

Counts = dict[str, float]
Ask = Callable[[], Awaitable[object]]


def run(folder: Path, library: str) -> dict[str, Counts]:
    """What each operation takes, by its name; `folder` is for the pods."""
    with asyncio.Runner(loop_factory=SteadyLoop) as runner:
        loop = runner.get_loop()
        assert isinstance(loop, SteadyLoop)
        return runner.run(_run(loop, folder, library))


async def _run(loop: SteadyLoop, folder: Path, library: str) -> dict[str, Counts]:
    follow(loop)
    observer = Observer(loop, library)
    observer.install()
    pods = FourPods(folder, _NETWORK)
    pods.publish()
    await pods.start()
    try:
        await until(lambda: all(pod.pod_health().ready for pod in pods.pods.values()), _START_SECONDS)
        target = Target("pods", ((pods.address(0), pods.s3_port),), ACCESS_KEY, SECRET_KEY, ())
        connection = Connection(target, 0)
        await make_buckets(connection, pods)
        exchanges = Exchanges(target.endpoints[0])
        counting = _Counting(loop, observer, connection, exchanges)
        counted = {one.name: await counting.count(one) for one in operations()}
        exchanges.close()
        await connection.close()
        return counted
    finally:
        loop.slowness = 1.0
        await pods.stop()


def _usual(name: str, counts: Sequence[float]) -> float:
    """What is not the request's own only adds to it: the lower quartile; of what also depends on how bytes happen to
    arrive the least."""
    return min(counts) if name in _LEAST else sorted(counts)[len(counts) // 4]


class _Counting:
    def __init__(self, loop: SteadyLoop, observer: Observer, connection: Connection, exchanges: Exchanges) -> None:
        self._loop = loop
        self._observer = observer
        self._connection = connection
        self._exchanges = exchanges

    async def count(self, operation: Operation) -> Counts:
        turns = WARM_UP + TURNS + PEAK_TURNS
        if operation.prepare is not None:
            await operation.prepare(self._connection, turns)
        asks = [self._ask(operation.request(number)) for number in range(turns)]
        self._loop.slow_down()
        for ask in asks[:WARM_UP]:
            await ask()
            await self._quiet()
        seen = [await self._observed(ask) for ask in asks[WARM_UP:][:TURNS]]
        peaks = await self._peaks(asks[WARM_UP + TURNS :])
        self._loop.slow_down(1.0)
        names = sorted({name for counts in seen for name in counts})
        counts = {name: _usual(name, [one.get(name, 0) for one in seen]) for name in names}
        return counts | {"memory_bytes": min(peaks)}

    def _ask(self, request: Request) -> Ask:
        """Signed now, not while it is counted."""
        head = self._connection.signed(request.method, request.path, request.query, request.body)
        return lambda: self._exchanges.ask(head, request.body)

    async def _observed(self, ask: Ask) -> Counts:
        self._observer.begin()
        try:
            await ask()
            await self._quiet()
        finally:
            counts = self._observer.end()
        return counts

    async def _peaks(self, asks: Sequence[Ask]) -> list[int]:
        found = []
        tracemalloc.start(1)
        try:
            for ask in asks:
                with MemoryPeak() as peak:
                    await ask()
                    await self._quiet()
                found.append(peak.size_bytes)
        finally:
            tracemalloc.stop()
        return found

    async def _quiet(self) -> None:
        """Until nothing follows any more from what was asked; what was put off comes in `_STEPS` steps."""
        await self._still()
        for _ in range(_STEPS):
            self._loop.move_on(_STEP_SECONDS)
            await self._still()

    async def _still(self) -> None:
        unchanged, before = 0, self._observer.so_far()
        for _ in range(_MOST_LOOKS):
            await self._loop.pause(_LOOK_SECONDS)
            after = self._observer.so_far()
            unchanged = unchanged + 1 if after == before else 0
            if unchanged == _STILL_LOOKS:
                return
            before = after
