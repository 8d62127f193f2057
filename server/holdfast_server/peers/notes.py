"""Notes travel together: those for one drive that come up within a few milliseconds are one call.

A note is lazy (rule 1): nobody waits for it, and losing one costs a message.  Sent one by one, they were half of
all calls between pods under small writes.  The delay is kept short because a version that is not marked yet costs
a listing a read.

Not here: what a note does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from holdfast_server.drives.port import Note

NOTE_DELAY_SECONDS = 0.004
MAX_NOTES_PER_CALL = 256

Waiter = asyncio.Future[None]


class NoteBatch:
    """The notes for one drive that wait to be sent.  Belongs to one event loop.

    A future per note and no task: each small write has one of them per drive.
    """

    def __init__(self, send: Callable[[Sequence[Note]], asyncio.Future[Any]]) -> None:
        """`send` begins a call, and is told of it by nobody else."""
        self._send = send
        self._notes: list[Note] = []
        self._waiters: list[Waiter] = []
        self._timer: asyncio.TimerHandle | None = None

    def add(self, note: Note) -> asyncio.Future[None]:
        """Done when the call that carried it was answered; raises what that call raised.  Who cancels it leaves the
        others' notes, and its own, on their way."""
        loop = asyncio.get_running_loop()
        waiter: Waiter = loop.create_future()
        self._notes.append(note)
        self._waiters.append(waiter)
        if len(self._notes) >= MAX_NOTES_PER_CALL:
            self._send_now()
        elif self._timer is None:
            self._timer = loop.call_later(NOTE_DELAY_SECONDS, self._send_now)
        return waiter

    def _send_now(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        notes, waiters = self._notes, self._waiters
        self._notes, self._waiters = [], []
        self._send(notes).add_done_callback(lambda call: _answered(call, waiters))


def _answered(call: asyncio.Future[Any], waiters: list[Waiter]) -> None:
    error = asyncio.CancelledError() if call.cancelled() else call.exception()
    for waiter in waiters:
        if waiter.done():
            continue
        if error is None:
            waiter.set_result(None)
        elif isinstance(error, asyncio.CancelledError):
            waiter.cancel()
        else:
            waiter.set_exception(error)
