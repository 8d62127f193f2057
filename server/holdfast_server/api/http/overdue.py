"""Deadlines of one length for many: who began first is due first, so that one timer and a dictionary do for all.

A timer for each request, and for each wait in it, costs more than many a request has to do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Overdue(Generic[T]):
    """Calls `due` with whatever has begun and has not ended for so long; it has ended then."""

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float, due: Callable[[T], None]) -> None:
        self._loop, self._seconds, self._due = loop, seconds, due
        self._since: dict[T, float] = {}
        """The oldest first."""
        self._timer: asyncio.TimerHandle | None = None

    def __contains__(self, what: T) -> bool:
        return what in self._since

    def __iter__(self) -> Iterator[T]:
        """The oldest first."""
        return iter(self._since)

    def items(self) -> Iterable[tuple[T, float]]:
        """With the time each began, the oldest first."""
        return self._since.items()

    def begin(self, what: T) -> None:
        """Its time starts now, also where it had begun before."""
        self._since.pop(what, None)
        self._since[what] = self._loop.time()
        if self._timer is None:
            self._timer = self._loop.call_later(self._seconds, self._sweep)

    def end(self, what: T) -> None:
        """Idempotent."""
        self._since.pop(what, None)

    def stop(self) -> None:
        """Nothing is due any more."""
        self._since.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _sweep(self) -> None:
        self._timer = None
        now = self._loop.time()
        overdue: list[T] = []
        for what, since in self._since.items():
            # The loop's clock may be coarser than its timers.
            if now - since < self._seconds - 0.001:
                self._timer = self._loop.call_at(since + self._seconds, self._sweep)
                break
            overdue.append(what)
        for what in overdue:
            if self._since.pop(what, None) is not None:
                self._due(what)
