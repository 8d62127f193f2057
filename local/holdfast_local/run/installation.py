"""What an administrator installs before the first Tenant: the CRD and the operator's account with its rights.

Both come from the repository's own `crds/` and from the rules that the operator's chart includes, so that the
operator runs here with exactly the rights it is given on a real cluster.  A wheel carries copies of these files,
at the same places below `holdfast_local/manifests/`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from holdfast_local.run.accounts import OPERATOR_ACCOUNT, OPERATOR_NAMESPACE
from holdfast_local.run.failure import RunFailed
from holdfast_local.run.manifest_file import Document, load_documents

SOURCE_ROOT = Path(__file__).resolve().parents[3]
PACKAGED_ROOT = Path(__file__).resolve().parents[1] / "manifests"
LEASE_ROLE = f"{OPERATOR_ACCOUNT}-lease"
RBAC_API = "rbac.authorization.k8s.io/v1"


def manifests_root() -> Path:
    """Where `crds/` and `charts/` are: in the package if it came as a wheel, else the source checkout."""
    return PACKAGED_ROOT if PACKAGED_ROOT.is_dir() else SOURCE_ROOT


def crd_documents(source_root: Path) -> list[Document]:
    """The manifests of `crds/`; raises RunFailed where there are none."""
    documents = [d for path in sorted((source_root / "crds").glob("*.yaml")) for d in load_documents(path)]
    if not documents:
        raise RunFailed(f"no CRD found below {source_root / 'crds'}: the installation is incomplete")
    return documents


def operator_documents(source_root: Path) -> list[Document]:
    """Namespace, ServiceAccount, roles and bindings of the operator."""
    files = source_root / "charts" / "holdfast-operator" / "files"
    rules, lease_rules = _load_rules(files / "rules.yaml"), _load_rules(files / "lease-rules.yaml")
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
        {
            "apiVersion": RBAC_API,
            "kind": "Role",
            "metadata": {"name": LEASE_ROLE, "namespace": OPERATOR_NAMESPACE},
            "rules": lease_rules,
        },
        {
            "apiVersion": RBAC_API,
            "kind": "RoleBinding",
            "metadata": {"name": LEASE_ROLE, "namespace": OPERATOR_NAMESPACE},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": LEASE_ROLE},
            "subjects": [subject],
        },
    ]
    return [Document(manifest, "the operator's installation") for manifest in manifests]


def _load_rules(path: Path) -> list[dict[str, Any]]:
    try:
        rules = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise RunFailed(f"the operator's rules cannot be read from {path}: {error}") from error
    if not isinstance(rules, list) or not rules:
        raise RunFailed(f"{path} is not a list of RBAC rules")
    return rules
