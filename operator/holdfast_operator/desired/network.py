"""What lies between clients and pods: an Ingress and a NetworkPolicy, each only where the Tenant asks for it.  Pure.

The policy is about connections to the pods only.  It never names what a pod may reach: peers, the name service and an
audit collector differ from cluster to cluster, and a pod that cannot reach its peers loses its quorum.
"""

from __future__ import annotations

from typing import Any

from holdfast_operator import labels
from holdfast_operator.desired.metadata import add_metadata, render_metadata
from holdfast_operator.kube.port import INGRESS, NETWORK_POLICY, Manifest
from holdfast_operator.tenant.spec import TenantSpec
from holdfast_server.contract import names

OPERATOR_LABELS = {"app.kubernetes.io/name": labels.FIELD_MANAGER}
"""Of the operator's pod, as its chart labels it."""
NAMESPACE_NAME_LABEL = "kubernetes.io/metadata.name"


def render_network(tenant: TenantSpec, operator_namespace: str) -> list[Manifest]:
    """`operator_namespace`: where the operator's pod runs; empty where that is not known."""
    manifests = []
    if tenant.ingress is not None:
        manifests.append(_render_ingress(tenant))
    if tenant.network_policy is not None:
        manifests.append(_render_network_policy(tenant, operator_namespace))
    return manifests


def _render_ingress(tenant: TenantSpec) -> Manifest:
    wanted = tenant.ingress
    assert wanted is not None
    service = {"service": {"name": labels.service_name(tenant.name), "port": {"name": "s3"}}}
    path = {"path": "/", "pathType": "Prefix", "backend": service}
    spec: dict[str, Any] = {"rules": [{"host": host, "http": {"paths": [path]}} for host in wanted.hosts]}
    if wanted.class_name is not None:
        spec["ingressClassName"] = wanted.class_name
    if wanted.tls_secret_name is not None:
        spec["tls"] = [{"hosts": list(wanted.hosts), "secretName": wanted.tls_secret_name}]
    ingress = {
        "apiVersion": INGRESS.api_version,
        "kind": INGRESS.kind,
        "metadata": render_metadata(tenant, tenant.name),
        "spec": spec,
    }
    add_metadata(ingress, wanted.labels, wanted.annotations)
    return ingress


def _render_network_policy(tenant: TenantSpec, operator_namespace: str) -> Manifest:
    assert tenant.network_policy is not None
    pods = {"podSelector": {"matchLabels": labels.pod_labels(tenant.name)}}
    in_namespace = {"matchLabels": {NAMESPACE_NAME_LABEL: operator_namespace}} if operator_namespace else {}
    operator = {"namespaceSelector": in_namespace, "podSelector": {"matchLabels": OPERATOR_LABELS}}
    rules: list[dict[str, Any]] = [
        {"from": [pods], "ports": _ports(names.S3_PORT, names.PEER_PORT)},
        {"from": [operator], "ports": _ports(names.S3_PORT)},
    ]
    clients = tenant.network_policy.clients
    if clients is None:
        rules.append({"ports": _ports(names.S3_PORT, names.CONSOLE_PORT)})
    elif clients:
        rules.append({"from": [dict(peer) for peer in clients], "ports": _ports(names.S3_PORT, names.CONSOLE_PORT)})
    return {
        "apiVersion": NETWORK_POLICY.api_version,
        "kind": NETWORK_POLICY.kind,
        "metadata": render_metadata(tenant, tenant.name),
        "spec": {**pods, "policyTypes": ["Ingress"], "ingress": rules},
    }


def _ports(*numbers: int) -> list[dict[str, Any]]:
    return [{"protocol": "TCP", "port": number} for number in numbers]
