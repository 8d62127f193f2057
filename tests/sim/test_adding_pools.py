"""A pool joins under clients, faults and pods that change epochs one by one; and what each rule of it is for.

More seeds: `HOLDFAST_SIM_SEEDS=2000 pytest tests/sim/test_adding_pools.py`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any
from unittest import mock

import pytest

from holdfast_server.objects.epochs import Epochs
from holdfast_server.objects.look_up import Located, LookUp
from holdfast_server.placement.map import PoolMap, SetId
from holdfast_server.testing.sim import joining
from holdfast_server.testing.sim.simulation import Failed

FIRST = int(os.environ.get("HOLDFAST_SIM_FIRST", "0"))
SEEDS = int(os.environ.get("HOLDFAST_SIM_SEEDS", "0"))
USUAL_SEEDS = {"hot": 2, "races": 3}
OTHER_SEEDS = 3
PROFILES = ("any", "conditions", "hot", "races", "shadows", "torn", "uploads")


@pytest.mark.timeout(24 * 3600 if SEEDS else 600)
@pytest.mark.parametrize("profile", PROFILES)
def test_every_promise_holds_while_a_pool_joins(profile: str) -> None:
    for seed in range(FIRST, FIRST + (SEEDS or USUAL_SEEDS.get(profile, OTHER_SEEDS))):
        joining.replay(seed, profile)


async def _only_the_newest(self: LookUp, with_inline: bool = False) -> Located:
    currents = [await one.read(self.register, with_inline) for one in self.sets]
    return Located(self.sets[0], currents[0], currents)


async def _nothing(self: LookUp, *_: Any) -> None:
    return None


def _own_epoch_alone(self: PoolMap, owner_id: bytes, key: str) -> Sequence[SetId]:
    past = [joining.OLD] if self.epoch == joining.LAST_EPOCH else []
    return [self.write_set(owner_id, key), *past]


BROKEN: dict[str, AbstractContextManager[Any]] = {
    "reads do not ask the older set": mock.patch.object(LookUp, "read", _only_the_newest),
    "nobody looks where the coming epoch writes": mock.patch.object(PoolMap, "look_up_sets", _own_epoch_alone),
    "pods report an epoch while writes go by the last": mock.patch.object(
        Epochs, "settled", property(lambda epochs: epochs.pools.epoch)
    ),
    "what is superseded is kept": mock.patch.object(LookUp, "_let_go", _nothing),
}


SELDOM = {"nobody looks where the coming epoch writes": 120, "pods report an epoch while writes go by the last": 65}
"""Of those that take some fifty runs to be noticed: where to begin, so that not all of them are made each time.  A
change of what a read sends makes other histories of the same seeds; then it takes longer again."""


@pytest.mark.parametrize("rule", sorted(BROKEN))
def test_it_notices_when(rule: str) -> None:
    with BROKEN[rule], pytest.raises(Failed):
        _replay_many(SELDOM.get(rule, 0), 200)


def _replay_many(first: int, seeds: int) -> None:
    for seed in range(first, first + seeds):
        joining.replay(seed, "conditions")
        joining.replay(seed, "any")
