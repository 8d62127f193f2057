"""The metadata that all of a tenant's objects share."""

from __future__ import annotations

from typing import Any

from holdfast_operator import labels
from holdfast_operator.kube.port import TENANT
from holdfast_operator.tenant.spec import TenantSpec


def render_metadata(
    tenant: TenantSpec, name: str, *, component: str = labels.COMPONENT_STORAGE, owned: bool = True
) -> dict[str, Any]:
    """`owned` objects are collected with the Tenant.  `blockOwnerDeletion` is left out: it would need a right on
    the Tenant's finalizers, and nothing here must hold up a deletion."""
    metadata: dict[str, Any] = {
        "name": name,
        "namespace": tenant.namespace,
        "labels": {
            "app.kubernetes.io/name": "holdfast",
            "app.kubernetes.io/instance": tenant.name,
            labels.COMPONENT_LABEL: component,
            **labels.tenant_labels(tenant.name),
        },
    }
    if owned:
        metadata["ownerReferences"] = [
            {
                "apiVersion": TENANT.api_version,
                "kind": TENANT.kind,
                "name": tenant.name,
                "uid": tenant.uid,
                "controller": True,
            }
        ]
    return metadata
