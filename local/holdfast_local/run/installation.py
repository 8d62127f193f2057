"""What an administrator installs before the first Tenant: the CRD and the operator's account with its rights.

Both come from the repository's own `crds/` and `charts/`, so that the operator runs here with exactly the
rights it is given on a real cluster.  Chart templates are not rendered: the chart keeps its rules in plain
YAML files, which are found below `charts/holdfast-operator` by their kind.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from holdfast_local.run.accounts import OPERATOR_ACCOUNT, OPERATOR_NAMESPACE
from holdfast_local.run.failure import RunFailed
from holdfast_local.run.manifest_file import Document, load_documents

SOURCE_ROOT = Path(__file__).resolve().parents[3]
RBAC_API = "rbac.authorization.k8s.io/v1"


def crd_documents(source_root: Path) -> list[Document]:
    """The manifests of `crds/`; raises RunFailed where there are none."""
    documents = [d for path in sorted((source_root / "crds").glob("*.yaml")) for d in load_documents(path)]
    if not documents:
        raise RunFailed(f"no CRD found below {source_root / 'crds'}: run this from a source checkout")
    return documents


def operator_documents(source_root: Path) -> list[Document]:
    """Namespace, ServiceAccount, ClusterRole and binding of the operator."""
    rules = list(_chart_rules(source_root / "charts" / "holdfast-operator"))
    if not rules:
        raise RunFailed(f"the operator's rules were not found below {source_root / 'charts/holdfast-operator'}")
    subject = {"kind": "ServiceAccount", "name": OPERATOR_ACCOUNT, "namespace": OPERATOR_NAMESPACE}
    manifests: list[dict[str, Any]] = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": OPERATOR_NAMESPACE}},
        {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": OPERATOR_ACCOUNT, "namespace": OPERATOR_NAMESPACE},
        },
        {
            "apiVersion": RBAC_API,
            "kind": "ClusterRole",
            "metadata": {"name": OPERATOR_ACCOUNT},
            "rules": rules,
        },
        {
            "apiVersion": RBAC_API,
            "kind": "ClusterRoleBinding",
            "metadata": {"name": OPERATOR_ACCOUNT},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": OPERATOR_ACCOUNT},
            "subjects": [subject],
        },
    ]
    return [Document(manifest, "the operator's installation") for manifest in manifests]


def _chart_rules(chart: Path) -> Iterator[dict[str, Any]]:
    for path in sorted(chart.rglob("*.yaml")):
        text = path.read_text(encoding="utf-8")
        if re.search(r"\{\{", text):
            continue  # a Helm template; the rules it includes are in a plain file
        for value in yaml.safe_load_all(text):
            if isinstance(value, dict) and value.get("kind") in ("ClusterRole", "Role"):
                yield from value.get("rules") or []
            elif "rules" in path.stem and isinstance(value, list):
                yield from value
            elif "rules" in path.stem and isinstance(value, dict) and isinstance(value.get("rules"), list):
                yield from value["rules"]
