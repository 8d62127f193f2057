"""Healing runs fast when nobody asks for anything, gives way to requests, and never stops."""

from __future__ import annotations

import pytest

from holdfast_server.heal.pacing import Pacer
from holdfast_server.heal.settings import HealSettings
from holdfast_server.objects.foreground import ACTIVE_SECONDS, Foreground
from holdfast_server.testing.virtual_time import VirtualClock

SETTINGS = HealSettings()
USUAL_SECONDS = 0.003


class Pod:
    """Requests of a given latency between units of work."""

    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.foreground = Foreground()
        self.pacer = Pacer(self.clock, self.foreground, SETTINGS)

    async def requests(self, seconds: float, count: int = 50) -> None:
        for _ in range(count):
            await self.clock.sleep(0.01)
            self.foreground.looked_up(seconds, self.clock.monotonic_seconds())

    async def unit(self, worked_seconds: float = 0.1) -> float:
        """How long it rested after it."""
        await self.clock.sleep(worked_seconds)
        before = self.clock.monotonic_seconds()
        await self.pacer.rest(worked_seconds)
        return self.clock.monotonic_seconds() - before


@pytest.fixture
def pod() -> Pod:
    return Pod()


async def test_without_requests_it_does_not_rest(pod: Pod) -> None:
    assert await pod.unit() == pytest.approx(0.0)
    assert pod.pacer.width == SETTINGS.width


async def test_beside_requests_it_leaves_them_half(pod: Pod) -> None:
    for _ in range(50):
        await pod.requests(USUAL_SECONDS)
        rest = await pod.unit()
    assert rest == pytest.approx(0.1, rel=0.3)
    assert SETTINGS.least_width < pod.pacer.width <= SETTINGS.width * SETTINGS.busy_share


async def test_slow_requests_make_it_give_way_to_the_floor_and_no_further(pod: Pod) -> None:
    await pod.requests(USUAL_SECONDS, 500)
    for _ in range(20):
        await pod.requests(10 * USUAL_SECONDS, 10)
        rest = await pod.unit()
    assert pod.pacer.share == SETTINGS.least_share
    assert pod.pacer.width >= SETTINGS.least_width
    assert rest == pytest.approx(0.1 * (1 / SETTINGS.least_share - 1), rel=0.01)


async def test_slowness_that_lasts_does_not_become_the_usual_while_work_goes_on(pod: Pod) -> None:
    await pod.requests(USUAL_SECONDS, 500)
    for _ in range(100):
        await pod.requests(10 * USUAL_SECONDS, 10)
        await pod.unit()
    assert pod.foreground.lookups.usual_seconds < 3 * USUAL_SECONDS
    assert pod.pacer.share < 2 * SETTINGS.least_share


async def test_slowness_that_healing_is_not_the_reason_of_becomes_the_usual(pod: Pod) -> None:
    await pod.requests(USUAL_SECONDS, 500)
    for _ in range(10):
        await pod.requests(10 * USUAL_SECONDS, 1000)
        await pod.unit()
    assert pod.pacer.share > 2 * SETTINGS.least_share


async def test_it_comes_back_when_requests_are_fast_again_and_at_once_when_they_end(pod: Pod) -> None:
    await pod.requests(USUAL_SECONDS, 500)
    for _ in range(60):
        await pod.requests(10 * USUAL_SECONDS)
        await pod.unit()
    for _ in range(60):
        await pod.requests(USUAL_SECONDS)
        await pod.unit()
    assert pod.pacer.share == SETTINGS.busy_share
    await pod.clock.sleep(ACTIVE_SECONDS + 1)
    assert await pod.unit() == pytest.approx(0.0)
    assert pod.pacer.latency_seconds == 0


async def test_one_request_that_waited_for_a_lost_pod_is_one_request(pod: Pod) -> None:
    await pod.requests(USUAL_SECONDS, 500)
    pod.foreground.looked_up(5.0, pod.clock.monotonic_seconds())
    assert pod.foreground.lookups.recent_seconds < 0.11
    await pod.requests(USUAL_SECONDS, 100)
    assert pod.foreground.slowdown(pod.clock.monotonic_seconds(), 0.002) < 1


async def test_the_requests_of_other_pods_count_as_much_as_its_own(pod: Pod) -> None:
    told: list[float] = []
    pacer = Pacer(pod.clock, pod.foreground, SETTINGS, lambda: told)
    await pacer.rest(0.1)
    assert pacer.share == 1.0
    told.append(1.0)
    await pacer.rest(0.1)
    assert pacer.share == SETTINGS.busy_share
    told.append(5.0)
    for _ in range(20):
        await pacer.rest(0.1)
    assert pacer.share == SETTINGS.least_share
    told.clear()
    await pacer.rest(0.1)
    assert pacer.share == 1.0


async def test_a_pod_tells_the_others_how_its_requests_fare(pod: Pod) -> None:
    assert pod.pacer.told() == (None, False)
    await pod.requests(USUAL_SECONDS, 500)
    pod.pacer.is_burdened()
    await pod.requests(10 * USUAL_SECONDS)
    slowdown, heals = pod.pacer.told()
    assert slowdown is not None
    assert slowdown > 3
    assert not heals
    await pod.unit(0.01)
    assert pod.pacer.told()[1]
