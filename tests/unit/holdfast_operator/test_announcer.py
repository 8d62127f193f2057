"""Events as they are posted: about the Tenant, counted, bounded, and never in the way of a pass."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from holdfast_operator.announce import BURST, REFILL_SECONDS, Announcer
from holdfast_operator.kube.errors import KubeForbidden
from holdfast_operator.kube.port import EVENT
from holdfast_operator.status.events import TenantEvent
from holdfast_operator.testing.memory_kube import MemoryKubeClient

TENANT = {
    "apiVersion": "holdfast.dev/v1",
    "kind": "Tenant",
    "metadata": {"name": "logs", "namespace": "loki", "uid": "u1"},
}


class Clock:
    seconds = 0.0

    def now(self) -> datetime:
        return datetime(2026, 11, 20, tzinfo=UTC) + timedelta(seconds=self.seconds)


def event(message: str = "a drive is gone") -> TenantEvent:
    return TenantEvent("Warning", "Degraded", "DrivesMissing", message)


def announcer(kube: MemoryKubeClient, clock: Clock) -> Announcer:
    return Announcer(kube, clock.now, lambda: clock.seconds)


def posted(kube: MemoryKubeClient) -> list[dict[str, Any]]:
    return [kube.object(EVENT, name) for name in kube.names(EVENT)]


async def test_an_event_names_its_tenant_and_is_counted_when_it_repeats() -> None:
    kube, clock = MemoryKubeClient(), Clock()
    one = announcer(kube, clock)
    await one.post(TENANT, [event()])
    clock.seconds = 60
    await one.post(TENANT, [event()])
    (found,) = posted(kube)
    assert found["involvedObject"]["uid"] == "u1"
    assert found["count"] == 2
    assert (found["firstTimestamp"], found["lastTimestamp"]) == ("2026-11-20T00:00:00Z", "2026-11-20T00:01:00Z")
    await announcer(kube, clock).post(TENANT, [event()])
    assert len(posted(kube)) == 1, "an operator that restarted says it with the same object"


async def test_a_flapping_tenant_cannot_flood_the_cluster() -> None:
    kube, clock = MemoryKubeClient(), Clock()
    one = announcer(kube, clock)
    await one.post(TENANT, [event(str(number)) for number in range(3 * BURST)])
    assert len(posted(kube)) == BURST
    clock.seconds = REFILL_SECONDS * 2
    await one.post(TENANT, [event(f"later {number}") for number in range(5)])
    assert len(posted(kube)) == BURST + 2


async def test_a_role_without_events_does_not_fail_the_pass() -> None:
    kube = MemoryKubeClient()
    kube.fail_on = lambda verb, kind, name: KubeForbidden("no") if kind == "Event" else None
    await announcer(kube, Clock()).post(TENANT, [event()])
    assert posted(kube) == []


async def test_a_pod_lost_and_back_is_told(world: Any) -> None:
    await world.start()
    world.pods.down = {"logs-pool-main-1"}
    await world.run_passes()
    world.pods.down = set()
    await world.run_passes()
    told = {(item["type"], item["reason"]) for item in posted(world.kube)}
    assert {("Normal", "Serving"), ("Warning", "DrivesMissing"), ("Normal", "Whole")} <= told
