"""Brings a Tenant's ServiceMonitor and PrometheusRule to the cluster, if it has such kinds.

Invariants: monitoring never holds up the store: what goes wrong here becomes the condition `MonitoringReady` and
nothing else.  A cluster without the Prometheus operator is asked once per pass whether it has it by now, and only for
Tenants that want it.  For a Tenant that does not, what a former spec asked for is looked for once per generation.
"""

from __future__ import annotations

from holdfast_operator import labels
from holdfast_operator.apply import ApplyRefused, apply_manifests, prune
from holdfast_operator.desired.monitoring import render_monitoring
from holdfast_operator.kube.errors import KubeForbidden, KubeRejected
from holdfast_operator.kube.port import PROMETHEUS_RULE, SERVICE_MONITOR, Kind, KubeClient, Manifest
from holdfast_operator.observe.cluster import LiveObjects
from holdfast_operator.status.conditions import Finding
from holdfast_operator.tenant.spec import TenantSpec

KINDS = (SERVICE_MONITOR, PROMETHEUS_RULE)


class Monitoring:
    """One per operator; remembers of which Tenants nothing is left to be removed."""

    def __init__(self, kube: KubeClient) -> None:
        self._kube = kube
        self._bare: dict[tuple[str, str], tuple[str, int]] = {}
        """A Tenant's namespace and name → its uid, and the generation that has no monitoring objects."""

    async def settle(self, tenant: TenantSpec) -> Finding | None:
        """One look; None for a Tenant that wants none.  Raises KubeUnavailable or KubeConflict only."""
        wanted = render_monitoring(tenant)
        name, state = (tenant.namespace, tenant.name), (tenant.uid, tenant.generation)
        if not wanted and self._bare.get(name) == state:
            return None
        troubles = []
        for kind in KINDS:
            mine = [manifest for manifest in wanted if manifest["kind"] == kind.kind]
            try:
                await self._settle_kind(tenant, kind, mine)
            except (KubeRejected, KubeForbidden, ApplyRefused) as error:
                if mine:
                    troubles.append(_told(kind, error))
        if not wanted:
            self._bare[name] = state
            return None
        self._bare.pop(name, None)
        if troubles:
            return Finding("MonitoringReady", False, "CannotApply", "; ".join(troubles))
        return Finding("MonitoringReady", True, "Applied", "what spec.metrics asks for is there")

    def forget(self, namespace: str, name: str) -> None:
        """The Tenant is gone."""
        self._bare.pop((namespace, name), None)

    async def _settle_kind(self, tenant: TenantSpec, kind: Kind, manifests: list[Manifest]) -> None:
        found = await self._kube.list_objects(kind, tenant.namespace, labels.tenant_labels(tenant.name))
        live = LiveObjects({(kind.kind, manifest["metadata"]["name"]): manifest for manifest in found}, ())
        await apply_manifests(self._kube, tenant, manifests, live)
        await prune(self._kube, tenant, manifests, live)


def _told(kind: Kind, error: Exception) -> str:
    field = {SERVICE_MONITOR.kind: "serviceMonitor", PROMETHEUS_RULE.kind: "prometheusRule"}[kind.kind]
    return (
        f"spec.metrics.{field}: {error}; it takes the Prometheus operator's {kind.kind} ({kind.api_version}) and the "
        "operator's right to it, both of which are looked for again"
    )
