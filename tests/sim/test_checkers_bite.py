"""The checkers notice broken rules: each breakage within some runs of a profile that aims at it.

What is noticed quickly is tried in every run of the tests; what takes more only where `HOLDFAST_SIM_SEEDS` says for how
many seeds.  docs/decisions/0005-what-the-checkers-catch.md has the table, and says why what is in `COVERED` need not be
noticed.
"""

from __future__ import annotations

import os

import pytest

from holdfast_server.testing.sim.breakages import BREAKAGES, COVERED
from holdfast_server.testing.sim.runs import replay
from holdfast_server.testing.sim.simulation import Failed

SEEDS = int(os.environ.get("HOLDFAST_SIM_SEEDS", "0"))
USUAL_SEEDS = 60
QUICK = {
    "1 acknowledged one short of W": ("uploads",),
    "1 marks prove nothing": ("power",),
    "1 reduced versions need the set's copies": ("reduced_torn",),
    "2 acknowledged before all have answered": ("conditions",),
    "3 an empty replacement votes": ("left_out",),
    "3 a replacement's fence counts": ("weak_fence",),
    "4 one denial suffices": ("torn",),
    "4 undecided is served": ("take_back",),
    "5 repairs go over leases": ("lease",),
    "5 repairs go over fences": ("take_back",),
    "5 repairs go over everything": ("take_back",),
    "6 stamped anew after acceptance": ("twice",),
    "6 old stamps are taken": ("ambush",),
    "7 leases keep nobody out": ("lease",),
    "7 a lapsed lease still commits": ("late_commit",),
    "8 no fence before taking back": ("take_back",),
    "8 fences that fail are ignored": ("take_back",),
    "8 no deadline before taking back": ("early_heal",),
    "8 taken back by counting": ("take_back",),
    "8 reduced versions need the set's denials": ("reduced_torn",),
    "9 repairs go over watermarks": ("rebuild",),
    "10 dropped before all agree": ("half_told",),
    "10 dropped at once": ("slow_reader",),
    "10 drops leave high watermarks": ("newcomer",),
    "10 drops rest on unsynced words": ("forgetful",),
    "10 what is gone leaves high watermarks": ("newcomer",),
    "11 full although something is left": ("left_out",),
    "11 replacements know no before": ("predecessor",),
    "12 objects are kept by the bucket's name": ("late_puts",),
    "12 nobody lets go of a bucket": ("late_puts",),
    "12 silent pods are not waited for": ("late_puts",),
    "12 leases do not lapse": ("late_puts",),
    "12 fences do not wait for confirmed writes": ("late_puts",),
    "13 reads do not start again": ("vanishing",),
    "13 superseded shards go at once": ("large",),
    "- commits are not synced": ("power",),
}
FIRST = {
    "10 drops leave high watermarks": 9,
    "10 what is gone leaves high watermarks": 7,
    "12 fences do not wait for confirmed writes": 7,
    "13 reads do not start again": 7,
    "13 superseded shards go at once": 6,
    "4 one denial suffices": 28,
    "6 old stamps are taken": 7,
    "8 reduced versions need the set's denials": 9,
    "- commits are not synced": 6,
}
"""Of those that more than five runs pass over: where to begin, so that these are not made each time.  A change of what
pods send makes other histories of the same seeds; then it takes longer again.  Where a number of seeds is asked for,
all begin with the first."""

AT_RANDOM = {
    "3 an empty replacement votes": ("lost_drives",),
    "4 undecided is served": ("torn",),
    "6 stamped anew after acceptance": ("hot",),
    "8 no deadline before taking back": ("mended",),
    "8 taken back by counting": ("torn",),
    "12 silent pods are not waited for": ("buckets",),
    "12 leases do not lapse": ("buckets",),
}
"""The same without a script: random runs alone find them too, after longer."""


def test_every_breakage_has_its_place() -> None:
    assert set(QUICK) == set(BREAKAGES)
    assert set(AT_RANDOM) <= set(QUICK)
    assert set(FIRST) <= set(QUICK)
    assert not set(COVERED) & set(BREAKAGES)


@pytest.mark.timeout(24 * 3600 if SEEDS else 600)
@pytest.mark.parametrize("breakage", sorted(QUICK))
def test_it_is_noticed(breakage: str) -> None:
    seeds = range(SEEDS) if SEEDS else range(FIRST.get(breakage, 0), FIRST.get(breakage, 0) + USUAL_SEEDS)
    _must_be_noticed(breakage, QUICK[breakage], seeds)


@pytest.mark.skipif(not SEEDS, reason="takes long: say for how many seeds with HOLDFAST_SIM_SEEDS")
@pytest.mark.timeout(24 * 3600)
@pytest.mark.parametrize("breakage", sorted(AT_RANDOM))
def test_it_is_noticed_in_the_end_without_a_script(breakage: str) -> None:
    _must_be_noticed(breakage, AT_RANDOM[breakage], range(SEEDS))


def _must_be_noticed(breakage: str, profiles: tuple[str, ...], seeds: range) -> None:
    with BREAKAGES[breakage]():
        failure = _first_failure(profiles, seeds)
    assert failure is not None, f"nobody noticed within {len(seeds)} seeds: {breakage}"
    print(f"{breakage}: {failure.profile} {failure.seed}, {failure.reason}")
    assert failure.promise_broken, f"the server failed by itself: {failure}"


def _first_failure(profiles: tuple[str, ...], seeds: range) -> Failed | None:
    for seed in seeds:
        for profile in profiles:
            try:
                replay(seed, profile)
            except Failed as failure:
                return failure
    return None
