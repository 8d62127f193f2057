"""All profiles by name, whichever simulation runs them: one register's (`simulation`), a bucket's (`buckets`), a
bucket's with versions (`versioned`), or one whose objects are sealed and expire (`aging`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from holdfast_server.testing.sim import aging, buckets, plan, simulation, versioned
from holdfast_server.testing.sim.simulation import Outcome

RUNS: Mapping[str, Callable[[int, str], Outcome]] = {
    **dict.fromkeys(plan.PROFILES, simulation.replay),
    **dict.fromkeys(buckets.PROFILES, buckets.replay),
    **dict.fromkeys(versioned.PROFILES, versioned.replay),
    **dict.fromkeys(aging.PROFILES, aging.replay),
}


def replay(seed: int, profile: str) -> Outcome:
    """Run one seed.  Raises Failed."""
    return RUNS[profile](seed, profile)
