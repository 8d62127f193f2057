"""Names and labels of everything the operator makes for a tenant.  Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from holdfast_operator.kube.port import FIELD_MANAGER

TENANT_LABEL = "holdfast.dev/tenant"
POOL_LABEL = "holdfast.dev/pool"
COMPONENT_LABEL = "app.kubernetes.io/component"
INSTANCE_LABEL = "app.kubernetes.io/instance"
"""On nothing that has no owner: Argo CD, by default until its version 3, takes such objects for its own where the label
says an application's name, and deletes those that are not among the application's manifests."""
MANAGED_BY_LABEL = "app.kubernetes.io/managed-by"
SERVICE_LABEL = "holdfast.dev/service"
SERVICE_PODS = "pods"
"""The one Service that has every pod, ready or not: what is scraped."""
MANIFEST_ANNOTATION = "holdfast.dev/manifest"
"""Hash of the manifest last applied, so that an unchanged one is not applied again."""

NOT_SERVED_ANNOTATION = "holdfast.dev/not-served"
"""Why nothing answers behind an object that is there."""
NEW_KEYS_ANNOTATION = "holdfast.dev/new-keys"
"""On a generated Secret, with any value that is not empty: give it new keys.  Taken off again by the operator."""

COMPONENT_STORAGE = "storage"
COMPONENT_CREDENTIALS = "credentials"
COMPONENT_KEPT = "kept-credentials"
"""Secrets that outlive the Tenant; never pruned."""


def tenant_labels(tenant_name: str) -> dict[str, str]:
    """What tells the tenant's objects from all others; also how they are listed."""
    return {MANAGED_BY_LABEL: FIELD_MANAGER, TENANT_LABEL: tenant_name}


def pod_labels(tenant_name: str) -> dict[str, str]:
    """The selector of all storage pods of a tenant."""
    return {TENANT_LABEL: tenant_name, COMPONENT_LABEL: COMPONENT_STORAGE}


def pool_labels(tenant_name: str, pool_name: str) -> dict[str, str]:
    """The selector of one pool's pods."""
    return {**pod_labels(tenant_name), POOL_LABEL: pool_name}


def labels_of(manifest: Mapping[str, Any]) -> Mapping[str, str]:
    return (manifest.get("metadata") or {}).get("labels") or {}


def is_labelled_for(manifest: Mapping[str, Any], tenant_name: str) -> bool:
    labels = labels_of(manifest)
    return all(labels.get(key) == value for key, value in tenant_labels(tenant_name).items())


def strange_secret_words(name: str, tenant_name: str) -> str:
    """Of a Secret in the place of one of the tenant's that is labelled for somebody else, or nobody: as where somebody
    replaced the whole of it to change its content."""
    wanted = " ".join(f"{key}={value}" for key, value in tenant_labels(tenant_name).items())
    return (
        f"Secret {name} exists but does not belong to tenant {tenant_name}: it lacks the labels. If it is meant to, "
        f"`kubectl label --overwrite secret {name} {wanted}`; else it needs another name"
    )


def other_controller(manifest: Mapping[str, Any], uid: str) -> str:
    """The owner that controls it, where that is another than the one with this uid, in words; else empty."""
    for owner in (manifest.get("metadata") or {}).get("ownerReferences") or []:
        if owner.get("controller") and owner.get("uid") != uid:
            return f"{owner.get('kind')} {owner.get('name')} (uid {owner.get('uid')})"
    return ""


def wants_new_keys(manifest: Mapping[str, Any]) -> bool:
    annotations = (manifest.get("metadata") or {}).get("annotations") or {}
    return bool(annotations.get(NEW_KEYS_ANNOTATION))


def service_name(tenant_name: str) -> str:
    return tenant_name


def pods_service_name(tenant_name: str) -> str:
    return f"{tenant_name}-pods"


def console_service_name(tenant_name: str) -> str:
    return f"{tenant_name}-console"


def stateful_set_name(tenant_name: str, pool_name: str) -> str:
    return f"{tenant_name}-pool-{pool_name}"


def pod_name_prefix(tenant_name: str, pool_name: str) -> str:
    return f"{stateful_set_name(tenant_name, pool_name)}-"


def pod_name(tenant_name: str, pool_name: str, ordinal: int) -> str:
    return f"{pod_name_prefix(tenant_name, pool_name)}{ordinal}"


def config_map_name(tenant_name: str) -> str:
    return f"{tenant_name}-config"


def root_secret_name(tenant_name: str) -> str:
    return f"{tenant_name}-root"


def peer_secret_name(tenant_name: str) -> str:
    return f"{tenant_name}-peer"


def peer_copy_secret_name(tenant_name: str) -> str:
    return f"{peer_secret_name(tenant_name)}-copy"


def accepted_spec_name(tenant_name: str) -> str:
    return f"{tenant_name}-accepted-spec"


def authority_secret_name(tenant_name: str) -> str:
    return f"{tenant_name}-ca"


def encryption_secret_name(tenant: str) -> str:
    return f"{tenant}-encryption"


def tls_secret_name(tenant_name: str) -> str:
    return f"{tenant_name}-tls"


def certificate_name(tenant_name: str) -> str:
    """Of the request to cert-manager, and of the Secret that it fills."""
    return f"{tenant_name}-certificate"


def user_secret_name(tenant_name: str, user_name: str) -> str:
    return f"{tenant_name}-user-{user_name}"


def service_host(tenant_name: str, namespace: str, cluster_domain: str) -> str:
    """The S3 endpoint's host inside the cluster."""
    return f"{service_name(tenant_name)}.{namespace}.svc.{cluster_domain}"
