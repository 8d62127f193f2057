"""The Node object `local`: created once, Ready, with a heartbeat."""

from __future__ import annotations

import asyncio
import logging
import os
import platform

from holdfast_local.kubelet.client import NODES, ApiClient, ApiError, ClientError
from holdfast_local.kubelet.manifests import NODE_NAME, Manifest, timestamp_now

HEARTBEAT_SECONDS = 30.0
POD_LIMIT = 250
KUBELET_VERSION = "v1.36.0+holdfast-local"
"""The same as that of the API server beside it."""

logger = logging.getLogger(__name__)


async def keep_node_ready(client: ApiClient) -> None:
    """Register the node and renew its Ready condition until cancelled."""
    since = timestamp_now()
    while True:
        try:
            await _register(client)
            await client.merge(NODES, "", NODE_NAME, {"status": node_status(since)}, "status")
        except ClientError as error:
            logger.warning("node heartbeat: %s", error)
        await asyncio.sleep(HEARTBEAT_SECONDS)


async def _register(client: ApiClient) -> None:
    labels = {
        "kubernetes.io/hostname": NODE_NAME,
        "kubernetes.io/os": platform.system().lower(),
        "kubernetes.io/arch": architecture(),
        "topology.kubernetes.io/zone": NODE_NAME,
    }
    manifest = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE_NAME, "labels": labels}, "spec": {}}
    try:
        await client.create(NODES, manifest)
    except ApiError as error:
        if error.status != 409:
            raise


def node_status(since: str) -> Manifest:
    """Status of a node that has been ready since `since`."""
    memory_kib = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 1024
    capacity = {"cpu": str(os.cpu_count() or 1), "memory": f"{memory_kib}Ki", "pods": str(POD_LIMIT)}
    return {
        "capacity": capacity,
        "allocatable": capacity,
        "addresses": [
            {"type": "InternalIP", "address": "127.0.0.1"},
            {"type": "Hostname", "address": NODE_NAME},
        ],
        "conditions": [
            {
                "type": "Ready",
                "status": "True",
                "reason": "KubeletReady",
                "message": "holdfast-local runs pods as processes of this machine",
                "lastHeartbeatTime": timestamp_now(),
                "lastTransitionTime": since,
            }
        ],
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
