"""One place that audit lines go to: a queue within a bound, and a task that hands on what is in it.

Invariants: `offer` never waits and never fails.  What waits, and what is being handed on, takes at most
`QUEUE_BYTES`; a line beyond it is dropped and counted, and so is a batch that can never be delivered.  Lines leave
in their order.  A sink that fails is tried again with pauses that double; nothing else in the pod notices.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

log = logging.getLogger(__name__)

QUEUE_BYTES = 1 << 20
"""Some 2,000 lines.  Three outlets and their batches fit the budget `audit` of `memory.limits`."""
LINE_OVERHEAD_BYTES = 64
"""What a queued line takes beside its text."""
BATCH_BYTES = 256 << 10
GATHER_SECONDS = 0.1
"""How long a line may wait for company."""
FIRST_PAUSE_SECONDS = 1.0
LAST_PAUSE_SECONDS = 30.0
FLUSH_SECONDS = 2.0
"""What an outlet gets at the end to hand on what it has."""


class DeliveryError(Exception):
    """A batch was not taken; the message says why.  `permanent`: it never will be."""

    def __init__(self, message: str, *, permanent: bool = False) -> None:
        super().__init__(message)
        self.permanent = permanent


class Sink(Protocol):
    """Where lines go."""

    name: str
    """`stdout`, `file` or `webhook`: a label of metrics."""

    async def deliver(self, lines: Sequence[bytes]) -> None:
        """Hand on whole lines, all or none as far as that can be told; bounded in time where somebody else decides.
        Raises DeliveryError.  May be cancelled."""

    async def close(self) -> None:
        """Give back what it holds; raises nothing."""


@dataclass(slots=True)
class OutletCounts:
    """For metrics; of one sink, over the life of the process."""

    sink: str
    written: int = 0
    dropped: int = 0
    waiting_bytes: int = 0


class Outlet:
    """A queue and its sink; `run` it as a task."""

    def __init__(self, sink: Sink, counts: OutletCounts, queue_bytes: int = QUEUE_BYTES) -> None:
        self._sink = sink
        self._counts = counts
        self._queue_bytes = queue_bytes
        self._lines: deque[bytes] = deque()
        self._wake = asyncio.Event()
        self._retired = asyncio.Event()
        self.ended = asyncio.Event()
        """Whether `run` is over."""
        self._failing = False

    def offer(self, line: bytes) -> None:
        """Queue a line, or drop it."""
        counts = self._counts
        size = len(line) + LINE_OVERHEAD_BYTES
        if counts.waiting_bytes + size > self._queue_bytes or self._retired.is_set():
            counts.dropped += 1
            return
        counts.waiting_bytes += size
        self._lines.append(line)
        self._wake.set()

    def retire(self) -> None:
        """Take nothing more; `run` hands on what is there, within `FLUSH_SECONDS`, and ends."""
        self._retired.set()
        self._wake.set()

    async def run(self) -> None:
        """Until retired or cancelled."""
        self.ended.clear()
        try:
            async with asyncio.TaskGroup() as group:
                work = group.create_task(self._hand_on())
                await self._retired.wait()
                await asyncio.wait([work], timeout=FLUSH_SECONDS)
                work.cancel()
        finally:
            self._drop(len(self._lines))
            await self._sink.close()
            self.ended.set()

    async def _hand_on(self) -> None:
        pause = FIRST_PAUSE_SECONDS
        while not self._retired.is_set() or self._lines:
            await self._wake.wait()
            await self._gather()
            batch = self._batch()
            if not batch:
                self._wake.clear()
                continue
            try:
                await self._sink.deliver(batch)
            except DeliveryError as error:
                self._tell(error, len(batch))
                if error.permanent:
                    self._drop(len(batch))
                else:
                    await asyncio.sleep(pause)
                    pause = min(pause * 2, LAST_PAUSE_SECONDS)
            else:
                self._forget(len(batch))
                self._counts.written += len(batch)
                pause, self._failing = FIRST_PAUSE_SECONDS, False

    async def _gather(self) -> None:
        """A moment for more lines to come, unless it is the end."""
        try:
            async with asyncio.timeout(GATHER_SECONDS):
                await self._retired.wait()
        except TimeoutError:
            return

    def _batch(self) -> list[bytes]:
        """The oldest lines; they stay in the queue until they are delivered."""
        batch: list[bytes] = []
        size = 0
        for line in self._lines:
            size += len(line)
            if batch and size > BATCH_BYTES:
                break
            batch.append(line)
        return batch

    def _forget(self, count: int) -> None:
        for _ in range(count):
            self._counts.waiting_bytes -= len(self._lines.popleft()) + LINE_OVERHEAD_BYTES

    def _drop(self, count: int) -> None:
        self._forget(count)
        self._counts.dropped += count

    def _tell(self, error: DeliveryError, count: int) -> None:
        """Once per outage, and for every batch that is given up."""
        if error.permanent or not self._failing:
            outcome = "dropped" if error.permanent else "tried again"
            log.warning(
                "audit lines are not taken",
                extra={"sink": self._sink.name, "reason": str(error), "lines": count, "outcome": outcome},
            )
        self._failing = True
