"""One pod from binding to removal: its address, init containers, containers, status and end.

The worker outlives its containers until the API has forgotten the pod (or, when the node stops, until its
status says that nothing runs).  A pod's address depends on its name alone, so a replacement keeps it.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Mapping
from typing import Any

from holdfast_local.kubelet.client import CLAIMS, JSON, MERGE_PATCH, PODS, ApiError, ClientError
from holdfast_local.kubelet.container import Container
from holdfast_local.kubelet.environment import ContainerConfigError
from holdfast_local.kubelet.live_pods import LivePod
from holdfast_local.kubelet.manifests import (
    LOG_PATH_ANNOTATION,
    Key,
    Manifest,
    is_terminating,
    key_of,
    timestamp_now,
    uid_of,
)
from holdfast_local.kubelet.pod_context import PodContext
from holdfast_local.kubelet.pod_status import ContainerSnapshot, derive_pod_status
from holdfast_local.kubelet.scheduling import SELECTED_NODE_ANNOTATION
from holdfast_local.kubelet.volumes import VolumeFolders, claim_names

RETRY_SECONDS = 0.5
CLAIM_POLL_SECONDS = 0.1
CLAIM_PATIENCE_POLLS = 20
"""After so many looks at claims that are not bound, the pod counts as one that finds no node."""

logger = logging.getLogger(__name__)


class PodWorker:
    """Runs one pod (one uid)."""

    def __init__(self, context: PodContext, pod: Manifest) -> None:
        self.key: Key = key_of(pod)
        self.uid = uid_of(pod)
        self.finished = asyncio.Event()
        self._context, self._pod = context, pod
        self._directory = context.pods_directory / f"{self.key[0]}_{self.key[1]}_{self.uid}"
        self._folders = VolumeFolders(self._directory, context.volumes_directory)
        self._restart_policy = pod["spec"].get("restartPolicy") or "Always"
        self._address = context.book.address("/".join(self.key), _Live(context))
        self._started_at = (pod.get("status") or {}).get("startTime") or timestamp_now()
        self._status_changed = asyncio.Event()
        self._stopping = asyncio.Event()
        self._delete_when_stopped = False
        self._running: list[Container] = []
        self._init_snapshots = self._snapshots("initContainers", "initContainerStatuses")
        self._main_snapshots = self._snapshots("containers", "containerStatuses")
        self._published: Manifest = pod.get("status") or {}

    async def run(self, predecessor: PodWorker | None) -> None:
        """The pod's whole life; `predecessor` is an earlier pod of the same name that must be gone first."""
        try:
            if predecessor is not None:
                await predecessor.finished.wait()
            self._context.live.set(self.key, LivePod(self._address, ready=False))
            await self._wait_for_claims()
            await self._bind()
            async with asyncio.TaskGroup() as group:
                publishing = group.create_task(self._publish_status())
                self._status_changed.set()
                await self._live()
                await self._stopping.wait()
                publishing.cancel()
            await self._conclude()
        finally:
            self._context.live.remove(self.key)
            self.finished.set()

    def stop(self, grace_seconds: float, delete: bool) -> None:
        """Stop the containers; with `delete`, then remove the pod from the API and its folders from disk."""
        self._delete_when_stopped = self._delete_when_stopped or delete
        self._stopping.set()
        for container in self._running:
            container.stop(grace_seconds)

    def refresh_volumes(self) -> None:
        """Bring Secret and ConfigMap volumes up to date; a missing object leaves the old files."""
        if not self._running:
            return
        try:
            self._folders.prepare(self._pod, self._address, self._context.lookup_in(self.key[0]))
        except (ContainerConfigError, OSError) as error:
            logger.debug("pod %s: volumes not refreshed: %s", self.key[1], error)

    def update(self, pod: Manifest) -> None:
        """A newer version of the object: labels and annotations may have changed."""
        self._pod = pod

    def _snapshots(self, field: str, status_field: str) -> list[ContainerSnapshot]:
        status = self._pod.get("status") or {}
        earlier = {c["name"]: c for c in status.get(status_field) or []}
        snapshots = []
        for container in self._pod["spec"].get(field) or []:
            snapshot = ContainerSnapshot(container["name"], container.get("image", ""))
            known = earlier.get(container["name"])
            if known:  # the node was restarted: its pods start again and count it
                snapshot.restart_count = int(known.get("restartCount", 0)) + 1
                snapshot.last_state = {
                    state: value for state, value in (known.get("state") or {}).items() if state == "terminated"
                }
            snapshots.append(snapshot)
        return snapshots

    async def _live(self) -> None:
        await self._annotate()
        for manifest, snapshot in zip(self._pod["spec"].get("initContainers") or [], self._init_snapshots, strict=True):
            policy = "Never" if self._restart_policy == "Never" else "OnFailure"
            await self._run_containers([self._container(manifest, snapshot, policy)])
            if snapshot.state.get("terminated", {}).get("exitCode") != 0:
                return
        pairs = zip(self._pod["spec"]["containers"], self._main_snapshots, strict=True)
        await self._run_containers(
            [self._container(manifest, snapshot, self._restart_policy) for manifest, snapshot in pairs]
        )

    def _container(self, manifest: Manifest, snapshot: ContainerSnapshot, restart_policy: str) -> Container:
        return Container(
            self._context,
            self._pod,
            manifest,
            snapshot,
            self._address,
            self._folders,
            self._directory,
            restart_policy,
            self._containers_changed,
        )

    async def _run_containers(self, containers: list[Container]) -> None:
        if self._stopping.is_set():
            return
        self._running = containers
        async with asyncio.TaskGroup() as group:
            for container in containers:
                group.create_task(container.run())
        self._running = []

    def _containers_changed(self) -> None:
        ready = all(snapshot.ready for snapshot in self._main_snapshots)
        self._context.live.set(self.key, LivePod(self._address, ready))
        self._status_changed.set()

    async def _bind(self) -> None:
        if self._pod["spec"].get("nodeName"):
            return
        node = await self._place()
        if not node:
            return
        for name in claim_names(self._pod):
            if not self._context.scheduler.node_of_claim(self._pod, name):
                patch = {"metadata": {"annotations": {SELECTED_NODE_ANNOTATION: node}}}
                await self._insist("PATCH", CLAIMS.path(self.key[0], name), patch, MERGE_PATCH)
        target = {"apiVersion": "v1", "kind": "Node", "name": node}
        binding = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": self.key[1]}, "target": target}
        path = PODS.path(*self.key, "binding")
        if await self._insist("POST", path, binding):
            self._pod = {**self._pod, "spec": {**self._pod["spec"], "nodeName": node}}
            message = f"Successfully assigned {'/'.join(self.key)} to {node}"
            self._context.events.record("Pod", self._pod, "Scheduled", message)

    async def _place(self) -> str:
        """The node to run on, once there is one; empty if the pod is to stop before."""
        told = ""
        while not self._stopping.is_set():
            placement = self._context.scheduler.place(self._pod)
            if placement.node:
                return placement.node
            if placement.reason != told:
                told = placement.reason
                await self._tell_unscheduled(told)
            await asyncio.sleep(RETRY_SECONDS)
        return ""

    async def _tell_unscheduled(self, reason: str) -> None:
        self._context.events.record("Pod", self._pod, "FailedScheduling", reason, warning=True)
        await self._insist("PATCH", PODS.path(*self.key, "status"), self._unscheduled(reason), MERGE_PATCH)

    def _unscheduled(self, reason: str) -> Manifest:
        condition = {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": reason,
            "lastTransitionTime": timestamp_now(),
        }
        return {"metadata": {"uid": self.uid}, "status": {"phase": "Pending", "conditions": [condition]}}

    async def _insist(self, method: str, path: str, body: Manifest, content_type: str = JSON) -> bool:
        """Repeat a call until it is answered; False when the answer is a refusal."""
        while not self._stopping.is_set():
            try:
                await self._context.client.request(method, path, body, content_type)
                return True
            except ApiError as error:
                if error.status < 500:
                    return False
            except ClientError as error:
                logger.debug("%s %s: %s", method, path, error)
            await asyncio.sleep(RETRY_SECONDS)
        return False

    async def _wait_for_claims(self) -> None:
        """Until every claim is bound, so that no data folder appears without its claim."""
        for look in itertools.count():
            unbound = [name for name in claim_names(self._pod) if not self._is_bound(name)]
            if not unbound or self._stopping.is_set():
                return
            if look == CLAIM_PATIENCE_POLLS:
                await self._tell_unscheduled(self._context.scheduler.without_volumes().reason)
            await asyncio.sleep(CLAIM_POLL_SECONDS)

    def _is_bound(self, claim_name: str) -> bool:
        claim = self._context.claims.items.get((self.key[0], claim_name))
        if claim is None or (claim.get("status") or {}).get("phase") != "Bound":
            return False
        # One that is on its way out is for the pods that use it already.
        return not is_terminating(claim) or bool(self._pod["spec"].get("nodeName"))

    async def _annotate(self) -> None:
        """Tell the API server where the logs are, which serves them to `kubectl logs`."""
        logs = self._directory / "logs"
        names = [snapshot.name for snapshot in self._main_snapshots]
        annotations = {f"{LOG_PATH_ANNOTATION}.{name}"[:253]: str(logs / f"{name}.log") for name in names}
        annotations[LOG_PATH_ANNOTATION] = str(logs / f"{names[0]}.log")
        try:
            await self._context.client.merge(PODS, *self.key, {"metadata": {"annotations": annotations}})
        except ClientError as error:
            logger.warning("pod %s: %s", self.key[1], error)

    async def _publish_status(self) -> None:
        while True:
            await self._status_changed.wait()
            self._status_changed.clear()
            if not await self._publish_once():
                self._status_changed.set()
                await asyncio.sleep(RETRY_SECONDS)

    async def _publish_once(self) -> bool:
        """Write the status if it differs from the last one written; False to try again."""
        status = derive_pod_status(
            self._published,
            self._init_snapshots,
            self._main_snapshots,
            self._restart_policy,
            self._address,
            self._started_at,
            timestamp_now(),
        )
        if status == self._published:
            return True
        try:
            # The uid makes sure that a successor of the same name is left alone (409).
            patch = {"metadata": {"uid": self.uid}, "status": status}
            await self._context.client.merge(PODS, *self.key, patch, "status")
        except ApiError as error:
            return error.status < 500
        except ClientError:
            return False
        self._published = status
        return True

    async def _conclude(self) -> None:
        if not self._delete_when_stopped:
            await self._publish_once()
            return
        while True:
            try:
                await self._context.client.delete(PODS, *self.key, self.uid, grace_period_seconds=0)
                break
            except ClientError as error:
                logger.debug("deleting pod %s: %s", self.key[1], error)
                await asyncio.sleep(RETRY_SECONDS)
        await asyncio.to_thread(self._folders.remove)


class _Live:
    """The pods there are, as the address book names them."""

    def __init__(self, context: PodContext) -> None:
        self._context = context

    def __contains__(self, name: object) -> bool:
        namespace, _, pod = str(name).partition("/")
        return (namespace, pod) in self._context.pods.items


def grace_seconds_of(pod: Mapping[str, Any]) -> float:
    """How long a pod that is being deleted may take."""
    metadata, spec = pod["metadata"], pod["spec"]
    return float(metadata.get("deletionGracePeriodSeconds", spec.get("terminationGracePeriodSeconds", 30)))
