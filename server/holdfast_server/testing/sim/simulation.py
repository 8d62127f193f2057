"""One run: from a seed to a history that was judged, or to a failure that tells its seed and everything that happened.

`replay(seed, profile)` is deterministic: same tree, same seed, same history, byte for byte.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass

from holdfast_server.drives.port import DriveError
from holdfast_server.objects.port import ObjectError
from holdfast_server.testing import virtual_time
from holdfast_server.testing.sim import checkers, prefixes
from holdfast_server.testing.sim.cluster import Cluster
from holdfast_server.testing.sim.ending import Ending
from holdfast_server.testing.sim.faults import Faults
from holdfast_server.testing.sim.history import History, Violation
from holdfast_server.testing.sim.linearizability import TooLong
from holdfast_server.testing.sim.plan import Plan, draw
from holdfast_server.testing.sim.workload import Workload


class Failed(AssertionError):
    """A run that broke a promise, or the server; its message is the whole history."""

    def __init__(self, seed: int, profile: str, cause: BaseException, told: str) -> None:
        super().__init__(f"seed {seed}, profile {profile}: {cause!r}\n{told}")
        self.seed = seed
        self.profile = profile
        self.promise_broken = isinstance(cause, Violation)
        """Else the server failed by itself."""
        self.checker = cause.checker if isinstance(cause, Violation) else type(cause).__name__
        self.reason = str(cause)


@dataclass(frozen=True)
class Outcome:
    """A run in which every promise held."""

    seed: int
    operations: int
    open_operations: int
    """Those that ended without a certain answer."""
    judged: bool
    """False: the history was too long to be judged for linearizability."""
    told: str


def replay(seed: int, profile: str = "any") -> Outcome:
    """Run one seed.  Raises Failed."""
    rng = random.Random(f"{profile} {seed}")
    plan = draw(rng, profile)
    history = History()

    def play() -> bool:
        virtual_time.run(run(plan, history, rng))
        return judge(history, plan.calm)

    return played(seed, profile, plan, history, play)


def played(seed: int, profile: str, plan: object, history: History, play: Callable[[], bool]) -> Outcome:
    """`play` runs a plan, of whatever kind, into the history and says whether it could be judged.  Raises Failed, which
    tells both."""
    logging.disable(logging.CRITICAL)  # faults are expected, and the history has them
    try:
        judged = play()
    except Exception as error:
        raise Failed(seed, profile, first(error), f"{plan}\n{history.told()}") from error
    finally:
        logging.disable(logging.NOTSET)
    operations = history.operations
    return Outcome(seed, len(operations), sum(not op.certain for op in operations), judged, history.told())


def judge(history: History, calm: bool) -> bool:
    """Whether it could be judged.  Raises Violation."""
    try:
        checkers.judge(history, calm)
    except TooLong:
        return False
    return True


async def run(
    plan: Plan,
    history: History,
    rng: random.Random,
    make_workload: Callable[[Cluster, History, random.Random], Workload] = Workload,
    make_ending: type[Ending] = Ending,
) -> None:
    """A whole run, without the judgement.  Raises Violation."""
    cluster = Cluster(plan, rng)
    workload = make_workload(cluster, history, rng)
    faults = Faults(cluster, history, rng)
    for script in plan.scripts:
        await prefixes.act(script, prefixes.Stage(cluster, history, workload, faults, rng), plan.weather)
    healing = [asyncio.create_task(_heal(cluster, node, rng)) for node in range(plan.coordinators)]
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(workload.run())
            group.create_task(faults.run())
    finally:
        for task in healing:
            task.cancel()
        await asyncio.wait(healing)
    await make_ending(cluster, history, workload, rng).run(faults.replaced)
    await cluster.close()


async def _heal(cluster: Cluster, node: int, rng: random.Random) -> None:
    """The heal service of a pod, at irregular times; and reclaim on its drives."""
    every = cluster.plan.heal_every_seconds
    while every is not None:
        await asyncio.sleep(rng.expovariate(1 / every))
        for drive in cluster.drives[node :: cluster.plan.coordinators]:
            drive.reap()
        try:
            await cluster.coordinators[node].heal_service.heal_once()
        except (DriveError, ObjectError):
            continue


def first(error: BaseException) -> BaseException:
    """Of a group its first member."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
