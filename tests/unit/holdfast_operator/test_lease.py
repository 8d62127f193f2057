"""Who works: one at a time, always somebody after a while.  In virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from holdfast_operator.kube.errors import KubeForbidden, KubeUnavailable
from holdfast_operator.kube.port import LEASE, Kind, Manifest
from holdfast_operator.lease import DEADLINE_SECONDS, DURATION_SECONDS, RETRY_SECONDS, Lease
from holdfast_operator.testing.memory_kube import MemoryKubeClient
from holdfast_server.testing import virtual_time

TAKEOVER_SECONDS = DURATION_SECONDS + 2 * RETRY_SECONDS
"""As docs/operations.md states it, without the time of a call."""


class Line:
    """One operator's own way to the API server, which can be cut, or slow."""

    def __init__(self, kube: MemoryKubeClient) -> None:
        self._kube = kube
        self.cut = False
        self.delay_seconds = 0.0
        self.loses_answers = False
        self.forbidden = False

    async def _cross(self) -> None:
        await asyncio.sleep(self.delay_seconds)
        if self.cut:
            raise KubeUnavailable("no answer")
        if self.forbidden:
            raise KubeForbidden("403")

    async def get(self, kind: Kind, namespace: str, name: str) -> Manifest | None:
        await self._cross()
        return await self._kube.get(kind, namespace, name)

    async def create(self, manifest: Manifest) -> Manifest:
        await self._cross()
        return await self._kube.create(manifest)

    async def merge(self, manifest: Manifest, patch: Mapping[str, Any]) -> Manifest:
        await self._cross()
        merged = await self._kube.merge(manifest, dict(patch))
        if self.loses_answers:
            raise KubeUnavailable("the answer was lost")
        return merged


class Operators:
    """Candidates for one Lease; who works is written down at every turn."""

    def __init__(self, count: int) -> None:
        self.kube = MemoryKubeClient()
        self.lines = [Line(self.kube) for _ in range(count)]
        self.skews = [0.0] * count
        """Seconds by which a candidate's wall clock is wrong."""
        self.leases = [self._lease(number) for number in range(count)]
        self.working: set[int] = set()
        self.most_at_once = 0
        self.tasks: list[asyncio.Task[None]] = []

    def _lease(self, number: int) -> Lease:
        loop = asyncio.get_running_loop()

        def now() -> datetime:
            return datetime(2026, 11, 20, tzinfo=UTC) + timedelta(seconds=loop.time() + self.skews[number])

        line: Any = self.lines[number]
        return Lease(line, "system", "operator", f"operator-{number}", now, loop.time)

    async def _work(self, number: int) -> None:
        self.working.add(number)
        self.most_at_once = max(self.most_at_once, len(self.working))
        try:
            await asyncio.Event().wait()
        finally:
            self.working.discard(number)

    def start(self, number: int) -> None:
        lease = self.leases[number]
        self.tasks.append(asyncio.create_task(lease.work_while_held(lambda: self._work(number))))

    async def until(self, check: Callable[[], object], within_seconds: float) -> float:
        """The seconds it took."""
        began = asyncio.get_running_loop().time()
        async with asyncio.timeout(within_seconds):
            while not check():
                await asyncio.sleep(0.05)
        return asyncio.get_running_loop().time() - began

    async def close(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    @property
    def holder(self) -> str:
        return str(self.kube.object(LEASE, "operator", "system")["spec"]["holderIdentity"])


def scene(count: int, play: Callable[[Operators], Any]) -> Operators:
    async def main() -> Operators:
        operators = Operators(count)
        try:
            await play(operators)
        finally:
            await operators.close()
        return operators

    return virtual_time.run(main())


def test_the_first_works_at_once_and_the_others_stand_by() -> None:
    async def play(operators: Operators) -> None:
        for number in range(3):
            operators.start(number)
        await operators.until(lambda: operators.working, 1)
        await asyncio.sleep(600)
        assert len(operators.working) == 1

    assert scene(3, play).most_at_once == 1


def test_one_that_ends_gives_the_lease_back() -> None:
    async def play(operators: Operators) -> None:
        operators.start(0)
        await operators.until(lambda: operators.working == {0}, 1)
        operators.start(1)
        await asyncio.sleep(30)
        operators.tasks[0].cancel()
        assert await operators.until(lambda: operators.working == {1}, 60) <= RETRY_SECONDS + 1

    scene(2, play)


@pytest.mark.parametrize("skew", [-3600.0, 0.0, 3600.0])
def test_another_takes_over_within_the_stated_time_whatever_the_clocks_say(skew: float) -> None:
    async def play(operators: Operators) -> None:
        operators.skews[1] = skew
        operators.start(0)
        await operators.until(lambda: operators.working == {0}, 1)
        operators.start(1)
        await asyncio.sleep(31)
        operators.lines[0].cut = True  # as good as dead, to the others
        took = await operators.until(lambda: 1 in operators.working, 120)
        assert took <= TAKEOVER_SECONDS
        assert operators.working == {1}
        assert operators.holder == "operator-1"

    assert scene(2, play).most_at_once == 1


def test_one_that_cannot_renew_stops_before_another_may_begin() -> None:
    async def play(operators: Operators) -> None:
        operators.start(0)
        await operators.until(lambda: operators.working == {0}, 1)
        operators.lines[0].cut = True
        assert await operators.until(lambda: not operators.working, 60) <= DEADLINE_SECONDS + 0.1
        await asyncio.sleep(300)
        operators.lines[0].cut = False
        # Nobody else has come: it need not wait for its own lease to run out.
        await operators.until(lambda: operators.working == {0}, RETRY_SECONDS + 1)

    scene(1, play)


def test_one_that_lost_it_again_and_again_waits_for_an_api_server_that_hangs() -> None:
    """With a cancellation left counted, the time limit on the next call would end the task (before Python 3.11.3)."""

    async def play(operators: Operators) -> None:
        operators.start(0)
        for _ in range(3):
            await operators.until(lambda: operators.working == {0}, 10)
            operators.lines[0].delay_seconds = 600.0
            await operators.until(lambda: not operators.working, 60)
            await asyncio.sleep(30)
            assert operators.tasks[0].cancelling() == 0
            operators.lines[0].delay_seconds = 0.0

    scene(1, play)


def test_a_short_cut_is_nothing() -> None:
    async def play(operators: Operators) -> None:
        operators.start(0)
        operators.start(1)
        await operators.until(lambda: operators.working == {0}, 5)
        for _ in range(20):
            operators.lines[0].cut = True
            await asyncio.sleep(4)
            operators.lines[0].cut = False
            await asyncio.sleep(4)
            assert operators.working == {0}

    scene(2, play)


def test_a_renewal_whose_answer_is_lost_is_recognised() -> None:
    async def play(operators: Operators) -> None:
        operators.start(0)
        await operators.until(lambda: operators.working == {0}, 5)
        await asyncio.sleep(2)
        operators.lines[0].loses_answers = True
        await asyncio.sleep(5)
        operators.lines[0].loses_answers = False
        await asyncio.sleep(60)
        assert operators.working == {0}

    scene(1, play)


def test_a_frozen_process_does_not_hold_what_ran_out_while_it_slept() -> None:
    """SIGSTOP: its tasks do nothing, the clock goes on; the first thing it does is to ask `held`."""

    async def play(operators: Operators) -> None:
        operators.start(0)
        await operators.until(lambda: operators.leases[0].held, 5)
        assert operators.leases[0].held
        loop: Any = asyncio.get_running_loop()
        loop.elapsed_seconds += DEADLINE_SECONDS + 1
        assert not operators.leases[0].held

    scene(1, play)


def test_a_missing_right_is_no_crash() -> None:
    async def play(operators: Operators) -> None:
        operators.lines[0].forbidden = True
        operators.start(0)
        await asyncio.sleep(60)
        assert not operators.working
        operators.lines[0].forbidden = False
        await operators.until(lambda: operators.working == {0}, 10)

    scene(1, play)


def test_a_failure_of_the_work_ends_the_process() -> None:
    async def main() -> None:
        operators = Operators(1)

        async def work() -> None:
            raise ZeroDivisionError

        with pytest.raises(ExceptionGroup, match="unhandled"):
            await operators.leases[0].work_while_held(work)
        assert operators.holder == ""

    virtual_time.run(main())
