"""Watches: a stream of changes that match a selection, from a revision on, with bookmarks.

A watcher holds a revision, not a queue; the bounded history feeds it (see `storage.history`). An object that starts or
stops matching the selection is reported as ADDED or DELETED. Streams end after `timeoutSeconds`, when the history has
moved on (410), or when the server closes.
"""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from holdfast_local.apiserver import errors
from holdfast_local.apiserver.http.answers import dump
from holdfast_local.apiserver.kinds.versions import from_storage
from holdfast_local.apiserver.resources import Object, Resource
from holdfast_local.apiserver.selection import Predicate
from holdfast_local.apiserver.storage.history import ADDED, DELETED, MODIFIED, Change
from holdfast_local.apiserver.storage.store import Store

BOOKMARK_INTERVAL_SECONDS = 20.0
DEFAULT_TIMEOUT_SECONDS = 1800.0
INITIAL_EVENTS_END = "k8s.io/initial-events-end"


@dataclass(frozen=True)
class WatchOptions:
    """The query of a watch."""

    namespace: str
    revision: int | None
    """None or 0: begin with the present objects."""
    timeout_seconds: float
    bookmarks: bool
    send_initial_events: bool

    @classmethod
    def parse(cls, namespace: str, query: dict[str, str]) -> "WatchOptions":
        """Raises StatusError 400 for values that are not numbers."""
        try:
            revision = int(query.get("resourceVersion") or 0)
            timeout_seconds = float(query.get("timeoutSeconds") or 0)
        except ValueError:
            raise errors.bad_request("resourceVersion and timeoutSeconds must be numbers") from None
        if timeout_seconds <= 0:
            # Spread, so that the watches of one client do not all end at once.
            timeout_seconds = DEFAULT_TIMEOUT_SECONDS * (1 + random.random())
        return cls(
            namespace=namespace,
            revision=revision or None,
            timeout_seconds=timeout_seconds,
            bookmarks=query.get("allowWatchBookmarks") in ("true", "1"),
            send_initial_events=query.get("sendInitialEvents") in ("true", "1"),
        )


Render = Callable[[Object], Any]


class Watch:
    """One stream of one client."""

    def __init__(
        self,
        store: Store,
        resource: Resource,
        options: WatchOptions,
        selects: Predicate,
        render: Render,
        is_closing: Callable[[], bool],
    ) -> None:
        """`render` gives the form of an object that goes over the wire; `is_closing` ends the stream early."""
        self._store = store
        self._resource = resource
        self._options = options
        self._selects = selects
        self._render = render
        self._is_closing = is_closing
        self._history = store.history(resource.storage)

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Streams until the end; errors after the first byte are events, as on a real server."""
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        response.enable_chunked_encoding()
        waker = self._history.subscribe()
        try:
            first, seen = self._beginning()
            await response.prepare(request)
            if first:
                await response.write(b"".join(first))
            async with asyncio.timeout(self._options.timeout_seconds):
                await self._follow(response, waker, seen)
        except (TimeoutError, ConnectionError):
            pass
        finally:
            self._history.unsubscribe(waker)
        return response

    def _beginning(self) -> tuple[list[bytes], int]:
        """What is sent at once, and the revision that the stream has then reached."""
        options = self._options
        seen = self._store.revision
        if options.revision is not None and not options.send_initial_events:
            if options.revision > seen:
                # Ahead of us: a client of another life of this state folder.
                return [], seen
            return [], options.revision
        frames = [
            self._frame(ADDED, obj)
            for obj in self._store.list(self._resource.storage, options.namespace)
            if self._matches(obj)
        ]
        if options.send_initial_events:
            frames.append(self._bookmark(seen, {INITIAL_EVENTS_END: "true"}))
        return frames, seen

    async def _follow(self, response: web.StreamResponse, waker: asyncio.Event, seen: int) -> None:
        while not self._is_closing():
            waker.clear()
            changes = self._history.since(seen)
            if changes is None:
                expired = errors.expired(seen, self._history.compacted_revision).body()
                await response.write(dump({"type": "ERROR", "object": expired}) + b"\n")
                return
            frames = [frame for change in changes for frame in self._frames(change)]
            if changes:
                seen = changes[-1].revision
            if frames:
                await response.write(b"".join(frames))
            if waker.is_set():
                continue
            try:
                async with asyncio.timeout(BOOKMARK_INTERVAL_SECONDS):
                    await waker.wait()
            except TimeoutError:
                if waker.is_set():
                    continue  # both at once, as happens where the loop was held up
                # Nothing of this kind happened up to the store's revision.
                seen = max(seen, self._store.revision)
                if self._options.bookmarks:
                    await response.write(self._bookmark(seen, {}))

    def _frames(self, change: Change) -> list[bytes]:
        now = self._matches(change.object)
        before = change.previous is not None and self._matches(change.previous)
        if change.type == DELETED:
            return [self._frame(DELETED, change.object)] if now or before else []
        if now:
            return [self._frame(MODIFIED if before else ADDED, change.object)]
        return [self._frame(DELETED, change.object)] if before else []

    def _matches(self, stored: Object) -> bool:
        namespace = self._options.namespace
        if namespace and stored["metadata"].get("namespace") != namespace:
            return False
        return self._selects(from_storage(self._resource, stored))

    def _frame(self, kind: str, stored: Object) -> bytes:
        return dump({"type": kind, "object": self._render(from_storage(self._resource, stored))}) + b"\n"

    def _bookmark(self, revision: int, annotations: dict[str, str]) -> bytes:
        metadata: dict[str, Any] = {"resourceVersion": str(revision), "creationTimestamp": None}
        if annotations:
            metadata["annotations"] = annotations
        obj = {"kind": self._resource.kind, "apiVersion": self._resource.api_version, "metadata": metadata}
        return dump({"type": "BOOKMARK", "object": obj}) + b"\n"
