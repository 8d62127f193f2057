"""The end of a run waits for what pods finish by themselves, and calls nothing lost that is only late."""

from __future__ import annotations

import asyncio
import random

import pytest

from holdfast_server.heal.tombstones import TURN_MS
from holdfast_server.testing import virtual_time
from holdfast_server.testing.sim.cluster import Cluster
from holdfast_server.testing.sim.ending import Ending
from holdfast_server.testing.sim.faults import Faults
from holdfast_server.testing.sim.history import History
from holdfast_server.testing.sim.plan import Plan
from holdfast_server.testing.sim.prefixes import FORGETTING_SECONDS, Stage
from holdfast_server.testing.sim.workload import Workload


@pytest.mark.parametrize("late", range(4))
def test_a_tombstone_that_one_drive_was_not_told_to_drop_goes_when_it_has_rested(late: int) -> None:
    rng = random.Random(late)
    cluster = Cluster(Plan(steps=(0, 0)), rng)

    async def run() -> None:
        history = History()
        workload = Workload(cluster, history, rng)
        stage = Stage(cluster, history, workload, Faults(cluster, history, rng), rng)
        await stage.write(0, "put")
        await stage.write(0, "delete")
        await stage.settled()
        await asyncio.sleep(FORGETTING_SECONDS)
        while cluster.clock.now_ms() // TURN_MS % len(cluster.drives) != late:
            await asyncio.sleep(1.0)
        with stage.trap("drop_tombstones", positions=[late], loses=True) as trap:
            # Its own pass takes as long as the call that is lost, and it will rest ten times that.
            await stage.serve(stage.every_turn_seconds, lambda: trap.caught > 0)
        assert stage.holders() == {late}
        await Ending(cluster, history, workload, rng).finish_drops()
        assert stage.holders() == set()
        await cluster.close()

    virtual_time.run(run())
