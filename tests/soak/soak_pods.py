"""`make soak`: not collected by `make test`, because its name is not that of a test.

    SOAK_MINUTES   30 by default
    SOAK_SEED      decides the schedule of faults and operations
    SOAK_FAULTS    comma-separated kinds, all by default: each can be run alone

Writes `.bench/soak.json` and prints the table.
"""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast_server.testing.faults.power_loss import NoCompiler, PowerSupply, build_shim
from holdfast_server.testing.faults.s3_session import S3Session
from holdfast_server.testing.faults.soak import KINDS, Soak
from holdfast_server.testing.pods import PodProcesses

ROOT = Path(__file__).parents[2]
MINUTES = float(os.environ.get("SOAK_MINUTES", "30"))
SEED = int(os.environ.get("SOAK_SEED", "3"))
FAULTS = tuple(kind.strip() for kind in os.environ.get("SOAK_FAULTS", "").split(",") if kind.strip())
SMALL_DISK = "6g"
END_SECONDS = 1200


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path | None]:
    """A file system of its own under the last pod's folder, where this user may mount one."""
    folder = tmp_path / "pods" / "test-pool-main-3"
    folder.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={SMALL_DISK}", "holdfast-soak", str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True).returncode == 0
    except OSError:
        mounted = False
    yield folder if mounted else None
    if mounted:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.timeout(MINUTES * 60 + END_SECONDS)
async def test_everything_acknowledged_survives_mixed_faults(tmp_path: Path, small_disk: Path | None) -> None:
    assert set(FAULTS) <= set(KINDS), f"SOAK_FAULTS: choose from {', '.join(KINDS)}"
    pods = PodProcesses(tmp_path / "pods", servers=4, volumes=1)
    try:
        power = PowerSupply(pods, build_shim(tmp_path))
    except NoCompiler:
        power = None
    try:
        await pods.start_all()
        async with S3Session(pods.access_key, pods.secret_key) as session:
            soak = Soak(pods, session, SEED, power, small_disk)
            try:
                report = await soak.run(MINUTES, FAULTS)
            except BaseException:
                print(soak.report.table())
                raise
    finally:
        pods.stop()
    report.write(ROOT / ".bench" / "soak.json")
    print(f"\n{report.table()}")
