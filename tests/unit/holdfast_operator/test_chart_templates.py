"""The charts as Helm renders them; runs where the `helm-python-sdk` package is installed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from holdfast_operator.settings import DEFAULT_IMAGE

helm = pytest.importorskip("helm_python")

ROOT = Path(__file__).parents[3]
CHARTS = ROOT / "charts"
DEPLOY = ROOT / "deploy"
MONITORING_GROUP = "monitoring.coreos.com/v1"
DIGEST = "sha256:" + "0123456789abcdef" * 4
OPERATOR_VALUES: dict[str, dict[str, Any]] = {
    "defaults": {},
    "namespaced": {
        "namespaces": ["a", "b"],
        "imagePullSecrets": [{"name": "pull"}],
        "podLabels": {"team": "storage"},
        "tolerations": [{"operator": "Exists"}],
        "crds": {"install": False},
    },
    "everything": {
        "replicas": 2,
        "image": {"repository": "r.example/op", "tag": "x", "digest": DIGEST, "pullPolicy": "Always"},
        "serverImage": {"repository": "r.example/server", "tag": "y", "digest": DIGEST},
        "imagePullSecrets": [{"name": "pull"}],
        "namespaces": ["one"],
        "clusterDomain": "corp.example",
        "logFormat": "text",
        "metrics": {
            "enabled": True,
            "port": 9999,
            "serviceMonitor": {"enabled": True, "interval": "15s", "labels": {"release": "prom-a"}},
            "prometheusRule": {"enabled": True, "labels": {"release": "prom-b"}},
        },
        "crds": {"install": False},
        "serviceAccount": {"name": "somebody", "annotations": {"account-note": "here"}},
        "resources": {"limits": {"memory": "999Mi"}},
        "podSecurityContext": {"runAsNonRoot": True, "runAsUser": 1234, "fsGroup": 4321},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["NET_RAW"]}},
        "priorityClassName": "system-cluster-critical",
        "nodeSelector": {"disk": "any-disk"},
        "tolerations": [{"key": "some-taint", "operator": "Exists"}],
        "nodeLossSeconds": 77,
        "affinity": {
            "nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {
                    "nodeSelectorTerms": [{"matchExpressions": [{"key": "rack-key", "operator": "Exists"}]}]
                }
            }
        },
        "podAnnotations": {"pod-note": "annotated"},
        "podLabels": {"pod-team": "labelled"},
    },
}


def documents_in(texts: dict[str, str]) -> list[dict[str, Any]]:
    manifests = [text for name, text in texts.items() if not name.endswith("NOTES.txt")]
    return [document for text in manifests for document in yaml.load_all(text, Loader=yaml.CSafeLoader) if document]


def rendered(chart: str, values: dict[str, Any]) -> list[dict[str, Any]]:
    with helm.Chart.load(str(CHARTS / chart)) as loaded:
        texts = loaded.render(values, name="hold", namespace="system")
    return documents_in(texts)


@pytest.mark.parametrize("chart", ["holdfast-operator", "holdfast-tenant"])
def test_helm_finds_no_fault(chart: str) -> None:
    assert helm.lint(str(CHARTS / chart))["errors"] == []


@pytest.mark.parametrize("values", OPERATOR_VALUES.values(), ids=OPERATOR_VALUES)
def test_the_operators_manifests_are_valid(values: dict[str, Any]) -> None:
    documents = rendered("holdfast-operator", values)
    for document in documents:
        if document["apiVersion"] != MONITORING_GROUP:
            kubernetes_validate.validate(document, "1.37", strict=True)
    kinds = [document["kind"] for document in documents]
    assert kinds.count("RoleBinding") == len(values.get("namespaces", [])) + 1
    assert kinds.count("ClusterRoleBinding") == (0 if values else 1)
    assert kinds.count("CustomResourceDefinition") == (0 if values else 1)
    (role,) = (document for document in documents if document["kind"] == "ClusterRole")
    files = CHARTS / "holdfast-operator" / "files"
    assert role["rules"] == yaml.safe_load((files / "rules.yaml").read_text())
    (deployment,) = (document for document in documents if document["kind"] == "Deployment")
    assert deployment["spec"]["replicas"] == values.get("replicas", 1)
    (own,) = (document for document in documents if document["kind"] == "Role")
    assert own["rules"] == yaml.safe_load((files / "lease-rules.yaml").read_text())
    command = deployment["spec"]["template"]["spec"]["containers"][0]["command"]
    assert f"--lease={own['metadata']['namespace']}/{deployment['metadata']['name']}" in command


def test_the_operator_runs_its_own_image_and_gives_the_pods_theirs() -> None:
    values = {
        "image": {"repository": "registry.example/operator", "tag": "1", "pullPolicy": "Never"},
        "serverImage": {"repository": "registry.example/server", "tag": ""},
    }
    for given, operator_image, server_image in (
        (values, "registry.example/operator:1", "registry.example/server:0.1.0"),
        ({}, "holdfast/operator:dev", DEFAULT_IMAGE),
    ):
        (deployment,) = (d for d in rendered("holdfast-operator", given) if d["kind"] == "Deployment")
        (container,) = deployment["spec"]["template"]["spec"]["containers"]
        assert container["image"] == operator_image
        assert f"--image={server_image}" in container["command"]


def pod_of_the_operator(values: dict[str, Any]) -> dict[str, Any]:
    (deployment,) = (item for item in rendered("holdfast-operator", values) if item["kind"] == "Deployment")
    pod: dict[str, Any] = deployment["spec"]["template"]["spec"]
    return pod


def test_the_operator_leaves_a_lost_node_soon_and_keeps_to_several() -> None:
    pod = pod_of_the_operator({})
    assert {one["key"]: (one["effect"], one["tolerationSeconds"]) for one in pod["tolerations"]} == {
        "node.kubernetes.io/not-ready": ("NoExecute", 30),
        "node.kubernetes.io/unreachable": ("NoExecute", 30),
    }
    assert "affinity" not in pod
    assert "tolerations" not in pod_of_the_operator({"nodeLossSeconds": None})
    stays = pod_of_the_operator({"nodeLossSeconds": None, "tolerations": [{"operator": "Exists"}]})
    assert stays["tolerations"] == [{"operator": "Exists"}]
    apart = pod_of_the_operator({"replicas": 2})["affinity"]["podAntiAffinity"]
    (term,) = apart["preferredDuringSchedulingIgnoredDuringExecution"]
    (deployment,) = (item for item in rendered("holdfast-operator", {}) if item["kind"] == "Deployment")
    assert term["podAffinityTerm"]["labelSelector"] == deployment["spec"]["selector"]


def test_the_tenant_is_named_after_the_release_or_as_told() -> None:
    for values, name in (({}, "hold"), ({"name": "logs"}, "logs")):
        (tenant,) = rendered("holdfast-tenant", values)
        assert (tenant["kind"], tenant["metadata"]["name"], tenant["metadata"]["namespace"]) == (
            "Tenant",
            name,
            "system",
        )


def leaves(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [leaf for one in value.values() for leaf in leaves(one)]
    if isinstance(value, list):
        return [leaf for one in value for leaf in leaves(one)]
    return [] if isinstance(value, bool) or value == "" else [str(value)]


def paths(value: Any, path: str = "") -> set[str]:
    if isinstance(value, dict) and value:
        return {one for name, child in value.items() for one in paths(child, f"{path}.{name}")}
    return {path}


def test_every_value_does_something() -> None:
    """What may be set is set in `everything`, and each of its settings is found in what is rendered."""
    given = OPERATOR_VALUES["everything"]
    defaults = yaml.safe_load((CHARTS / "holdfast-operator" / "values.yaml").read_text())
    missing = {path for path in paths(defaults) if not any(one.startswith(path) for one in paths(given))}
    # Replaced as a whole by what is given.
    assert {
        path for path in missing if path.split(".")[1] not in ("resources", "podSecurityContext", "securityContext")
    } == set()
    text = json.dumps(rendered("holdfast-operator", given))
    tags = ("x", "y")  # a digest wins over them
    assert [leaf for leaf in leaves(given) if leaf not in text and leaf not in tags] == []
    assert f"r.example/op@{DIGEST}" in text
    assert f"--image=r.example/server@{DIGEST}" in text


def test_monitoring_is_made_only_where_it_is_asked_for() -> None:
    assert not any(document["apiVersion"] == MONITORING_GROUP for document in rendered("holdfast-operator", {}))
    documents = rendered("holdfast-operator", OPERATOR_VALUES["everything"])
    kinds = {document["kind"]: document for document in documents if document["apiVersion"] == MONITORING_GROUP}
    (service,) = (document for document in documents if document["kind"] == "Service")
    selected = kinds["ServiceMonitor"]["spec"]["selector"]["matchLabels"].items()
    assert selected <= service["metadata"]["labels"].items()
    assert kinds["ServiceMonitor"]["spec"]["endpoints"][0]["port"] == service["spec"]["ports"][0]["name"]
    rules = yaml.safe_load((CHARTS / "holdfast-operator" / "files" / "alerts.yaml").read_text())
    assert kinds["PrometheusRule"]["spec"] == rules
    off = rendered("holdfast-operator", {"metrics": {"enabled": False, "serviceMonitor": {"enabled": True}}})
    assert {"Service", "ServiceMonitor"} & {document["kind"] for document in off} == set()


@pytest.mark.parametrize(
    "values",
    [
        {"replicas": 0},
        {"image": {"repository": "x", "digest": "sha256:short"}},
        {"metrics": {"port": 8080}},
        {"metrics": {"port": 80}},
        {"namespaces": ["a", "a"]},
        {"namespaces": ["A"]},
        {"logFormat": "xml"},
    ],
    ids=str,
)
def test_wrong_values_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(Exception, match=r"(?i)schema|values"):
        rendered("holdfast-operator", values)


def test_the_crd_is_upgraded_with_the_chart_and_outlives_it() -> None:
    """Helm never upgrades what is in crds/: the CRD is a template, kept when the release goes."""
    assert not (CHARTS / "holdfast-operator" / "crds").exists()
    (crd,) = (one for one in rendered("holdfast-operator", {}) if one["kind"] == "CustomResourceDefinition")
    assert crd["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    assert crd == yaml.safe_load((ROOT / "crds" / "tenant.yaml").read_text())


def without_helm(document: dict[str, Any]) -> dict[str, Any]:
    """The same object, made by nobody's release."""
    for metadata in (document["metadata"], document.get("spec", {}).get("template", {}).get("metadata", {})):
        for name in ("helm.sh/chart", "app.kubernetes.io/managed-by"):
            metadata.get("labels", {}).pop(name, None)
    return document


def test_kustomize_gives_what_the_chart_gives() -> None:
    """`HOLDFAST_WRITE_GOLDEN=1` writes deploy/operator.yaml anew."""
    with helm.Chart.load(str(CHARTS / "holdfast-operator")) as loaded:
        texts = loaded.render({"crds": {"install": False}}, name="holdfast-operator", namespace="holdfast-system")
    wanted = [without_helm(one) for one in documents_in(texts)]
    wanted.sort(key=lambda one: (one["kind"], one["metadata"]["name"]))
    path = DEPLOY / "operator.yaml"
    if os.environ.get("HOLDFAST_WRITE_GOLDEN"):
        path.write_text(
            "# What the chart renders, without Helm's labels; a test compares them.\n"
            + yaml.safe_dump_all(wanted, sort_keys=False, width=120)
        )
    assert list(yaml.safe_load_all(path.read_text())) == wanted


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
def test_kubectl_builds_the_kustomization() -> None:
    built = subprocess.run(["kubectl", "kustomize", str(ROOT)], check=True, capture_output=True, text=True).stdout
    documents = list(yaml.safe_load_all(built))
    for document in documents:
        kubernetes_validate.validate(document, "1.37", strict=True)
    kinds = [document["kind"] for document in documents]
    assert sorted(set(kinds)) == [
        "ClusterRole",
        "ClusterRoleBinding",
        "CustomResourceDefinition",
        "Deployment",
        "Namespace",
        "Role",
        "RoleBinding",
        "Service",
        "ServiceAccount",
    ]
    assert {one["metadata"].get("namespace", "holdfast-system") for one in documents} == {"holdfast-system"}


def test_the_notes_say_what_to_do_next() -> None:
    def notes(chart: str, values: dict[str, Any]) -> str:
        with helm.Chart.load(str(CHARTS / chart)) as loaded:
            texts = loaded.render(values, name="hold", namespace="system")
        return str(next(text for name, text in texts.items() if name.endswith("NOTES.txt")))

    assert "the Tenants of all namespaces" in notes("holdfast-operator", {})
    assert "make images" in notes("holdfast-operator", {})
    told = notes("holdfast-operator", OPERATOR_VALUES["everything"])
    assert "the Tenants of one." in told
    assert "apply crds/tenant.yaml" in told
    claim = {"spec": {"resources": {"requests": {"storage": "1Gi"}}}}
    pool = {"name": "main", "servers": 4, "volumesPerServer": 1, "volumeClaimTemplate": claim}
    spec = {"pools": [pool], "users": [{"name": "loki"}, {"name": "mine", "secretRef": {"name": "own"}}]}
    told = notes("holdfast-tenant", {"name": "logs", "spec": spec})
    assert "logs.system.svc:9000" in told
    assert "logs-user-loki  user loki" in told
    assert "own  user mine" in told
    assert "logs-root  everything" in told
    told = notes("holdfast-tenant", {"spec": {**spec, "rootCredentials": {"secretRef": {"name": "mine-root"}}}})
    assert "mine-root  everything" in told
    assert "get secret mine-root" in told
    assert "hold-root" not in told
