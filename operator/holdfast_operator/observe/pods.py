"""Storage pods and their StatefulSets as the cluster shows them, reduced to what decisions need.  Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from holdfast_operator import labels
from holdfast_operator.kube.port import STATEFUL_SET, Manifest

_PULLING = frozenset({"ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName"})
_STARTING = frozenset({"ContainerCreating", "PodInitializing"})
REVISION_LABEL = "controller-revision-hash"


@dataclass(frozen=True, slots=True)
class PodState:
    name: str
    pool: str
    ordinal: int
    ready: bool
    deleting: bool
    revision: str
    ip: str = ""
    message: str = ""
    """Why it is not ready; completed by `hindrances`."""
    cause: str = ""
    """What of that is the kubelet's or the scheduler's words; the message begins with it."""
    node: str = ""
    """Where it runs; empty while it is not scheduled."""
    manifest: Manifest | None = None
    """The object itself, for deletion by uid."""
    ends_at: datetime | None = None
    """When a pod that is being deleted has to be gone."""
    unready_since: datetime | None = None
    """Of one that is not ready, where the kubelet tells."""
    creating_since: datetime | None = None
    """When it was given to its node, of one whose container that has not created yet."""

    @property
    def in_service(self) -> bool:
        """Whether its Service leads clients to it: its kubelet finds it ready, and it is not on its way out."""
        return self.ready and not self.deleting

    @property
    def told(self) -> str:
        """Its name, and why it is not ready if that is known."""
        return f"{self.name} ({self.message})" if self.message else self.name


@dataclass(frozen=True, slots=True)
class StatefulSetState:
    pool: str
    update_revision: str
    """The revision new pods get; empty while the controller has not seen the latest template."""


def read_pods(manifests: Iterable[Manifest], tenant_name: str) -> tuple[PodState, ...]:
    """The tenant's storage pods, ordered by pool and ordinal; others that carry its labels are left out."""
    pods = []
    for manifest in manifests:
        metadata = manifest["metadata"]
        pool = labels.labels_of(manifest).get(labels.POOL_LABEL, "")
        prefix = labels.pod_name_prefix(tenant_name, pool)
        ordinal = metadata["name"].removeprefix(prefix)
        if not metadata["name"].startswith(prefix) or not ordinal.isdecimal():
            continue
        status = manifest.get("status") or {}
        readiness = _condition(status, "Ready")
        ready = readiness.get("status") == "True"
        pods.append(
            PodState(
                name=metadata["name"],
                pool=pool,
                ordinal=int(ordinal),
                ready=ready,
                deleting="deletionTimestamp" in metadata,
                revision=labels.labels_of(manifest).get(REVISION_LABEL, ""),
                ip=status.get("podIP") or "",
                message=(cause := _trouble(status)),
                cause=cause,
                node=(manifest.get("spec") or {}).get("nodeName") or "",
                manifest=manifest,
                ends_at=_moment(metadata.get("deletionTimestamp")),
                unready_since=None if ready else _moment(readiness.get("lastTransitionTime")),
                creating_since=_creating_since(status),
            )
        )
    return tuple(sorted(pods, key=lambda pod: (pod.pool, pod.ordinal)))


def read_stateful_sets(manifests: Iterable[Manifest], sent: Iterable[Manifest] = ()) -> dict[str, StatefulSetState]:
    """By pool name.  `sent`: what was applied since the manifests were read, and is therefore not what they say."""
    states = {}
    changed = {manifest["metadata"]["name"] for manifest in sent if manifest["kind"] == STATEFUL_SET.kind}
    for manifest in manifests:
        pool = labels.labels_of(manifest).get(labels.POOL_LABEL, "")
        status = manifest.get("status") or {}
        current = status.get("observedGeneration", -1) >= manifest["metadata"].get("generation", 0)
        current = current and manifest["metadata"]["name"] not in changed
        revision = (status.get("updateRevision") or "") if current else ""
        states[pool] = StatefulSetState(pool=pool, update_revision=revision)
    return states


def _condition(status: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Empty where the kubelet says nothing of it."""
    return next((one for one in status.get("conditions") or [] if one.get("type") == name), {})


def _moment(text: str | None) -> datetime | None:
    try:
        return datetime.fromisoformat(text) if text else None
    except ValueError:
        return None


def _trouble(status: Mapping[str, Any]) -> str:
    for container in status.get("containerStatuses") or []:
        told = _container_trouble(container)
        if told:
            return told
    scheduled = _condition(status, "PodScheduled")
    return _sentence(scheduled) if scheduled.get("status") == "False" else ""


def _creating_since(status: Mapping[str, Any]) -> datetime | None:
    waiting = [(one.get("state") or {}).get("waiting") or {} for one in status.get("containerStatuses") or []]
    if not any(one.get("reason") in _STARTING for one in waiting):
        return None
    return _moment(_condition(status, "PodScheduled").get("lastTransitionTime"))


def _container_trouble(container: Mapping[str, Any]) -> str:
    state = container.get("state") or {}
    waiting = state.get("waiting") or {}
    reason = waiting.get("reason") or ""
    if reason in _PULLING:
        return _pull_trouble(container.get("image") or "", reason, waiting.get("message") or "")
    if reason == "CrashLoopBackOff":
        # Its own message counts the seconds to the next attempt; why it ended is told of the last one.
        ended = _ending((container.get("lastState") or {}).get("terminated") or {})
        return f"{reason}: {ended or 'ends again and again'}; `kubectl logs --previous` has its last words"
    if reason and reason not in _STARTING:
        return _sentence(waiting)
    return _ending(state.get("terminated") or {})


def _pull_trouble(image: str, reason: str, message: str) -> str:
    # The kubelet goes back and forth between two reasons; what went wrong is behind the second one's name in both.
    _, found, cause = message.rpartition("ErrImagePull: ")
    cause = "" if message.startswith("Back-off") and not found else cause
    return f"image {image} cannot be pulled{': ' + cause if cause else f' ({reason})'}"


def _ending(terminated: Mapping[str, Any]) -> str:
    if not terminated:
        return ""
    if terminated.get("reason") == "OOMKilled":
        return "OOMKilled: it needs more memory than its limit"
    told = f"ended with exit code {terminated.get('exitCode', '?')}"
    return f"{told}: {terminated['message']}" if terminated.get("message") else told


def _sentence(source: Mapping[str, Any]) -> str:
    return ": ".join(str(source[key]) for key in ("reason", "message") if source.get(key))
