"""Counting where versions of one register were cut differently: each is judged by its own numbers, reads by the set's.

A version of reduced redundancy has K' > K data shards, so W' = K' copies commit it and R' = N - W' + 1 <= R full drives
deny it.  The histories here mix such versions with ordinary ones and with tombstones, the older beneath the newer.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast_server.contract.geometry import Quorums, quorums
from holdfast_server.drives.port import FenceReply, Held, QueryReply
from holdfast_server.objects import record
from holdfast_server.objects.quorum import (
    Decision,
    HealStep,
    Verdict,
    copies_needed,
    decide_heal,
    decide_read,
    fence_holds,
    of_version,
)
from holdfast_server.objects.record import Extent, Geometry, Kind, Record

SETS = [(4, 2), (5, 2), (6, 2), (6, 3), (7, 3), (8, 4)]
STAMPS = (10, 20, 30)


def version(stamp: int, set_size: int, parity: int) -> Held:
    """One that was cut with that parity; a tombstone with none."""
    if not parity:
        return Held(stamp, True, record.encode(Record(Kind.TOMBSTONE, stamp)), -1, None)
    cut = Geometry(set_size - parity, parity)
    encoded = record.encode(Record(Kind.OBJECT, stamp, size_bytes=9, geometry=cut, extents=(Extent(b"", 9),)))
    return Held(stamp, False, encoded, 0, None)


def drive(held: Sequence[Held], mark: int = 0, healing: bool = False) -> QueryReply:
    newest_first = tuple(sorted((one for one in held if one.stamp >= mark), key=lambda one: -one.stamp))
    return QueryReply(newest_first, mark, max((one.stamp for one in held), default=0), 0, healing)


class History:
    """Versions that were written one after the other, and which drives each of them reached."""

    def __init__(self, set_size: int, parity: int, parities: Sequence[int], reached: Sequence[set[int]]) -> None:
        self.numbers = quorums(set_size, parity)
        self.versions = [version(s, set_size, p) for s, p in zip(STAMPS, parities, strict=True)]
        self.reached = dict(zip(STAMPS, reached, strict=True))
        committed = [v.stamp for v in self.versions if len(self.reached[v.stamp]) >= self.own(v).write_quorum]
        self.committed = max(committed, default=0)

    def own(self, held: Held) -> Quorums:
        return of_version(self.numbers, held)

    def of(self, stamp: int) -> Held:
        return next(held for held in self.versions if held.stamp == stamp)

    def drives(self, marked: set[int]) -> dict[int, QueryReply]:
        """`marked`: drives that were told of what was committed, if they hold it."""
        return {
            p: drive(
                [held for held in self.versions if p in self.reached[held.stamp]],
                self.committed if p in marked and self.committed and p in self.reached[self.committed] else 0,
            )
            for p in range(self.numbers.set_size)
        }


@st.composite
def histories(draw: st.DrawFn) -> History:
    size, parity = draw(st.sampled_from(SETS))
    parities = [draw(st.integers(0, parity)) for _ in STAMPS]
    reached = [set(draw(st.permutations(range(size)))[: draw(st.integers(0, size))]) for _ in STAMPS]
    return History(size, parity, parities, reached)


@pytest.mark.parametrize(("size", "parity"), SETS)
def test_a_version_has_the_numbers_that_it_was_cut_with(size: int, parity: int) -> None:
    numbers = quorums(size, parity)
    for own in range(1, parity + 1):
        held = version(10, size, own)
        assert of_version(numbers, held) == quorums(size, own)
        assert copies_needed(numbers, held) == size - own
    assert of_version(numbers, version(10, size, 0)) is numbers
    assert copies_needed(numbers, version(10, size, 0)) == 1
    assert of_version(numbers, Held(10, False, b"no record", 0, None)) is numbers


@pytest.mark.parametrize(("size", "parity"), SETS)
def test_every_two_versions_that_are_committed_share_a_drive_and_every_read_meets_them(size: int, parity: int) -> None:
    numbers = quorums(size, parity)
    for one, other in itertools.product(range(1, parity + 1), repeat=2):
        first, second = quorums(size, one), quorums(size, other)
        assert first.write_quorum + second.write_quorum > size
        assert numbers.read_quorum + first.write_quorum > size
        assert first.write_quorum >= max(first.data_shards, numbers.write_quorum)
        assert first.read_quorum + first.write_quorum == size + 1, "who denies it and who commits it share a drive"


@given(histories(), st.sets(st.integers(0, 7)))
@settings(max_examples=50, deadline=None)
def test_no_subset_of_answers_denies_or_overtakes_what_was_acknowledged(history: History, marked: set[int]) -> None:
    numbers, drives, committed = history.numbers, history.drives(marked), history.committed
    for count in range(numbers.set_size + 1):
        for asked in itertools.islice(itertools.combinations(range(numbers.set_size), count), 20):
            answers = {p: drives[p] for p in asked}
            early, late = decide_read(numbers, answers, False), decide_read(numbers, answers, True)
            assert early == late or early.verdict is Verdict.WAIT
            if late.verdict is Verdict.ABSENT:
                assert not committed
            if late.verdict is Verdict.CURRENT:
                assert late.stamp == committed
                served = sum(late.stamp in {held.stamp for held in answers[p].records} for p in asked)
                assert served >= copies_needed(numbers, history.of(late.stamp))
            if late.verdict is Verdict.ROLL_FORWARD:
                assert late.stamp >= committed


@given(histories(), st.sets(st.integers(0, 7)), st.sets(st.integers(0, 7)))
@settings(max_examples=80, deadline=None)
def test_healing_takes_back_nothing_that_was_acknowledged(history: History, marked: set[int], away: set[int]) -> None:
    answers = {p: reply for p, reply in history.drives(marked).items() if p not in away}
    if any(held.stamp == history.committed for reply in answers.values() for held in reply.records):
        assert decide_heal(history.numbers, answers, history.committed) is not HealStep.TAKE_BACK


@given(histories(), st.data())
@settings(max_examples=100, deadline=None)
def test_what_was_acknowledged_survives_its_own_parity_of_losses(history: History, data: st.DataObject) -> None:
    """Together with the drives that it had not reached; what is lost is silent, or replaced by what is empty."""
    numbers, drives, committed = history.numbers, history.drives(set()), history.committed
    if not committed:
        return
    own = history.own(history.of(committed))
    missed = numbers.set_size - len(history.reached[committed])
    holders = data.draw(st.permutations(sorted(history.reached[committed])))
    lost = holders[: max(0, numbers.set_size - own.write_quorum - missed)]
    for position in lost:
        if data.draw(st.booleans()):
            del drives[position]
        else:
            drives[position] = drive([], healing=True)
    decision = decide_read(numbers, drives, True)
    if any(held.stamp > committed for reply in drives.values() for held in reply.records):
        assert decision.verdict is not Verdict.ABSENT
        assert decision.verdict is Verdict.UNDECIDED or decision.stamp >= committed
    else:
        assert decision == Decision(Verdict.CURRENT, committed)


@pytest.mark.parametrize(("size", "parity"), SETS)
def test_with_all_drives_up_every_torn_write_is_decided(size: int, parity: int) -> None:
    """Also one that reached W drives of the set, but not W' of its own: it is denied by R' < R drives."""
    numbers = quorums(size, parity)
    for own, reached in itertools.product(range(1, parity + 1), range(1, size + 1)):
        history = History(size, parity, (parity, own, 0), (set(range(size)), set(range(reached)), set()))
        drives = history.drives(set(range(size)))
        committed = reached >= quorums(size, own).write_quorum
        assert decide_read(numbers, drives, True) == Decision(Verdict.CURRENT, STAMPS[1] if committed else STAMPS[0])
        step = decide_heal(numbers, drives, STAMPS[1])
        assert step is (HealStep.COPY if committed else HealStep.TAKE_BACK)


@pytest.mark.parametrize(("size", "parity"), SETS)
def test_a_fence_of_its_own_read_quorum_keeps_a_version_from_ever_being_committed(size: int, parity: int) -> None:
    for own in range(1, parity + 1):
        numbers = quorums(size, own)
        fences = {p: FenceReply(True, False) for p in range(numbers.read_quorum)}
        assert fence_holds(numbers, fences)
        assert size - len(fences) < numbers.write_quorum, "those that are left are too few to commit it"
        del fences[0]
        assert not fence_holds(numbers, fences)
        assert size - len(fences) >= numbers.write_quorum, "and one promise less would not have been enough"


def test_one_copy_short_of_its_own_shards_and_a_replaced_drive_is_for_a_person_to_decide() -> None:
    """Rule 11, by the version's K': with the set's K it would have been called committed, and could not be served."""
    numbers, held = quorums(6, 3), version(10, 6, 1)
    copies = {p: drive([held]) for p in range(4)}
    answers = {**copies, 4: drive([]), 5: drive([], healing=True)}
    assert len(copies) >= numbers.write_quorum
    assert decide_read(numbers, answers, True).verdict is Verdict.UNDECIDED
    assert decide_heal(numbers, answers, 10) is HealStep.STUCK
