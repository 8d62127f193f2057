"""What a fuzz target is, and how one is run: a fixed number of inputs, or rounds of new ones for a given time.

Rounds are seeded by their number, so that a failure of a long run comes back with the same seed.  A check that needs
more than CPU_SECONDS of processor time for one input fails: input may be refused, never be dear.  Time is counted on
the thread alone, so that a busy machine changes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.strategies import SearchStrategy

EXAMPLES = 120
"""Inputs of a short run."""
ROUND_EXAMPLES = 2_000
CPU_SECONDS = 5.0

Check = Callable[[Any], None]


@dataclass(frozen=True, slots=True)
class Target:
    name: str
    inputs: SearchStrategy[Any]
    checking: Callable[[], AbstractContextManager[Check]]
    """Around a run: what the check needs is there within."""
    examples: int = EXAMPLES


def pure(check: Check) -> Callable[[], AbstractContextManager[Check]]:
    """For a check that needs nothing."""

    @contextmanager
    def checking() -> Iterator[Check]:
        yield check

    return checking


def one_round(target: Target, check: Check, number: int, examples: int) -> Callable[[], None]:
    """A function that runs so many inputs, always the same ones."""

    @seed(number)
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
        print_blob=True,
    )
    @given(target.inputs)
    def fuzz(drawn: Any) -> None:
        started = time.thread_time()
        check(drawn)
        spent = time.thread_time() - started
        assert spent < CPU_SECONDS, f"{spent:.1f} s of processor time for {drawn!r}"

    return fuzz


def run_for(target: Target, seconds: float, first_round: int = 1) -> int:
    """Rounds until the time is over, one at least; returns how many inputs that were."""
    deadline = time.monotonic() + seconds
    number = first_round
    with target.checking() as check:
        while True:
            one_round(target, check, number, ROUND_EXAMPLES)()
            number += 1
            if time.monotonic() >= deadline:
                return (number - first_round) * ROUND_EXAMPLES


def run_short(target: Target) -> None:
    """The run of every day."""
    with target.checking() as check:
        one_round(target, check, 0, target.examples)()
