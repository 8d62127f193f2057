"""Repair of what readers stumble over: a shard that is gone or does not match its hash.

Bounds: one repair per register at a time however many readers ask for it, `WIDTH` registers at once (each reads every
shard of its object), `MAX_WAITING` in line; beyond that a repair is dropped, and the scanner finds what it would
have found.  Two pods may repair one register at once: they stage the same bytes under the same name, which a drive
takes as one, so that costs work and harms nothing.

Not here: what repairing does (`healing`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from holdfast_server.drives.port import Register
from holdfast_server.objects.background import Background

WIDTH = 4
MAX_WAITING = 1000

Repair = Callable[[], Awaitable[object]]


class ReadRepair:
    def __init__(self, background: Background) -> None:
        self._background = background
        self._waiting: set[Register] = set()
        self._turns = asyncio.Semaphore(WIDTH)
        self.done = 0
        self.dropped = 0

    def ask_for(self, register: Register, repair: Repair) -> None:
        """Have it repaired some time, unless it is going to be already."""
        if register in self._waiting:
            return
        if len(self._waiting) >= MAX_WAITING or not self._background.spawn(self._run(register, repair)):
            self.dropped += 1
            return
        self._waiting.add(register)

    async def _run(self, register: Register, repair: Repair) -> None:
        try:
            async with self._turns:
                await repair()
                self.done += 1
        finally:
            self._waiting.discard(register)
