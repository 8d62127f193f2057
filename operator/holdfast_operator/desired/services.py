"""The three Services: S3 for clients, names for the pods, the console."""

from __future__ import annotations

from typing import Any

from holdfast_operator import labels
from holdfast_operator.desired.metadata import add_metadata, render_metadata
from holdfast_operator.kube.port import Manifest
from holdfast_operator.tenant.spec import TenantSpec
from holdfast_server.contract import names

NO_CONSOLE = (
    f"There is no web console yet: nothing answers on port {names.CONSOLE_PORT}. "
    "`holdfast admin` and the Tenant's status show what it would."
)


def render_s3_service(tenant: TenantSpec) -> Manifest:
    """Where clients go; routes to Ready pods only, and a pod is Ready whatever the quorum."""
    wanted = tenant.service
    port: dict[str, Any] = {"name": "s3", "port": names.S3_PORT, "protocol": "TCP", "targetPort": "s3"}
    if wanted.node_port is not None:
        port["nodePort"] = wanted.node_port
    settings: dict[str, Any] = {"type": wanted.type}
    if wanted.external_traffic_policy is not None:
        settings["externalTrafficPolicy"] = wanted.external_traffic_policy
    if wanted.load_balancer_class is not None:
        settings["loadBalancerClass"] = wanted.load_balancer_class
    if wanted.load_balancer_source_ranges:
        settings["loadBalancerSourceRanges"] = list(wanted.load_balancer_source_ranges)
    service = _service(tenant, labels.service_name(tenant.name), [port], settings)
    add_metadata(service, wanted.labels, wanted.annotations)
    return service


def render_console_service(tenant: TenantSpec) -> Manifest:
    """Keeps the name and the port for the console, and says that there is none yet: connections are refused."""
    port = {"name": "console", "port": names.CONSOLE_PORT, "protocol": "TCP", "targetPort": "console"}
    service = _service(tenant, labels.console_service_name(tenant.name), [port], {"type": "ClusterIP"})
    add_metadata(service, {}, {labels.NOT_SERVED_ANNOTATION: NO_CONSOLE})
    return service


def render_pods_service(tenant: TenantSpec) -> Manifest:
    """Gives each pod its name.  Unready pods too: pods must find each other to become ready at all."""
    ports = [
        {"name": "s3", "port": names.S3_PORT, "protocol": "TCP", "targetPort": "s3"},
        {"name": "peers", "port": names.PEER_PORT, "protocol": "TCP", "targetPort": "peers"},
    ]
    headless = {"clusterIP": "None", "publishNotReadyAddresses": True}
    service = _service(tenant, labels.pods_service_name(tenant.name), ports, headless)
    service["metadata"]["labels"][labels.SERVICE_LABEL] = labels.SERVICE_PODS
    return service


def _service(tenant: TenantSpec, name: str, ports: list[dict[str, Any]], settings: dict[str, Any]) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": render_metadata(tenant, name),
        "spec": {**settings, "selector": labels.pod_labels(tenant.name), "ports": ports},
    }
