"""The queue and its workers: never twice at once, never forgotten, never in a hurry after a failure."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from holdfast_operator import controller as controller_module
from holdfast_operator.controller import Controller, WorkQueue
from holdfast_operator.kube.errors import KubeUnavailable, NamespaceEnding
from holdfast_operator.metrics import OperatorMetrics
from holdfast_operator.reconcile import TenantKey
from holdfast_operator.testing.memory_kube import MemoryKubeClient

pytestmark = pytest.mark.virtual_time

KEY = TenantKey("loki", "logs")


@asynccontextmanager
async def running(controller: Controller) -> AsyncIterator[None]:
    task = asyncio.create_task(controller.run())
    await asyncio.sleep(0)  # it has begun
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(condition: Any) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.005)


async def test_a_tenant_stands_in_the_queue_once() -> None:
    queue = WorkQueue()
    queue.add(KEY)
    queue.add(KEY)
    assert await queue.take() == KEY
    queue.done(KEY)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(queue.take(), 0.02)


async def test_what_comes_during_a_pass_is_run_after_it() -> None:
    queue = WorkQueue()
    queue.add(KEY)
    await queue.take()
    queue.add(KEY)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(queue.take(), 0.02)
    queue.done(KEY)
    assert await queue.take() == KEY


async def test_the_earlier_of_two_plans_counts() -> None:
    queue = WorkQueue()
    queue.add_later(KEY, 60)
    queue.add_later(KEY, 0.01)
    queue.add_later(KEY, 60)
    assert await asyncio.wait_for(queue.take(), 2) == KEY
    queue.done(KEY)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(queue.take(), 0.02)


async def test_passes_of_one_tenant_never_overlap_and_others_go_on() -> None:
    active: list[TenantKey] = []
    runs: list[TenantKey] = []
    overlapped = False

    async def reconcile(key: TenantKey) -> float | None:
        nonlocal overlapped
        overlapped |= key in active
        active.append(key)
        await asyncio.sleep(0.01)
        active.remove(key)
        runs.append(key)
        return None

    controller = Controller(MemoryKubeClient(), reconcile, (), OperatorMetrics("test"))
    async with running(controller):
        for _ in range(3):
            controller.trigger("loki", "logs")
            controller.trigger("loki", "more")
            await asyncio.sleep(0.005)
        await until(lambda: len(runs) >= 4)
    assert not overlapped
    assert {key.name for key in runs} == {"logs", "more"}


async def test_existing_tenants_are_found_without_any_event() -> None:
    kube = MemoryKubeClient()
    kube.put({"apiVersion": "holdfast.dev/v1", "kind": "Tenant", "metadata": {"name": "logs", "namespace": "loki"}})
    seen: list[TenantKey] = []

    async def reconcile(key: TenantKey) -> float | None:
        seen.append(key)
        return None

    async with running(Controller(kube, reconcile, (), OperatorMetrics("test"))):
        await until(lambda: seen == [KEY])
    async with running(Controller(kube, reconcile, ("elsewhere",), OperatorMetrics("test"))):
        await asyncio.sleep(0.02)
    assert seen == [KEY]


async def test_a_failing_pass_is_repeated_with_growing_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(controller_module, "FIRST_RETRY_SECONDS", 0.01)
    times: list[float] = []

    async def reconcile(key: TenantKey) -> float | None:
        times.append(asyncio.get_running_loop().time())
        if len(times) < 4:
            raise KubeUnavailable("down") if len(times) % 2 else ValueError("our own mistake")
        return None

    controller = Controller(MemoryKubeClient(), reconcile, (), OperatorMetrics("test"))
    async with running(controller):
        controller.trigger("loki", "logs")
        await until(lambda: len(times) == 4)
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert gaps == pytest.approx([0.01, 0.02, 0.04])


async def test_a_pass_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(controller_module, "PASS_TIMEOUT_SECONDS", 0.02)
    monkeypatch.setattr(controller_module, "FIRST_RETRY_SECONDS", 0.01)
    starts = 0

    async def reconcile(key: TenantKey) -> float | None:
        nonlocal starts
        starts += 1
        await asyncio.sleep(60)
        return None

    controller = Controller(MemoryKubeClient(), reconcile, (), OperatorMetrics("test"))
    async with running(controller):
        controller.trigger("loki", "logs")
        await until(lambda: starts >= 2)


async def test_one_that_stands_by_keeps_nothing_and_begins_with_all() -> None:
    kube = MemoryKubeClient()
    kube.put({"apiVersion": "holdfast.dev/v1", "kind": "Tenant", "metadata": {"name": "logs", "namespace": "loki"}})
    seen: list[TenantKey] = []

    async def reconcile(key: TenantKey) -> float | None:
        seen.append(key)
        return 3600.0

    metrics = OperatorMetrics("test")
    controller = Controller(kube, reconcile, (), metrics)
    controller.trigger("loki", "gone-meanwhile")
    controller.trigger_soon("loki", "gone-meanwhile")
    assert b"holdfast_operator_queue_length 0.0" in metrics.render()
    for times in (1, 2):
        async with running(controller):
            await until(lambda times=times: seen == [KEY] * times)
    assert b"holdfast_operator_queue_length 0.0" in metrics.render()


async def test_one_that_stands_by_tells_nothing_of_tenants(world: Any) -> None:
    """What it knew grows old, and of a Tenant that is deleted meanwhile it never learns: its alerts would never end."""
    world.kube.put(world.body())
    kube, metrics, reconciler = world.kube, world.metrics, world.reconciler

    def tells() -> bool:
        text = metrics.render()
        return b"holdfast_operator_tenants 1.0" in text and b'condition="SpecValid"' in text

    controller = Controller(kube, reconciler.reconcile, (), metrics, stood_down=reconciler.forget_all)
    async with running(controller):
        await until(tells)
    assert b"holdfast_operator_tenants 0.0" in metrics.render()
    assert b"condition=" not in metrics.render()
    assert not [name for name, value in vars(reconciler).items() if isinstance(value, dict) and value]
    async with running(controller):
        await until(tells)


async def test_tenants_whose_pods_hang_do_not_hold_up_the_others() -> None:
    done: list[str] = []

    async def reconcile(key: TenantKey) -> float | None:
        if key.name.startswith("hangs"):
            await asyncio.Event().wait()
        done.append(key.name)
        return None

    controller = Controller(MemoryKubeClient(), reconcile, (), OperatorMetrics("test"))
    async with running(controller):
        for number in range(20):
            controller.trigger("loki", f"hangs-{number}")
        controller.trigger("loki", "logs")
        await until(lambda: done == ["logs"])


async def test_a_namespace_that_is_being_deleted_is_no_failure(caplog: pytest.LogCaptureFixture) -> None:
    passes, told = 0, list[str]()

    async def reconcile(key: TenantKey) -> float | None:
        nonlocal passes
        passes += 1
        raise NamespaceEnding("secrets is forbidden: because it is being terminated")

    async def tell(key: TenantKey, why: str) -> None:
        told.append(why)

    metrics = OperatorMetrics("test")
    controller = Controller(MemoryKubeClient(), reconcile, (), metrics, tell)
    async with running(controller):
        for count in range(1, 6):
            controller.trigger("loki", "logs")
            await until(lambda count=count: passes >= count)
    assert told == []
    assert [record for record in caplog.records if record.levelname == "WARNING"] == []
    assert b'passes_total{outcome="failed"} 0.0' in metrics.render()


async def test_a_tenant_is_told_of_passes_that_fail_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(controller_module, "FIRST_RETRY_SECONDS", 0.005)
    monkeypatch.setattr(controller_module, "PASS_TIMEOUT_SECONDS", 0.02)
    passes, told = 0, list[tuple[int, str]]()

    async def reconcile(key: TenantKey) -> float | None:
        nonlocal passes
        passes += 1
        if passes in (1, 2, 3):
            raise KubeUnavailable("503: no answer")
        if passes == 4:
            raise ValueError("secret")
        if passes == 5:
            await asyncio.sleep(60)
        return None

    async def tell(key: TenantKey, why: str) -> None:
        told.append((passes, why))
        raise KubeUnavailable("nor is this written")

    controller = Controller(MemoryKubeClient(), reconcile, (), OperatorMetrics("test"), tell)
    async with running(controller):
        controller.trigger("loki", "logs")
        await until(lambda: passes == 6)
    assert told == [
        (3, "503: no answer"),
        (4, "a mistake of the operator's own (ValueError), which its log has whole"),
        (5, "it took longer than 0 s"),
    ]
