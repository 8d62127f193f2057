"""One StatefulSet per pool: its pods, their volumes and probes.

`OnDelete`, because only the operator knows when the next pod may go; `Parallel`, because after a power loss all
pods must come up together to find a quorum.  Readiness asks the pod about itself, never about the quorum.
"""

from __future__ import annotations

from typing import Any

from holdfast_operator import labels
from holdfast_operator.desired import paths, secrets
from holdfast_operator.desired.metadata import render_metadata
from holdfast_operator.desired.request import RenderRequest
from holdfast_operator.desired.service_account import service_account_name
from holdfast_operator.desired.tls import tls_mount, tls_volume
from holdfast_operator.kube.port import Manifest
from holdfast_operator.tenant.spec import PodIdentity, PodSettings, PoolSpec, TenantSpec
from holdfast_server.contract import names

USER_ID = 65532
"""The user of the image, unless the Tenant names another; the claims' group is set to it at mount."""
TERMINATION_SECONDS = 60
"""Of which `DRAIN_SECONDS` are for serving on, and ten for requests under way."""
DRAIN_SECONDS = 5
"""How long a pod that was told to end serves on, until every node has taken it out of the Service."""
STARTUP_FAILURES = 150
"""Times two seconds: a drive's database may replay a long log before the pod answers at all."""
HOSTNAME_TOPOLOGY = "kubernetes.io/hostname"


def render_stateful_set(request: RenderRequest, pool: PoolSpec) -> Manifest:
    tenant = request.tenant
    selector = labels.pool_labels(tenant.name, pool.name)
    metadata = render_metadata(tenant, labels.stateful_set_name(tenant.name, pool.name))
    metadata["labels"][labels.POOL_LABEL] = pool.name
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": metadata,
        "spec": {
            "serviceName": labels.pods_service_name(tenant.name),
            "replicas": pool.servers,
            "podManagementPolicy": "Parallel",
            "updateStrategy": {"type": "OnDelete"},
            "revisionHistoryLimit": 3,
            "persistentVolumeClaimRetentionPolicy": {
                "whenDeleted": tenant.claim_retention,
                "whenScaled": "Retain",
            },
            "selector": {"matchLabels": selector},
            "template": {
                "metadata": _pod_metadata(tenant, pool),
                "spec": _pod_spec(request, pool, selector),
            },
            "volumeClaimTemplates": [_claim(pool, volume) for volume in range(pool.volumes_per_server)],
        },
    }


def _pod_metadata(tenant: TenantSpec, pool: PoolSpec) -> dict[str, Any]:
    own = {
        "app.kubernetes.io/name": "holdfast",
        labels.INSTANCE_LABEL: tenant.name,
        **labels.tenant_labels(tenant.name),
        **labels.pool_labels(tenant.name, pool.name),
    }
    metadata: dict[str, Any] = {"labels": {**pool.pods.labels, **own}}
    if pool.pods.annotations:
        metadata["annotations"] = dict(pool.pods.annotations)
    return metadata


def _pod_spec(request: RenderRequest, pool: PoolSpec, selector: dict[str, str]) -> dict[str, Any]:
    tenant = request.tenant
    spec: dict[str, Any] = {
        "serviceAccountName": service_account_name(tenant),
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": TERMINATION_SECONDS,
        "securityContext": _security_context(tenant.identity),
        "containers": [_container(request, pool)],
        "volumes": [*_volumes(tenant), *_encryption_volumes(tenant), *_audit_volumes(tenant)],
    }
    spec.update(_scheduling(pool.pods, selector))
    if tenant.image_pull_secrets:
        spec["imagePullSecrets"] = [{"name": name} for name in tenant.image_pull_secrets]
    return spec


def _security_context(identity: PodIdentity) -> dict[str, Any]:
    context: dict[str, Any] = {"runAsNonRoot": True}
    if not identity.assigned_by_cluster:
        context["runAsUser"] = identity.user or USER_ID
        context["runAsGroup"] = identity.group or USER_ID
        context["fsGroup"] = identity.volumes_group or USER_ID
    context["fsGroupChangePolicy"] = "OnRootMismatch"
    context["seccompProfile"] = {"type": "RuntimeDefault"}
    if identity.supplemental_groups:
        context["supplementalGroups"] = list(identity.supplemental_groups)
    return context


def _container(request: RenderRequest, pool: PoolSpec) -> dict[str, Any]:
    container: dict[str, Any] = {
        "name": "holdfast",
        "image": request.tenant.image or request.default_image,
        "command": [
            "holdfast",
            "server",
            "--config",
            f"{paths.CONFIG_FOLDER}/{paths.CONFIG_KEY}",
            "--pod",
            "$(POD_NAME)",
        ],
        "env": [
            {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {"name": "HOLDFAST_DRAIN_SECONDS", "value": str(DRAIN_SECONDS)},
            *(dict(variable) for variable in pool.pods.env),
        ],
        "ports": [
            {"name": "s3", "containerPort": names.S3_PORT, "protocol": "TCP"},
            {"name": "console", "containerPort": names.CONSOLE_PORT, "protocol": "TCP"},
            {"name": "peers", "containerPort": names.PEER_PORT, "protocol": "TCP"},
        ],
        "volumeMounts": _mounts(request.tenant, pool),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "startupProbe": _probe(names.HEALTH_LIVE_PATH, period=2, failures=STARTUP_FAILURES, timeout=2),
        "livenessProbe": _probe(names.HEALTH_LIVE_PATH, period=10, failures=6, timeout=5),
        # Patient: pods of a busy node miss their probes together, and a Service without endpoints refuses everybody.
        "readinessProbe": _probe(names.HEALTH_READY_PATH, period=2, failures=3, timeout=5),
    }
    if pool.pods.resources:
        container["resources"] = dict(pool.pods.resources)
    if request.tenant.image_pull_policy:
        container["imagePullPolicy"] = request.tenant.image_pull_policy
    return container


def _probe(path: str, *, period: int, failures: int, timeout: int) -> dict[str, Any]:
    # Without TLS in every mode: pods answer probes either way, and another scheme would restart them all.
    return {
        "httpGet": {"path": path, "port": "s3", "scheme": "HTTP"},
        "periodSeconds": period,
        "failureThreshold": failures,
        "timeoutSeconds": timeout,
    }


def _mounts(tenant: TenantSpec, pool: PoolSpec) -> list[dict[str, Any]]:
    mounts: list[dict[str, Any]] = [
        # Whole folders, never subPath: a subPath mount is not refreshed when the object changes.
        {"name": "config", "mountPath": paths.CONFIG_FOLDER, "readOnly": True},
        {"name": "keys", "mountPath": paths.KEYS_FOLDER, "readOnly": True},
    ]
    mounts.append(tls_mount())
    if tenant.encryption is not None:
        mounts.append({"name": "encryption", "mountPath": paths.ENCRYPTION_FOLDER, "readOnly": True})
    if tenant.token_secret_name:
        mounts.append({"name": "audit", "mountPath": paths.AUDIT_FOLDER, "readOnly": True})
    mounts += [
        {"name": paths.claim_name(volume), "mountPath": paths.drive_path(volume)}
        for volume in range(pool.volumes_per_server)
    ]
    return mounts


def _volumes(tenant: TenantSpec) -> list[dict[str, Any]]:
    keys = _items(secrets.ACCESS_KEY, secrets.SECRET_KEY, secrets.PEER_KEY, secrets.FURTHER_KEY)
    return [
        {"name": "config", "configMap": {"name": labels.config_map_name(tenant.name)}},
        # All from one Secret, which changes at one moment, and which nobody but the operator writes.
        {"name": "keys", "secret": {"secretName": labels.peer_secret_name(tenant.name), "items": keys}},
        tls_volume(tenant),
    ]


def _encryption_volumes(tenant: TenantSpec) -> list[dict[str, Any]]:
    if tenant.encryption is None:
        return []
    # Optional: a pod without these keys serves what is not encrypted, and has shards of what is.
    name = tenant.encryption.secret_name or labels.encryption_secret_name(tenant.name)
    return [{"name": "encryption", "secret": {"secretName": name, "optional": True}}]


def _audit_volumes(tenant: TenantSpec) -> list[dict[str, Any]]:
    if not tenant.token_secret_name:
        return []
    # Optional: the want of an audit token must not keep a store from starting.
    secret = {"secretName": tenant.token_secret_name, "items": _items(paths.AUDIT_TOKEN_KEY), "optional": True}
    return [{"name": "audit", "secret": secret}]


def _items(*keys: str) -> list[dict[str, str]]:
    return [{"key": key, "path": key} for key in keys]


def _scheduling(pods: PodSettings, selector: dict[str, str]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    affinity = dict(pods.affinity) or _anti_affinity(pods, selector)
    if affinity:
        fields["affinity"] = affinity
    if pods.node_selector:
        fields["nodeSelector"] = dict(pods.node_selector)
    if pods.tolerations:
        fields["tolerations"] = [dict(toleration) for toleration in pods.tolerations]
    if pods.topology_spread_constraints:
        fields["topologySpreadConstraints"] = [dict(item) for item in pods.topology_spread_constraints]
    if pods.priority_class_name:
        fields["priorityClassName"] = pods.priority_class_name
    return fields


def _anti_affinity(pods: PodSettings, selector: dict[str, str]) -> dict[str, Any]:
    term = {"topologyKey": HOSTNAME_TOPOLOGY, "labelSelector": {"matchLabels": selector}}
    if pods.spread_over_nodes == "Required":
        return {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
    if pods.spread_over_nodes == "Preferred":
        weighted = {"weight": 100, "podAffinityTerm": term}
        return {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [weighted]}}
    return {}


def _claim(pool: PoolSpec, volume: int) -> dict[str, Any]:
    spec: dict[str, Any] = {
        "accessModes": list(pool.claim.access_modes),
        "resources": {"requests": {"storage": pool.claim.storage}},
    }
    if pool.claim.storage_class_name is not None:
        spec["storageClassName"] = pool.claim.storage_class_name
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": paths.claim_name(volume)},
        "spec": spec,
    }
