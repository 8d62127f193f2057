"""The clock port: everything in the data path that is not a function of its arguments comes through here."""

from __future__ import annotations

from typing import Protocol


class Clock(Protocol):
    def now_ms(self) -> int:
        """Wall-clock milliseconds since 1970; may step, in either direction."""

    def monotonic_seconds(self) -> float:
        """Never goes back; for deadlines and leases."""

    def random_bytes(self, count: int) -> bytes:
        """Unpredictable in production, seeded in simulation."""

    async def sleep(self, seconds: float) -> None: ...
