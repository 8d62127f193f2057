"""Notes travel together: those for one drive that come up within a few milliseconds are one call.

A note is lazy (rule 1): nobody waits for it, and losing one costs a message.  Sent one by one, they were half of
all calls between pods under small writes.  The delay is kept short because a version that is not marked yet costs
a listing a read.

Not here: what a note does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from holdfast_server.drives.port import Register

NOTE_DELAY_SECONDS = 0.004
MAX_NOTES_PER_CALL = 256

Note = tuple[Register, int, bool]
"""Register, stamp, whole: the arguments of `Drive.note`."""


class NoteBatch:
    """The notes for one drive that wait to be sent."""

    def __init__(self, send: Callable[[list[Note]], Awaitable[None]]) -> None:
        self._send = send
        self._open: tuple[list[Note], asyncio.Task[None]] | None = None

    async def add(self, note: Note) -> None:
        """Returns when the call that carried it was answered; raises what that call raised."""
        if self._open is None:
            fresh: list[Note] = []
            sending = asyncio.get_running_loop().create_task(self._send_later(fresh))
            sending.add_done_callback(_look_at)
            self._open = fresh, sending
        notes, sending = self._open
        notes.append(note)
        if len(notes) >= MAX_NOTES_PER_CALL:
            self._open = None
        # Shielded: the call carries others' notes too.
        await asyncio.shield(sending)

    async def _send_later(self, notes: list[Note]) -> None:
        await asyncio.sleep(NOTE_DELAY_SECONDS)
        if self._open is not None and self._open[0] is notes:
            self._open = None
        await self._send(notes)


def _look_at(sending: asyncio.Task[None]) -> None:
    """Its failure may find everybody gone who waited for it."""
    if not sending.cancelled():
        sending.exception()
