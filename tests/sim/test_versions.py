"""The judge of versions knows what cannot be, and the simulation notices when versions are not kept.

What random runs meet too seldom is tried call by call in `tests/unit/holdfast_server/objects` (`test_versions`,
`test_object_lock`); with `HOLDFAST_SIM_SEEDS` it is looked for here, too.
"""

from __future__ import annotations

import os

import pytest

from holdfast_server.testing.sim import versioned
from holdfast_server.testing.sim.broken import Breakage, versioning
from holdfast_server.testing.sim.history import DONE, MISSING, Operation
from holdfast_server.testing.sim.simulation import Failed
from holdfast_server.testing.sim.version_history import LOCKED, explained

SEEDS = int(os.environ.get("HOLDFAST_SIM_SEEDS", "0"))
QUICK_SEEDS = 10
AT_RANDOM: dict[str, tuple[Breakage, str]] = {
    "a deleted version comes to rest": (versioning.deleted_versions_come_to_rest, "versions_ambush"),
}


ABSENT = object()
"""As an answer: nothing is there.  (None: there was no answer.)"""


class Told:
    """A history as a list of answers: one after the other, unless `during` says otherwise."""

    def __init__(self) -> None:
        self.operations: list[Operation] = []

    def add(self, kind: str, number: int, result: object = DONE, during: Operation | None = None) -> Operation:
        at = 10 * len(self.operations) + 10
        operation = Operation(kind, "k", 0, number, during.start + 1 if during is not None else at)
        if result is not None:
            operation.result, operation.certain = None if result is ABSENT else result, True
            operation.end = during.end - 1 if during is not None and during.end is not None else at + 5
        self.operations.append(operation)
        return operation

    def holds(self, *markers: int) -> bool:
        return explained(self.operations, markers)


def test_what_is_current_is_the_newest_of_those_there_are() -> None:
    told = Told()
    for number in (1, 2):
        told.add("put", number)
    told.add("mark", 3)
    told.add("get", 0, ABSENT)
    assert told.holds(3)
    told.add("delete", 3)
    told.add("get", 0, 2)
    told.add("delete", 2)
    told.add("get", 0, 1)
    assert told.holds(3)
    told.add("get", 0, 2)
    assert not told.holds(3), "a deleted version is current again"


@pytest.mark.parametrize(
    ("answers", "holds"),
    [
        ([("put", 1, DONE), ("put", 2, DONE), ("has", 1, True)], True),
        ([("put", 1, DONE), ("put", 2, DONE), ("has", 1, False)], False),
        ([("put", 1, None), ("has", 1, False)], True),
        ([("put", 1, None), ("has", 1, True), ("has", 1, False)], False),
        ([("put", 1, DONE), ("delete", 1, None), ("has", 1, True), ("has", 1, False)], True),
        ([("put", 1, DONE), ("delete", 1, None), ("has", 1, False), ("has", 1, True)], False),
        ([("put", 1, DONE), ("lock", 1, DONE), ("delete", 1, LOCKED), ("has", 1, True)], True),
        ([("put", 1, DONE), ("lock", 1, DONE), ("delete", 1, DONE)], False),
        ([("put", 1, DONE), ("lock", 1, DONE), ("has", 1, False)], False),
        ([("put", 1, DONE), ("delete", 1, LOCKED)], False),
        ([("put", 1, DONE), ("lock", 1, None), ("delete", 1, LOCKED)], True),
        ([("put", 1, DONE), ("delete", 1, None), ("lock", 1, MISSING), ("has", 1, False)], True),
        ([("put", 1, DONE), ("delete", 1, None), ("lock", 1, MISSING), ("has", 1, True)], False),
        ([("put", 1, DONE), ("lock", 1, DONE), ("delete", 1, None), ("has", 1, True)], True),
        ([("put_null", 1, DONE), ("put", 2, DONE), ("put_null", 3, DONE), ("get_null", 0, 3), ("has", 2, True)], True),
        ([("put_null", 1, DONE), ("put_null", 2, DONE), ("get_null", 0, 1)], False),
        ([("put_null", 1, DONE), ("put_null", 2, DONE), ("has", 1, True)], False),
    ],
)
def test_the_judge_knows_what_cannot_be(answers: list[tuple[str, int, object]], holds: bool) -> None:
    told = Told()
    for kind, number, result in answers:
        told.add(kind, number, result)
    assert told.holds() is holds


def test_what_happens_at_once_may_have_happened_in_any_order() -> None:
    told = Told()
    told.add("put", 1)
    lock = told.add("lock", 1)
    told.add("delete", 1, LOCKED, during=lock)
    assert told.holds()
    told = Told()
    told.add("put", 1)
    lock = told.add("lock", 1, MISSING)
    told.add("delete", 1, DONE, during=lock)
    assert told.holds()
    told.add("has", 1, True)
    assert not told.holds()


def _first_failure(breakage: Breakage, profile: str, seeds: int) -> Failed | None:
    with breakage():
        for seed in range(seeds):
            try:
                versioned.replay(seed, profile)
            except Failed as failure:
                return failure
    return None


def test_it_is_noticed_that_versions_are_not_kept() -> None:
    failure = _first_failure(versioning.nothing_comes_to_rest, "versions", QUICK_SEEDS)
    assert failure is not None
    assert failure.promise_broken, failure


@pytest.mark.skipif(not SEEDS, reason="takes long: say for how many seeds with HOLDFAST_SIM_SEEDS")
@pytest.mark.timeout(24 * 3600)
@pytest.mark.parametrize("rule", sorted(AT_RANDOM))
def test_it_is_noticed_in_the_end(rule: str) -> None:
    failure = _first_failure(*AT_RANDOM[rule], SEEDS)
    assert failure is not None, f"nobody noticed within {SEEDS} seeds: {rule}"
    assert failure.promise_broken, failure
