"""Whose turn it is: every request has a `Ticket`, which takes from the pod's budgets and gives all back at its end.

A request enters with a place among the *requests*.  One that turns out to stream (more than 64 KiB, either way)
leaves that place before it waits for one among the *streams*, so that uploads and downloads, however slow their
clients, never keep small requests out; the admin API has places of its own, and probes need none.  A turn that
does not come soon enough is answered SlowDown: at that point nothing was begun and no body was read, and a client
that waits for `100 Continue` never sends it.

While a request waits, nothing of its body is read: that begins when a handler asks for it (`http.body`).

Not here: bytes of stripes (`objects` takes them from the same `PodMemory`), what an answer looks like.
"""

from __future__ import annotations

from holdfast_server.auth.principal import Principal
from holdfast_server.memory.budget import Budget, Hold, asker
from holdfast_server.memory.pod_memory import PodMemory

PARSED_FACTOR = 6
"""What a request document takes in memory by its size: as it came, decoded, as a tree of elements, and as the parts
or keys it names."""


class Ticket:
    """The places and bytes of one request."""

    __slots__ = ("_documents", "_memory", "_place", "_taken", "principal")

    def __init__(self, memory: PodMemory) -> None:
        self._memory = memory
        self._place: Budget | None = None
        self._taken: list[Budget] = []
        self._documents: Hold | None = None
        self.principal: Principal | None = None
        """Who sent the request, once that is known: users take turns where uploads and downloads wait."""

    async def enter(self, admin: bool) -> None:
        """Begin.  Raises Overloaded."""
        await self._move_to(self._memory.admin if admin else self._memory.requests)

    async def stream(self, size_bytes: int) -> None:
        """This many bytes will go through; nothing has to be done for few.  Idempotent.  Raises Overloaded."""
        memory = self._memory
        if size_bytes > memory.limits.streamed_from_bytes and self._place is not memory.streams:
            if self.principal is not None:
                # Of whichever key and session: those are had for the asking.
                asker.set(f"{self.principal.account}/{self.principal.user_name}")
            await self._move_to(memory.streams)

    async def copy(self, size_bytes: int) -> None:
        """As `stream`, and more sparingly: a copy takes from the budgets of reads and of writes.  Idempotent."""
        await self.stream(size_bytes)
        copies = self._memory.copies
        if self._place is self._memory.streams and copies not in self._taken:
            await copies.take(1)
            self._taken.append(copies)

    async def document(self, size_bytes: int) -> None:
        """A document of this size, in or out, is held until the request's end.  Raises Overloaded."""
        if size_bytes <= self._memory.limits.request_bytes:
            return
        if self._documents is None:
            self._documents = self._memory.documents.hold()
        # Never more while holding some: two requests could wait for each other.
        self._documents.close()
        await self._documents.take(size_bytes)

    def leave(self) -> None:
        """Give everything back; idempotent."""
        if self._place is not None:
            self._place.give(1)
            self._place = None
        while self._taken:
            self._taken.pop().give(1)
        if self._documents is not None:
            self._documents.close()

    async def _move_to(self, place: Budget) -> None:
        if self._place is not None:
            self._place.give(1)
            self._place = None
        if not place.try_take(1):
            await place.take(1)
        self._place = place
