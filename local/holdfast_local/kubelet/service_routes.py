"""Which pods stand behind a Service, as backends, as hosts names and as EndpointSlice and Endpoints.  Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from holdfast_local.kubelet.hosts_table import Name
from holdfast_local.kubelet.live_pods import LivePod
from holdfast_local.kubelet.manifests import (
    NODE_NAME,
    Key,
    Manifest,
    is_terminating,
    key_of,
    labels_match,
    owner_reference,
    uid_of,
)


class Member(NamedTuple):
    """A pod selected by a Service."""

    pod: Manifest
    address: str
    ready: bool


class Backend(NamedTuple):
    address: str
    port: int


def is_headless(service: Mapping[str, Any]) -> bool:
    return service["spec"].get("clusterIP") == "None"


def needs_address(service: Mapping[str, Any]) -> bool:
    """True for a Service that is served by the proxy (ClusterIP, and NodePort or LoadBalancer taken as such)."""
    return not is_headless(service) and service["spec"].get("type", "ClusterIP") != "ExternalName"


def members_of(service: Mapping[str, Any], pods: Iterable[Manifest], live: Mapping[Key, LivePod]) -> list[Member]:
    """The selected pods that have an address, by name; ready only while not being deleted."""
    namespace, selector = service["metadata"]["namespace"], service["spec"].get("selector")
    members = []
    for pod in pods:
        known = live.get(key_of(pod))
        if known is None or pod["metadata"]["namespace"] != namespace or not labels_match(selector, pod):
            continue
        members.append(Member(pod, known.address, known.ready and not is_terminating(pod)))
    return sorted(members, key=lambda member: str(member.pod["metadata"]["name"]))


def target_port(port: Mapping[str, Any], pod: Mapping[str, Any]) -> int | None:
    """The port of the pod behind a Service's port; None if the pod declares no port of that name."""
    wanted = port.get("targetPort") or port["port"]
    if isinstance(wanted, int):
        return wanted
    for container in pod["spec"]["containers"]:
        for declared in container.get("ports") or []:
            if declared.get("name") == wanted:
                return int(declared["containerPort"])
    return int(wanted) if str(wanted).isdigit() else None


def backends_of(service: Mapping[str, Any], port: Mapping[str, Any], members: Sequence[Member]) -> list[Backend]:
    """Where connections to `port` may go: Ready pods, or all with publishNotReadyAddresses."""
    found = []
    for member in _published(service, members):
        number = target_port(port, member.pod)
        if number is not None:
            found.append(Backend(member.address, number))
    return found


def names_of(service: Mapping[str, Any], members: Sequence[Member]) -> list[Name]:
    """Hosts entries of the Service and, below a headless one, of its pods."""
    name, namespace = key_of(service)[1], service["metadata"]["namespace"]
    if not is_headless(service):
        address = service["spec"].get("clusterIP")
        return [Name(address, name, namespace)] if address else []
    names = []
    for member in _published(service, members):
        names.append(Name(member.address, name, namespace))
        spec = member.pod["spec"]
        if spec.get("subdomain") == name and spec.get("hostname"):
            names.append(Name(member.address, f"{spec['hostname']}.{name}", namespace))
    return names


def render_endpoint_slice(service: Mapping[str, Any], members: Sequence[Member]) -> Manifest:
    """The Service's one EndpointSlice."""
    published = bool(service["spec"].get("publishNotReadyAddresses"))
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": f"{service['metadata']['name']}-{NODE_NAME}",
            "namespace": service["metadata"]["namespace"],
            "labels": {
                "kubernetes.io/service-name": service["metadata"]["name"],
                "endpointslice.kubernetes.io/managed-by": "holdfast-local",
            },
            "ownerReferences": [owner_reference(service, "v1", "Service")],
        },
        "addressType": "IPv4",
        "endpoints": [
            {
                "addresses": [member.address],
                "conditions": {
                    "ready": member.ready or published,
                    "serving": member.ready,
                    "terminating": is_terminating(member.pod),
                },
                "hostname": member.pod["spec"].get("hostname") or member.pod["metadata"]["name"],
                "nodeName": member.pod["spec"].get("nodeName") or NODE_NAME,
                "targetRef": _reference(member.pod),
            }
            for member in members
        ],
        "ports": _ports(service, members),
    }


def render_endpoints(service: Mapping[str, Any], members: Sequence[Member]) -> Manifest:
    """The same as a v1 Endpoints object, which older tools read."""
    published = _published(service, members)
    waiting = [member for member in members if member not in published]
    subset: Manifest = {"ports": _ports(service, members)}
    if published:
        subset["addresses"] = [_address(member) for member in published]
    if waiting:
        subset["notReadyAddresses"] = [_address(member) for member in waiting]
    return {
        "apiVersion": "v1",
        "kind": "Endpoints",
        "metadata": {
            "name": service["metadata"]["name"],
            "namespace": service["metadata"]["namespace"],
            "ownerReferences": [owner_reference(service, "v1", "Service")],
        },
        "subsets": [subset] if members else [],
    }


def _published(service: Mapping[str, Any], members: Sequence[Member]) -> list[Member]:
    everyone = bool(service["spec"].get("publishNotReadyAddresses"))
    return [member for member in members if everyone or member.ready]


def _ports(service: Mapping[str, Any], members: Sequence[Member]) -> list[Manifest]:
    ports = []
    for port in service["spec"].get("ports") or []:
        number = target_port(port, members[0].pod) if members else None
        entry = {"port": number or port["port"], "protocol": port.get("protocol", "TCP")}
        if port.get("name"):
            entry["name"] = port["name"]
        ports.append(entry)
    return ports


def _address(member: Member) -> Manifest:
    node = member.pod["spec"].get("nodeName") or NODE_NAME
    return {"ip": member.address, "nodeName": node, "targetRef": _reference(member.pod)}


def _reference(pod: Mapping[str, Any]) -> Manifest:
    namespace, name = key_of(pod)
    return {"kind": "Pod", "namespace": namespace, "name": name, "uid": uid_of(pod)}
