"""Stamps: a total order that never runs backwards, whatever the wall clock does."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast_server.clock.stamp import MAX_NODE, MAX_STAMP, HybridClock, floor_stamp, stamp_ms, stamp_node

NOW_MS = 1_790_000_000_000


def test_a_stamp_carries_its_millisecond_and_its_pod() -> None:
    stamp = HybridClock(node=7).next(NOW_MS)
    assert (stamp_ms(stamp), stamp_node(stamp)) == (NOW_MS, 7)
    assert floor_stamp(NOW_MS) <= stamp < floor_stamp(NOW_MS + 1)
    assert stamp < MAX_STAMP


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("next"), st.integers(0, 2**42)),
            st.tuples(st.just("observe"), st.integers(0, 2**62)),
        ),
        max_size=40,
    )
)
def test_every_stamp_is_above_all_minted_and_observed(steps: list[tuple[str, int]]) -> None:
    clock = HybridClock(node=3)
    greatest = -1
    for verb, value in steps:
        if verb == "observe":
            clock.observe(value)
            greatest = max(greatest, value)
        else:
            stamp = clock.next(value)
            assert stamp > greatest
            assert stamp_node(stamp) == 3
            greatest = stamp


def test_a_full_counter_borrows_from_the_milliseconds() -> None:
    clock = HybridClock(node=1)
    stamps = [clock.next(NOW_MS) for _ in range(3000)]
    assert stamps == sorted(set(stamps))
    assert stamp_ms(stamps[-1]) == NOW_MS + 2


def test_two_pods_never_mint_the_same_stamp() -> None:
    one, other = HybridClock(1), HybridClock(2)
    minted = [clock.next(NOW_MS) for _ in range(100) for clock in (one, other)]
    assert len(set(minted)) == len(minted)


def test_a_restart_starts_above_what_the_drives_know() -> None:
    before = HybridClock(5)
    last = before.next(NOW_MS)
    after = HybridClock(5, greatest_seen=last)
    assert after.next(NOW_MS - 60_000) > last


@pytest.mark.parametrize("node", [-1, MAX_NODE + 1])
def test_a_pod_number_that_does_not_fit_is_refused(node: int) -> None:
    with pytest.raises(ValueError, match="pod number"):
        HybridClock(node)
