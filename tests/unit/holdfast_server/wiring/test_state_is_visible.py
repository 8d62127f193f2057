"""Four whole pods: what the command line, /metrics and /health/cluster tell while a drive is being filled."""

from __future__ import annotations

import asyncio
import json
import shutil
import urllib.request
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from holdfast_server.admin import overview
from holdfast_server.admin.client import AdminClient
from holdfast_server.contract.admin import HealStatus
from holdfast_server.s3.signing import KeyPair
from holdfast_server.testing.whole_pods import ACCESS_KEY, SECRET_KEY, FourPods, put

KEYS = KeyPair(ACCESS_KEY, SECRET_KEY)
REGISTERS = 40


class Tenant(FourPods):
    """One set of four drives, 2+2, one on each pod."""

    def client(self, i: int) -> AdminClient:
        return AdminClient(self.endpoint(i), KEYS)

    async def status(self, i: int) -> HealStatus:
        return await asyncio.to_thread(self.client(i).heal_status)

    async def get(self, i: int, path: str) -> str:
        def fetch() -> str:
            with urllib.request.urlopen(self.endpoint(i) + path, timeout=60) as answer:
                return str(answer.read().decode())

        return await asyncio.to_thread(fetch)

    async def metrics(self, i: int) -> dict[str, float]:
        """The greatest value of each name: enough where one drive stands out."""
        found: dict[str, float] = {}
        for family in text_string_to_metric_families(await self.get(i, "/metrics")):
            for sample in family.samples:
                found[sample.name] = max(sample.value, found.get(sample.name, float("-inf")))
        return found


async def until(condition: Callable[[], Any], seconds: float = 60.0) -> None:
    async with asyncio.timeout(seconds):
        while not await condition():
            await asyncio.sleep(0.05)


@pytest.fixture
async def tenant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Tenant]:
    monkeypatch.setattr(overview, "ASK_TIMEOUT_SECONDS", 60.0)
    tenant = Tenant(tmp_path, "127.0.23.")
    tenant.version = "9.9"
    tenant.publish()

    async def whole() -> bool:
        return all([(await tenant.status(i)).whole for i in range(4)])

    try:
        await tenant.start()
        await until(whole)
        yield tenant
    finally:
        await tenant.stop()


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
    for number in range(REGISTERS):
        await put(tenant.pods[0], f"secret-name-{number}", bytes(2000))
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
