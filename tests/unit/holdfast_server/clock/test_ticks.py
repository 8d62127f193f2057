"""Ticks of different beginners fall together, and none is later than its interval."""

from hypothesis import given
from hypothesis import strategies as st

from holdfast_server.clock.ticks import seconds_to_next

INTERVALS = st.sampled_from([0.25, 0.75, 1.0])
MOMENTS = st.floats(min_value=0, max_value=1e7)


@given(MOMENTS, INTERVALS)
def test_it_is_never_at_once_and_never_later_than_the_interval(now: float, interval: float) -> None:
    assert 0 < seconds_to_next(now, interval) <= interval


def test_whoever_begins_when_ends_at_the_same_moment() -> None:
    assert {now + seconds_to_next(now, 0.75) for now in (7.5, 7.625, 8.0, 8.125)} == {8.25}
