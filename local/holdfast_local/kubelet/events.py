"""Kubernetes Events about pods and Services: what `kubectl describe` shows.

Best effort: a bounded queue, repeated events are counted instead of created anew, failures are dropped.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections import OrderedDict
from typing import NamedTuple

from holdfast_local.kubelet.client import EVENTS, ApiClient, ClientError
from holdfast_local.kubelet.manifests import NODE_NAME, Manifest, timestamp_now

QUEUE_LIMIT = 1000
REMEMBERED_EVENTS = 500

logger = logging.getLogger(__name__)


class Event(NamedTuple):
    """About which object, and what."""

    kind: str
    namespace: str
    name: str
    uid: str
    type: str
    reason: str
    message: str


class EventRecorder:
    """Writes events in the background."""

    def __init__(self, client: ApiClient, component: str) -> None:
        self._client = client
        self._component = component
        self._queue: asyncio.Queue[Event] = asyncio.Queue(QUEUE_LIMIT)
        self._written: OrderedDict[Event, tuple[str, int]] = OrderedDict()

    def record(self, kind: str, subject: Manifest, reason: str, message: str, warning: bool = False) -> None:
        """Note an event; dropped while the queue is full."""
        metadata = subject["metadata"]
        event = Event(
            kind,
            metadata.get("namespace") or "default",
            metadata["name"],
            metadata.get("uid", ""),
            "Warning" if warning else "Normal",
            reason,
            message[:1000],
        )
        try:
            self._queue.put_nowait(event)
        except asyncio.QueueFull:
            pass

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            event = await self._queue.get()
            try:
                await self._write(event)
            except ClientError as error:
                logger.debug("event %s: %s", event.reason, error)

    async def _write(self, event: Event) -> None:
        known = self._written.get(event)
        if known is not None:
            name, count = known[0], known[1] + 1
            patch: Manifest = {"count": count, "lastTimestamp": timestamp_now()}
            await self._client.merge(EVENTS, event.namespace, name, patch)
        else:
            name, count = f"{event.name}.{uuid.uuid4().hex[:16]}", 1
            await self._client.create(EVENTS, self._manifest(event, name))
        self._written[event] = (name, count)
        self._written.move_to_end(event)
        while len(self._written) > REMEMBERED_EVENTS:
            self._written.popitem(last=False)

    def _manifest(self, event: Event, name: str) -> Manifest:
        now = timestamp_now()
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": event.namespace},
            "involvedObject": {
                "kind": event.kind,
                "apiVersion": "v1",
                "namespace": event.namespace,
                "name": event.name,
                "uid": event.uid,
            },
            "type": event.type,
            "reason": event.reason,
            "message": event.message,
            "count": 1,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "source": {"component": self._component, "host": NODE_NAME},
            "reportingComponent": self._component,
            "reportingInstance": NODE_NAME,
        }
