"""How long a crashed container waits before it starts again.  Pure: durations in, a delay out.

Quicker than a real kubelet (10 s, doubling to 5 min), because a killed storage pod on a laptop should be back
before anyone looks; the shape is the same: at once first, doubling, capped, forgotten after a healthy run.
"""

from __future__ import annotations

from dataclasses import dataclass

FIRST_DELAY_SECONDS = 0.1
SECOND_DELAY_SECONDS = 0.5
LONGEST_DELAY_SECONDS = 30.0
HEALTHY_RUN_SECONDS = 60.0


@dataclass
class CrashBackoff:
    """Counts crashes in a row."""

    crashes_in_a_row: int = 0

    def delay_seconds(self, ran_seconds: float) -> float:
        """Note a run that ended after `ran_seconds`; the delay before the next one."""
        if ran_seconds >= HEALTHY_RUN_SECONDS:
            self.crashes_in_a_row = 0
        self.crashes_in_a_row += 1
        if self.crashes_in_a_row == 1:
            return FIRST_DELAY_SECONDS
        doublings = min(self.crashes_in_a_row - 2, 16)
        return float(min(SECOND_DELAY_SECONDS * 2**doublings, LONGEST_DELAY_SECONDS))
