"""The `status` of a pod, from what is known of its containers.  Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from holdfast_local.kubelet.manifests import Manifest

CREATING: Manifest = {"waiting": {"reason": "ContainerCreating"}}


@dataclass
class ContainerSnapshot:
    """One container as of now; `state` and `last_state` as the API writes them."""

    name: str
    image: str
    restart_count: int = 0
    started: bool = False
    ready: bool = False
    process_id: int | None = None
    state: Manifest = field(default_factory=lambda: dict(CREATING))
    last_state: Manifest = field(default_factory=dict)


def waiting(reason: str, message: str = "") -> Manifest:
    return {"waiting": {"reason": reason, "message": message} if message else {"reason": reason}}


def terminated(returncode: int, started_at: str, finished_at: str, process_id: int) -> Manifest:
    """State of an ended process; a negative return code is the signal that ended it, as in `subprocess`."""
    state: Manifest = {
        "exitCode": 128 - returncode if returncode < 0 else returncode,
        "reason": "Completed" if returncode == 0 else "Error",
        "startedAt": started_at,
        "finishedAt": finished_at,
        "containerID": f"process://{process_id}",
    }
    if returncode < 0:
        state["signal"] = -returncode
    return {"terminated": state}


def derive_pod_status(
    previous: Mapping[str, Any],
    init_containers: Sequence[ContainerSnapshot],
    containers: Sequence[ContainerSnapshot],
    restart_policy: str,
    address: str,
    started_at: str,
    now: str,
) -> Manifest:
    """The whole status; a condition keeps its transition time unless it changed since `previous`."""
    initialized = all(_succeeded(container) for container in init_containers)
    ready = bool(containers) and all(container.ready for container in containers)
    truths = {
        "PodScheduled": True,
        "Initialized": initialized,
        "ContainersReady": ready,
        "Ready": ready,
    }
    unready = [container.name for container in containers if not container.ready]
    message = f"containers with unready status: [{' '.join(unready)}]"
    earlier = {condition["type"]: condition for condition in previous.get("conditions") or []}
    status: Manifest = {
        "phase": _phase(init_containers, containers, restart_policy),
        "conditions": [
            _condition(name, truth, earlier.get(name), now, "" if truth or not name.endswith("Ready") else message)
            for name, truth in truths.items()
        ],
        "hostIP": "127.0.0.1",
        "podIP": address,
        "podIPs": [{"ip": address}],
        "startTime": started_at,
        "qosClass": "BestEffort",
        "containerStatuses": [_container_status(container) for container in containers],
    }
    if init_containers:
        status["initContainerStatuses"] = [_container_status(container) for container in init_containers]
    return status


def _phase(
    init_containers: Sequence[ContainerSnapshot], containers: Sequence[ContainerSnapshot], restart_policy: str
) -> str:
    if restart_policy != "Always" and containers and all("terminated" in c.state for c in containers):
        return "Succeeded" if all(_succeeded(c) for c in containers) else "Failed"
    if restart_policy == "Never" and any("terminated" in c.state and not _succeeded(c) for c in init_containers):
        return "Failed"
    if any("running" in c.state or "terminated" in c.state or c.restart_count for c in containers):
        return "Running"
    return "Pending"


def _condition(name: str, truth: bool, earlier: Mapping[str, Any] | None, now: str, message: str) -> Manifest:
    status = "True" if truth else "False"
    since = earlier["lastTransitionTime"] if earlier and earlier.get("status") == status else now
    condition: Manifest = {"type": name, "status": status, "lastTransitionTime": since}
    if message:
        condition.update(reason="ContainersNotReady", message=message)
    return condition


def _succeeded(container: ContainerSnapshot) -> bool:
    return "terminated" in container.state and container.state["terminated"]["exitCode"] == 0


def _container_status(container: ContainerSnapshot) -> Manifest:
    status: Manifest = {
        "name": container.name,
        "image": container.image,
        "imageID": "",
        "ready": container.ready,
        "started": container.started,
        "restartCount": container.restart_count,
        "state": dict(container.state),
        "lastState": dict(container.last_state),
    }
    if container.process_id is not None:
        status["containerID"] = f"process://{container.process_id}"
    return status
