"""A live copy of one collection: list, then watch, again and again; and a worker that reconciles what changed.

Invariants: `items` is changed only between awaits; every difference is announced through `changed`, also
those found by a fresh list; a worker handles one key at a time and holds each dirty key once, so nothing
grows with the rate of events.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from holdfast_local.kubelet.client import ApiClient, ApiError, ApiUnavailable, ClientError, Resource
from holdfast_local.kubelet.manifests import Key, Manifest, key_of

RETRY_SECONDS = 0.5
RECONCILE_RETRY_SECONDS = 1.0

logger = logging.getLogger(__name__)

Changed = Callable[[Key, Manifest | None], None]
"""Called with the new object, or None once it is gone.  Must not block."""


class Informer:
    """Mirror of all objects of one resource in every namespace."""

    def __init__(self, client: ApiClient, resource: Resource) -> None:
        self.items: dict[Key, Manifest] = {}
        self.synced = asyncio.Event()
        self._client = client
        self._resource = resource
        self._listeners: list[Changed] = []

    def on_change(self, listener: Changed) -> None:
        self._listeners.append(listener)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                resource_version = await self._list()
                self.synced.set()
                await self._follow(resource_version)
            except (ApiUnavailable, ApiError) as error:
                if not (isinstance(error, ApiError) and error.status == 410):
                    logger.debug("%s: %s", self._resource.plural, error)
                    await asyncio.sleep(RETRY_SECONDS)

    async def _list(self) -> str:
        answer = await self._client.request("GET", self._resource.path())
        fresh = {key_of(item): item for item in answer.get("items") or []}
        for key in [key for key in self.items if key not in fresh]:
            self._remove(key)
        for key, manifest in fresh.items():
            known = self.items.get(key)
            if known is None or known["metadata"] != manifest["metadata"]:
                self._put(key, manifest)
        return str(answer["metadata"]["resourceVersion"])

    async def _follow(self, resource_version: str) -> None:
        while True:
            async for event in self._client.watch(self._resource.path(), resource_version):
                resource_version = event.object["metadata"]["resourceVersion"]
                if event.type == "BOOKMARK":
                    continue
                if event.type == "DELETED":
                    self._remove(key_of(event.object))
                else:
                    self._put(key_of(event.object), event.object)

    def _put(self, key: Key, manifest: Manifest) -> None:
        self.items[key] = manifest
        for listener in self._listeners:
            listener(key, manifest)

    def _remove(self, key: Key) -> None:
        if self.items.pop(key, None) is not None:
            for listener in self._listeners:
                listener(key, None)


class ReconcileQueue:
    """Calls `reconcile(key)` for each key marked dirty, one at a time, again after an API error."""

    def __init__(self, name: str, reconcile: Callable[[Key], Awaitable[None]]) -> None:
        self._name = name
        self._reconcile = reconcile
        self._dirty: dict[Key, None] = {}
        self._wake = asyncio.Event()

    def mark(self, key: Key) -> None:
        self._dirty[key] = None
        self._wake.set()

    async def run(self) -> None:
        """Until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._dirty:
                key = next(iter(self._dirty))
                del self._dirty[key]
                try:
                    await self._reconcile(key)
                except ClientError as error:
                    if not (isinstance(error, ApiError) and error.status in (404, 409)):
                        logger.warning("%s %s: %s", self._name, "/".join(key), error)
                    loop.call_later(RECONCILE_RETRY_SECONDS, self.mark, key)
