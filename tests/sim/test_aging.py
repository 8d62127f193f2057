"""The simulation of what is sealed and expires notices when rules delete what they did not judge, and lost seals."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any
from unittest import mock

import msgspec
import pytest

from holdfast_server.objects import record
from holdfast_server.objects.port import Condition, Record, Versioning
from holdfast_server.objects.store import ObjectStore
from holdfast_server.testing.sim import aging
from holdfast_server.testing.sim.history import DONE, Operation
from holdfast_server.testing.sim.simulation import Failed
from holdfast_server.testing.sim.version_history import LOCKED, explained

QUICK_SEEDS = 10


def conditions_are_passed_over() -> AbstractContextManager[Any]:
    """Of deletions; whatever is there goes."""
    plain = ObjectStore.delete_object

    async def delete_object(
        self: ObjectStore,
        bucket_id: bytes,
        key: str,
        _: Condition | None = None,
        versioning: Versioning = Versioning.OFF,
    ) -> Record | None:
        return await plain(self, bucket_id, key, None, versioning)

    return mock.patch.object(ObjectStore, "delete_object", delete_object)


def records_forget_their_seals() -> AbstractContextManager[Any]:
    """As if written by a release that knows none."""
    plain = record.encode
    return mock.patch.object(record, "encode", lambda one: plain(msgspec.structs.replace(one, sealing=None)))


@pytest.mark.parametrize("breakage", [conditions_are_passed_over, records_forget_their_seals])
def test_it_is_noticed(breakage: Any) -> None:
    with breakage(), pytest.raises(Failed) as failed:
        _run_all()
    assert failed.value.promise_broken, failed.value


def _run_all() -> None:
    for seed in range(QUICK_SEEDS):
        aging.replay(seed, "aging")


def told(*answers: tuple[str, int, object]) -> list[Operation]:
    """One after the other."""
    return [
        Operation(kind, "k", 0, number, 10 * at, end=10 * at + 5, result=result, certain=True)
        for at, (kind, number, result) in enumerate(answers)
    ]


@pytest.mark.parametrize(
    ("answers", "holds"),
    [
        ([("put", 1, DONE), ("put", 2, DONE), ("expire", 1, DONE), ("has", 1, False)], True),
        ([("put", 1, DONE), ("put", 2, DONE), ("expire", 2, DONE)], False),
        ([("put", 1, DONE), ("put", 2, DONE), ("delete", 2, DONE), ("expire", 1, DONE)], False),
        ([("put", 1, DONE), ("put", 2, DONE), ("lock", 1, DONE), ("expire", 1, DONE)], False),
        ([("put", 1, DONE), ("put", 2, DONE), ("lock", 1, DONE), ("expire", 1, LOCKED), ("has", 1, True)], True),
    ],
)
def test_the_judge_knows_what_a_rule_may_delete(answers: list[tuple[str, int, object]], holds: bool) -> None:
    assert explained(told(*answers), ()) is holds
