"""A budget that is waited for: a bounded number of claims, each for a bounded time, then `Overloaded`.

What is taken belongs to a `Hold`, which gives everything back when it is closed: one hold per request, stripe
by stripe or batch by batch.  While others wait, a holder that makes no progress for `SLOW_SECONDS` (its client
takes next to nothing) is evicted: its task is cancelled, with `Hold.evicted` saying why.  Whoever knows sooner that
a client holds something for nothing adds a `Relief`, which is asked first.  Slow clients are left alone as long as
nobody wants what they hold.

Who waits is told apart by `asker`: those who ask take turns (`ledger`).

To keep free of deadlocks, nobody may wait for more of a budget while what it holds can only be freed by getting
it: give back first, or `try_take`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from types import TracebackType

from holdfast_server.memory.ledger import Claim, Ledger, Verdict

SLOW_SECONDS = 20.0
"""A stripe of 1 MiB that is not through after it moves at less than 52 KB/s."""
LOOK_AROUND_SECONDS = 1.0
"""How long a claim waits before it looks for holders that are too slow."""

Relief = Callable[[float], bool]
"""Somebody has waited for `LOOK_AROUND_SECONDS`: makes one that is slow go, now on the loop's clock being the argument;
False if nobody is.  Asked once in that time by each that waits."""

asker: ContextVar[str] = ContextVar("asker", default="")
"""On whose behalf this task waits, where that is known; all others are one."""

log = logging.getLogger(__name__)


class Overloaded(Exception):
    """There is no room and there was none for as long as was worth waiting; nothing was begun."""


class Budget:
    """One shared amount: bytes, or requests."""

    def __init__(
        self, name: str, capacity: int, wait_seconds: float, most_waiting: int, relieved_by: Sequence[Budget] = ()
    ) -> None:
        """`wait_seconds`: the longest a claim waits unless it says otherwise.  `relieved_by`: who is too slow in one
        of these gives way to those who wait here, too: it holds both."""
        self.name = name
        self.wait_seconds = wait_seconds
        self.refused = 0
        self.evicted = 0
        self._ledger = Ledger(capacity, most_waiting)
        self._relieved_by = relieved_by
        self._reliefs: list[Relief] = []
        self._futures: dict[Claim, asyncio.Future[None]] = {}
        self._holds: dict[Hold, None] = {}
        """Those that hold something, the longest without progress first."""

    @property
    def capacity(self) -> int:
        return self._ledger.capacity

    @property
    def used(self) -> int:
        return self._ledger.used

    @property
    def waiting(self) -> int:
        return self._ledger.waiting

    def add_relief(self, relief: Relief) -> None:
        """For as long as this budget lives."""
        self._reliefs.append(relief)

    def hold(self) -> Hold:
        """Nothing yet; for one request."""
        return Hold(self)

    def try_take(self, amount: int) -> bool:
        """At once or not at all."""
        ledger = self._ledger
        amount = min(amount, ledger.capacity)
        if not ledger.fits(amount):
            return False
        ledger.used += amount
        return True

    async def take(self, amount: int, wait_seconds: float | None = None) -> None:
        """Raises Overloaded when it cannot be had soon enough."""
        if self.try_take(amount):
            return
        claim = Claim(amount, asker.get())
        if self._ledger.ask(claim) is Verdict.REFUSED:
            self.refused += 1
            raise Overloaded(f"{self.name}: {self.waiting} wait already")
        future = self._futures[claim] = asyncio.get_running_loop().create_future()
        try:
            await self._wait(future, self.wait_seconds if wait_seconds is None else wait_seconds)
        except BaseException:
            self._wake(self._ledger.withdraw(claim))
            raise
        finally:
            del self._futures[claim]

    async def _wait(self, future: asyncio.Future[None], wait_seconds: float) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait_seconds
        while not future.done():
            left = deadline - loop.time()
            if left <= 0:
                self.refused += 1
                raise Overloaded(f"{self.name}: no room within {wait_seconds:g} s")
            await asyncio.wait((future,), timeout=min(left, LOOK_AROUND_SECONDS))
            if not future.done():
                self._evict_slow(loop.time())

    def give(self, amount: int) -> None:
        """Give back what `take` or `try_take` gave, as it was asked for."""
        self._wake(self._ledger.give(min(amount, self._ledger.capacity)))

    def _wake(self, granted: list[Claim]) -> None:
        for claim in granted:
            future = self._futures[claim]
            if not future.done():
                future.set_result(None)

    # --- holders
    def progressed(self, hold: Hold) -> None:
        self._holds.pop(hold, None)
        if hold.held:
            self._holds[hold] = None

    def _evict_slow(self, now: float) -> None:
        if any(relief(now) for relief in self._reliefs):
            self._evicted_one()
            return
        for budget in self._relieved_by:
            budget._evict_slow(now)
        for hold in self._holds:
            if now - hold.since < SLOW_SECONDS:
                return
            if hold.evict():
                self._evicted_one()
                return

    def _evicted_one(self) -> None:
        self.evicted += 1
        log.warning("a client that is too slow gives way to others", extra={"budget": self.name})


class Hold:
    """What one request has of a budget.  Used by one task at a time."""

    __slots__ = ("_budget", "_task", "evicted", "held", "since")

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._task: asyncio.Task[object] | None = None
        self.held = 0
        self.since = 0.0
        """When it last got or gave something, on the loop's clock."""
        self.evicted = False

    def __enter__(self) -> Hold:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def take(self, amount: int, wait_seconds: float | None = None) -> None:
        """Raises Overloaded."""
        await self._budget.take(amount, wait_seconds)
        self._got(amount)

    def try_take(self, amount: int) -> bool:
        if not self._budget.try_take(amount):
            return False
        self._got(amount)
        return True

    def give(self, amount: int) -> None:
        """Some of it, as it was taken."""
        amount = min(amount, self.held)
        if amount:
            self.held -= amount
            self.progressed()
            self._budget.give(amount)

    def hand_over(self) -> Hold:
        """All of it, to another that waits for no client and is never evicted."""
        other = Hold(self._budget)
        other.held, self.held = self.held, 0
        self._task = None
        self._budget.progressed(self)
        return other

    def close(self) -> None:
        """All of it; idempotent."""
        self._task = None
        self.give(self.held)

    def evict(self) -> bool:
        """Cancel the task that took last; False if that was done before, or nobody is there to cancel."""
        if self.evicted or self._task is None or self._task.done():
            return False
        self.evicted = True
        self._task.cancel("too slow while others wait")
        return True

    def _got(self, amount: int) -> None:
        self.held += min(amount, self._budget.capacity)
        self._task = asyncio.current_task()
        self.progressed()

    def progressed(self) -> None:
        """The client has taken or sent something worth counting: the clock of slowness starts anew."""
        self.since = asyncio.get_running_loop().time()
        self._budget.progressed(self)
