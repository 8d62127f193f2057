"""Lists everything that carries the tenant's labels: one list per kind, all at once.

But for Secrets, which `gather` reads, and after these: an object that is written from the record of keys and the ledger
must have been read before the record was.  Else a pass that was overtaken in between would take the new version for
what its old record is to be written over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from holdfast_operator import labels
from holdfast_operator.kube.port import (
    CLAIM,
    CONFIG_MAP,
    DISRUPTION_BUDGET,
    POD,
    SERVICE,
    SERVICE_ACCOUNT,
    STATEFUL_SET,
    Kind,
    KubeClient,
    Manifest,
)

OWNED_KINDS = (SERVICE_ACCOUNT, CONFIG_MAP, SERVICE, DISRUPTION_BUDGET, STATEFUL_SET)


@dataclass(frozen=True, slots=True)
class LiveObjects:
    """What the cluster holds for the tenant."""

    by_key: dict[tuple[str, str], Manifest]
    """(kind, name) → object, of the kinds the operator makes; kept in step with what is written in the pass."""
    pods: tuple[Manifest, ...]
    claims: tuple[Manifest, ...] = ()

    def of_kind(self, kind: Kind) -> list[Manifest]:
        return [manifest for (name, _), manifest in self.by_key.items() if name == kind.kind]


async def list_live_objects(kube: KubeClient, namespace: str, tenant_name: str) -> LiveObjects:
    """Raises KubeError if any of the lists fails: deciding on half a picture is worse than waiting."""
    own = labels.tenant_labels(tenant_name)
    objects = await _together([kube.list_objects(kind, namespace, own) for kind in OWNED_KINDS])
    # Claims carry the selector of their pods and no more: their labels come from the StatefulSet controller.
    claims = await kube.list_objects(CLAIM, namespace, labels.pod_labels(tenant_name))
    return LiveObjects(
        by_key={(manifest["kind"], manifest["metadata"]["name"]): manifest for part in objects for manifest in part},
        pods=tuple(await kube.list_objects(POD, namespace, own)),
        claims=tuple(claims),
    )


async def _together(calls: Sequence[Coroutine[Any, Any, list[Manifest]]]) -> list[list[Manifest]]:
    """All calls at once; the first failure is raised as itself and the others are cancelled."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(call) for call in calls]
            # Within the group, as in `lease`: after a failure no cancellation of this task may stay counted.
            found = [await task for task in tasks]
    except* Exception as failures:
        raise failures.exceptions[0] from None
    return found
