"""Which shards were read lately, and which wait for each other."""

from __future__ import annotations

import pytest

from holdfast_server.drives import trash
from holdfast_server.drives.trash import RecentReads
from holdfast_server.testing.manual_clock import ManualClock

IDS = [bytes([number]) * 16 for number in range(8)]


def test_those_of_one_record_are_read_with_each_other_and_not_with_others() -> None:
    clock = ManualClock()
    reads = RecentReads(clock, 30.0)
    reads.keep_together(IDS[:4])
    reads.keep_together(IDS[4:])
    assert not any(map(reads.contains, IDS))
    reads.add(IDS[1])
    assert list(map(reads.contains, IDS)) == [True] * 4 + [False] * 4
    clock.advance(61)
    assert not any(map(reads.contains, IDS))


def test_what_was_read_before_it_was_dropped_counts() -> None:
    clock = ManualClock()
    reads = RecentReads(clock, 30.0)
    reads.add(IDS[0])
    clock.advance(20)
    reads.keep_together(IDS)
    clock.advance(20)
    assert all(map(reads.contains, IDS))


def test_what_is_gone_is_forgotten() -> None:
    reads = RecentReads(ManualClock(), 30.0)
    reads.keep_together(IDS)
    for data_id in IDS:
        reads.forget(data_id)
    assert not reads._together


def test_too_many_are_each_for_itself_and_those_that_are_read_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trash, "MAX_TOGETHER", 8)
    reads = RecentReads(ManualClock(), 30.0)
    reads.keep_together(IDS[:4])
    reads.keep_together(IDS[4:6])
    assert len(reads._together) == 4
    reads.add(IDS[4])
    assert [reads.contains(data_id) for data_id in IDS[4:6]] == [True, False]
    reads.keep_together(IDS[4:6])
    assert reads.contains(IDS[5])
    reads.add(IDS[6])
    reads.keep_together([*IDS[6:], *(bytes([9, number]) * 8 for number in range(2))])
    assert len(reads._together) == 6
