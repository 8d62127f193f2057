"""Deciding by counting: tables of cases, and an oracle that states rule 4 in another way."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast_server.contract.geometry import Quorums, quorums
from holdfast_server.drives.port import (
    CommitReply,
    CommitStatus,
    FenceReply,
    Held,
    PrepareReply,
    PrepareStatus,
    QueryReply,
)
from holdfast_server.objects.quorum import (
    CommitOutcome,
    Decision,
    HealStep,
    PrepareOutcome,
    Verdict,
    decide_heal,
    decide_read,
    fence_holds,
    judge_commit,
    judge_prepare,
)

FOUR = quorums(4, 2)  # K 2, W 3, R 2
SIX = quorums(6, 2)  # K 4, W 4, R 3
THREE = quorums(3, 1)  # K 2, W 2, R 2
GEOMETRIES = [quorums(1, 0), quorums(2, 1), THREE, FOUR, quorums(5, 2), SIX]

V1, V2, V3 = 10, 20, 30


def knows(
    *stamps: int, mark: int = 0, healing: bool = False, tombs: tuple[int, ...] = (), watermark: int = 0
) -> QueryReply:
    held = tuple(
        Held(stamp, stamp in tombs, b"", -1 if stamp in tombs else 0, None) for stamp in sorted(stamps, reverse=True)
    )
    return QueryReply(held, mark, max([*stamps, watermark], default=0), watermark, healing)


NONE = knows()
GONE = None
"""No answer."""


def replies(*answers: QueryReply | None) -> dict[int, QueryReply]:
    return {position: answer for position, answer in enumerate(answers) if answer is not None}


CURRENT, ABSENT, ROLL, UNDECIDED, WAIT = (
    Verdict.CURRENT,
    Verdict.ABSENT,
    Verdict.ROLL_FORWARD,
    Verdict.UNDECIDED,
    Verdict.WAIT,
)
one, two, both, marked = knows(V1), knows(V2), knows(V1, V2), knows(V1, mark=V1)
healing, tomb = knows(healing=True), knows(V2, tombs=(V2,))


@pytest.mark.parametrize(
    ("q", "answers", "early", "final"),
    [
        # nothing anywhere
        (FOUR, (NONE, GONE, GONE, GONE), WAIT, UNDECIDED),
        (FOUR, (NONE, NONE, GONE, GONE), (ABSENT, 0), (ABSENT, 0)),
        (FOUR, (NONE, healing, healing, healing), WAIT, UNDECIDED),
        (SIX, (NONE, NONE, GONE, GONE, GONE, GONE), WAIT, UNDECIDED),
        (SIX, (NONE, NONE, NONE, GONE, GONE, GONE), (ABSENT, 0), (ABSENT, 0)),
        # W holders commit it, whether or not anybody marked it
        (FOUR, (one, one, one, GONE), (CURRENT, V1), (CURRENT, V1)),
        (FOUR, (one, one, one, NONE), (CURRENT, V1), (CURRENT, V1)),
        # one mark commits it; K copies are needed to serve it
        (FOUR, (marked, one, GONE, GONE), (CURRENT, V1), (CURRENT, V1)),
        (FOUR, (marked, NONE, GONE, GONE), WAIT, UNDECIDED),
        (FOUR, (marked, NONE, NONE, NONE), WAIT, UNDECIDED),
        (FOUR, (knows(V2, mark=V2, tombs=(V2,)), one, GONE, GONE), (CURRENT, V2), (CURRENT, V2)),
        # K copies, unmarked: whoever is silent may have made it W
        (FOUR, (one, one, GONE, GONE), WAIT, (ROLL, V1)),
        (FOUR, (one, one, NONE, GONE), WAIT, (ROLL, V1)),
        (FOUR, (one, one, NONE, NONE), (ABSENT, 0), (ABSENT, 0)),
        (FOUR, (one, one, NONE, healing), WAIT, (ROLL, V1)),
        (FOUR, (one, NONE, GONE, GONE), WAIT, UNDECIDED),
        (FOUR, (one, NONE, NONE, GONE), (ABSENT, 0), (ABSENT, 0)),
        # an overwrite that reached some
        (FOUR, (knows(V1, V2, mark=V1), marked, marked, GONE), (CURRENT, V1), (CURRENT, V1)),
        (FOUR, (knows(V1, V2, mark=V1), marked, GONE, GONE), WAIT, UNDECIDED),
        (FOUR, (knows(V1, V2, mark=V1), knows(V1, V2, mark=V1), marked, GONE), WAIT, (ROLL, V2)),
        (FOUR, (both, both, both, marked), (CURRENT, V2), (CURRENT, V2)),
        (FOUR, (knows(V2, mark=V2), knows(V2, mark=V2), marked, marked), (CURRENT, V2), (CURRENT, V2)),
        # what lies below a mark is ignored, wherever it still is
        (FOUR, (knows(V2, mark=V2), two, one, one), (CURRENT, V2), (CURRENT, V2)),
        # a drive whose mark is newer lacks the older version without having refused it
        (FOUR, (knows(V3, mark=V3), knows(V3, mark=V3), two, two), (CURRENT, V3), (CURRENT, V3)),
        # tombstones: one copy suffices
        (FOUR, (tomb, marked, GONE, GONE), WAIT, (ROLL, V2)),
        (FOUR, (tomb, marked, marked, GONE), (CURRENT, V1), (CURRENT, V1)),
        # a healing drive: what it holds counts, its silence does not
        (FOUR, (one, one, knows(V1, healing=True), GONE), (CURRENT, V1), (CURRENT, V1)),
        (FOUR, (one, knows(V1, healing=True), knows(V1, healing=True), GONE), WAIT, (CURRENT, V1)),
        (FOUR, (marked, marked, healing, healing), (CURRENT, V1), (CURRENT, V1)),
        (FOUR, (one, NONE, healing, healing), WAIT, UNDECIDED),
        (FOUR, (knows(V1, mark=V1, healing=True), one, GONE, GONE), WAIT, UNDECIDED),
    ],
)
def test_rule_4(q: Quorums, answers: tuple[QueryReply | None, ...], early: object, final: object) -> None:
    got = replies(*answers)
    for expected, last in ((early, False), (final, True)):
        decision = decide_read(q, got, final=last)
        want = Decision(*expected) if isinstance(expected, tuple) else Decision(expected)  # type: ignore[arg-type]
        assert decision == want


def oracle_read(q: Quorums, answers: Mapping[int, QueryReply], final: bool) -> Decision:
    """Rule 4, version by version, in sets."""
    undecided = Decision(UNDECIDED if final else WAIT)
    full = {p for p, a in answers.items() if not a.healing}
    holding = {p: {h.stamp: h for h in a.records} for p, a in answers.items()}
    mark = max((a.mark for a in answers.values()), default=0)
    candidates = sorted({s for held in holding.values() for s in held if s >= mark}, reverse=True)
    for stamp in candidates:
        holders = {p for p in answers if stamp in holding[p]}
        sample = holding[min(holders)][stamp]
        served = len(holders) >= (q.data_shards if sample.shard_index >= 0 else 1)
        by_count, by_mark = len(holders) >= q.write_quorum, stamp == mark and served
        if by_count or by_mark:
            proven_newest = len(full) >= q.read_quorum
            counted_newest = final and by_count and len(answers) >= q.read_quorum
            return Decision(CURRENT, stamp) if proven_newest or counted_newest else undecided
        refused = {p for p in full if stamp not in holding[p] and answers[p].mark <= stamp}
        if stamp != mark and len(refused) >= q.read_quorum:
            continue
        if final and served and len(full) >= q.read_quorum:
            return Decision(ROLL, stamp)
        return undecided
    return Decision(ABSENT) if len(full) >= q.read_quorum and not mark else undecided


@st.composite
def sets_of_answers(draw: st.DrawFn) -> tuple[Quorums, dict[int, QueryReply]]:
    q = draw(st.sampled_from(GEOMETRIES))
    tombs = tuple(draw(st.sets(st.sampled_from((V1, V2, V3)))))
    answers = {}
    for position in range(q.set_size):
        if draw(st.integers(0, 4)) == 0:
            continue
        stamps = draw(st.sets(st.sampled_from((V1, V2, V3))))
        mark = draw(st.sampled_from([0, *sorted(stamps)]))
        stamps = {s for s in stamps if s >= mark}
        answers[position] = knows(*stamps, mark=mark, healing=draw(st.integers(0, 3)) == 0, tombs=tombs)
    return q, answers


@given(sets_of_answers(), st.booleans())
@settings(max_examples=400, deadline=None)
def test_rule_4_against_the_oracle(case: tuple[Quorums, dict[int, QueryReply]], final: bool) -> None:
    q, answers = case
    assert decide_read(q, answers, final) == oracle_read(q, answers, final)


@st.composite
def histories(draw: st.DrawFn) -> tuple[Quorums, list[QueryReply], int]:
    """A set in which V1, then V2, were written; which reached whom; the newest that was acknowledged."""
    q = draw(st.sampled_from(GEOMETRIES))
    tombs = (V2,) if draw(st.booleans()) else ()
    reached = {s: set(draw(st.permutations(range(q.set_size)))[: draw(st.integers(0, q.set_size))]) for s in (V1, V2)}
    committed = max((s for s, where in reached.items() if len(where) >= q.write_quorum), default=0)
    drives = []
    for position in range(q.set_size):
        held = {s for s, where in reached.items() if position in where}
        mark = committed if committed in held and draw(st.booleans()) else 0
        drives.append(knows(*(s for s in held if s >= mark), mark=mark, tombs=tombs))
    return q, drives, committed


@given(histories())
@settings(max_examples=80, deadline=None)
def test_no_subset_of_answers_denies_or_overtakes_what_was_acknowledged(
    case: tuple[Quorums, list[QueryReply], int],
) -> None:
    q, drives, committed = case
    for size in range(q.set_size + 1):
        for asked in itertools.combinations(range(q.set_size), size):
            for final in (False, True):
                decision = decide_read(q, {p: drives[p] for p in asked}, final)
                if decision.verdict is ABSENT:
                    assert not committed
                if decision.verdict is CURRENT:
                    assert decision.stamp == committed
                if decision.verdict is ROLL:
                    assert decision.stamp >= committed
                if not final and decision.verdict is not WAIT:
                    assert decide_read(q, {p: drives[p] for p in asked}, True) == decision


@given(histories())
@settings(max_examples=40, deadline=None)
def test_any_read_quorum_that_holds_enough_decides_a_settled_register(
    case: tuple[Quorums, list[QueryReply], int],
) -> None:
    q, _, _ = case
    settled = [knows(V1, mark=V1)] * q.set_size
    for asked in itertools.combinations(range(q.set_size), q.data_shards):
        assert decide_read(q, {p: settled[p] for p in asked}, True) == Decision(CURRENT, V1)


OK, STALE, LEASED, REFUSED, NO_DATA = (
    CommitStatus.OK,
    CommitStatus.STALE,
    CommitStatus.LEASED,
    CommitStatus.REFUSED,
    CommitStatus.NO_DATA,
)


@pytest.mark.parametrize(
    ("answers", "outcome"),
    [
        ((OK, OK, OK, OK), CommitOutcome.COMMITTED),
        ((OK, OK, OK, None), CommitOutcome.COMMITTED),
        ((OK, OK, OK, STALE), CommitOutcome.COMMITTED),
        ((OK, OK, None, None), CommitOutcome.FAILED),
        ((OK, STALE, STALE, STALE), CommitOutcome.FAILED),
        ((STALE, STALE, STALE, STALE), CommitOutcome.RESTAMP),
        ((STALE, STALE, STALE, None), CommitOutcome.FAILED),
        ((LEASED, LEASED, STALE, STALE), CommitOutcome.LEASED),
        ((LEASED, LEASED, LEASED, OK), CommitOutcome.FAILED),
        ((LEASED, LEASED, LEASED, None), CommitOutcome.FAILED),
        ((REFUSED, REFUSED, REFUSED, REFUSED), CommitOutcome.FAILED),
        ((NO_DATA, STALE, STALE, STALE), CommitOutcome.FAILED),
        ((None, None, None, None), CommitOutcome.FAILED),
    ],
)
def test_rules_1_and_6(answers: tuple[CommitStatus | None, ...], outcome: CommitOutcome) -> None:
    got = {p: CommitReply(status) for p, status in enumerate(answers) if status is not None}
    assert judge_commit(FOUR, range(4), got) is outcome


YES, HELD_OFF, NEWER = PrepareStatus.PROMISED, PrepareStatus.LEASED, PrepareStatus.MISMATCH


@pytest.mark.parametrize(
    ("answers", "outcome", "positions"),
    [
        ((YES, YES, YES, None), PrepareOutcome.PROMISED, [0, 1, 2]),
        ((YES, YES, YES, NEWER), PrepareOutcome.PROMISED, [0, 1, 2]),
        ((YES, YES, NEWER, HELD_OFF), PrepareOutcome.MISMATCH, [0, 1]),
        ((YES, YES, HELD_OFF, HELD_OFF), PrepareOutcome.LEASED, [0, 1]),
        ((YES, YES, None, None), PrepareOutcome.FAILED, [0, 1]),
        ((None, None, None, None), PrepareOutcome.FAILED, []),
    ],
)
def test_rule_7(answers: tuple[PrepareStatus | None, ...], outcome: PrepareOutcome, positions: list[int]) -> None:
    got = {p: PrepareReply(status, 0, False) for p, status in enumerate(answers) if status is not None}
    assert judge_prepare(FOUR, got) == (outcome, positions)


def test_a_healing_drive_promises_nothing() -> None:
    got = {p: PrepareReply(YES, 0, healing=p == 0) for p in range(3)}
    assert judge_prepare(FOUR, got) == (PrepareOutcome.FAILED, [1, 2])


@pytest.mark.parametrize(
    ("answers", "stamp", "step"),
    [
        ((one, one, one, GONE), V1, HealStep.COPY),
        ((marked, one, NONE, NONE), V1, HealStep.COPY),
        ((marked, NONE, NONE, NONE), V1, HealStep.STUCK),
        ((one, one, NONE, NONE), V1, HealStep.TAKE_BACK),
        ((one, one, NONE, healing), V1, HealStep.ROLL_FORWARD),
        ((one, one, NONE, GONE), V1, HealStep.ROLL_FORWARD),
        ((one, NONE, NONE, GONE), V1, HealStep.TAKE_BACK),
        ((one, NONE, healing, healing), V1, HealStep.STUCK),
        ((tomb, marked, GONE, GONE), V2, HealStep.ROLL_FORWARD),
        ((tomb, marked, marked, GONE), V2, HealStep.TAKE_BACK),
        ((tomb, tomb, tomb, marked), V2, HealStep.COPY),
    ],
)
def test_rules_8_and_11(answers: tuple[QueryReply | None, ...], stamp: int, step: HealStep) -> None:
    assert decide_heal(FOUR, replies(*answers), stamp) is step


@given(histories(), st.sets(st.integers(0, 5)))
@settings(max_examples=80, deadline=None)
def test_healing_never_takes_back_what_was_acknowledged(
    case: tuple[Quorums, list[QueryReply], int], away: set[int]
) -> None:
    q, drives, committed = case
    got = {p: a for p, a in enumerate(drives) if p not in away}
    if any(h.stamp == committed for a in got.values() for h in a.records):
        assert decide_heal(q, got, committed) is not HealStep.TAKE_BACK


def test_a_fence_holds_with_r_full_drives() -> None:
    yes, no, filling = FenceReply(True, False), FenceReply(False, False), FenceReply(True, True)
    assert fence_holds(FOUR, {0: yes, 1: yes})
    assert not fence_holds(FOUR, {0: yes, 1: no, 2: filling})
