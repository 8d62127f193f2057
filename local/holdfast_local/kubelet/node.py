"""The Node objects: created once, with a heartbeat.  One is called `local`, several `local-0`, `local-1`, ….

All nodes are this one machine; what makes them nodes is that pods and volumes are bound to them, that they can be
cordoned and drained, and that their plug can be pulled (`scheduling.POWER_ANNOTATION`).  Those of a start with another
number go on for the sake of what is bound to them.  Not done here: evicting the pods of a node that stays away, which a
real cluster does after five minutes.
"""

from __future__ import annotations

import asyncio
import logging
import os
import platform
from collections.abc import Sequence

from holdfast_local.kubelet.client import NODES, ApiClient, ApiError, ClientError
from holdfast_local.kubelet.informer import Informer
from holdfast_local.kubelet.manifests import NODE_NAME, Manifest, timestamp_now
from holdfast_local.kubelet.scheduling import is_powered

HEARTBEAT_SECONDS = 30.0
POD_LIMIT = 250
KUBELET_VERSION = "v1.36.0+holdfast-local"
"""The same as that of the API server beside it."""

logger = logging.getLogger(__name__)


def node_names(count: int) -> list[str]:
    return [NODE_NAME] if count == 1 else [f"{NODE_NAME}-{number}" for number in range(count)]


async def register_nodes(client: ApiClient, names: Sequence[str]) -> None:
    """Create the nodes that are missing.  Raises ClientError."""
    for name in names:
        await _register(client, name)


class Heartbeat:
    """Keeps the status of the nodes true."""

    def __init__(self, client: ApiClient, nodes: Informer) -> None:
        self._client = client
        self._nodes = nodes
        self._changed = asyncio.Event()
        nodes.on_change(self._node_changed)
        self._known: dict[str, tuple[bool, str]] = {}
        """Name → whether it was powered, and since when."""

    async def run(self) -> None:
        """Until cancelled: now and then, and at once when a node's power changes."""
        while True:
            self._changed.clear()
            for (_, name), node in list(self._nodes.items.items()):
                powered, since = self._transition(name, node)
                try:
                    await self._client.merge(NODES, "", name, {"status": node_status(name, powered, since)}, "status")
                except ClientError as error:
                    logger.warning("node heartbeat: %s", error)
            try:
                async with asyncio.timeout(HEARTBEAT_SECONDS):
                    await self._changed.wait()
            except TimeoutError:
                pass

    def _transition(self, name: str, node: Manifest) -> tuple[bool, str]:
        powered = is_powered(node)
        if self._known.get(name, (None, ""))[0] != powered:
            self._known[name] = (powered, timestamp_now())
        return self._known[name]

    def _node_changed(self, key: tuple[str, str], node: Manifest | None) -> None:
        if node is None:
            self._known.pop(key[1], None)
        elif self._known.get(key[1], (None, ""))[0] != is_powered(node):
            self._changed.set()


async def _register(client: ApiClient, name: str) -> None:
    labels = {
        "kubernetes.io/hostname": name,
        "kubernetes.io/os": platform.system().lower(),
        "kubernetes.io/arch": architecture(),
        "topology.kubernetes.io/zone": name,
    }
    manifest = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}, "spec": {}}
    try:
        await client.create(NODES, manifest)
    except ApiError as error:
        if error.status != 409:
            raise


def node_status(name: str, powered: bool, since: str) -> Manifest:
    """Status of a node that has been as it is since `since`."""
    memory_kib = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 1024
    capacity = {"cpu": str(os.cpu_count() or 1), "memory": f"{memory_kib}Ki", "pods": str(POD_LIMIT)}
    ready = {
        "type": "Ready",
        "status": "True",
        "reason": "KubeletReady",
        "message": "holdfast-local runs pods as processes of this machine",
    }
    lost = {
        "type": "Ready",
        "status": "Unknown",
        "reason": "NodeStatusUnknown",
        "message": "Kubelet stopped posting node status.",
    }
    times = {"lastHeartbeatTime": timestamp_now(), "lastTransitionTime": since}
    return {
        "capacity": capacity,
        "allocatable": capacity,
        "addresses": [
            {"type": "InternalIP", "address": "127.0.0.1"},
            {"type": "Hostname", "address": name},
        ],
        "conditions": [{**(ready if powered else lost), **times}],
        "nodeInfo": {
            "machineID": "",
            "systemUUID": "",
            "bootID": "",
            "kernelVersion": platform.release(),
            "osImage": platform.system(),
            "containerRuntimeVersion": "processes://1",
            "kubeletVersion": KUBELET_VERSION,
            "kubeProxyVersion": "",
            "operatingSystem": platform.system().lower(),
            "architecture": architecture(),
        },
    }


def architecture() -> str:
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
