"""The recent changes of one kind, for watches.

A watcher keeps only the revision that it has seen and is woken by an event: a slow client costs no memory, and one
that falls behind the bounded history is told so (410) and lists again, as on a real server.
"""

import asyncio
from collections import deque
from dataclasses import dataclass

from holdfast_local.apiserver.resources import Object

HISTORY_LENGTH = 2000
"""Changes kept per kind."""

ADDED = "ADDED"
MODIFIED = "MODIFIED"
DELETED = "DELETED"


@dataclass(frozen=True)
class Change:
    """One write: the object as it is now (for DELETED: as it was last, with the deletion's revision)."""

    revision: int
    type: str
    object: Object
    previous: Object | None


class History:
    """Changes in order of revision."""

    def __init__(self, compacted_revision: int) -> None:
        self._changes: deque[Change] = deque()
        self.compacted_revision = compacted_revision
        """Changes up to here are forgotten."""
        self._wakers: set[asyncio.Event] = set()

    def append(self, change: Change) -> None:
        self._changes.append(change)
        if len(self._changes) > HISTORY_LENGTH:
            self.compacted_revision = self._changes.popleft().revision
        for waker in self._wakers:
            waker.set()

    def since(self, revision: int) -> list[Change] | None:
        """Changes after `revision`, oldest first; None if some of them are forgotten."""
        if revision < self.compacted_revision:
            return None
        found: list[Change] = []
        for change in reversed(self._changes):
            if change.revision <= revision:
                break
            found.append(change)
        found.reverse()
        return found

    def subscribe(self) -> asyncio.Event:
        """An event that every later append sets; give it back with `unsubscribe`."""
        waker = asyncio.Event()
        self._wakers.add(waker)
        return waker

    def unsubscribe(self, waker: asyncio.Event) -> None:
        self._wakers.discard(waker)

    def wake_all(self) -> None:
        """Lets watchers look around: at shutdown, or when their kind is no longer served."""
        for waker in self._wakers:
            waker.set()
