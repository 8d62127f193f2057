"""What the Prometheus operator reads: a ServiceMonitor and a PrometheusRule, each only where the Tenant asks for it.

All pods are scraped, ready or not: what a pod that is not ready says of itself is what one wants to know then.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from holdfast_operator import labels
from holdfast_operator.desired.alerts import alert_groups
from holdfast_operator.desired.metadata import render_metadata
from holdfast_operator.desired.tls import AUTHORITY
from holdfast_operator.kube.port import PROMETHEUS_RULE, SERVICE_MONITOR, Kind, Manifest
from holdfast_operator.tenant.spec import TenantSpec

TENANT_META_LABEL = "__meta_kubernetes_service_label_holdfast_dev_tenant"
SCRAPE_TIMEOUT_SECONDS = 10


@dataclass(frozen=True, slots=True)
class ScrapeTls:
    """How pods are scraped with TLS."""

    server_name: str
    """What the certificate vouches for: pods are scraped by address, which it does not name."""
    has_authority: bool
    """Whether the pods' Secret has what verifies it; else the public authorities do."""


def render_monitoring(tenant: TenantSpec, tls: ScrapeTls | None = None) -> list[Manifest]:
    """`tls` once every pod takes it; without, pods answer as well, since metrics are never refused."""
    manifests = []
    if tenant.service_monitor is not None:
        manifests.append(_render_service_monitor(tenant, tls))
    if tenant.prometheus_rule is not None:
        manifests.append(_render_prometheus_rule(tenant))
    return manifests


def _render_service_monitor(tenant: TenantSpec, tls: ScrapeTls | None) -> Manifest:
    assert tenant.service_monitor is not None
    endpoint = {
        "port": "s3",
        "path": "/metrics",
        "scheme": "http" if tls is None else "https",
        "interval": f"{tenant.service_monitor.interval_seconds}s",
        "scrapeTimeout": f"{min(SCRAPE_TIMEOUT_SECONDS, tenant.service_monitor.interval_seconds)}s",
        "relabelings": [{"action": "replace", "sourceLabels": [TENANT_META_LABEL], "targetLabel": "tenant"}],
        **({} if tls is None else {"tlsConfig": _tls_config(tenant, tls)}),
    }
    selector = {"matchLabels": {**labels.tenant_labels(tenant.name), labels.SERVICE_LABEL: labels.SERVICE_PODS}}
    return _monitoring(
        tenant,
        SERVICE_MONITOR,
        tenant.service_monitor.labels,
        {"endpoints": [endpoint], "namespaceSelector": {"matchNames": [tenant.namespace]}, "selector": selector},
    )


def _tls_config(tenant: TenantSpec, tls: ScrapeTls) -> dict[str, Any]:
    config: dict[str, Any] = {"serverName": tls.server_name}
    if tls.has_authority:
        config["ca"] = {"secret": {"name": labels.tls_secret_name(tenant.name), "key": AUTHORITY}}
    return config


def _render_prometheus_rule(tenant: TenantSpec) -> Manifest:
    assert tenant.prometheus_rule is not None
    matchers = f'namespace="{tenant.namespace}", tenant="{tenant.name}"'
    return _monitoring(tenant, PROMETHEUS_RULE, tenant.prometheus_rule.labels, {"groups": alert_groups(matchers)})


def _monitoring(tenant: TenantSpec, kind: Kind, more_labels: Any, spec: dict[str, Any]) -> Manifest:
    metadata = render_metadata(tenant, tenant.name)
    metadata["labels"] = {**more_labels, **metadata["labels"]}
    return {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata, "spec": spec}
