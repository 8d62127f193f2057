"""A clock that stands still until it is moved; for tests that wait for time to pass without waiting."""

from __future__ import annotations

import asyncio
import random


class ManualClock:
    """`clock.port.Clock`; randomness is seeded."""

    def __init__(self, now_ms: int = 1_700_000_000_000, seed: int = 1) -> None:
        self._elapsed_seconds = 0.0
        self._start_ms = now_ms
        self._random = random.Random(seed)
        self._sleepers: list[tuple[float, asyncio.Future[None]]] = []

    def advance(self, seconds: float) -> None:
        """Let time pass; who slept long enough wakes up."""
        self._elapsed_seconds += seconds
        for due, sleeper in self._sleepers:
            if due <= self._elapsed_seconds and not sleeper.done():
                sleeper.set_result(None)
        self._sleepers = [(due, sleeper) for due, sleeper in self._sleepers if not sleeper.done()]

    def now_ms(self) -> int:
        return self._start_ms + int(self._elapsed_seconds * 1000)

    def monotonic_seconds(self) -> float:
        return self._elapsed_seconds

    def random_bytes(self, count: int) -> bytes:
        return self._random.randbytes(count)

    async def sleep(self, seconds: float) -> None:
        sleeper = asyncio.get_running_loop().create_future()
        self._sleepers.append((self._elapsed_seconds + seconds, sleeper))
        await sleeper
