"""Four whole pods: what the command line, /metrics and /health/cluster tell while a drive is being filled."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import urllib.request
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, closing
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from holdfast_server.admin.client import AdminClient
from holdfast_server.contract.admin import HealStatus
from holdfast_server.objects.port import Attributes
from holdfast_server.s3.signing import KeyPair
from holdfast_server.wiring.inputs import TenantInputs
from holdfast_server.wiring.storage_pod import PodSettings, StoragePod

ADDRESSES = [f"127.0.23.{i + 1}" for i in range(4)]
KEYS = KeyPair("admin", "password1")
REGISTERS = 40


class Blob:
    digests = ()

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.size_bytes = len(data)

    async def chunks(self) -> AsyncIterator[bytes]:
        yield self.data

    def finish(self) -> Attributes:
        return Attributes(etag="e")


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind((ADDRESSES[0], 0))
        return int(probe.getsockname()[1])


class Tenant:
    """One set of four drives, 2+2, one on each pod."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.s3_port = free_port()
        self.pods: dict[int, StoragePod] = {}
        self._stacks: dict[int, AsyncExitStack] = {}
        for i in range(4):
            for name in ("data0", "k"):
                (folder / f"pod{i}" / name).mkdir(parents=True)
            for name, key in [("user", "admin"), ("password", "password1"), ("peer", "p" * 32)]:
                (folder / f"pod{i}" / "k" / name).write_text(key)
        (folder / "hosts").write_text("".join(f"{ADDRESSES[i]} logs-{i}.pods\n" for i in range(4)))
        pool = {
            "name": "main", "servers": 4, "volumesPerServer": 1, "erasure": {"setSize": 4, "parity": 2},
            "podNamePrefix": "logs-", "hostSuffix": ".pods", "drivePath": "/data{volume}", "formatting": True,
        }  # fmt: skip
        config = {
            "tenant": {"id": "t1", "name": "logs"},
            "pools": [pool],
            "keys": {"rootUserFile": "/k/user", "rootPasswordFile": "/k/password", "peerKeyFile": "/k/peer"},
            "listen": {"s3Port": self.s3_port, "peerPort": free_port()},
        }
        (folder / "config.yaml").write_text(yaml.safe_dump(config))

    async def start(self, *ordinals: int) -> None:
        for i in ordinals:
            inputs = TenantInputs(self.folder / "config.yaml", f"logs-{i}", self.folder / f"pod{i}")
            settings = PodSettings(
                bind_address=ADDRESSES[i], version="9.9", hosts_file=self.folder / "hosts", adoption_delay_seconds=0.0
            )
            stack = AsyncExitStack()
            self.pods[i] = await stack.enter_async_context(StoragePod.running(inputs, settings))
            self._stacks[i] = stack

    async def stop(self, *ordinals: int) -> None:
        for i in ordinals:
            self.pods.pop(i, None)
            stack = self._stacks.pop(i, None)
            if stack is not None:
                await stack.aclose()

    def client(self, i: int) -> AdminClient:
        return AdminClient(f"http://{ADDRESSES[i]}:{self.s3_port}", KEYS)

    async def status(self, i: int) -> HealStatus:
        return await asyncio.to_thread(self.client(i).heal_status)

    async def get(self, i: int, path: str) -> str:
        def fetch() -> str:
            with urllib.request.urlopen(f"http://{ADDRESSES[i]}:{self.s3_port}{path}", timeout=10) as answer:
                return str(answer.read().decode())

        return await asyncio.to_thread(fetch)

    async def metrics(self, i: int) -> dict[str, float]:
        """The greatest value of each name: enough where one drive stands out."""
        found: dict[str, float] = {}
        for family in text_string_to_metric_families(await self.get(i, "/metrics")):
            for sample in family.samples:
                found[sample.name] = max(sample.value, found.get(sample.name, float("-inf")))
        return found


async def until(condition: Callable[[], Any], seconds: float = 30.0) -> None:
    async with asyncio.timeout(seconds):
        while not await condition():
            await asyncio.sleep(0.05)


@pytest.fixture
async def tenant(tmp_path: Path) -> AsyncIterator[Tenant]:
    tenant = Tenant(tmp_path)
    await tenant.start(0, 1, 2, 3)

    async def whole() -> bool:
        return all([(await tenant.status(i)).whole for i in range(4)])

    try:
        await until(whole)
        yield tenant
    finally:
        await tenant.stop(0, 1, 2, 3)


async def test_every_pod_tells_the_whole_and_names_who_is_silent(tenant: Tenant) -> None:
    info = await asyncio.to_thread(tenant.client(2).info)
    assert [(pod.pod, pod.answers, pod.version) for pod in info.pods] == [(f"logs-{i}", True, "9.9") for i in range(4)]
    assert info.answered_by == "logs-2"
    assert info.capacity.usable_bytes == info.capacity.raw_bytes // 2 > 0
    started = await asyncio.to_thread(tenant.client(1).start_scan)
    assert started.started == [f"logs-{i}" for i in range(4)]

    async def scanned() -> bool:
        return all(drive.scanner.last_pass_ended_ms for drive in (await tenant.status(0)).drives)

    await until(scanned)
    await tenant.stop(3)
    status = await tenant.status(0)
    assert (status.whole, status.silent_pods) == (False, ["logs-3"])
    assert status.sets[0].losses_left == 0
    assert (await tenant.metrics(0))["holdfast_erasure_set_losses_left"] == 0


async def test_a_filling_is_seen_everywhere_while_it_is_under_way(tenant: Tenant) -> None:
    bucket_id = b"b" * 16
    for number in range(REGISTERS):
        await tenant.pods[0].store.put_object(bucket_id, f"secret-name-{number}", Blob(bytes(2000)))
    await tenant.stop(1)
    shutil.rmtree(tenant.folder / "pod1" / "data0")
    (tenant.folder / "pod1" / "data0").mkdir()

    # The filling is held while it is looked at: at its own pace it would be over before the question is asked.
    go_on = asyncio.Event()
    await tenant.start(1)
    filling = tenant.pods[1]._heal.filling
    step = filling.step

    async def held(*arguments: Any) -> bool:
        return await step(*arguments) if go_on.is_set() else False

    filling.step = held  # type: ignore[method-assign]

    async def is_healing() -> bool:
        drives = (await tenant.status(2)).drives
        return [drive.state for drive in drives] == ["ok", "healing", "ok", "ok"]

    await until(is_healing)
    status = await tenant.status(2)
    assert not status.whole
    assert any("logs-1/data0 is healing" in finding for finding in status.findings)
    assert (status.sets[0].healing, status.sets[0].losses_left) == (1, 1)
    assert (await tenant.metrics(1))["holdfast_erasure_set_drives_healing"] == 1
    told = await tenant.get(1, "/health/cluster")
    own = [drive for drive in json.loads(told)["healing"]["drives"] if drive["state"] == "healing"]
    assert len(own) == 1
    assert "secret-name" not in told + await tenant.get(0, "/health/cluster") + await tenant.get(1, "/metrics")
    go_on.set()

    async def is_whole() -> bool:
        return (await tenant.status(2)).whole

    await until(is_whole)
    metrics = await tenant.metrics(1)
    assert metrics["holdfast_heal_filled_drives_total"] == 1
    assert metrics["holdfast_heal_copies_total"] >= REGISTERS
