"""Where a pod goes, and why it goes nowhere."""

from __future__ import annotations

from typing import Any

import pytest

from holdfast_local.kubelet.scheduling import HOSTNAME_TOPOLOGY, NodeState, choose_node

Manifest = dict[str, Any]
NODES = [NodeState(f"node-{number}", {"zone": str(number)}) for number in range(3)]


def make_pod(name: str, namespace: str = "shop", **spec: Any) -> Manifest:
    return {"metadata": {"name": name, "namespace": namespace, "labels": {"app": "web"}}, "spec": spec}


def apart(*, required: bool) -> Manifest:
    term = {"topologyKey": HOSTNAME_TOPOLOGY, "labelSelector": {"matchLabels": {"app": "web"}}}
    if required:
        return {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
    weighted = {"weight": 100, "podAffinityTerm": term}
    return {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [weighted]}}


def test_pods_go_where_the_fewest_are() -> None:
    placed = [(make_pod("a"), "node-0"), (make_pod("b"), "node-1")]
    assert choose_node(make_pod("c"), NODES, placed).node == "node-2"
    assert choose_node(make_pod("c"), NODES, []).node == "node-0"


def test_a_preference_to_be_apart_outweighs_the_number_of_pods() -> None:
    others = [(make_pod(f"other-{number}", "elsewhere"), "node-1") for number in range(5)]
    placed = [(make_pod("a"), "node-0"), (make_pod("b"), "node-2"), *others]
    assert choose_node(make_pod("c", affinity=apart(required=False)), NODES, placed).node == "node-1"
    full = [*placed, (make_pod("d"), "node-1")]
    assert choose_node(make_pod("c", affinity=apart(required=False)), NODES, full).node == "node-0"


def test_pods_that_must_be_apart_wait_for_a_free_node_and_keep_others_away() -> None:
    strict = apart(required=True)
    placed = [(make_pod(f"w-{number}", affinity=strict), f"node-{number}") for number in range(3)]
    assert choose_node(make_pod("w-3", affinity=strict), NODES, placed).reason == (
        "0/3 nodes are available: 3 node(s) didn't match pod anti-affinity rules."
    )
    assert choose_node(make_pod("plain"), NODES, placed).node == ""
    assert choose_node(make_pod("w-3", "elsewhere", affinity=strict), NODES, placed).node == "node-0"
    assert choose_node(make_pod("w-0", affinity=strict), NODES, placed).node == "node-0", "its own former self"


@pytest.mark.parametrize(
    ("node", "spec", "bound", "reason"),
    [
        (NodeState("n", powered=False), {}, (), "unreachable"),
        (NodeState("n", cordoned=True), {}, (), "were unschedulable"),
        (NodeState("n", taints=({"key": "a", "value": "b", "effect": "NoSchedule"},)), {}, (), "untolerated taint"),
        (NodeState("n"), {"nodeSelector": {"disk": "ssd"}}, (), "node affinity/selector"),
        (NodeState("n"), {}, ("m",), "didn't match PersistentVolume's node affinity"),
    ],
)
def test_a_node_that_does_not_fit_is_not_taken(node: NodeState, spec: Manifest, bound: Any, reason: str) -> None:
    assert reason in choose_node(make_pod("a", **spec), [node], [], frozenset(bound)).reason


@pytest.mark.parametrize(
    "toleration",
    [
        {"operator": "Exists"},
        {"key": "a", "operator": "Exists", "effect": "NoSchedule"},
        {"key": "a", "value": "b"},
        {"key": "a", "operator": "Equal", "value": "b", "effect": "NoSchedule"},
    ],
)
def test_tolerated_taints_keep_nobody_away(toleration: Manifest) -> None:
    tainted = NodeState("n", taints=({"key": "a", "value": "b", "effect": "NoSchedule"},))
    assert choose_node(make_pod("p", tolerations=[toleration]), [tainted], []).node == "n"
    other = {**toleration, "effect": "NoExecute"}
    assert choose_node(make_pod("p", tolerations=[other]), [tainted], []).node == ""


def test_a_bound_volume_decides() -> None:
    placed = [(make_pod("a"), "node-2")]
    assert choose_node(make_pod("b"), NODES, placed, frozenset({"node-2"})).node == "node-2"


def test_a_taint_that_only_prefers_is_no_hindrance() -> None:
    soft = NodeState("n", taints=({"key": "a", "effect": "PreferNoSchedule"},))
    assert choose_node(make_pod("p"), [soft], []).node == "n"
