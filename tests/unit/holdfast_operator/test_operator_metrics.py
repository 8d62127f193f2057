"""What the operator says of itself: every pass is counted, no Tenant is named."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from holdfast_operator import controller as controller_module
from holdfast_operator.controller import Controller
from holdfast_operator.kube.errors import KubeUnavailable
from holdfast_operator.metrics import OperatorMetrics, serve_metrics
from holdfast_operator.reconcile import TenantKey
from holdfast_operator.testing.memory_kube import MemoryKubeClient

OPERATIONS = Path(__file__).parents[3] / "docs" / "operations.md"


def value(metrics: OperatorMetrics, sample: str, **labels: str) -> float | None:
    families = text_string_to_metric_families(metrics.render().decode())
    found = [one.value for family in families for one in family.samples if (one.name, one.labels) == (sample, labels)]
    return found[0] if found else None


@pytest.mark.virtual_time
async def test_passes_are_counted_by_what_became_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(controller_module, "FIRST_RETRY_SECONDS", 0.01)
    monkeypatch.setattr(controller_module, "PASS_TIMEOUT_SECONDS", 0.02)
    metrics = OperatorMetrics("1")
    runs: list[TenantKey] = []

    async def reconcile(key: TenantKey) -> float | None:
        runs.append(key)
        if len(runs) == 1:
            raise KubeUnavailable("down")
        if len(runs) == 2:
            raise ValueError("our own mistake")
        if len(runs) == 3:
            await asyncio.sleep(60)
        return None

    controller = Controller(MemoryKubeClient(), reconcile, (), metrics)
    task = asyncio.create_task(controller.run())
    await asyncio.sleep(0)  # it has begun
    controller.trigger("loki", "logs")
    assert value(metrics, "holdfast_operator_queue_length") == 1
    async with asyncio.timeout(5):
        while value(metrics, "holdfast_operator_passes_total", outcome="done") != 1:
            failing = value(metrics, "holdfast_operator_failing_tenants")
            assert failing == (1 if value(metrics, "holdfast_operator_passes_total", outcome="failed") else 0)
            await asyncio.sleep(0.005)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    for outcome in ("failed", "broken", "timed_out", "done"):
        assert value(metrics, "holdfast_operator_passes_total", outcome=outcome) == 1
    assert value(metrics, "holdfast_operator_pass_seconds_count") == 4
    assert value(metrics, "holdfast_operator_failing_tenants") == 0
    assert value(metrics, "holdfast_operator_queue_length") == 0


@pytest.mark.virtual_time
async def test_a_listing_that_fails_is_counted() -> None:
    kube, metrics = MemoryKubeClient(), OperatorMetrics("1")
    kube.fail_on = lambda verb, kind, name: KubeUnavailable("down") if verb == "list" else None

    async def reconcile(key: TenantKey) -> float | None:
        return None

    task = asyncio.create_task(Controller(kube, reconcile, (), metrics).run())
    async with asyncio.timeout(5):
        while value(metrics, "holdfast_operator_listing_failures_total") != 1:
            await asyncio.sleep(0.005)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_tenants_are_counted_by_condition_and_forgotten_when_they_go(world: Any) -> None:
    await world.start()
    metrics = world.metrics
    assert value(metrics, "holdfast_operator_tenants") == 1
    assert value(metrics, "holdfast_operator_tenant_conditions", condition="Ready", status="True") == 1
    assert value(metrics, "holdfast_operator_tenant_conditions", condition="Ready", status="False") == 0
    assert b"logs" not in metrics.render(), "no Tenant is named in a label"
    world.kube.remove(("Tenant", "loki", "logs"))
    await world.run_pass()
    assert value(metrics, "holdfast_operator_tenants") == 0
    assert value(metrics, "holdfast_operator_tenant_conditions", condition="Ready", status="True") is None


async def test_the_endpoint_serves_them() -> None:
    metrics = OperatorMetrics("1.2.3")
    async with serve_metrics(metrics, "127.0.0.1", 0) as port, aiohttp.ClientSession() as session:
        async with session.get(f"http://127.0.0.1:{port}/metrics") as response:
            text = await response.text()
            assert response.status == 200
            assert response.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        async with session.get(f"http://127.0.0.1:{port}/") as response:
            assert response.status == 404
    assert 'holdfast_operator_build_info{version="1.2.3"} 1.0' in text


def test_every_metric_has_its_row() -> None:
    families = text_string_to_metric_families(OperatorMetrics("1").render().decode())
    told = {
        family.name + ("_total" if family.type == "counter" else "")
        for family in families
        if family.name.startswith("holdfast_") and not family.name.endswith("_created")
    }
    rows = set(re.findall(r"^\| `(holdfast_operator_\w+)` \|", OPERATIONS.read_text(), re.MULTILINE))
    assert rows == told
