"""Promise 1 under power loss, below RocksDB and the shard files: nothing acknowledged may rest on what was not synced.

A few cuts here, `HOLDFAST_CRASH_ROUNDS` of them in `make soak`; and the proof that this would notice: each step that
makes data durable is left out once, and the same check must fail.
"""

import os
from pathlib import Path

import pytest

from holdfast_server.testing.faults import altered_server
from holdfast_server.testing.faults.altered_server import Omission
from holdfast_server.testing.faults.ledger import PromiseBroken
from holdfast_server.testing.faults.power_loss import Loss, PowerSupply
from holdfast_server.testing.faults.rounds import CrashRounds
from holdfast_server.testing.faults.s3_session import S3Session
from holdfast_server.testing.pods import PodProcesses

ROUNDS = int(os.environ.get("HOLDFAST_CRASH_ROUNDS", "0"))
SEED = int(os.environ.get("HOLDFAST_CRASH_SEED", "12"))
SECONDS_PER_ROUND = 20
LEAST_ACKNOWLEDGED = 15
"""In a round of a few."""
FEW = 3
CUTS = ("kill all", "kill while starting", "kill while healing", "kill all", "kill some")
LONG = pytest.mark.skipif(ROUNDS == 0, reason="HOLDFAST_CRASH_ROUNDS gives the number of rounds")


async def run_cuts(
    directory: Path, shim: Path, rounds: int, kinds: tuple[str, ...], omit: Omission | None = None,
    loss: Loss | None = None, impatient: pytest.MonkeyPatch | None = None, finish: bool = True, versioned: bool = False,
) -> CrashRounds:  # fmt: skip
    pods = PodProcesses(directory, servers=4, volumes=1, entry=altered_server.entry(omit=omit))
    power = PowerSupply(pods, shim)
    power.loss = loss
    try:
        await pods.start_all()
        if impatient is not None:
            # What is lost stays lost: no need to wait long for it.
            impatient.setattr("holdfast_server.testing.pods.START_TIMEOUT_SECONDS", 20.0)
            impatient.setattr("holdfast_server.testing.faults.traffic.READ_ATTEMPT_SECONDS", 5.0)
        async with S3Session(pods.access_key, pods.secret_key) as session:
            crash = CrashRounds(pods, session, SEED, power, versioned)
            crash.least_acknowledged = LEAST_ACKNOWLEDGED if rounds <= FEW else 0
            await crash.run(rounds, kinds)
            if finish:
                print(f"\n{await crash.finish()}")
            print(f"\n{crash.summary()}")
            return crash
    finally:
        pods.stop()


@pytest.mark.skipif(ROUNDS > 0, reason="the long count runs instead")
async def test_what_was_acknowledged_survives_a_few_power_cuts(shim: Path, tmp_path: Path) -> None:
    crash = await run_cuts(tmp_path / "pods", shim, FEW, ("kill all",), finish=False)
    assert crash.tally.cuts == FEW


@LONG
@pytest.mark.timeout(600 + ROUNDS * SECONDS_PER_ROUND)
async def test_what_was_acknowledged_survives_hundreds_of_power_cuts(shim: Path, tmp_path: Path) -> None:
    crash = await run_cuts(tmp_path / "pods", shim, ROUNDS, CUTS)
    assert crash.tally.cuts > ROUNDS // 3


@LONG
@pytest.mark.timeout(600 + ROUNDS * SECONDS_PER_ROUND)
async def test_versions_survive_many_power_cuts(shim: Path, tmp_path: Path) -> None:
    """A fifth as many: nothing that is replaced goes away, so each check takes longer than the last."""
    crash = await run_cuts(tmp_path / "pods", shim, max(1, ROUNDS // 5), CUTS, versioned=True)
    assert crash.traffic.versions.kept


@pytest.mark.parametrize("omit", [Omission.LOG_FLUSH, pytest.param(Omission.SHARD_SYNC, marks=LONG),
                                  pytest.param(Omission.STAGING_SYNC, marks=LONG),
                                  pytest.param(Omission.IDENTITY_SYNC, marks=LONG),
                                  pytest.param(Omission.FORMAT_SYNC, marks=LONG)])  # fmt: skip
async def test_a_step_left_out_is_noticed(
    omit: Omission, shim: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(PromiseBroken) as noticed:
        await run_cuts(tmp_path / "pods", shim, 2, ("kill all",), omit, Loss.EVERYTHING, monkeypatch, False)
    print(f"\n{omit.value}: {noticed.value}")
