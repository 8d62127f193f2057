"""Objects that a Tenant may ask for and a store can do without: monitoring, and what lies between clients and pods.

Invariants: they never hold up the store: what goes wrong here becomes a condition of its own and nothing else, be it
that the API server answers 5xx for them alone, as where an admission webhook of their controller is away.  A
cluster that does not serve a kind, or refuses an object, is asked once per pass whether it takes it by now, and only
for Tenants that want it.  For a Tenant that does not, what a former spec asked for is looked for once per generation.
Not here: what the objects say (`desired`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from holdfast_operator.apply import ApplyRefused, settle_kind
from holdfast_operator.kube.errors import KubeForbidden, KubeRejected, KubeUnavailable
from holdfast_operator.kube.port import (
    INGRESS,
    NETWORK_POLICY,
    PROMETHEUS_RULE,
    SERVICE_MONITOR,
    Kind,
    KubeClient,
    Manifest,
)
from holdfast_operator.status.conditions import ConditionType, Finding
from holdfast_operator.tenant.spec import TenantSpec


@dataclass(frozen=True, slots=True)
class Group:
    """Kinds that share a condition."""

    condition: ConditionType
    fields: Mapping[Kind, str]
    """Kind → the field of the Tenant that asks for it."""
    needs: str
    """What a kind takes beyond the operator's right to it; `{kind}` stands for it."""


MONITORING = Group(
    "MonitoringReady",
    {SERVICE_MONITOR: "spec.metrics.serviceMonitor", PROMETHEUS_RULE: "spec.metrics.prometheusRule"},
    "it takes the Prometheus operator's {kind} and the operator's right to it, both of which are looked for again",
)
NETWORK = Group(
    "NetworkReady",
    {INGRESS: "spec.ingress", NETWORK_POLICY: "spec.networkPolicy"},
    "clients are served as before, and it is tried again",
)


class OptionalObjects:
    """One per group and operator; remembers of which Tenants nothing is left to be removed."""

    def __init__(self, kube: KubeClient, group: Group) -> None:
        self._kube = kube
        self._group = group
        self._bare: dict[tuple[str, str], tuple[str, int]] = {}
        """A Tenant's namespace and name → its uid, and the generation that has no such objects."""

    async def settle(self, tenant: TenantSpec, wanted: Sequence[Manifest]) -> Finding | None:
        """One look; None for a Tenant that wants none.  Raises KubeConflict only."""
        name, state = (tenant.namespace, tenant.name), (tenant.uid, tenant.generation)
        if not wanted and self._bare.get(name) == state:
            return None
        troubles, looked = [], True
        for kind in self._group.fields:
            mine = [manifest for manifest in wanted if manifest["kind"] == kind.kind]
            try:
                await settle_kind(self._kube, tenant, kind, mine)
            except (KubeRejected, KubeForbidden, KubeUnavailable, ApplyRefused) as error:
                looked = looked and not isinstance(error, KubeUnavailable)
                if mine:
                    troubles.append(self._told(kind, error))
        if not wanted:
            if looked:
                self._bare[name] = state
            return None
        self._bare.pop(name, None)
        if troubles:
            return Finding(self._group.condition, False, "CannotApply", "; ".join(troubles))
        asked = [self._group.fields[kind] for kind in self._group.fields if _has(wanted, kind)]
        return Finding(self._group.condition, True, "Applied", f"what {' and '.join(asked)} asks for is there")

    def forget(self, namespace: str, name: str) -> None:
        """The Tenant is gone."""
        self._bare.pop((namespace, name), None)

    def _told(self, kind: Kind, error: Exception) -> str:
        needs = self._group.needs.format(kind=f"{kind.kind} ({kind.api_version})")
        return f"{self._group.fields[kind]}: {error}; {needs}"


def _has(manifests: Sequence[Manifest], kind: Kind) -> bool:
    return any(manifest["kind"] == kind.kind for manifest in manifests)
