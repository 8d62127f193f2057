"""Figures for people: coarse, steady, never promising too much."""

from __future__ import annotations

import pytest

from holdfast_server.contract.healing import FillingProgress
from holdfast_server.contract.wording import (
    about,
    coarse_count,
    coarse_percent,
    count_of,
    filled_fraction,
    first_of,
    how_far,
)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "a few seconds"), (9.9, "a few seconds"), (12, "10 s"), (49, "50 s"), (50, "1 min"), (173, "3 min"),
        (14 * 60, "15 min"), (49 * 60, "50 min"), (3600, "1 h"), (35 * 3600, "35 h"), (3 * 86400, "3 d"),
    ],
)  # fmt: skip
def test_durations_have_one_unit(seconds: float, text: str) -> None:
    assert about(seconds) == text


def test_durations_never_grow_as_time_runs_out() -> None:
    order = [about(seconds) for seconds in range(100_000, 0, -7)]
    assert len(dict.fromkeys(order)) == len([a for a, b in zip([None, *order], order, strict=False) if a != b])


@pytest.mark.parametrize(("fraction", "percent"), [(-1, 0), (0.049, 0), (0.42, 40), (0.999, 95), (1, 100), (2, 100)])
def test_shares_are_rounded_down(fraction: float, percent: int) -> None:
    assert coarse_percent(fraction) == percent


def test_a_drive_that_is_still_filled_is_never_at_a_hundred() -> None:
    done = FillingProgress(replacement=True, registers_done=1100, registers_total=1000)
    assert filled_fraction(done) < 1
    assert how_far(done) == "95 %"
    assert filled_fraction(FillingProgress(replacement=True, registers_done=5)) == 0
    assert how_far(FillingProgress(replacement=True, seconds_left=4)) == "0 %, a few seconds left"


@pytest.mark.parametrize(("count", "coarse"), [(0, 0), (7, 7), (99, 99), (1234, 1200), (987_654, 980_000)])
def test_counts_keep_two_digits(count: int, coarse: int) -> None:
    assert coarse_count(count) == coarse


def test_counts_agree_with_their_noun() -> None:
    assert (count_of(1, "drive", "drives"), count_of(1234, "drive", "drives")) == ("1 drive", "1,234 drives")


def test_long_lists_are_cut_and_say_so() -> None:
    assert first_of([], 2) == ""
    assert first_of(["a", "b"], 2) == "a, b"
    assert first_of(["a", "b", "c"], 2, "; ") == "a; b and more"
