"""Everything that reads what strangers send, fuzzed: for a moment here, for HOLDFAST_FUZZ_MINUTES in `make soak`.

The minutes are for all targets together; each gets an equal share, in rounds whose seeds count up from
HOLDFAST_FUZZ_ROUND (1), so that another number is other input.  What the targets promise stands with them, in
`holdfast_server.testing.fuzzing`.
"""

from __future__ import annotations

import os

import pytest

from holdfast_server.testing.fuzzing.target import Target, run_for, run_short
from holdfast_server.testing.fuzzing.targets import TARGETS

MINUTES = float(os.environ.get("HOLDFAST_FUZZ_MINUTES", "0"))
FIRST_ROUND = int(os.environ.get("HOLDFAST_FUZZ_ROUND", "1"))


@pytest.mark.timeout(300 + 120 * MINUTES)
@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name.replace(" ", "-"))
def test_whatever_is_sent_gets_an_answer_that_clients_understand(target: Target) -> None:
    if not MINUTES:
        run_short(target)
        return
    inputs = run_for(target, MINUTES * 60 / len(TARGETS), FIRST_ROUND)
    print(f"{target.name}: {inputs} inputs")
