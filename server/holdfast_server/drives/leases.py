"""Leases of conditional writes: in memory only, and why that is safe.

A lease is a promise to take no foreign write for a while (rule 7).  A restart forgets it, so afterwards a
plain commit may get in where the promise stood.  That breaks nothing, because the conditional commit itself is
accepted only under its own *live* lease: the drive that forgot the promise refuses the commit that relied on
it, and the write loses this drive's vote instead of overwriting what it never compared with.

Used by one thread (or one loop) at a time.
"""

from __future__ import annotations

from typing import Generic, TypeVar

from holdfast_server.clock.port import Clock

K = TypeVar("K")

SWEEP_ABOVE = 1024
"""Lapsed leases are cleared out when more than this many are kept."""


class Leases(Generic[K]):
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._held: dict[K, tuple[bytes, float]] = {}

    def live(self, register: K) -> bytes | None:
        """The lease that stands now."""
        held = self._held.get(register)
        if held is None:
            return None
        if held[1] <= self._clock.monotonic_seconds():
            del self._held[register]
            return None
        return held[0]

    def grant(self, register: K, lease: bytes, duration_seconds: float) -> None:
        now = self._clock.monotonic_seconds()
        if len(self._held) > SWEEP_ABOVE:
            self._held = {key: held for key, held in self._held.items() if held[1] > now}
        self._held[register] = (lease, now + duration_seconds)

    def release(self, register: K, lease: bytes) -> None:
        held = self._held.get(register)
        if held is not None and held[0] == lease:
            del self._held[register]

    def use_up(self, register: K) -> None:
        self._held.pop(register, None)
