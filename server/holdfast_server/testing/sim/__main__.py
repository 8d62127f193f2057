"""`python -m holdfast_server.testing.sim`: many seeds, or one again.

--first 0 --seeds 1000 --profile any     run these; prints failures with their history, ends with 1 if any
--replay SEED --profile NAME             run one, print its history
--minutes M                              go on through the seeds until the time is up
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter

from holdfast_server.testing.sim.runs import RUNS, replay
from holdfast_server.testing.sim.simulation import Failed


def main() -> int:
    options = argparse.ArgumentParser(prog="python -m holdfast_server.testing.sim", description=__doc__)
    options.add_argument("--first", type=int, default=0)
    options.add_argument("--seeds", type=int, default=1000)
    options.add_argument("--minutes", type=float, default=0.0)
    options.add_argument("--profile", choices=sorted(RUNS), action="append")
    options.add_argument("--replay", type=int)
    options.add_argument("--stop-after", type=int, default=10, help="failures")
    chosen = options.parse_args()
    profiles = chosen.profile or sorted(RUNS)
    if chosen.replay is not None:
        print(replay(chosen.replay, profiles[0]).told)
        return 0
    return _many(profiles, chosen.first, chosen.seeds, chosen.minutes, chosen.stop_after)


def _many(profiles: list[str], first: int, seeds: int, minutes: float, stop_after: int) -> int:
    began = time.monotonic()
    runs = operations = unjudged = 0
    failures: Counter[str] = Counter()
    seed = first
    while (time.monotonic() - began < minutes * 60) if minutes else seed < first + seeds:
        for profile in profiles:
            runs += 1
            try:
                outcome = replay(seed, profile)
            except Failed as failure:
                failures[failure.checker] += 1
                print(failure, end="\n\n", flush=True)
            else:
                operations += outcome.operations
                unjudged += not outcome.judged
        if failures.total() >= stop_after:
            break
        seed += 1
    took = time.monotonic() - began
    print(
        f"{runs} runs of seeds {first} to {seed} ({', '.join(profiles)}): {operations} operations, "
        f"{unjudged} too long to judge, {failures.total()} failures {dict(failures)}, {took:.0f} s"
    )
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
