"""Some seeds of every profile (`make soak` has many), and the reproducibility of a run.

More: `HOLDFAST_SIM_SEEDS=5000 HOLDFAST_SIM_FIRST=1000 pytest tests/sim`, or `python -m holdfast_server.testing.sim`,
which also replays one seed.  A failure's message has the seed, the profile and the whole history.
"""

from __future__ import annotations

import os

import pytest

from holdfast_server.testing.sim import aging, versioned
from holdfast_server.testing.sim.plan import SCRIPTED_GEOMETRIES
from holdfast_server.testing.sim.runs import RUNS, replay

FIRST = int(os.environ.get("HOLDFAST_SIM_FIRST", "0"))
SEEDS = int(os.environ.get("HOLDFAST_SIM_SEEDS", "0"))
USUAL_SEEDS = {
    "any": 10, "large": 3, **dict.fromkeys(SCRIPTED_GEOMETRIES, 3),
    **dict.fromkeys((*versioned.PROFILES, *aging.PROFILES), 2),
    **{name: 2 for name in RUNS if name.startswith("reduced")},
}  # fmt: skip
"""Where no number is asked for."""
OTHER_SEEDS = 4


@pytest.mark.timeout(24 * 3600 if SEEDS else 600)
@pytest.mark.parametrize("profile", sorted(RUNS))
def test_every_promise_holds(profile: str) -> None:
    for seed in range(FIRST, FIRST + (SEEDS or USUAL_SEEDS.get(profile, OTHER_SEEDS))):
        replay(seed, profile)


def test_a_seed_replays_the_same_history() -> None:
    first = [replay(seed, profile).told for profile in ("any", "torn", "buckets") for seed in range(2)]
    ballast = [object() for _ in range(100_000)]  # other addresses, other hashes of tasks
    assert first == [replay(seed, profile).told for profile in ("any", "torn", "buckets") for seed in range(2)]
    assert ballast
