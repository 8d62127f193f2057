"""The metadata that all of a tenant's objects share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from holdfast_operator import labels
from holdfast_operator.kube.port import TENANT, Manifest
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
            **({labels.INSTANCE_LABEL: tenant.name} if owned else {}),
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


def add_metadata(manifest: Manifest, more_labels: Mapping[str, str], annotations: Mapping[str, str]) -> None:
    """What the Tenant adds to an object of the operator's; the labels by which we know it win."""
    metadata = manifest["metadata"]
    metadata["labels"] = {**more_labels, **metadata["labels"]}
    if annotations:
        metadata["annotations"] = dict(annotations)
