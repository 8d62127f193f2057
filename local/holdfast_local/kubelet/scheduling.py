"""Which node a pod goes to.  `choose_node` is pure; `Scheduler` remembers what it has promised until the API shows it.

Honoured as by Kubernetes' own scheduler: cordoned and absent nodes, taints and tolerations, `nodeSelector`, required
and preferred pod anti-affinity over the host name, and volumes that are bound to a node (every claim here is bound to
the node of the pod that first used it, as with local disks).  Among nodes that fit, the one with the fewest pods that
would rather be apart, then the one with the fewest pods, then the first by name.

Not done here: resource requests, pod affinity, spread constraints, priorities and preemption, other topologies.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from holdfast_local.kubelet.informer import Informer
from holdfast_local.kubelet.manifests import Key, Manifest, key_of, labels_match, uid_of
from holdfast_local.kubelet.volumes import claim_names

SELECTED_NODE_ANNOTATION = "volume.kubernetes.io/selected-node"
"""On a claim: the node that its volume is bound to."""
POWER_ANNOTATION = "holdfast.dev/power"
"""On a Node: `off` ends all its processes at once, as pulling the plug would; anything else turns it on again."""
HOSTNAME_TOPOLOGY = "kubernetes.io/hostname"
_KEEPING_OFF = ("NoSchedule", "NoExecute")


@dataclass(frozen=True)
class NodeState:
    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    powered: bool = True
    cordoned: bool = False
    taints: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True)
class Placement:
    """A node's name, or why there is none."""

    node: str = ""
    reason: str = ""


def is_powered(node: Mapping[str, Any]) -> bool:
    return (node["metadata"].get("annotations") or {}).get(POWER_ANNOTATION) != "off"


def read_node(node: Mapping[str, Any]) -> NodeState:
    spec = node.get("spec") or {}
    return NodeState(
        name=node["metadata"]["name"],
        labels=node["metadata"].get("labels") or {},
        powered=is_powered(node),
        cordoned=bool(spec.get("unschedulable")),
        taints=tuple(spec.get("taints") or ()),
    )


def choose_node(
    pod: Mapping[str, Any],
    nodes: Sequence[NodeState],
    placed: Iterable[tuple[Mapping[str, Any], str]],
    bound_to: frozenset[str] = frozenset(),
) -> Placement:
    """`placed`: the pods of the cluster with their nodes; `bound_to`: nodes that the pod's volumes are bound to."""
    others = [(other, node) for other, node in placed if key_of(dict(other)) != key_of(dict(pod))]
    hindrances: Counter[str] = Counter()
    fitting: list[tuple[int, int, str]] = []
    for node in nodes:
        hindrance = _hindrance(pod, node, others, bound_to)
        if hindrance:
            hindrances[hindrance] += 1
            continue
        disliked = sum(_repels(pod, other, required=False) for other, where in others if where == node.name)
        fitting.append((disliked, sum(where == node.name for _, where in others), node.name))
    if fitting:
        return Placement(node=min(fitting)[2])
    told = ", ".join(f"{count} {text}" for text, count in sorted(hindrances.items()))
    return Placement(reason=f"0/{len(nodes)} nodes are available: {told or 'there is none'}.")


def _hindrance(
    pod: Mapping[str, Any],
    node: NodeState,
    others: Sequence[tuple[Mapping[str, Any], str]],
    bound_to: frozenset[str],
) -> str:
    if not node.powered:
        return "node(s) had untolerated taint {node.kubernetes.io/unreachable: }"
    if node.cordoned:
        return "node(s) were unschedulable"
    if any(_keeps_off(taint, pod) for taint in node.taints):
        return "node(s) had untolerated taint"
    selector = pod["spec"].get("nodeSelector") or {}
    if any(node.labels.get(key) != value for key, value in selector.items()):
        return "node(s) didn't match Pod's node affinity/selector"
    if bound_to - {node.name}:
        return "node(s) didn't match PersistentVolume's node affinity"
    here = [other for other, where in others if where == node.name]
    if any(_repels(pod, other, required=True) or _repels(other, pod, required=True) for other in here):
        return "node(s) didn't match pod anti-affinity rules"
    return ""


def _keeps_off(taint: Mapping[str, Any], pod: Mapping[str, Any]) -> bool:
    if taint.get("effect") not in _KEEPING_OFF:
        return False
    return not any(_tolerates(toleration, taint) for toleration in pod["spec"].get("tolerations") or [])


def _tolerates(toleration: Mapping[str, Any], taint: Mapping[str, Any]) -> bool:
    if toleration.get("effect") and toleration["effect"] != taint.get("effect"):
        return False
    if toleration.get("key") and toleration["key"] != taint.get("key"):
        return False
    return toleration.get("operator") == "Exists" or toleration.get("value", "") == taint.get("value", "")


def _repels(pod: Mapping[str, Any], other: Mapping[str, Any], *, required: bool) -> bool:
    """Whether the pod must not (`required`), or would rather not, share a host with the other."""
    if key_of(dict(pod))[0] != key_of(dict(other))[0]:
        return False
    affinity = (pod["spec"].get("affinity") or {}).get("podAntiAffinity") or {}
    terms = (
        affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or []
        if required
        else [t["podAffinityTerm"] for t in affinity.get("preferredDuringSchedulingIgnoredDuringExecution") or []]
    )
    return any(
        term.get("topologyKey") == HOSTNAME_TOPOLOGY
        and labels_match((term.get("labelSelector") or {}).get("matchLabels"), dict(other))
        for term in terms
    )


class Scheduler:
    """Places pods on the nodes of the cluster, one after the other."""

    def __init__(self, names: Sequence[str], nodes: Informer, pods: Informer, claims: Informer) -> None:
        self._names = names
        """Nodes that were asked for.  Others are left over from a start with another number, and take what is bound to
        them."""
        self._nodes, self._pods, self._claims = nodes, pods, claims
        self._promised: dict[str, tuple[Manifest, str]] = {}
        """By uid: pods whose binding the informer may not show yet."""

    def place(self, pod: Manifest) -> Placement:
        """Choose and remember; never the same room for two pods that must not share it."""
        bound = frozenset(filter(None, (self.node_of_claim(pod, name) for name in claim_names(pod))))
        open_to_it = bound.union(self._names)
        nodes = [read_node(node) for (_, name), node in sorted(self._nodes.items.items()) if name in open_to_it]
        placement = choose_node(pod, nodes, self._placed(), bound)
        if placement.node:
            self._promised[uid_of(pod)] = (pod, placement.node)
        return placement

    def without_volumes(self) -> Placement:
        """For a pod with claims that nobody binds."""
        reason = "pod has unbound immediate PersistentVolumeClaims"
        return Placement(reason=f"0/{len(self._names)} nodes are available: {reason}.")

    def forget(self, pod_uid: str) -> None:
        """The pod is gone, or could not be bound."""
        self._promised.pop(pod_uid, None)

    def node_of_claim(self, pod: Manifest, claim_name: str) -> str:
        """The node a claim of the pod is bound to; empty if it is free."""
        claim = self._claims.items.get((pod["metadata"]["namespace"], claim_name)) or {"metadata": {}}
        return str((claim["metadata"].get("annotations") or {}).get(SELECTED_NODE_ANNOTATION, ""))

    def is_known(self, node_name: str) -> bool:
        return node_name in self._names or ("", node_name) in self._nodes.items

    def is_powered(self, node_name: str) -> bool:
        node = self._nodes.items.get(("", node_name))
        return node is None or is_powered(node)

    def _placed(self) -> list[tuple[Manifest, str]]:
        shown: dict[Key, tuple[Manifest, str]] = {key_of(pod): (pod, node) for pod, node in self._promised.values()}
        for key, pod in self._pods.items.items():
            ended = (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")
            if pod["spec"].get("nodeName") and not ended:
                shown[key] = (pod, pod["spec"]["nodeName"])
        return list(shown.values())
