"""Probes turn after the thresholds of their manifest, and in no other way."""

from __future__ import annotations

from holdfast_local.kubelet.probe_state import ProbeKind, ProbeState, ProbeTiming, Verdict


def make(kind: ProbeKind, success_threshold: int = 1, failure_threshold: int = 3) -> ProbeState:
    probe = {"successThreshold": success_threshold, "failureThreshold": failure_threshold}
    return ProbeState(kind, ProbeTiming.from_manifest(probe))


def test_defaults_are_those_of_kubernetes() -> None:
    timing = ProbeTiming.from_manifest({})
    assert timing == ProbeTiming(0, 10, 1, 1, 3)


def test_readiness_needs_successes_in_a_row() -> None:
    state = make(ProbeKind.READINESS, success_threshold=2)
    results = [state.observe(result) for result in (True, False, True, True)]
    assert results == [Verdict.UNCHANGED, Verdict.UNCHANGED, Verdict.UNCHANGED, Verdict.PASSED]


def test_readiness_is_lost_after_failures_in_a_row_only() -> None:
    state = make(ProbeKind.READINESS, failure_threshold=2)
    state.observe(True)
    results = [state.observe(result) for result in (False, True, False, False, False)]
    assert results == [
        Verdict.UNCHANGED,
        Verdict.UNCHANGED,
        Verdict.UNCHANGED,
        Verdict.FAILED,
        Verdict.UNCHANGED,
    ]


def test_a_probe_that_never_passed_does_not_fail_readiness_again() -> None:
    state = make(ProbeKind.READINESS, failure_threshold=1)
    assert state.observe(False) is Verdict.UNCHANGED
    assert not state.passing


def test_liveness_is_assumed_until_it_fails() -> None:
    state = make(ProbeKind.LIVENESS, failure_threshold=2)
    assert state.passing
    assert [state.observe(False), state.observe(False)] == [Verdict.UNCHANGED, Verdict.FAILED]


def test_startup_passes_once_and_fails_at_its_threshold() -> None:
    assert make(ProbeKind.STARTUP).observe(True) is Verdict.PASSED
    state = make(ProbeKind.STARTUP, failure_threshold=3)
    assert [state.observe(False) for _ in range(3)] == [Verdict.UNCHANGED, Verdict.UNCHANGED, Verdict.FAILED]
