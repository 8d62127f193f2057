"""Printer columns of built-in kinds, with the cells that `kubectl get` shows on a real cluster. Pure."""

import datetime
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from holdfast_local.apiserver.resources import Object

Cell = Callable[[Object, datetime.datetime], Any]
_NONE = "<none>"


@dataclass(frozen=True)
class Column:
    """A title and how its cell is found; priority 1 shows with `-o wide` only."""

    title: str
    cell: Cell
    type: str = "string"
    priority: int = 0


def age(moment: Any, now: datetime.datetime) -> str:
    """A duration in kubectl's short form: 45s, 3m10s, 5h, 2d."""
    if not isinstance(moment, str) or not moment:
        return "<unknown>"
    seconds = max(0, int((now - datetime.datetime.fromisoformat(moment)).total_seconds()))
    if seconds < 120:
        return f"{seconds}s"
    minutes, rest = divmod(seconds, 60)
    if minutes < 10:
        return f"{minutes}m{rest}s" if rest else f"{minutes}m"
    if minutes < 180:
        return f"{minutes}m"
    hours, rest = divmod(minutes, 60)
    if hours < 8:
        return f"{hours}h{rest}m" if rest else f"{hours}h"
    if hours < 48:
        return f"{hours}h"
    days, rest = divmod(hours, 24)
    return f"{days}d{rest}h" if days < 8 and rest else f"{days}d"


def _at(obj: Any, *path: str) -> Any:
    for name in path:
        obj = obj.get(name) if isinstance(obj, dict) else None
    return obj


def _field(*path: str, default: Any = _NONE) -> Cell:
    def cell(obj: Object, now: datetime.datetime) -> Any:
        value = _at(obj, *path)
        return default if value in (None, "") else value

    return cell


def _count(*path: str) -> Cell:
    return lambda obj, now: len(_at(obj, *path) or ())


_NAME = Column("Name", _field("metadata", "name"))
_AGE = Column("Age", lambda obj, now: age(_at(obj, "metadata", "creationTimestamp"), now))


def _labels(labels: dict[str, Any] | None) -> str:
    return ",".join(f"{name}={value}" for name, value in sorted((labels or {}).items())) or _NONE


def _selector(obj: Object, now: datetime.datetime) -> str:
    return _labels(_at(obj, "spec", "selector", "matchLabels"))


def _containers(*path: str) -> Cell:
    return lambda obj, now: ",".join(part.get("name", "") for part in _at(obj, *path, "containers") or ())


def _images(*path: str) -> Cell:
    return lambda obj, now: ",".join(part.get("image", "") for part in _at(obj, *path, "containers") or ())


def _pod_status(obj: Object, now: datetime.datetime) -> str:
    if _at(obj, "metadata", "deletionTimestamp"):
        return "Terminating"
    status = obj.get("status") or {}
    text = str(status.get("reason") or status.get("phase") or "Unknown")
    for container in status.get("containerStatuses") or ():
        state = container.get("state") or {}
        waiting, ended = state.get("waiting"), state.get("terminated")
        if waiting and waiting.get("reason"):
            text = waiting["reason"]
        elif ended:
            text = ended.get("reason") or f"ExitCode:{ended.get('exitCode')}"
    return text


def _pod_ready(obj: Object, now: datetime.datetime) -> str:
    statuses = _at(obj, "status", "containerStatuses") or ()
    return f"{sum(bool(part.get('ready')) for part in statuses)}/{len(_at(obj, 'spec', 'containers') or ())}"


def _pod_restarts(obj: Object, now: datetime.datetime) -> str:
    statuses = _at(obj, "status", "containerStatuses") or ()
    count = sum(int(part.get("restartCount") or 0) for part in statuses)
    ended = [_at(part, "lastState", "terminated", "finishedAt") for part in statuses]
    last = max((moment for moment in ended if moment), default=None)
    return f"{count} ({age(last, now)} ago)" if count and last else str(count)


def _ready_of(ready: str, wanted: tuple[str, ...]) -> Cell:
    return lambda obj, now: f"{_at(obj, 'status', ready) or 0}/{_at(obj, *wanted) or 0}"


def _service_ports(obj: Object, now: datetime.datetime) -> str:
    texts = []
    for port in _at(obj, "spec", "ports") or ():
        node = f":{port['nodePort']}" if port.get("nodePort") else ""
        texts.append(f"{port.get('port')}{node}/{port.get('protocol', 'TCP')}")
    return ",".join(texts) or _NONE


def _external_ip(obj: Object, now: datetime.datetime) -> str:
    entries = _at(obj, "status", "loadBalancer", "ingress") or ()
    found = [entry.get("ip") or entry.get("hostname", "") for entry in entries]
    found += _at(obj, "spec", "externalIPs") or []
    if _at(obj, "spec", "type") == "ExternalName":
        found = [_at(obj, "spec", "externalName") or ""]
    waiting = "<pending>" if _at(obj, "spec", "type") == "LoadBalancer" else _NONE
    return ",".join(found) or waiting


_ACCESS_MODES = {
    "ReadWriteOnce": "RWO",
    "ReadOnlyMany": "ROX",
    "ReadWriteMany": "RWX",
    "ReadWriteOncePod": "RWOP",
}


def _access_modes(obj: Object, now: datetime.datetime) -> str:
    modes = _at(obj, "status", "accessModes") or _at(obj, "spec", "accessModes") or ()
    return ",".join(_ACCESS_MODES.get(mode, mode) for mode in modes)


def _terminating_or(*path: str) -> Cell:
    def cell(obj: Object, now: datetime.datetime) -> str:
        return "Terminating" if _at(obj, "metadata", "deletionTimestamp") else str(_at(obj, *path) or "")

    return cell


def _node_status(obj: Object, now: datetime.datetime) -> str:
    conditions = _at(obj, "status", "conditions") or ()
    ready: dict[str, Any] = next((c for c in conditions if c.get("type") == "Ready"), {})
    text = {"True": "Ready", "False": "NotReady"}.get(str(ready.get("status")), "Unknown")
    return text + (",SchedulingDisabled" if _at(obj, "spec", "unschedulable") else "")


def _node_roles(obj: Object, now: datetime.datetime) -> str:
    prefix = "node-role.kubernetes.io/"
    labels = _at(obj, "metadata", "labels") or {}
    return ",".join(sorted(name.removeprefix(prefix) for name in labels if name.startswith(prefix))) or _NONE


def _node_address(kind: str) -> Cell:
    def cell(obj: Object, now: datetime.datetime) -> str:
        addresses = _at(obj, "status", "addresses") or ()
        return next((entry["address"] for entry in addresses if entry.get("type") == kind), _NONE)

    return cell


def _event_object(obj: Object, now: datetime.datetime) -> str:
    about = obj.get("involvedObject") or obj.get("regarding") or {}
    return f"{str(about.get('kind', '')).lower()}/{about.get('name', '')}"


def _event_seen(obj: Object, now: datetime.datetime) -> str:
    last = _at(obj, "series", "lastObservedTime") or obj.get("lastTimestamp") or obj.get("deprecatedLastTimestamp")
    return age(last or obj.get("eventTime") or _at(obj, "metadata", "creationTimestamp"), now)


def _event_source(obj: Object, now: datetime.datetime) -> str:
    source = obj.get("source") or obj.get("deprecatedSource") or {}
    parts = [source.get("component") or obj.get("reportingComponent") or obj.get("reportingController")]
    return ", ".join(part for part in [*parts, source.get("host")] if part)


def _event_message(obj: Object, now: datetime.datetime) -> str:
    return str(obj.get("message") or obj.get("note") or "").strip()


def _event_count(obj: Object, now: datetime.datetime) -> int:
    return int(_at(obj, "series", "count") or obj.get("count") or obj.get("deprecatedCount") or 1)


def _event_first(obj: Object, now: datetime.datetime) -> str:
    first = obj.get("firstTimestamp") or obj.get("deprecatedFirstTimestamp") or obj.get("eventTime")
    return age(first or _at(obj, "metadata", "creationTimestamp"), now)


def _endpoints(obj: Object, now: datetime.datetime) -> str:
    found = []
    for subset in obj.get("subsets") or ():
        for address in subset.get("addresses") or ():
            found += [f"{address['ip']}:{port['port']}" for port in subset.get("ports") or ()] or [address["ip"]]
    more = f" + {len(found) - 3} more..." if len(found) > 3 else ""
    return ",".join(found[:3]) + more or _NONE


def _slice_ports(obj: Object, now: datetime.datetime) -> str:
    return ",".join(str(port.get("port")) for port in obj.get("ports") or ()) or "<unset>"


def _slice_addresses(obj: Object, now: datetime.datetime) -> str:
    found = [address for entry in obj.get("endpoints") or () for address in entry.get("addresses") or ()]
    more = f" + {len(found) - 3} more..." if len(found) > 3 else ""
    return ",".join(found[:3]) + more or "<unset>"


def _role_reference(obj: Object, now: datetime.datetime) -> str:
    return f"{_at(obj, 'roleRef', 'kind')}/{_at(obj, 'roleRef', 'name')}"


def _subjects(kind: str) -> Cell:
    def cell(obj: Object, now: datetime.datetime) -> str:
        found = [entry for entry in obj.get("subjects") or () if entry.get("kind") == kind]
        prefix = kind == "ServiceAccount"
        return ", ".join(f"{e.get('namespace')}/{e['name']}" if prefix else e["name"] for e in found)

    return cell


def _budget_limit(name: str) -> Cell:
    def cell(obj: Object, now: datetime.datetime) -> str:
        value = _at(obj, "spec", name)
        return "N/A" if value is None else str(value)

    return cell


def _ingress_hosts(obj: Object, now: datetime.datetime) -> str:
    return ",".join(rule.get("host") or "*" for rule in _at(obj, "spec", "rules") or ()) or "*"


def _mode_of_volume(obj: Object, now: datetime.datetime) -> str:
    claim = _at(obj, "spec", "claimRef") or {}
    return f"{claim.get('namespace')}/{claim.get('name')}" if claim else ""


_CREATED_AT = Column("Created At", _field("metadata", "creationTimestamp"))
_BINDING: Sequence[Column] = (
    _NAME,
    Column("Role", _role_reference),
    _AGE,
    Column("Users", _subjects("User"), priority=1),
    Column("Groups", _subjects("Group"), priority=1),
    Column("ServiceAccounts", _subjects("ServiceAccount"), priority=1),
)

BUILTIN_COLUMNS: dict[str, Sequence[Column]] = {
    "Pod": (
        _NAME,
        Column("Ready", _pod_ready),
        Column("Status", _pod_status),
        Column("Restarts", _pod_restarts),
        _AGE,
        Column("IP", _field("status", "podIP"), priority=1),
        Column("Node", _field("spec", "nodeName"), priority=1),
        Column("Nominated Node", _field("status", "nominatedNodeName"), priority=1),
        Column("Readiness Gates", _field("spec", "readinessGates"), priority=1),
    ),
    "StatefulSet": (
        _NAME,
        Column("Ready", _ready_of("readyReplicas", ("spec", "replicas"))),
        _AGE,
        Column("Containers", _containers("spec", "template", "spec"), priority=1),
        Column("Images", _images("spec", "template", "spec"), priority=1),
    ),
    "Deployment": (
        _NAME,
        Column("Ready", _ready_of("readyReplicas", ("spec", "replicas"))),
        Column("Up-to-date", _field("status", "updatedReplicas", default=0), type="integer"),
        Column("Available", _field("status", "availableReplicas", default=0), type="integer"),
        _AGE,
        Column("Containers", _containers("spec", "template", "spec"), priority=1),
        Column("Images", _images("spec", "template", "spec"), priority=1),
        Column("Selector", _selector, priority=1),
    ),
    "ReplicaSet": (
        _NAME,
        Column("Desired", _field("spec", "replicas", default=0), type="integer"),
        Column("Current", _field("status", "replicas", default=0), type="integer"),
        Column("Ready", _field("status", "readyReplicas", default=0), type="integer"),
        _AGE,
        Column("Selector", _selector, priority=1),
    ),
    "DaemonSet": (
        _NAME,
        Column("Desired", _field("status", "desiredNumberScheduled", default=0), type="integer"),
        Column("Current", _field("status", "currentNumberScheduled", default=0), type="integer"),
        Column("Ready", _field("status", "numberReady", default=0), type="integer"),
        _AGE,
    ),
    "ControllerRevision": (
        _NAME,
        Column(
            "Controller",
            lambda obj, now: next(
                (f"{ref['kind'].lower()}/{ref['name']}" for ref in _at(obj, "metadata", "ownerReferences") or ()), _NONE
            ),
        ),
        Column("Revision", _field("revision"), type="integer"),
        _AGE,
    ),
    "Service": (
        _NAME,
        Column("Type", _field("spec", "type")),
        Column("Cluster-IP", _field("spec", "clusterIP")),
        Column("External-IP", _external_ip),
        Column("Port(s)", _service_ports),
        _AGE,
        Column("Selector", lambda obj, now: _labels(_at(obj, "spec", "selector")), priority=1),
    ),
    "Endpoints": (_NAME, Column("Endpoints", _endpoints), _AGE),
    "EndpointSlice": (
        _NAME,
        Column("AddressType", _field("addressType")),
        Column("Ports", _slice_ports),
        Column("Endpoints", _slice_addresses),
        _AGE,
    ),
    "PersistentVolumeClaim": (
        _NAME,
        Column("Status", _terminating_or("status", "phase")),
        Column("Volume", _field("spec", "volumeName", default="")),
        Column("Capacity", _field("status", "capacity", "storage", default="")),
        Column("Access Modes", _access_modes),
        Column("StorageClass", _field("spec", "storageClassName", default="")),
        Column("VolumeAttributesClass", _field("spec", "volumeAttributesClassName", default="<unset>")),
        _AGE,
        Column("VolumeMode", _field("spec", "volumeMode", default=""), priority=1),
    ),
    "PersistentVolume": (
        _NAME,
        Column("Capacity", _field("spec", "capacity", "storage", default="")),
        Column("Access Modes", _access_modes),
        Column("Reclaim Policy", _field("spec", "persistentVolumeReclaimPolicy", default="")),
        Column("Status", _terminating_or("status", "phase")),
        Column("Claim", _mode_of_volume),
        Column("StorageClass", _field("spec", "storageClassName", default="")),
        Column("Reason", _field("status", "reason", default="")),
        _AGE,
        Column("VolumeMode", _field("spec", "volumeMode", default=""), priority=1),
    ),
    "StorageClass": (
        _NAME,
        Column("Provisioner", _field("provisioner")),
        Column("ReclaimPolicy", _field("reclaimPolicy")),
        Column("VolumeBindingMode", _field("volumeBindingMode")),
        Column("AllowVolumeExpansion", lambda obj, now: str(bool(obj.get("allowVolumeExpansion"))).lower()),
        _AGE,
    ),
    "Secret": (_NAME, Column("Type", _field("type")), Column("Data", _count("data"), type="string"), _AGE),
    "ConfigMap": (
        _NAME,
        Column("Data", lambda obj, now: len(obj.get("data") or ()) + len(obj.get("binaryData") or ())),
        _AGE,
    ),
    "ServiceAccount": (_NAME, Column("Secrets", _count("secrets")), _AGE),
    "Namespace": (_NAME, Column("Status", _field("status", "phase")), _AGE),
    "Node": (
        _NAME,
        Column("Status", _node_status),
        Column("Roles", _node_roles),
        _AGE,
        Column("Version", _field("status", "nodeInfo", "kubeletVersion", default="")),
        Column("Internal-IP", _node_address("InternalIP"), priority=1),
        Column("External-IP", _node_address("ExternalIP"), priority=1),
        Column("OS-Image", _field("status", "nodeInfo", "osImage", default="<unknown>"), priority=1),
        Column("Kernel-Version", _field("status", "nodeInfo", "kernelVersion", default="<unknown>"), priority=1),
        Column(
            "Container-Runtime",
            _field("status", "nodeInfo", "containerRuntimeVersion", default="<unknown>"),
            priority=1,
        ),
    ),
    "Event": (
        Column("Last Seen", _event_seen),
        Column("Type", _field("type", default="")),
        Column("Reason", _field("reason", default="")),
        Column("Object", _event_object),
        Column("Subobject", _field("involvedObject", "fieldPath", default=""), priority=1),
        Column("Source", _event_source, priority=1),
        Column("Message", _event_message),
        Column("First Seen", _event_first, priority=1),
        Column("Count", _event_count, priority=1),
        Column("Name", _field("metadata", "name"), priority=1),
    ),
    "PodDisruptionBudget": (
        _NAME,
        Column("Min Available", _budget_limit("minAvailable")),
        Column("Max Unavailable", _budget_limit("maxUnavailable")),
        Column("Allowed Disruptions", _field("status", "disruptionsAllowed", default=0), type="integer"),
        _AGE,
    ),
    "Lease": (_NAME, Column("Holder", _field("spec", "holderIdentity", default="")), _AGE),
    "Ingress": (
        _NAME,
        Column("Class", _field("spec", "ingressClassName")),
        Column("Hosts", _ingress_hosts),
        Column("Address", _external_ip),
        Column("Ports", lambda obj, now: "80, 443" if _at(obj, "spec", "tls") else "80"),
        _AGE,
    ),
    "NetworkPolicy": (
        _NAME,
        Column("Pod-Selector", lambda obj, now: _labels(_at(obj, "spec", "podSelector", "matchLabels"))),
        _AGE,
    ),
    "Role": (_NAME, _CREATED_AT),
    "ClusterRole": (_NAME, _CREATED_AT),
    "RoleBinding": _BINDING,
    "ClusterRoleBinding": _BINDING,
    "CustomResourceDefinition": (_NAME, _CREATED_AT),
}
