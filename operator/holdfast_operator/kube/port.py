"""What the operator needs of Kubernetes, in eight verbs.

Manifests are plain dicts as in YAML, with `apiVersion`, `kind` and `metadata`.  Every verb has a time limit
and raises `KubeError` subclasses only.  Watching is a port of its own: only the mirrors (`cache`) need it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

Manifest = dict[str, Any]

FIELD_MANAGER = "holdfast-operator"


@dataclass(frozen=True, slots=True)
class Kind:
    """One resource: where it lives in the API."""

    api_version: str
    kind: str
    plural: str

    @property
    def root(self) -> str:
        """`/api/v1` or `/apis/<group>/<version>`."""
        return f"/apis/{self.api_version}" if "/" in self.api_version else f"/api/{self.api_version}"


TENANT = Kind("holdfast.dev/v1", "Tenant", "tenants")
POD = Kind("v1", "Pod", "pods")
SERVICE = Kind("v1", "Service", "services")
SECRET = Kind("v1", "Secret", "secrets")
CONFIG_MAP = Kind("v1", "ConfigMap", "configmaps")
SERVICE_ACCOUNT = Kind("v1", "ServiceAccount", "serviceaccounts")
CLAIM = Kind("v1", "PersistentVolumeClaim", "persistentvolumeclaims")
STATEFUL_SET = Kind("apps/v1", "StatefulSet", "statefulsets")
DISRUPTION_BUDGET = Kind("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets")
SERVICE_MONITOR = Kind("monitoring.coreos.com/v1", "ServiceMonitor", "servicemonitors")
PROMETHEUS_RULE = Kind("monitoring.coreos.com/v1", "PrometheusRule", "prometheusrules")
INGRESS = Kind("networking.k8s.io/v1", "Ingress", "ingresses")
NETWORK_POLICY = Kind("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies")
CERTIFICATE = Kind("cert-manager.io/v1", "Certificate", "certificates")
EVENT = Kind("v1", "Event", "events")
LEASE = Kind("coordination.k8s.io/v1", "Lease", "leases")

KINDS: Mapping[tuple[str, str], Kind] = {
    (kind.api_version, kind.kind): kind
    for kind in (
        TENANT,
        POD,
        SERVICE,
        SECRET,
        CONFIG_MAP,
        SERVICE_ACCOUNT,
        CLAIM,
        STATEFUL_SET,
        DISRUPTION_BUDGET,
        INGRESS,
        NETWORK_POLICY,
        CERTIFICATE,
        SERVICE_MONITOR,
        PROMETHEUS_RULE,
        EVENT,
        LEASE,
    )
}


def kind_of(manifest: Manifest) -> Kind:
    """The kind of a manifest; KeyError for one the operator does not handle is our own mistake."""
    return KINDS[manifest["apiVersion"], manifest["kind"]]


class KubeClient(Protocol):
    """The port.  Implemented by `client.HttpKubeClient` and by the tests' in-memory cluster."""

    async def get(self, kind: Kind, namespace: str, name: str) -> Manifest | None:
        """The object as stored now, or None where there is none."""

    async def list_objects(
        self, kind: Kind, namespace: str | None, labels: Mapping[str, str] | None = None
    ) -> list[Manifest]:
        """All objects of a namespace (None: of all namespaces) that carry the labels; each with its
        `apiVersion` and `kind`."""

    async def create(self, manifest: Manifest) -> Manifest:
        """Create; KubeConflict where the name is taken.  Atomic: of two creators one wins."""

    async def apply(self, manifest: Manifest) -> Manifest:
        """Server-side apply as `FIELD_MANAGER`, forced: creates or updates, fields dropped from the manifest
        are dropped from the object.  Idempotent.  With `metadata.resourceVersion` only that very version is
        changed: KubeConflict if it has changed since, or is gone."""

    async def patch_status(self, kind: Kind, namespace: str, name: str, patch: Manifest) -> Manifest | None:
        """Merge-patch `/status`; None, and nothing happens, where the object is gone."""

    async def merge(self, manifest: Manifest, patch: Manifest) -> Manifest:
        """Merge-patch exactly this object; KubeConflict if its name now belongs to another uid or to nobody, or if
        the patch names a `metadata.resourceVersion` that is no longer the object's."""

    async def delete(self, manifest: Manifest, *, orphan: bool = False) -> None:
        """Delete exactly this object: if its name now belongs to another uid, nothing happens.  Idempotent.

        `orphan`: what it owns stays and belongs to nobody."""

    async def evict(self, namespace: str, pod_name: str) -> None:
        """Ask for a voluntary end of a pod; EvictionRefused while a disruption budget forbids it."""


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """One change of one object."""

    type: str
    """`ADDED`, `MODIFIED`, `DELETED`, or `BOOKMARK`: nothing happened up to the object's resourceVersion."""
    manifest: Manifest


class KubeWatcher(Protocol):
    """What a mirror is fed from."""

    async def list_for_watch(self, kind: Kind, namespace: str | None, selector: str) -> tuple[list[Manifest], str]:
        """All objects that the label selector selects, and the resourceVersion to watch from."""

    def watch(
        self, kind: Kind, namespace: str | None, selector: str, resource_version: str
    ) -> AsyncIterator[WatchEvent]:
        """First a BOOKMARK of `resource_version`, once the server has answered, then the changes after it, until the
        server ends the stream.  WatchExpired: list again;
        KubeUnavailable where the connection broke or nothing at all came for too long."""
