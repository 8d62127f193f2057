"""The agent of all nodes: wires informers, controllers, the proxy and one worker per pod together.

`Kubelet.run` serves until cancelled; `stop_pods` first ends every pod gracefully and leaves their objects,
so that the next start runs them again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from pathlib import Path

import aiohttp

from holdfast_local.kubelet import addresses
from holdfast_local.kubelet.addresses import AddressBook, AddressesExhausted
from holdfast_local.kubelet.claims import ClaimController
from holdfast_local.kubelet.client import (
    CLAIMS,
    CONFIG_MAPS,
    NODES,
    PODS,
    SECRETS,
    SERVICES,
    STATEFUL_SETS,
    STORAGE_CLASSES,
    ApiClient,
    ClientError,
)
from holdfast_local.kubelet.events import EventRecorder
from holdfast_local.kubelet.informer import Changed, Informer
from holdfast_local.kubelet.isolation import Isolation, installation_paths
from holdfast_local.kubelet.live_pods import LivePods
from holdfast_local.kubelet.manifests import Key, Manifest, is_terminating, uid_of
from holdfast_local.kubelet.node import Heartbeat, node_names, register_nodes
from holdfast_local.kubelet.pod_context import PodContext
from holdfast_local.kubelet.pod_worker import PodWorker, grace_seconds_of
from holdfast_local.kubelet.proxy import ServiceProxy
from holdfast_local.kubelet.scheduling import Scheduler
from holdfast_local.kubelet.service_controller import HostsFiles, ServiceController
from holdfast_local.kubelet.statefulset_controller import StatefulSetController
from holdfast_local.kubelet.volumes import referenced_objects

COMPONENT = "holdfast-local"

logger = logging.getLogger(__name__)


class Kubelet:
    """The nodes of one stand-in cluster, with their files below `state_directory`."""

    def __init__(
        self,
        client: ApiClient,
        probe_session: aiohttp.ClientSession,
        state_directory: Path,
        volumes_directory: Path,
        slot: int,
        isolation: Isolation,
        base_environment: Mapping[str, str],
        node_count: int = 1,
        refresh_seconds: float = 0.0,
    ) -> None:
        """`refresh_seconds`: how late changed Secrets and ConfigMaps reach a pod at most, each pod at another time."""
        self._client = client
        self._refresh_seconds = refresh_seconds
        self._node_names = node_names(node_count)
        self._informers = {
            resource: Informer(client, resource)
            for resource in (PODS, SERVICES, CLAIMS, SECRETS, CONFIG_MAPS, STATEFUL_SETS, NODES, STORAGE_CLASSES)
        }
        self._pods = self._informers[PODS]
        self._workers: dict[str, PodWorker] = {}
        self._latest: dict[Key, PodWorker] = {}
        self._group = asyncio.TaskGroup()
        self._stopping = False
        self._events = EventRecorder(client, COMPONENT)
        self._proxy = ServiceProxy()
        self.hosts = HostsFiles(state_directory / "hosts")
        live = LivePods()
        self._nodes = self._informers[NODES]
        self._heartbeat = Heartbeat(client, self._nodes)
        claims, classes = self._informers[CLAIMS], self._informers[STORAGE_CLASSES]
        self._scheduler = Scheduler(self._node_names, self._nodes, self._pods, claims)
        (state_directory / "pods").mkdir(parents=True, exist_ok=True)
        self._context = PodContext(
            client=client,
            events=self._events,
            live=live,
            scheduler=self._scheduler,
            book=AddressBook(state_directory / "pod-addresses.json", addresses.POD_NETWORK, slot),
            hosts=self.hosts,
            pods=self._pods,
            claims=self._informers[CLAIMS],
            secrets=self._informers[SECRETS],
            config_maps=self._informers[CONFIG_MAPS],
            probe_session=probe_session,
            isolation=isolation,
            keep=tuple(installation_paths(state_directory)),
            pods_directory=state_directory / "pods",
            volumes_directory=volumes_directory,
            base_environment=base_environment,
        )
        service_book = AddressBook(state_directory / "service-addresses.json", addresses.SERVICE_NETWORK, slot)
        self._services = ServiceController(
            client,
            self._informers[SERVICES],
            self._pods,
            live,
            self._proxy,
            self.hosts,
            service_book,
            self._events,
        )
        self._sets = StatefulSetController(client, self._informers[STATEFUL_SETS], self._pods, self._informers[CLAIMS])
        self._claims = ClaimController(client, claims, self._pods, classes, self._events, volumes_directory)
        for kind, resource in (("secrets", SECRETS), ("configmaps", CONFIG_MAPS)):
            self._informers[resource].on_change(self._volume_refresher(kind))

    async def run(self, ready: asyncio.Event) -> None:
        """Until cancelled; `ready` is set once everything is listed and served."""
        async with self._group as group:
            proxy_started = asyncio.Event()
            group.create_task(self._proxy.run(proxy_started))
            await proxy_started.wait()
            await register_nodes(self._client, self._node_names)
            for informer in self._informers.values():
                group.create_task(informer.run())
            for informer in self._informers.values():
                await informer.synced.wait()
            group.create_task(self._events.run())
            group.create_task(self._heartbeat.run())
            group.create_task(self._claims.run())
            group.create_task(self._services.run())
            group.create_task(self._sets.run())
            self._pods.on_change(self._pod_changed)
            self._nodes.on_change(self._node_changed)
            for key, pod in list(self._pods.items.items()):
                self._pod_changed(key, pod)
            ready.set()

    async def stop_pods(self, grace_seconds: float) -> None:
        """End every pod, all at once, each within its own grace period and `grace_seconds`."""
        self._stopping = True
        workers = list(self._workers.values())
        for worker in workers:
            worker.stop(grace_seconds, delete=False)
        for worker in workers:
            await worker.finished.wait()

    def _pod_changed(self, key: Key, pod: Manifest | None) -> None:
        if pod is None:
            worker = self._latest.get(key)
            if worker is not None:  # removed by force: its processes must not stay
                worker.stop(0, delete=True)
                self._scheduler.forget(worker.uid)
            return
        node = pod["spec"].get("nodeName")
        if node and not (self._scheduler.is_known(node) and self._scheduler.is_powered(node)):
            return
        worker = self._workers.get(uid_of(pod))
        if is_terminating(pod):
            if worker is not None:
                worker.stop(grace_seconds_of(pod), delete=True)
            else:
                self._group.create_task(self._forget(key, pod))
        elif worker is not None:
            worker.update(pod)
        elif not self._stopping and (pod.get("status") or {}).get("phase") not in ("Succeeded", "Failed"):
            self._start(key, pod)

    def _node_changed(self, key: Key, node: Manifest | None) -> None:
        """A plug pulled ends all processes of the node at once, and leaves their pods as they are."""
        name = key[1]
        powered = self._scheduler.is_powered(name)
        for pod_key, pod in list(self._pods.items.items()):
            if pod["spec"].get("nodeName") != name:
                continue
            worker = self._workers.get(uid_of(pod))
            if powered and worker is None:
                self._pod_changed(pod_key, pod)
            elif not powered and worker is not None:
                worker.stop(0, delete=False)

    def _start(self, key: Key, pod: Manifest) -> None:
        try:
            worker = PodWorker(self._context, pod)
        except AddressesExhausted as error:
            self._events.record("Pod", pod, "FailedScheduling", str(error), warning=True)
            return
        predecessor = self._latest.get(key)
        if predecessor is not None:
            predecessor.stop(0, delete=True)
        self._workers[worker.uid] = self._latest[key] = worker
        self._group.create_task(self._work(worker, predecessor))

    async def _work(self, worker: PodWorker, predecessor: PodWorker | None) -> None:
        try:
            await worker.run(predecessor)
        except* Exception as errors:  # one odd pod, or no disk space for its folders: the others go on
            for error in errors.exceptions:
                logger.error("pod %s: %s", "/".join(worker.key), error, exc_info=error)
        finally:
            self._workers.pop(worker.uid, None)
            if self._latest.get(worker.key) is worker:
                del self._latest[worker.key]
            pod = self._pods.items.get(worker.key)
            if pod is None or uid_of(pod) != worker.uid:
                self._scheduler.forget(worker.uid)
            elif not self._stopping:
                self._pod_changed(worker.key, pod)  # its node may have power again by now

    async def _forget(self, key: Key, pod: Manifest) -> None:
        """Remove a pod that was being deleted while nobody ran it."""
        try:
            await self._client.delete(PODS, *key, uid_of(pod), grace_period_seconds=0)
        except ClientError as error:
            logger.warning("deleting pod %s: %s", "/".join(key), error)

    def _volume_refresher(self, kind: str) -> Changed:
        def changed(key: Key, _: Manifest | None) -> None:
            for worker in self._workers.values():
                pod = self._pods.items.get(worker.key)
                if pod is not None and worker.key[0] == key[0] and (kind, key[1]) in referenced_objects(pod):
                    self._refresh(worker)

        return changed

    def _refresh(self, worker: PodWorker) -> None:
        if not self._refresh_seconds:
            worker.refresh_volumes()
            return
        # A real kubelet looks at each of its pods about once a minute, whenever that was for the pod.
        lag = int(worker.uid[:8], 16) / 0xFFFFFFFF * self._refresh_seconds
        asyncio.get_running_loop().call_later(lag, worker.refresh_volumes)
