"""What a pod that is not ready waits for, beyond what its kubelet says."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from holdfast_operator.observe.claims import read_claims
from holdfast_operator.observe.hindrances import explain_pods
from holdfast_operator.observe.pods import read_pods

NOW = datetime(2026, 11, 21, 3, 0, tzinfo=UTC)
UNBOUND = "0/4 nodes are available: pod has unbound immediate PersistentVolumeClaims. not found"
UNSCHEDULABLE = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": UNBOUND}
READY = {"type": "Ready", "status": "True"}


def explained(
    node: str = "", ends_at: datetime | None = None, phase: str = "Bound", volumes: int = 1, **status: Any
) -> str:
    labels = {"holdfast.dev/pool": "main"}
    metadata: dict[str, Any] = {"name": "logs-pool-main-0", "labels": labels}
    if ends_at is not None:
        metadata["deletionTimestamp"] = ends_at.strftime("%Y-%m-%dT%H:%M:%SZ")
    claims = [
        {
            "metadata": {"name": f"data{volume}-logs-pool-main-{ordinal}", "labels": labels},
            "spec": {"resources": {"requests": {"storage": "1Gi"}}, "storageClassName": "fast"},
            "status": {"phase": phase},
        }
        for ordinal in (0, 1)
        for volume in range(volumes)
    ]
    pods = read_pods([{"metadata": metadata, "spec": {"nodeName": node}, "status": status}], "logs")
    (pod,) = explain_pods(pods, read_claims(claims, "logs"), NOW)
    return pod.message


def test_a_pod_that_waits_for_its_volume_names_the_claim_and_where_to_look() -> None:
    told = explained(phase="Pending", conditions=[UNSCHEDULABLE])
    assert told == (
        f"Unschedulable: {UNBOUND}; claim data0-logs-pool-main-0 of storage class fast is not bound to a volume, "
        "`kubectl describe pvc data0-logs-pool-main-0` says why"
    )
    assert explained(phase="Lost").endswith("claim data0-logs-pool-main-0 of storage class fast has lost its volume")
    assert explained(conditions=[UNSCHEDULABLE]) == f"Unschedulable: {UNBOUND}", "bound claims are no news"
    assert explained(phase="Pending").startswith("claim "), "the scheduler has not said anything yet"
    assert explained(phase="Pending", volumes=8) == (
        "claims data0-logs-pool-main-0, data1-logs-pool-main-0, data2-logs-pool-main-0, data3-logs-pool-main-0 "
        "and more of storage class fast are not bound to volumes, "
        "`kubectl describe pvc data0-logs-pool-main-0` says why"
    )


def test_claims_that_wait_for_their_pod_to_be_placed_are_not_blamed() -> None:
    """Most classes make a volume once the pod has a node."""
    nowhere = "0/4 nodes are available: 4 node(s) didn't match Pod's node affinity/selector."
    condition = {**UNSCHEDULABLE, "message": nowhere}
    assert explained(phase="Pending", conditions=[condition]) == f"Unschedulable: {nowhere}"
    assert explained(phase="Lost", conditions=[condition]).endswith("has lost its volume")


def test_a_pod_whose_node_says_nothing_names_the_node() -> None:
    assert explained(node="node-3", phase="Pending") == "not ready yet, on node node-3"
    assert explained(node="node-3", ends_at=NOW + timedelta(seconds=20)) == "ending on node node-3"


def test_a_pod_whose_volume_is_not_attached_says_where_to_look() -> None:
    """A volume that hangs on a lost node, a Secret that is gone: only events tell, and the pod waits for ever."""
    waiting = {"name": "holdfast", "state": {"waiting": {"reason": "ContainerCreating"}}}

    def told(seconds: int, **status: Any) -> str:
        placed = (NOW - timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")
        scheduled = {"type": "PodScheduled", "status": "True", "lastTransitionTime": placed}
        return explained(node="node-3", conditions=[scheduled], **status)

    assert told(20, containerStatuses=[waiting]) == "not ready yet, on node node-3"
    hint = "on node node-3, which has not created its container yet: `kubectl describe pod logs-pool-main-0` says why"
    assert told(61, containerStatuses=[waiting]) == hint
    assert told(61) == "not ready yet, on node node-3", "a kubelet that says nothing"
    running = {"name": "holdfast", "state": {"running": {}}}
    assert told(3600, containerStatuses=[running]) == "not ready yet, on node node-3"
    gone = explained(node="node-3", ends_at=NOW, containerStatuses=[waiting])
    assert gone == "ending on node node-3"


def test_a_pod_that_does_not_end_says_what_to_do() -> None:
    told = explained(node="node-3", ends_at=NOW - timedelta(minutes=6))
    assert told == (
        "was to end at 02:54:00 UTC, which node node-3 has not confirmed; if that node is gone for good, "
        "`kubectl delete node node-3`"
    )
    assert explained(node="node-3", ends_at=NOW - timedelta(minutes=6), conditions=[READY]) == told


def test_a_pod_that_is_ready_is_not_explained() -> None:
    assert explained(node="node-3", conditions=[READY]) == ""
