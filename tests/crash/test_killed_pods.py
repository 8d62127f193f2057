"""Promises 1 to 4 and 6 under `kill -9`: any pod, several, all, at random points of everything a pod does.

A handful of rounds here; `make soak` runs hundreds (`HOLDFAST_CRASH_ROUNDS`).  The seed is fixed unless
`HOLDFAST_CRASH_SEED` gives another; a failure prints it with the story of the round.
"""

import os
from pathlib import Path

import pytest

from holdfast_server.testing.faults import altered_server
from holdfast_server.testing.faults.ledger import PromiseBroken
from holdfast_server.testing.faults.rounds import KINDS, CrashRounds
from holdfast_server.testing.faults.s3_session import S3Session
from holdfast_server.testing.pods import PodProcesses

ROUNDS = int(os.environ.get("HOLDFAST_CRASH_ROUNDS", "0"))
SEED = int(os.environ.get("HOLDFAST_CRASH_SEED", "11"))
SECONDS_PER_ROUND = 20
LEAST_ACKNOWLEDGED = 15
"""In a round of a few."""
FEW = ("kill all", "kill one", "kill while healing", "kill some", "kill while starting")


async def run_rounds(directory: Path, rounds: int, kinds: tuple[str, ...], versioned: bool = False) -> CrashRounds:
    pods = PodProcesses(directory, servers=4, volumes=1, entry=altered_server.entry())
    try:
        await pods.start_all()
        async with S3Session(pods.access_key, pods.secret_key) as session:
            crash = CrashRounds(pods, session, SEED, versioned=versioned)
            crash.least_acknowledged = 0 if ROUNDS else LEAST_ACKNOWLEDGED
            await crash.run(rounds, kinds)
            findings = await crash.finish()
            print(f"\n{crash.summary()}\n{findings}")
            if findings.shard_files:
                # The inspection itself must be able to fail.
                path = findings.shard_files[0]
                path.write_bytes(path.read_bytes()[:-100] + bytes(100))
                with pytest.raises(PromiseBroken, match=path.name):
                    await crash.inspect()
            return crash
    finally:
        pods.stop()


@pytest.mark.skipif(ROUNDS > 0, reason="the long count runs instead")
async def test_what_was_acknowledged_survives_a_few_rounds_of_kill_9(tmp_path: Path) -> None:
    crash = await run_rounds(tmp_path / "pods", len(FEW), FEW)
    assert crash.traffic.ledger.acknowledged > 50


@pytest.mark.timeout(600 + ROUNDS * SECONDS_PER_ROUND)
@pytest.mark.skipif(ROUNDS == 0, reason="HOLDFAST_CRASH_ROUNDS gives the number of rounds")
async def test_what_was_acknowledged_survives_hundreds_of_rounds_of_kill_9(tmp_path: Path) -> None:
    crash = await run_rounds(tmp_path / "pods", ROUNDS, ())
    assert ROUNDS < 100 or set(crash.tally.kinds) == set(KINDS)


@pytest.mark.skipif(ROUNDS > 0, reason="the long count runs instead")
async def test_versions_survive_a_round_of_kill_9(tmp_path: Path) -> None:
    crash = await run_rounds(tmp_path / "pods", 1, ("kill all",), versioned=True)
    assert crash.traffic.versions.kept


@pytest.mark.timeout(600 + ROUNDS * SECONDS_PER_ROUND)
@pytest.mark.skipif(ROUNDS == 0, reason="HOLDFAST_CRASH_ROUNDS gives the number of rounds")
async def test_versions_survive_many_rounds_of_kill_9(tmp_path: Path) -> None:
    """A fifth as many: nothing that is replaced goes away, so each check takes longer than the last."""
    await run_rounds(tmp_path / "pods", max(1, ROUNDS // 5), (), versioned=True)
