"""Posts Events about Tenants, so that `kubectl describe` and `kubectl get events` tell what happened, and when.

Best effort and bounded: an event that was posted before is counted, not made anew; a Tenant may post `BURST`
events and one more per `REFILL_SECONDS`; how many are remembered is bounded; and a failure to post is a line in
the log, never a failed pass.  Conditions remain the truth: events are history, and Kubernetes forgets them after
an hour.

Not here: what is worth an event (`status.events`).
"""

from __future__ import annotations

import hashlib
import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from holdfast_operator.kube.errors import KubeError, NamespaceEnding
from holdfast_operator.kube.port import EVENT, FIELD_MANAGER, KubeClient, Manifest
from holdfast_operator.status.events import TenantEvent

BURST = 12
REFILL_SECONDS = 20.0
REMEMBERED = 512
"""Events whose count is known, and Tenants whose allowance is; the oldest are forgotten first."""

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Posted:
    first: str
    count: int


@dataclass(slots=True)
class _Allowance:
    left: float
    at: float


class Announcer:
    """See the module."""

    def __init__(self, kube: KubeClient, now: Callable[[], datetime], monotonic: Callable[[], float]) -> None:
        self._kube, self._now, self._monotonic = kube, now, monotonic
        self._posted: OrderedDict[str, _Posted] = OrderedDict()
        self._allowances: OrderedDict[str, _Allowance] = OrderedDict()

    async def post(self, tenant: Manifest, events: Iterable[TenantEvent]) -> None:
        """About this Tenant, in order; raises nothing.  The first failure ends it: the rest would fail too."""
        for event in events:
            if not self._may(tenant["metadata"]["uid"]):
                logger.warning("event left out: too many", extra={"fields": {"reason": event.reason}})
                continue
            try:
                await self._kube.apply(self._manifest(tenant, event))
            except NamespaceEnding:
                return
            except KubeError as error:
                logger.warning("event not posted: %s", error, extra={"fields": {"reason": event.reason}})
                return

    def _may(self, uid: str) -> bool:
        at = self._monotonic()
        allowance = self._allowances.setdefault(uid, _Allowance(float(BURST), at))
        allowance.left = min(float(BURST), allowance.left + (at - allowance.at) / REFILL_SECONDS)
        allowance.at = at
        _touch(self._allowances, uid)
        if allowance.left < 1:
            return False
        allowance.left -= 1
        return True

    def _manifest(self, tenant: Manifest, event: TenantEvent) -> Manifest:
        metadata = tenant["metadata"]
        text = "\0".join((metadata["uid"], event.type, event.condition, event.reason, event.message))
        # The name is made of what is said, so that saying it again, after a restart of the operator too, is the
        # same object; applied, it is made or counted on.
        name = f"{metadata['name']}.{hashlib.sha256(text.encode()).hexdigest()[:16]}"
        now = self._now().astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        posted = self._posted.setdefault(name, _Posted(now, 0))
        posted.count += 1
        _touch(self._posted, name)
        return {
            "apiVersion": EVENT.api_version,
            "kind": EVENT.kind,
            "metadata": {"name": name, "namespace": metadata["namespace"]},
            "involvedObject": {
                "apiVersion": tenant["apiVersion"],
                "kind": tenant["kind"],
                "namespace": metadata["namespace"],
                "name": metadata["name"],
                "uid": metadata["uid"],
            },
            "type": event.type,
            "reason": event.reason,
            "message": event.message,
            "count": posted.count,
            "firstTimestamp": posted.first,
            "lastTimestamp": now,
            "source": {"component": FIELD_MANAGER},
            "reportingComponent": FIELD_MANAGER,
        }


def _touch(remembered: OrderedDict[str, _Posted] | OrderedDict[str, _Allowance], key: str) -> None:
    remembered.move_to_end(key)
    while len(remembered) > REMEMBERED:
        remembered.popitem(last=False)
