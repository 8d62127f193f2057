"""Probes as a state machine: results in, verdicts out.  No I/O and no clock (see `probe_runner`).

A startup probe holds the other two back until its first success; a readiness probe starts at "not ready" and
changes after enough equal results in a row; a liveness probe asks for a restart after enough failures.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


class ProbeKind(enum.Enum):
    STARTUP = "startup"
    READINESS = "readiness"
    LIVENESS = "liveness"


class Verdict(enum.Enum):
    UNCHANGED = "unchanged"
    PASSED = "passed"
    """The probe turned good: started, ready, or alive."""
    FAILED = "failed"
    """The probe turned bad: not ready; or, for startup and liveness, restart the container."""


@dataclass(frozen=True)
class ProbeTiming:
    """Timing of a probe as its manifest gives it, with Kubernetes' defaults; all at least their minimum."""

    initial_delay_seconds: float
    period_seconds: float
    timeout_seconds: float
    success_threshold: int
    failure_threshold: int

    @classmethod
    def from_manifest(cls, probe: Mapping[str, Any]) -> ProbeTiming:
        return cls(
            initial_delay_seconds=float(probe.get("initialDelaySeconds") or 0),
            period_seconds=float(probe.get("periodSeconds") or 10),
            timeout_seconds=float(probe.get("timeoutSeconds") or 1),
            success_threshold=int(probe.get("successThreshold") or 1),
            failure_threshold=int(probe.get("failureThreshold") or 3),
        )


class ProbeState:
    """Counts equal results in a row and says when the state turns."""

    def __init__(self, kind: ProbeKind, timing: ProbeTiming) -> None:
        self.kind = kind
        self.passing = kind is ProbeKind.LIVENESS
        self._timing = timing
        self._last_result: bool | None = None
        self._in_a_row = 0

    def observe(self, success: bool) -> Verdict:
        """Note one result.  FAILED from startup and liveness repeats on each further failure."""
        if success == self._last_result:
            self._in_a_row += 1
        else:
            self._last_result, self._in_a_row = success, 1
        if success:
            if self.passing or self._in_a_row < self._timing.success_threshold:
                return Verdict.UNCHANGED
            self.passing = True
            return Verdict.PASSED
        if self._in_a_row < self._timing.failure_threshold:
            return Verdict.UNCHANGED
        if self.kind is ProbeKind.READINESS and not self.passing:
            return Verdict.UNCHANGED
        self.passing = False
        return Verdict.FAILED
