"""Who is connected: places, who rests, whose head is on its way; and what all connections share (`Site`).

A connection beyond the bound takes the place of the one that has been idle longest; where none is idle, it is refused.
A connection that rests for `keepalive_seconds` is closed, a head that is not complete after `head_seconds` is refused.

While requests wait for what others hold (`memory.budget`), slow clients give way (`relieve`), one at a time: an upload
of which next to nothing comes is answered `RequestTimeout`.  While nobody waits, a client may be as slow as it likes,
as long as anything comes within `read_idle_seconds`.

Not here: what is said to the refused (`connection` asks the handler).
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from holdfast_server.api.http.body import HttpBody
from holdfast_server.api.http.head import Head, HeadReader
from holdfast_server.api.http.overdue import Overdue
from holdfast_server.s3.errors import S3Error

if TYPE_CHECKING:
    from holdfast_server.api.http.connection import Connection

READ_SIZE_BYTES = 64 << 10
HEAD_READ_SIZE_BYTES = 32 << 10
"""What is read at a time while a head is expected: what follows it is all that a request which waits may hold."""
GRACE_SECONDS = 2.0
"""What a client has to come up with something after it was found slow: it may be this pod that lay still."""
UNTAKEN_SECONDS = 4.0
"""How long an answer may be left where others wait for the room it takes: less than they wait, and as much as a slow
line needs for most."""
LINGER_SECONDS = 2.0
"""How long a refused client may go on sending into nothing before the connection is cut."""


class Handler(Protocol):
    """Who answers."""

    def begin(self, connection: Connection, head: Head, body: HttpBody) -> None:
        """A request: ends with `connection.finish`, now or later.  Raises nothing."""

    def refusal(self, error: S3Error) -> bytes:
        """A whole response, for a client that asked nothing that could be understood, or nothing at all."""


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """Of one port's connections."""

    connections: int
    secure_places: int
    """How many of them one with TLS counts for."""
    line_bytes: int
    """Of the request line, and of each header."""
    head_bytes: int
    headers: int
    head_seconds: float
    keepalive_seconds: float
    read_idle_seconds: float
    write_idle_seconds: float


class Site:
    """All connections of one port."""

    def __init__(self, handler: Handler, bounds: Bounds) -> None:
        loop = asyncio.get_running_loop()
        self.loop, self.handler, self.bounds = loop, handler, bounds
        self.heads = HeadReader(bounds.line_bytes, bounds.headers)
        self.buffer = memoryview(bytearray(READ_SIZE_BYTES))
        """What every connection reads into: it is copied out before anything else is read."""
        self.head_buffer = self.buffer[:HEAD_READ_SIZE_BYTES]
        self._places_left = bounds.connections
        self._open: dict[Connection, int] = {}
        """How many places each takes.  One that is refused has its own until it is gone."""
        self._resting: Overdue[Connection] = Overdue(loop, bounds.keepalive_seconds, _close)
        self._arriving: Overdue[Connection] = Overdue(loop, bounds.head_seconds, _refuse_slow_head)
        self._lingering: Overdue[Connection] = Overdue(loop, LINGER_SECONDS, _close)
        self.body_waits: Overdue[HttpBody] = Overdue(loop, bounds.read_idle_seconds, HttpBody.stalled)
        self.write_waits: Overdue[Connection] = Overdue(loop, bounds.write_idle_seconds, _give_up_writing)
        self._slow: dict[HttpBody, float] = {}
        """Of what was waited for when somebody last looked: since when its client is known to be slow."""
        self._untaken: dict[Connection, float] = {}
        """Whose answers were written as a whole and are not taken; since when, the oldest first."""
        self._nobody = asyncio.Event()
        self._nobody.set()

    def admit(self, connection: Connection, *, secure: bool) -> bool:
        """A new connection; False if there is no place for it and none rests.  One with TLS takes several places."""
        places = self.bounds.secure_places if secure else 1
        while self._places_left < places and (rested := next(iter(self._resting), None)) is not None:
            self.lost(rested)
            rested.cut()
        fits = self._places_left >= places
        self._places_left -= places
        self._open[connection] = places
        self._nobody.clear()
        if fits:
            self._resting.begin(connection)
        return fits

    def lost(self, connection: Connection) -> None:
        """It is closed; idempotent."""
        self._places_left += self._open.pop(connection, 0)
        self._resting.end(connection)
        self._arriving.end(connection)
        self._lingering.end(connection)
        if not self._open:
            self._nobody.set()

    def arrives(self, connection: Connection) -> None:
        """A head has begun to come."""
        self._resting.end(connection)
        self._arriving.begin(connection)

    def begun(self, connection: Connection) -> None:
        """Its head is complete and being answered."""
        self._resting.end(connection)
        self._arriving.end(connection)

    def rests(self, connection: Connection) -> None:
        """It was answered."""
        if connection in self._open:
            self._resting.begin(connection)

    def lingers(self, connection: Connection) -> None:
        """It was told that nothing more is taken."""
        self.begun(connection)
        if connection in self._open:
            self._lingering.begin(connection)

    def relieve(self, now: float) -> bool:
        """Others wait: give up on one upload whose client is slow, the longest silent first; False if there is none."""
        slow = {body: self._slow.get(body, now) for body, since in self.body_waits.items() if body.is_slow(now, since)}
        self._slow = slow
        for body, since in slow.items():
            if now - since >= GRACE_SECONDS:
                del slow[body]
                self.body_waits.end(body)
                body.stalled()
                return True
        return False

    async def taken(self, connection: Connection) -> None:
        """Until the client has taken its answer, or has to go for others.  Raises as `Connection.drained` does."""
        self._untaken[connection] = self.loop.time()
        try:
            await connection.drained()
        finally:
            del self._untaken[connection]

    def relieve_of_answers(self, now: float) -> bool:
        """Others wait for room: give up on the answer that has been left longest, unless all are young."""
        for connection, since in self._untaken.items():
            if now - since < UNTAKEN_SECONDS:
                return False
            if not connection.takes:
                connection.give_up_writing()
                return True
        return False

    def leave_answers(self) -> None:
        """Nobody waits any longer for clients to take them."""
        for connection in list(self._untaken):
            connection.leave_the_rest()

    def close_resting(self) -> None:
        for connection in list(self._resting):
            connection.close()

    def abandon(self) -> None:
        """Handlers that wait for their clients learn that they need not."""
        for connection in list(self._open):
            connection.abandon()

    def close_all(self) -> None:
        """What was written may still be taken."""
        for connection in list(self._open):
            connection.close()

    async def see_off(self, timeout_seconds: float) -> None:
        """All connections are closed: let clients take what is left for them, then cut those that do not."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_seconds):
                await self._nobody.wait()
        for connection in list(self._open):
            connection.cut()
        for deadlines in (self._resting, self._arriving, self._lingering, self.body_waits, self.write_waits):
            deadlines.stop()


def _close(connection: Connection) -> None:
    connection.close()


def _refuse_slow_head(connection: Connection) -> None:
    connection.refuse(S3Error("RequestTimeout"))


def _give_up_writing(connection: Connection) -> None:
    connection.give_up_writing()
