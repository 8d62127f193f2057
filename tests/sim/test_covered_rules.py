"""What is said to be covered by another rule is: the arguments of docs/decisions/0005, as far as they can be run."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from holdfast_server.contract.geometry import Quorums, quorums
from holdfast_server.drives.port import Held, QueryReply
from holdfast_server.objects import quorum
from holdfast_server.testing.sim.breakages import COVERED
from holdfast_server.testing.sim.runs import replay

AIMED = {
    "1 marks do not speak for the drive": "torn",
    "9 dropped tombstones are written again": "forgetful",
    "11 replacements join at once": "predecessor",
    "11 replacements have no watermark": "predecessor",
}
RUNS = 3
STAMPS = (1, 2)


def test_every_covered_one_is_tried() -> None:
    assert set(AIMED) == set(COVERED)


@pytest.mark.parametrize("breakage", sorted(COVERED))
def test_broken_alone_it_breaks_no_promise(breakage: str) -> None:
    with COVERED[breakage]():
        for seed in range(RUNS):
            replay(seed, AIMED[breakage])


def test_no_decision_depends_on_a_mark_that_speaks_for_its_drive() -> None:
    """All answers that three drives can give about two versions: the greatest mark has decided before."""
    numbers = quorums(3, 1)
    for replies in _every_answer(numbers.set_size):
        honest = _decisions(numbers, replies)
        with COVERED["1 marks do not speak for the drive"]():
            assert _decisions(numbers, replies) == honest


def _decisions(numbers: Quorums, replies: quorum.Replies) -> list[object]:
    mark = quorum.greatest_mark(replies)
    healed = [quorum.decide_heal(numbers, replies, s) for s in quorum.versions(replies) if s >= mark]
    return [quorum.decide_read(numbers, replies, final) for final in (False, True)] + [*healed]


def _every_answer(set_size: int) -> Iterator[quorum.Replies]:
    of_drive = [None, *_states()]
    for states in itertools.product(of_drive, repeat=set_size):
        yield {position: state for position, state in enumerate(states) if state is not None}


def _states() -> Iterator[QueryReply]:
    """What one drive can say: any of the versions, marked or not, older ones forgotten or not."""
    for count in range(len(STAMPS) + 1):
        for stamps in itertools.combinations(sorted(STAMPS, reverse=True), count):
            for mark, healing in itertools.product((0, *stamps), (False, True)):
                records = tuple(Held(stamp, False, b"", 0, None) for stamp in stamps)
                yield QueryReply(records, mark, max(stamps, default=0), 0, healing)
