"""A real Prometheus scrapes a Tenant with TLS, configured by what the operator rendered, and evaluates its alerts.

What the Prometheus operator makes of a ServiceMonitor and a PrometheusRule is made here by hand, field by field: one
that is not understood fails the test.  Pods are found by their Services, since Debian's build knows no Kubernetes.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes import client, config

from holdfast_operator.testing.cluster import Cluster, wait_for
from holdfast_operator.testing.processes import free_port
from holdfast_server.testing.answers import answers
from holdfast_server.testing.standin import StandIn

pytestmark = [
    pytest.mark.timeout(1200),
    pytest.mark.cluster,
    pytest.mark.skipif(shutil.which("prometheus") is None, reason="prometheus is not installed"),
]
PODS = 4
MONITORING = ("monitoring.coreos.com", "v1")
DAYS_LEFT = "(holdfast_tls_certificate_expiry_timestamp_seconds - time()) / 86400"
KINDS = ("ServiceMonitor", "PrometheusRule")
TENANT_LABEL = "__meta_kubernetes_service_label_holdfast_dev_tenant"


@pytest.fixture
def kinds(cluster: Cluster, standin: StandIn | None) -> Iterator[None]:
    """Those of the Prometheus operator, on the stand-in; somebody's cluster has them or is let be."""
    definitions: Any = client.ApiextensionsV1Api(config.new_client_from_config(str(cluster.kubeconfig)))
    if standin is not None:
        for kind in KINDS:
            definitions.create_custom_resource_definition(definition_of(kind))
    yield
    if standin is not None:
        for kind in KINDS:
            definitions.delete_custom_resource_definition(f"{kind.lower()}s.{MONITORING[0]}")
    definitions.api_client.close()


def definition_of(kind: str) -> dict[str, Any]:
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {"name": MONITORING[1], "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    names = {"kind": kind, "listKind": f"{kind}List", "plural": f"{kind.lower()}s", "singular": kind.lower()}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{names['plural']}.{MONITORING[0]}"},
        "spec": {"group": MONITORING[0], "names": names, "scope": "Namespaced", "versions": [version]},
    }


def rendered(cluster: Cluster, namespace: str, plural: str) -> dict[str, Any]:
    """The Tenant's object of a kind of the Prometheus operator."""
    with config.new_client_from_config(str(cluster.kubeconfig)) as api:
        customs: Any = client.CustomObjectsApi(api)
        found: dict[str, Any] = customs.get_namespaced_custom_object(*MONITORING, namespace, plural, "store")
    return found


def scrape_config(cluster: Cluster, namespace: str, monitor: dict[str, Any], folder: Path) -> dict[str, Any]:
    """As the Prometheus operator makes it of the monitor's one endpoint."""
    (endpoint,) = monitor["spec"]["endpoints"]
    endpoint = dict(endpoint)
    tls = dict(endpoint.pop("tlsConfig"))
    ca = tls.pop("ca")["secret"]
    (folder / "ca.crt").write_text(cluster.secret(namespace, ca["name"])[ca["key"]])
    made = {
        "job_name": "store",
        "scheme": endpoint.pop("scheme"),
        "metrics_path": endpoint.pop("path"),
        "scrape_interval": "3s",
        "scrape_timeout": "3s",
        "tls_config": {"ca_file": str(folder / "ca.crt"), "server_name": tls.pop("serverName")},
        "static_configs": [{
            "targets": targets(cluster, namespace, monitor, endpoint.pop("port")),
            "labels": {TENANT_LABEL: "store", "namespace": namespace},
        }],
        "relabel_configs": [
            {"action": one["action"], "source_labels": one["sourceLabels"], "target_label": one["targetLabel"]}
            for one in endpoint.pop("relabelings")
        ],
    }  # fmt: skip
    del endpoint["interval"], endpoint["scrapeTimeout"]  # a test does not wait for half a minute
    assert (endpoint, tls) == ({}, {})
    return made


def targets(cluster: Cluster, namespace: str, monitor: dict[str, Any], port: str) -> list[str]:
    """Addresses behind the port of the Services that the monitor selects."""
    wanted = ",".join(f"{name}={value}" for name, value in monitor["spec"]["selector"]["matchLabels"].items())
    (service,) = cluster.core.list_namespaced_service(namespace, label_selector=wanted).items
    (number,) = [one.port for one in service.spec.ports if one.name == port]
    pods = cluster.core.list_namespaced_pod(
        namespace, label_selector=",".join(f"{name}={value}" for name, value in service.spec.selector.items())
    )
    return [f"{pod.status.pod_ip}:{number}" for pod in pods.items]


@contextmanager
def prometheus(folder: Path, settings: dict[str, Any]) -> Iterator[str]:
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(settings))
    address = f"127.0.0.1:{free_port()}"
    command = [
        "prometheus", f"--config.file={folder / 'prometheus.yaml'}", f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={address}",
    ]  # fmt: skip
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        wait_for("Prometheus", lambda: answers(f"http://{address}/-/ready", timeout_seconds=30))
        yield f"http://{address}"
    finally:
        process.terminate()
        process.wait()


def query(url: str, expression: str) -> list[tuple[dict[str, str], float]]:
    with urllib.request.urlopen(f"{url}/api/v1/query?query={urllib.parse.quote(expression)}", timeout=30) as answer:
        return [(one["metric"], float(one["value"][1])) for one in json.load(answer)["data"]["result"]]


def evaluated(url: str) -> bool:
    """Whether every rule has been, and none with an error."""
    with urllib.request.urlopen(f"{url}/api/v1/rules", timeout=30) as answer:
        rules = [rule for group in json.load(answer)["data"]["groups"] for rule in group["rules"]]
    assert not [rule for rule in rules if rule.get("lastError")]
    return bool(rules) and all(rule["health"] == "ok" for rule in rules)


def test_prometheus_scrapes_every_pod_over_https_and_evaluates_the_alerts(
    cluster: Cluster, kinds: None, tenant: dict[str, Any], tmp_path: Path
) -> None:
    tenant["spec"] |= {"tls": {"mode": "SelfSigned"}, "metrics": {"serviceMonitor": {}, "prometheusRule": {}}}
    namespace = cluster.make_tenant(tenant)
    wait_for("the monitor", lambda: cluster.condition(namespace, "store", "MonitoringReady"))
    if cluster.condition(namespace, "store", "MonitoringReady")["status"] != "True":
        pytest.skip("the cluster has no kinds of the Prometheus operator")
    monitor = rendered(cluster, namespace, "servicemonitors")
    rules = rendered(cluster, namespace, "prometheusrules")
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rules["spec"]))
    settings = {
        "global": {"evaluation_interval": "1s"},
        "rule_files": [str(tmp_path / "rules.yaml")],
        "scrape_configs": [scrape_config(cluster, namespace, monitor, tmp_path)],
    }
    assert settings["scrape_configs"][0]["scheme"] == "https"
    with prometheus(tmp_path, settings) as url:
        wait_for("every pod to be scraped", lambda: len(query(url, "up == 1")) == PODS)
        wait_for("every certificate", lambda: len(query(url, DAYS_LEFT)) == 2 * PODS)
        assert all(labels["tenant"] == "store" and 80 < days < 91 for labels, days in query(url, DAYS_LEFT))
        wait_for("the rules to be evaluated", lambda: evaluated(url))
        assert query(url, 'ALERTS{alertname=~"Holdfast.*Certificate.*"}') == []
    with_another_name = {**settings["scrape_configs"][0]}
    with_another_name["tls_config"] = {**with_another_name["tls_config"], "server_name": "another.example.com"}
    (tmp_path / "data").rename(tmp_path / "data-before")
    with prometheus(tmp_path, {"scrape_configs": [with_another_name]}) as url:
        wait_for("every scrape to fail", lambda: len(query(url, "up == 0")) == PODS)
