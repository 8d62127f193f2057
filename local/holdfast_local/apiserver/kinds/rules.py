"""Rules of built-in kinds beyond their schema: what may not change, what must fit together.

Covers what our operator and people stumble over: immutable StatefulSet, Service, claim, Secret and role-reference
fields, pods' immutable specs, selectors that must match their template. Not a copy of the real validation.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any

from holdfast_local.apiserver.errors import Cause, forbidden_field, invalid_value, not_supported, required
from holdfast_local.apiserver.kinds.quantities import parse_quantity
from holdfast_local.apiserver.resources import Object, Resource
from holdfast_local.apiserver.selection import matches_label_selector

_STATEFUL_SET_MUTABLE = (
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
)
_DNS_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*\Z")
_DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?\Z")
_DNS_LABEL_1035 = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?\Z")
_QUALIFIED_NAME = re.compile(r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]\Z")
_DATA_KEY = re.compile(r"[-._a-zA-Z0-9]+\Z")
IMMUTABLE = "field is immutable"
_OPERATORS = ("Equal", "Exists")
_PATH_NAMED = ("Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding")


def validate_metadata(resource: Resource, obj: Object) -> Iterator[Cause]:
    """Names, labels and annotations."""
    metadata = obj["metadata"]
    yield from _validate_name(resource, str(metadata.get("name") or ""))
    for name, value in (metadata.get("labels") or {}).items():
        yield from _validate_label_name("metadata.labels", name)
        if not isinstance(value, str):
            yield invalid_value("metadata.labels", value, "must be a string")
        elif value and (len(value) > 63 or not _QUALIFIED_NAME.match(value)):
            yield invalid_value("metadata.labels", value, _LABEL_VALUE_RULE)
    size_bytes = 0
    for name, value in (metadata.get("annotations") or {}).items():
        yield from _validate_label_name("metadata.annotations", name)
        size_bytes += len(name) + len(str(value))
    if size_bytes > 262144:
        yield Cause("metadata.annotations", "FieldValueTooLong", "Too long: may not be more than 262144 bytes")
    for index, reference in enumerate(metadata.get("ownerReferences") or ()):
        for part in ("apiVersion", "kind", "name", "uid"):
            if not reference.get(part):
                yield required(f"metadata.ownerReferences[{index}].{part}", "must not be empty")


_SUBDOMAIN_RULE = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start "
    "and end with an alphanumeric character (e.g. 'example.com', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
_LABEL_RULE = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end "
    "with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
)
_LABEL_1035_RULE = (
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, "
    "and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is "
    "'[a-z]([-a-z0-9]*[a-z0-9])?')"
)
_LABEL_VALUE_RULE = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start "
    "and end with an alphanumeric character, and be no more than 63 characters"
)


def _validate_name(resource: Resource, name: str) -> Iterator[Cause]:
    if not name:
        yield required("metadata.name", "name or generateName is required")
    elif resource.kind in _PATH_NAMED:
        if name in (".", "..") or "/" in name or "%" in name:
            yield invalid_value("metadata.name", name, "may not contain '/' or '%'")
    elif resource.kind == "Namespace":
        if len(name) > 63 or not _DNS_LABEL.match(name):
            yield invalid_value("metadata.name", name, _LABEL_RULE)
    elif resource.kind == "Service" and not resource.custom:
        if len(name) > 63 or not _DNS_LABEL_1035.match(name):
            yield invalid_value("metadata.name", name, _LABEL_1035_RULE)
    elif len(name) > 253 or not _DNS_SUBDOMAIN.match(name):
        yield invalid_value("metadata.name", name, _SUBDOMAIN_RULE)


def _validate_label_name(field: str, name: str) -> Iterator[Cause]:
    prefix, slash, rest = name.rpartition("/")
    if slash and (len(prefix) > 253 or not _DNS_SUBDOMAIN.match(prefix.lower())):
        yield invalid_value(field, name, f"prefix part {_SUBDOMAIN_RULE}")
    if not rest or len(rest) > 63 or not _QUALIFIED_NAME.match(rest):
        detail = (
            "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an "
            "alphanumeric character, and be no more than 63 characters"
        )
        yield invalid_value(field, name, detail)


def validate_builtin(resource: Resource, obj: Object, old: Object | None) -> Iterator[Cause]:
    """Faults of an object of a built-in kind; `old` is None on creation."""
    if resource.custom:
        return
    check = _RULES.get(resource.kind)
    if check is not None:
        yield from check(obj, old)


def _changed(obj: Object, old: Object | None, *path: str) -> bool:
    return old is not None and _at(obj, path) != _at(old, path)


def _at(obj: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        obj = obj.get(name) if isinstance(obj, dict) else None
    return obj


def _selector_matches_template(obj: Object) -> Iterator[Cause]:
    labels = _at(obj, ("spec", "template", "metadata", "labels")) or {}
    selector = _at(obj, ("spec", "selector"))
    if selector is None:
        yield required("spec.selector")
    elif not selector or not matches_label_selector(selector, labels):
        yield invalid_value("spec.template.metadata.labels", labels, "`selector` does not match template `labels`")


def _stateful_set(obj: Object, old: Object | None) -> Iterator[Cause]:
    yield from _selector_matches_template(obj)
    yield from _pod_spec(_at(obj, ("spec", "template", "spec")) or {}, "spec.template.spec")
    for field in ("replicas", "minReadySeconds"):
        if (_at(obj, ("spec", field)) or 0) < 0:
            yield invalid_value(f"spec.{field}", obj["spec"][field], "must be greater than or equal to 0")
    if old is not None:
        before = {name: part for name, part in old["spec"].items() if name not in _STATEFUL_SET_MUTABLE}
        after = {name: part for name, part in obj["spec"].items() if name not in _STATEFUL_SET_MUTABLE}
        if before != after:
            allowed = ", ".join(f"'{name}'" for name in _STATEFUL_SET_MUTABLE[:-1])
            detail = f"updates to statefulset spec for fields other than {allowed} and 'minReadySeconds' are forbidden"
            yield forbidden_field("spec", detail)


def _workload(obj: Object, old: Object | None) -> Iterator[Cause]:
    yield from _selector_matches_template(obj)
    yield from _pod_spec(_at(obj, ("spec", "template", "spec")) or {}, "spec.template.spec")
    if _changed(obj, old, "spec", "selector"):
        yield invalid_value("spec.selector", obj["spec"]["selector"], IMMUTABLE)


def _pod_spec(spec: dict[str, Any], path: str) -> Iterator[Cause]:
    if not spec.get("containers"):
        yield required(f"{path}.containers")
    for name in spec.get("nodeSelector") or ():
        yield from _validate_label_name(f"{path}.nodeSelector", name)
    for index, toleration in enumerate(spec.get("tolerations") or ()):
        if toleration.get("operator", "Equal") not in _OPERATORS:
            yield not_supported(f"{path}.tolerations[{index}].operator", toleration["operator"], _OPERATORS)
    volumes = {volume.get("name") for volume in spec.get("volumes") or ()}
    for group in ("initContainers", "containers"):
        for index, container in enumerate(spec.get(group) or ()):
            place = f"{path}.{group}[{index}]"
            if not container.get("image"):
                yield required(f"{place}.image")
            if not _DNS_LABEL.match(str(container.get("name", ""))):
                yield invalid_value(f"{place}.name", container.get("name", ""), _LABEL_RULE)
            for position, mount in enumerate(container.get("volumeMounts") or ()):
                if mount.get("name") not in volumes and path == "spec":
                    yield Cause(
                        f"{place}.volumeMounts[{position}].name",
                        "FieldValueNotFound",
                        f'Not found: "{mount.get("name")}"',
                    )


def _pod(obj: Object, old: Object | None) -> Iterator[Cause]:
    yield from _pod_spec(obj.get("spec") or {}, "spec")
    if old is None:
        return
    if _frozen_pod_spec(obj) != _frozen_pod_spec(old):
        detail = (
            "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,"
            "`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),"
            "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"
        )
        yield forbidden_field("spec", detail)
    if _changed(obj, old, "spec", "nodeName") and old["spec"].get("nodeName"):
        yield forbidden_field("spec.nodeName", "a pod stays on the node that it is bound to")


def _frozen_pod_spec(obj: Object) -> dict[str, Any]:
    """The parts of a pod's spec that cannot change. Binding by an update of nodeName is allowed here, once."""
    free = ("activeDeadlineSeconds", "tolerations", "nodeName", "terminationGracePeriodSeconds")
    spec = {name: part for name, part in (obj.get("spec") or {}).items() if name not in free}
    for group in ("containers", "initContainers"):
        if spec.get(group):
            spec[group] = [{k: v for k, v in entry.items() if k != "image"} for entry in spec[group]]
    return spec


def _service(obj: Object, old: Object | None) -> Iterator[Cause]:
    spec = obj.get("spec") or {}
    kinds = ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort")
    if spec.get("type") not in kinds:
        yield not_supported("spec.type", spec.get("type"), kinds)
    ports = spec.get("ports") or []
    if not ports and spec.get("type") != "ExternalName" and spec.get("clusterIP") != "None":
        yield required("spec.ports")
    for index, port in enumerate(ports):
        if not 0 < int(port.get("port") or 0) < 65536:
            yield invalid_value(f"spec.ports[{index}].port", port.get("port"), "must be between 1 and 65535, inclusive")
        if len(ports) > 1 and not port.get("name"):
            yield required(f"spec.ports[{index}].name")
        if port.get("nodePort") and spec.get("type") == "ClusterIP":
            detail = "may not be used when `type` is 'ClusterIP'"
            yield forbidden_field(f"spec.ports[{index}].nodePort", detail)
    if spec.get("loadBalancerSourceRanges") and spec.get("type") != "LoadBalancer":
        yield forbidden_field("spec.LoadBalancerSourceRanges", "may only be used when `type` is 'LoadBalancer'")
    if spec.get("externalTrafficPolicy") and spec.get("type") not in ("LoadBalancer", "NodePort"):
        detail = "may only be set for externally-accessible services"
        yield invalid_value("spec.externalTrafficPolicy", spec["externalTrafficPolicy"], detail)
    before = _at(old, ("spec", "clusterIP")) if old else None
    if before and spec.get("clusterIP") != before and spec.get("type") != "ExternalName":
        yield invalid_value("spec.clusterIPs[0]", [spec.get("clusterIP")], "may not change once set")


def _claim(obj: Object, old: Object | None) -> Iterator[Cause]:
    spec = obj.get("spec") or {}
    if not spec.get("accessModes"):
        yield required("spec.accessModes", "at least 1 access mode is required")
    wanted = _at(spec, ("resources", "requests", "storage"))
    if wanted is None:
        yield required("spec.resources[storage]")
    if old is None:
        return
    before = _at(old, ("spec", "resources", "requests", "storage"))
    if not old["spec"].get("volumeName") and wanted != before:
        yield forbidden_field("spec", _CLAIM_RULE)
    elif wanted is not None and before is not None and parse_quantity(wanted) < parse_quantity(before):
        yield forbidden_field("spec.resources.requests.storage", "field can not be less than status.capacity")
    frozen_before = {k: v for k, v in old["spec"].items() if k not in ("resources", "volumeAttributesClassName")}
    frozen_after = {k: v for k, v in spec.items() if k not in ("resources", "volumeAttributesClassName")}
    if not frozen_before.get("volumeName"):
        # Binding sets it, once; the class may be filled in at the same time.
        frozen_before.pop("volumeName", None)
        frozen_after.pop("volumeName", None)
        if "storageClassName" not in frozen_before:
            frozen_after.pop("storageClassName", None)
    if frozen_before != frozen_after:
        yield forbidden_field("spec", _CLAIM_RULE)


_CLAIM_RULE = (
    "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims"
)


def _data_holder(obj: Object, old: Object | None) -> Iterator[Cause]:
    for part in ("data", "binaryData"):
        for name in obj.get(part) or {}:
            if len(name) > 253 or not _DATA_KEY.match(name) or name in (".", ".."):
                detail = "a valid config key must consist of alphanumeric characters, '-', '_' or '.'"
                yield invalid_value(f"{part}[{name}]", name, detail)
    size_bytes = sum(len(str(value)) for part in ("data", "binaryData") for value in (obj.get(part) or {}).values())
    if size_bytes > 1 << 20:
        yield Cause("data", "FieldValueTooLong", f"Too long: may not be more than {1 << 20} bytes")
    if old is not None and old.get("immutable"):
        if not obj.get("immutable"):
            yield forbidden_field("immutable", "field is immutable when `immutable` is set")
        elif any(obj.get(part) != old.get(part) for part in ("data", "binaryData")):
            yield forbidden_field("data", "field is immutable when `immutable` is set")


def _secret(obj: Object, old: Object | None) -> Iterator[Cause]:
    yield from _data_holder(obj, old)
    if _changed(obj, old, "type"):
        yield invalid_value("type", obj.get("type"), IMMUTABLE)


def _role_binding(obj: Object, old: Object | None) -> Iterator[Cause]:
    if _changed(obj, old, "roleRef"):
        yield invalid_value("roleRef", obj.get("roleRef"), "cannot change roleRef")


def _budget(obj: Object, old: Object | None) -> Iterator[Cause]:
    spec = obj.get("spec") or {}
    if spec.get("minAvailable") is not None and spec.get("maxUnavailable") is not None:
        yield invalid_value("spec", {}, "minAvailable and maxUnavailable cannot be both set")
    for field in ("minAvailable", "maxUnavailable"):
        value = spec.get(field)
        if isinstance(value, str) and not re.fullmatch("[0-9]+%", value):
            detail = "a valid percent string must be a numeric string followed by an ending '%'"
            yield invalid_value(f"spec.{field}", value, detail)
        elif isinstance(value, int) and value < 0:
            yield invalid_value(f"spec.{field}", value, "must be greater than or equal to 0")
    policy = spec.get("unhealthyPodEvictionPolicy")
    if policy is not None and policy not in _EVICTION_POLICIES:
        yield not_supported("spec.unhealthyPodEvictionPolicy", policy, _EVICTION_POLICIES)


_EVICTION_POLICIES = ("AlwaysAllow", "IfHealthyBudget")


def _event(obj: Object, old: Object | None) -> Iterator[Cause]:
    namespace = _at(obj, ("involvedObject", "namespace"))
    if old is None and namespace and namespace != obj["metadata"].get("namespace"):
        yield invalid_value("involvedObject.namespace", namespace, "does not match event.namespace")


_RULES: dict[str, Callable[[Object, Object | None], Iterator[Cause]]] = {
    "StatefulSet": _stateful_set,
    "Deployment": _workload,
    "ReplicaSet": _workload,
    "DaemonSet": _workload,
    "Pod": _pod,
    "Service": _service,
    "PersistentVolumeClaim": _claim,
    "ConfigMap": _data_holder,
    "Secret": _secret,
    "RoleBinding": _role_binding,
    "ClusterRoleBinding": _role_binding,
    "PodDisruptionBudget": _budget,
    "Event": _event,
}
