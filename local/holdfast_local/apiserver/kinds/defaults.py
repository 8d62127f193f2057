"""Defaults of built-in kinds, as the real API server fills them in before it stores an object. In place.

Only kinds that people or our operator write are covered; the values are those of the API reference.
"""

import base64
from collections.abc import Callable
from typing import Any

from holdfast_local.apiserver.resources import Object, Resource

_PROBES = ("livenessProbe", "readinessProbe", "startupProbe")


def fill_builtin_defaults(resource: Resource, obj: Object) -> None:
    """Completes an object of a built-in kind; other kinds are left alone."""
    fill = _DEFAULTS.get(resource.kind)
    if fill is not None and not resource.custom:
        fill(obj)


def _put(target: dict[str, Any], **values: Any) -> None:
    for name, value in values.items():
        if target.get(name) is None:
            target[name] = value


def _spec(obj: Object) -> dict[str, Any]:
    if not isinstance(obj.get("spec"), dict):
        obj["spec"] = {}
    spec: dict[str, Any] = obj["spec"]
    return spec


def _pod_spec(spec: dict[str, Any]) -> None:
    _put(
        spec,
        restartPolicy="Always",
        dnsPolicy="ClusterFirst",
        schedulerName="default-scheduler",
        securityContext={},
        terminationGracePeriodSeconds=30,
    )
    if spec.get("serviceAccountName") or spec.get("serviceAccount"):
        account = spec.get("serviceAccountName") or spec["serviceAccount"]
        _put(spec, serviceAccountName=account, serviceAccount=account)
    for container in [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]:
        _container(container)
    for volume in spec.get("volumes") or ():
        for source in ("secret", "configMap", "projected"):
            if isinstance(volume.get(source), dict):
                _put(volume[source], defaultMode=0o644)
        if not set(volume) - {"name"}:
            volume["emptyDir"] = {}


def _container(container: dict[str, Any]) -> None:
    image = str(container.get("image", ""))
    tag = image.rpartition("/")[2].partition(":")[2]
    policy = "Always" if tag in ("", "latest") and "@" not in image else "IfNotPresent"
    _put(
        container,
        imagePullPolicy=policy,
        terminationMessagePath="/dev/termination-log",
        terminationMessagePolicy="File",
        resources={},
    )
    for port in container.get("ports") or ():
        _put(port, protocol="TCP")
    for variable in container.get("env") or ():
        reference = (variable.get("valueFrom") or {}).get("fieldRef")
        if reference:
            _put(reference, apiVersion="v1")
    limits = (container.get("resources") or {}).get("limits")
    if limits:
        requests = container["resources"].setdefault("requests", {})
        for name, amount in limits.items():
            requests.setdefault(name, amount)
    for name in _PROBES:
        probe = container.get(name)
        if probe:
            _put(probe, timeoutSeconds=1, periodSeconds=10, successThreshold=1, failureThreshold=3)
            if probe.get("httpGet"):
                _put(probe["httpGet"], path="/", scheme="HTTP")


def _pod(obj: Object) -> None:
    spec = _spec(obj)
    _put(spec, serviceAccountName="default", serviceAccount="default", enableServiceLinks=True)
    _pod_spec(spec)


def _template(spec: dict[str, Any]) -> None:
    template = spec.get("template")
    if isinstance(template, dict):
        _put(template, metadata={})
        _pod_spec(_spec(template))


def _stateful_set(obj: Object) -> None:
    spec = _spec(obj)
    _put(spec, podManagementPolicy="OrderedReady", replicas=1, revisionHistoryLimit=10, updateStrategy={})
    strategy = spec["updateStrategy"]
    _put(strategy, type="RollingUpdate")
    if strategy["type"] == "RollingUpdate":
        _put(strategy, rollingUpdate={})
        _put(strategy["rollingUpdate"], partition=0)
    _put(spec, persistentVolumeClaimRetentionPolicy={})
    _put(spec["persistentVolumeClaimRetentionPolicy"], whenDeleted="Retain", whenScaled="Retain")
    for claim in spec.get("volumeClaimTemplates") or ():
        _put(claim, apiVersion="v1", kind="PersistentVolumeClaim", status={"phase": "Pending"})
        _claim(claim)
    _template(spec)


def _deployment(obj: Object) -> None:
    spec = _spec(obj)
    _put(spec, replicas=1, revisionHistoryLimit=10, progressDeadlineSeconds=600, strategy={})
    _put(spec["strategy"], type="RollingUpdate")
    if spec["strategy"]["type"] == "RollingUpdate":
        _put(spec["strategy"], rollingUpdate={})
        _put(spec["strategy"]["rollingUpdate"], maxSurge="25%", maxUnavailable="25%")
    _template(spec)


def _replica_set(obj: Object) -> None:
    _put(_spec(obj), replicas=1)
    _template(obj["spec"])


def _daemon_set(obj: Object) -> None:
    spec = _spec(obj)
    _put(spec, revisionHistoryLimit=10, updateStrategy={})
    _put(spec["updateStrategy"], type="RollingUpdate")
    _template(spec)


def _service(obj: Object) -> None:
    spec = _spec(obj)
    _put(spec, type="ClusterIP", sessionAffinity="None")
    if spec["type"] != "ExternalName":
        _put(spec, internalTrafficPolicy="Cluster", ipFamilyPolicy="SingleStack", ipFamilies=["IPv4"])
    for port in spec.get("ports") or ():
        _put(port, protocol="TCP", targetPort=port.get("port"))


def _claim(obj: Object) -> None:
    _put(_spec(obj), volumeMode="Filesystem")


def _volume(obj: Object) -> None:
    _put(_spec(obj), volumeMode="Filesystem", persistentVolumeReclaimPolicy="Retain")


def _secret(obj: Object) -> None:
    _put(obj, type="Opaque")
    plain = obj.pop("stringData", None)
    if isinstance(plain, dict) and plain:
        encoded = {name: base64.b64encode(str(text).encode()).decode() for name, text in plain.items()}
        obj["data"] = {**(obj.get("data") or {}), **encoded}


def _storage_class(obj: Object) -> None:
    _put(obj, reclaimPolicy="Delete", volumeBindingMode="Immediate")


def _role_binding(obj: Object) -> None:
    for subject in obj.get("subjects") or ():
        if subject.get("kind") in ("User", "Group"):
            _put(subject, apiGroup="rbac.authorization.k8s.io")
    if isinstance(obj.get("roleRef"), dict):
        _put(obj["roleRef"], apiGroup="rbac.authorization.k8s.io")


def _network_policy(obj: Object) -> None:
    spec = _spec(obj)
    _put(spec, policyTypes=["Ingress", "Egress"] if spec.get("egress") else ["Ingress"])


def _crd(obj: Object) -> None:
    spec = _spec(obj)
    names = spec.setdefault("names", {})
    kind = str(names.get("kind", ""))
    _put(names, singular=kind.lower(), listKind=f"{kind}List")
    _put(spec, conversion={"strategy": "None"})


def _endpoint_slice(obj: Object) -> None:
    for port in obj.get("ports") or ():
        _put(port, protocol="TCP", name="")


_DEFAULTS: dict[str, Callable[[Object], None]] = {
    "Pod": _pod,
    "StatefulSet": _stateful_set,
    "Deployment": _deployment,
    "ReplicaSet": _replica_set,
    "DaemonSet": _daemon_set,
    "Service": _service,
    "PersistentVolumeClaim": _claim,
    "PersistentVolume": _volume,
    "Secret": _secret,
    "StorageClass": _storage_class,
    "RoleBinding": _role_binding,
    "ClusterRoleBinding": _role_binding,
    "NetworkPolicy": _network_policy,
    "CustomResourceDefinition": _crd,
    "EndpointSlice": _endpoint_slice,
}


def first_status(resource: Resource, obj: Object) -> dict[str, Any] | None:
    """The status that a new object starts with, whatever the client sent; None: no status at all."""
    if resource.custom:
        return None
    if resource.kind == "Pod":
        return {"phase": "Pending", "qosClass": _quality_of_service(obj.get("spec") or {})}
    if resource.kind == "Node":
        # A kubelet registers its node together with its status.
        status: dict[str, Any] = obj.get("status") or {}
        return status
    return _FIRST_STATUS.get(resource.kind)


def _quality_of_service(spec: dict[str, Any]) -> str:
    resources = [container.get("resources") or {} for container in spec.get("containers") or ()]
    if not any(part.get("limits") or part.get("requests") for part in resources):
        return "BestEffort"
    for part in resources:
        limits = part.get("limits") or {}
        if set(limits) < {"cpu", "memory"} or (part.get("requests") or limits) != limits:
            return "Burstable"
    return "Guaranteed"


_FIRST_STATUS: dict[str, dict[str, Any]] = {
    "Namespace": {"phase": "Active"},
    "PersistentVolumeClaim": {"phase": "Pending"},
    "PersistentVolume": {"phase": "Pending"},
    "Service": {"loadBalancer": {}},
    "StatefulSet": {"replicas": 0, "availableReplicas": 0},
    "Deployment": {},
    "ReplicaSet": {"replicas": 0},
    "PodDisruptionBudget": {"currentHealthy": 0, "desiredHealthy": 0, "disruptionsAllowed": 0, "expectedPods": 0},
}
