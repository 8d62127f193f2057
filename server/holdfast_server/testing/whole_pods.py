"""Four whole storage pods inside this process, each with a loopback address of its own: for tests that look into them.

A tenant's configuration, keys, hosts table and drives stand below one folder.  Pods start and stop one by one; what
they are given may be changed in between.

Not here: pods as processes, which can be killed (`pods`), and drives that lie (`memory_cluster`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import yaml

from holdfast_server.testing.free_ports import free_port
from holdfast_server.testing.memory_cluster import BytesBody
from holdfast_server.wiring.inputs import TenantInputs
from holdfast_server.wiring.storage_pod import PodSettings, StoragePod

BUCKET = b"b" * 16
ACCESS_KEY = "admin"
SECRET_KEY = "password1"
PODS = 4
WAIT_SECONDS = 120.0
LOOK_SECONDS = 0.02


async def until(condition: Callable[[], bool], seconds: float = WAIT_SECONDS) -> None:
    """Raises TimeoutError if it does not come to that."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(LOOK_SECONDS)


async def put(pod: StoragePod, key: str, data: bytes) -> None:
    await pod.store.put_object(BUCKET, key, BytesBody(data))


async def get(pod: StoragePod, key: str) -> bytes | None:
    """None where there is no such object."""
    reader = await pod.store.open_object(BUCKET, key)
    if reader is None:
        return None
    return b"".join([bytes(piece) async for piece in reader.chunks(0, reader.record.size_bytes)])


class FourPods:
    """One erasure set of four pods with `volumes` drives each, as much parity as data.

    `network` is what their addresses begin with, as `127.0.19.`: each module of tests has its own.  Nothing is
    published yet: that is `publish`, or a subclass's own way.
    """

    def __init__(self, folder: Path, network: str, volumes: int = 1) -> None:
        self.folder = folder
        self.network = network
        self.version = "test"
        self.pods: dict[int, StoragePod] = {}
        """Those that run."""
        self._stacks: dict[int, AsyncExitStack] = {}
        self.s3_port = free_port(self.address(0))
        self.config: dict[str, Any] = {
            "tenant": {"id": "t1", "name": "logs"},
            "pools": [
                {
                    "name": "main", "servers": PODS, "volumesPerServer": volumes,
                    "erasure": {"setSize": PODS * volumes, "parity": PODS * volumes // 2},
                    "podNamePrefix": "logs-", "hostSuffix": ".pods.svc", "drivePath": "/data{volume}",
                    "formatting": True,
                }
            ],
            "keys": {"rootUserFile": "/k/user", "rootPasswordFile": "/k/password", "peerKeyFile": "/k/peer"},
            "listen": {"s3Port": self.s3_port, "peerPort": free_port(self.address(0))},
        }  # fmt: skip
        for pod in range(PODS):
            for name in ("k", *(f"data{volume}" for volume in range(volumes))):
                (self.root(pod) / name).mkdir(parents=True)
            # Some with the newline that files end with.
            for name, key in [("user", f"{ACCESS_KEY}\n"), ("password", f"{SECRET_KEY}\n"), ("peer", "p" * 32)]:
                (self.root(pod) / "k" / name).write_text(key)
        (folder / "hosts").write_text("".join(f"{self.address(pod)} logs-{pod}.pods.svc\n" for pod in range(PODS)))

    def address(self, pod: int) -> str:
        return f"{self.network}{pod + 1}"

    def endpoint(self, pod: int) -> str:
        """For clients without TLS."""
        return f"http://{self.address(pod)}:{self.s3_port}"

    def root(self, pod: int) -> Path:
        return self.folder / f"pod{pod}"

    def config_file(self, pod: int) -> Path:
        """All read the same one."""
        return self.folder / "config.yaml"

    def publish(self, epoch: int | None = None) -> None:
        if epoch is not None:
            self.config["epoch"] = epoch
        (self.folder / "config.yaml").write_text(yaml.safe_dump(self.config))

    async def start(self, *ordinals: int, adoption_delay_seconds: float = 0.0) -> None:
        """All of them where none is named."""
        for pod in ordinals or range(PODS):
            inputs = TenantInputs(self.config_file(pod), f"logs-{pod}", self.root(pod))
            settings = PodSettings(
                bind_address=self.address(pod),
                version=self.version,
                hosts_file=self.folder / "hosts",
                adoption_delay_seconds=adoption_delay_seconds,
            )
            stack = AsyncExitStack()
            self.pods[pod] = await stack.enter_async_context(StoragePod.running(inputs, settings))
            self._stacks[pod] = stack

    async def stop(self, *ordinals: int) -> None:
        """All of them where none is named; those that do not run are passed over."""
        for pod in ordinals or range(PODS):
            self.pods.pop(pod, None)
            stack = self._stacks.pop(pod, None)
            if stack is not None:
                await stack.aclose()
