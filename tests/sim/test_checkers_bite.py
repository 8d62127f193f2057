"""The checkers notice broken rules: each breakage within some runs of a profile that aims at it.

What is noticed quickly is tried in every run of the tests; what takes more, or was not noticed yet, only where
`HOLDFAST_SIM_SEEDS` says for how many seeds.  docs/decisions/0005-what-the-checkers-catch.md has the table.
"""

from __future__ import annotations

import os

import pytest

from holdfast_server.testing.sim.breakages import BREAKAGES
from holdfast_server.testing.sim.simulation import Failed, replay

SEEDS = int(os.environ.get("HOLDFAST_SIM_SEEDS", "0"))
USUAL_SEEDS = 60
QUICK = {
    "1 acknowledged one short of W": ("uploads", "conditions"),
    "1 marks prove nothing": ("power",),
    "2 acknowledged before all have answered": ("conditions",),
    "4 one denial suffices": ("torn",),
    "4 undecided is served": ("torn",),
    "7 leases keep nobody out": ("conditions",),
    "8 taken back by counting": ("torn",),
}
SLOW = {
    "1 marks do not speak for the drive": ("torn", "lost_drives"),
    "3 an empty replacement votes": ("lost_drives",),
    "5 repairs go over everything": ("torn",),
    "6 stamped anew after acceptance": ("hot", "torn"),
    "6 old stamps are taken": ("hot", "any"),
    "7 a lapsed lease still commits": ("conditions",),
    "8 no fence before taking back": ("torn", "lost_drives"),
    "8 no deadline before taking back": ("torn", "lost_drives"),
    "10 dropped before all agree": ("lost_drives", "any"),
    "11 full although something is left": ("lost_drives",),
    "- commits are not synced": ("power",),
}


def test_every_breakage_has_its_place() -> None:
    assert set(QUICK) | set(SLOW) == set(BREAKAGES)
    assert not set(QUICK) & set(SLOW)


@pytest.mark.timeout(24 * 3600 if SEEDS else 600)
@pytest.mark.parametrize("breakage", sorted(QUICK))
def test_it_is_noticed(breakage: str) -> None:
    _must_be_noticed(breakage, QUICK[breakage], SEEDS or USUAL_SEEDS)


@pytest.mark.skipif(not SEEDS, reason="takes long: say for how many seeds with HOLDFAST_SIM_SEEDS")
@pytest.mark.timeout(24 * 3600)
@pytest.mark.parametrize("breakage", sorted(SLOW))
def test_it_is_noticed_in_the_end(breakage: str) -> None:
    _must_be_noticed(breakage, SLOW[breakage], SEEDS)


def _must_be_noticed(breakage: str, profiles: tuple[str, ...], seeds: int) -> None:
    with BREAKAGES[breakage]():
        for seed in range(seeds):
            for profile in profiles:
                try:
                    replay(seed, profile)
                except Failed as failure:
                    print(f"{breakage}: {profile} {seed}, {failure.reason}")
                    return
    pytest.fail(f"nobody noticed within {seeds} seeds: {breakage}")
