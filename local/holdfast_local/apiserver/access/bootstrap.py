"""What exists in every cluster from the start: namespaces, and the roles that people know by name."""

from holdfast_local.apiserver import errors
from holdfast_local.apiserver.resources import Object
from holdfast_local.apiserver.writing import WriteOptions, Writer

_READ = ["get", "list", "watch"]
_WRITE = ["create", "delete", "deletecollection", "patch", "update"]
_NAMESPACED: dict[str, list[str]] = {
    "": [
        "configmaps",
        "endpoints",
        "events",
        "persistentvolumeclaims",
        "pods",
        "pods/eviction",
        "serviceaccounts",
        "services",
    ],
    "apps": [
        "controllerrevisions",
        "daemonsets",
        "deployments",
        "deployments/scale",
        "replicasets",
        "statefulsets",
        "statefulsets/scale",
    ],
    "batch": ["cronjobs", "jobs"],
    "discovery.k8s.io": ["endpointslices"],
    "networking.k8s.io": ["ingresses", "networkpolicies"],
    "policy": ["poddisruptionbudgets"],
    "coordination.k8s.io": ["leases"],
}


def _rules(verbs: list[str]) -> list[Object]:
    return [{"apiGroups": [group], "resources": names, "verbs": verbs} for group, names in _NAMESPACED.items()]


def _cluster_roles() -> dict[str, list[Object]]:
    everything = {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}
    logs = {"apiGroups": [""], "resources": ["pods/log", "namespaces"], "verbs": _READ}
    secret_holders = {"apiGroups": [""], "resources": ["secrets"], "verbs": _READ + _WRITE}
    access = {
        "apiGroups": ["rbac.authorization.k8s.io"],
        "resources": ["roles", "rolebindings"],
        "verbs": _READ + _WRITE,
    }
    documents = ["/api", "/api/*", "/apis", "/apis/*", "/healthz", "/livez", "/openapi", "/openapi/*", "/readyz"]
    documents += ["/version", "/version/", "/"]
    return {
        "cluster-admin": [everything, {"nonResourceURLs": ["*"], "verbs": ["*"]}],
        "admin": [*_rules(_READ + _WRITE), logs, secret_holders, access],
        "edit": [*_rules(_READ + _WRITE), logs, secret_holders],
        "view": [*_rules(_READ), logs],
        "system:discovery": [{"nonResourceURLs": documents, "verbs": ["get", "head"]}],
    }


_BINDINGS = {
    "cluster-admin": [("Group", "system:masters")],
    "system:discovery": [("Group", "system:authenticated")],
}


def ensure_defaults(writer: Writer) -> None:
    """Creates what is missing; leaves alone what people changed."""
    for name in ("default", "kube-system", "kube-public"):
        _ensure(writer, "v1", "Namespace", {"metadata": {"name": name}})
    labels = {"kubernetes.io/bootstrapping": "rbac-defaults"}
    api_version = "rbac.authorization.k8s.io/v1"
    for name, rules in _cluster_roles().items():
        role = {"metadata": {"name": name, "labels": labels}, "rules": rules}
        _ensure(writer, api_version, "ClusterRole", role)
    for name, subjects in _BINDINGS.items():
        binding = {
            "metadata": {"name": name, "labels": labels},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
            "subjects": [{"kind": kind, "name": subject} for kind, subject in subjects],
        }
        _ensure(writer, api_version, "ClusterRoleBinding", binding)


def _ensure(writer: Writer, api_version: str, kind: str, obj: Object) -> None:
    resource = writer.registry.by_kind(api_version, kind)
    assert resource is not None, f"{kind} is a built-in kind"
    try:
        writer.create(resource, "", obj, WriteOptions(manager="kube-apiserver"))
    except errors.StatusError as error:
        if error.reason != "AlreadyExists":
            raise
