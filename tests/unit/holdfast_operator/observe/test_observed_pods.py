"""Pods and StatefulSets as read from the cluster's objects."""

from __future__ import annotations

from typing import Any

import pytest

from holdfast_operator.observe.pods import read_pods, read_stateful_sets


def pod(name: str, pool: str = "main", **status: Any) -> dict[str, Any]:
    labels = {"holdfast.dev/pool": pool, "controller-revision-hash": "r1"}
    return {"metadata": {"name": name, "labels": labels}, "status": status}


def test_pods_are_ordered_and_strangers_left_out() -> None:
    manifests = [
        pod("logs-pool-main-10"),
        pod("logs-pool-main-2", podIP="127.77.0.3", conditions=[{"type": "Ready", "status": "True"}]),
        pod("logs-pool-main-debug"),
        pod("other-pool-main-1"),
    ]
    pods = read_pods(manifests, "logs")
    assert [(state.name, state.ordinal, state.ready) for state in pods] == [
        ("logs-pool-main-2", 2, True),
        ("logs-pool-main-10", 10, False),
    ]
    assert pods[0].ip == "127.77.0.3"


def waiting(reason: str, message: str = "", **more: Any) -> dict[str, Any]:
    state = {"waiting": {"reason": reason, "message": message}}
    return {"containerStatuses": [{"image": "r.example/x:1", "state": state, **more}]}


def ended(**terminated: Any) -> dict[str, Any]:
    return {"containerStatuses": [{"state": {"terminated": terminated}}]}


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (waiting("ErrImagePull", "not found"), "image r.example/x:1 cannot be pulled: not found"),
        (
            waiting("ImagePullBackOff", 'Back-off pulling image "r.example/x:1": ErrImagePull: not found'),
            "image r.example/x:1 cannot be pulled: not found",
        ),
        (
            waiting("ImagePullBackOff", 'Back-off pulling image "r.example/x:1"'),
            "image r.example/x:1 cannot be pulled (ImagePullBackOff)",
        ),
        (waiting("ContainerCreating"), ""),
        (
            waiting("CreateContainerConfigError", 'secret "x" not found'),
            'CreateContainerConfigError: secret "x" not found',
        ),
        (
            waiting("CrashLoopBackOff", "back-off 40s", lastState={"terminated": {"exitCode": 2, "reason": "Error"}}),
            "CrashLoopBackOff: ended with exit code 2; `kubectl logs --previous` has its last words",
        ),
        (
            waiting("CrashLoopBackOff", "back-off 5m0s", lastState={"terminated": {"reason": "OOMKilled"}}),
            "CrashLoopBackOff: OOMKilled: it needs more memory than its limit; "
            "`kubectl logs --previous` has its last words",
        ),
        (ended(reason="Error", exitCode=137), "ended with exit code 137"),
        (
            {
                "conditions": [
                    {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no node"}
                ]
            },
            "Unschedulable: no node",
        ),
        ({}, ""),
    ],
)
def test_trouble_is_told_without_what_changes_by_itself(status: dict[str, Any], message: str) -> None:
    (state,) = read_pods([pod("logs-pool-main-0", **status)], "logs")
    assert state.message == message


def test_a_revision_counts_only_once_the_controller_has_seen_the_template() -> None:
    manifest = {
        "metadata": {"name": "logs-pool-main", "generation": 3, "labels": {"holdfast.dev/pool": "main"}},
        "status": {"observedGeneration": 2, "updateRevision": "old"},
    }
    assert read_stateful_sets([manifest])["main"].update_revision == ""
    manifest["status"] = {"observedGeneration": 3, "updateRevision": "new"}
    assert read_stateful_sets([manifest])["main"].update_revision == "new"
