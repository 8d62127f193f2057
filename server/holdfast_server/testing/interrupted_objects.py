"""Objects in memory between whose documents' changes something else happens, for tests of what races.

Not here: drives and messages that are late (`unreliable_network`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from holdfast_server.clock.system import SystemClock
from holdfast_server.objects.port import Condition, Record
from holdfast_server.testing.memory_objects import MemoryObjects


class InterruptedObjects(MemoryObjects):
    """Something else happens, to its end, right before a document is put or deleted."""

    def __init__(self) -> None:
        super().__init__(SystemClock())
        self.meanwhile: dict[str, Callable[[], object]] = {}
        """Verb and beginning of a document's name, as `put iam/` → what happens, once."""

    async def _interrupt(self, verb: str, name: str) -> None:
        for beginning in list(self.meanwhile):
            if f"{verb} {name}".startswith(beginning):
                await asyncio.to_thread(self.meanwhile.pop(beginning))

    async def put_document(self, name: str, body: bytes, condition: Condition | None = None) -> Record:
        await self._interrupt("put", name)
        return await super().put_document(name, body, condition)

    async def delete_document(self, name: str, condition: Condition | None = None) -> None:
        await self._interrupt("delete", name)
        await super().delete_document(name, condition)
