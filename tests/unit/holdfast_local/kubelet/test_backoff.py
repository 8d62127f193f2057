"""Crash back-off: at once first, then doubling, capped, forgotten after a healthy run."""

from __future__ import annotations

from holdfast_local.kubelet.backoff import HEALTHY_RUN_SECONDS, LONGEST_DELAY_SECONDS, CrashBackoff


def test_delays_grow_and_are_capped() -> None:
    backoff = CrashBackoff()
    delays = [backoff.delay_seconds(0) for _ in range(12)]
    assert delays[:4] == [0.1, 0.5, 1.0, 2.0]
    assert delays == sorted(delays)
    assert delays[-1] == LONGEST_DELAY_SECONDS


def test_a_healthy_run_is_forgiven() -> None:
    backoff = CrashBackoff()
    for _ in range(5):
        backoff.delay_seconds(1)
    assert backoff.delay_seconds(HEALTHY_RUN_SECONDS) == 0.1
    assert backoff.delay_seconds(1) == 0.5


def test_thousands_of_crashes_do_not_overflow() -> None:
    assert CrashBackoff(crashes_in_a_row=100_000).delay_seconds(0) == LONGEST_DELAY_SECONDS
