"""The charts as Helm renders them; runs where the `helm-python-sdk` package is installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from holdfast_operator.settings import DEFAULT_IMAGE

helm = pytest.importorskip("helm_python")

CHARTS = Path(__file__).parents[3] / "charts"
OPERATOR_VALUES: dict[str, dict[str, Any]] = {
    "defaults": {},
    "namespaced": {
        "namespaces": ["a", "b"],
        "imagePullSecrets": [{"name": "pull"}],
        "podLabels": {"team": "storage"},
        "tolerations": [{"operator": "Exists"}],
        "crds": {"install": False},
    },
}


def rendered(chart: str, values: dict[str, Any]) -> list[dict[str, Any]]:
    with helm.Chart.load(str(CHARTS / chart)) as loaded:
        texts = loaded.render(values, name="hold", namespace="system")
    return [document for text in texts.values() for document in yaml.safe_load_all(text) if document]


@pytest.mark.parametrize("chart", ["holdfast-operator", "holdfast-tenant"])
def test_helm_finds_no_fault(chart: str) -> None:
    assert helm.lint(str(CHARTS / chart))["errors"] == []


@pytest.mark.parametrize("values", OPERATOR_VALUES.values(), ids=OPERATOR_VALUES)
def test_the_operators_manifests_are_valid(values: dict[str, Any]) -> None:
    documents = rendered("holdfast-operator", values)
    for document in documents:
        kubernetes_validate.validate(document, "1.37", strict=True)
    kinds = [document["kind"] for document in documents]
    assert kinds.count("RoleBinding") == len(values.get("namespaces", []))
    assert kinds.count("ClusterRoleBinding") == (0 if values else 1)
    assert kinds.count("CustomResourceDefinition") == (0 if values else 1)
    (role,) = (document for document in documents if document["kind"] == "ClusterRole")
    assert role["rules"] == yaml.safe_load((CHARTS / "holdfast-operator" / "files" / "rules.yaml").read_text())


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


def test_the_tenant_is_named_after_the_release_or_as_told() -> None:
    for values, name in (({}, "hold"), ({"name": "logs"}, "logs")):
        (tenant,) = rendered("holdfast-tenant", values)
        assert (tenant["kind"], tenant["metadata"]["name"], tenant["metadata"]["namespace"]) == (
            "Tenant",
            name,
            "system",
        )
