"""`make soak`: not collected by `make test`, because its name is not that of a test.

    SOAK_MINUTES   30 by default
    SOAK_SEED      decides the schedule of faults and operations
    SOAK_FAULTS    comma-separated kinds, all by default: each can be run alone

A file system that turns read-only loses what a power cut's stand-in only pretends to have synced; so it comes where it
is named in SOAK_FAULTS and "power cut" is not.  Writes `.bench/soak.json` and prints the table.
"""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast_server.testing.faults.failing_disk import CannotMount, ErringFileSystem, FailingDisk
from holdfast_server.testing.faults.network_cut import CannotCut, NetworkCut
from holdfast_server.testing.faults.power_loss import NoCompiler, PowerSupply, build_shim
from holdfast_server.testing.faults.s3_session import S3Session
from holdfast_server.testing.faults.soak import KINDS, Machinery, Soak
from holdfast_server.testing.pods import PodProcesses

ROOT = Path(__file__).parents[2]
MINUTES = float(os.environ.get("SOAK_MINUTES", "30"))
SEED = int(os.environ.get("SOAK_SEED", "3"))
FAULTS = tuple(kind.strip() for kind in os.environ.get("SOAK_FAULTS", "").split(",") if kind.strip())
SMALL_DISK = "6g"
ERRING_SIZE_BYTES = 4 << 30
END_SECONDS = 1200
KEYS = {"default.1": "5e" * 32}


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


@pytest.fixture
def machinery(tmp_path: Path, pods: PodProcesses, small_disk: Path | None) -> Iterator[Machinery]:
    """Before any pod runs."""
    made = Machinery(full_disk=small_disk)
    wanted = FAULTS or tuple(KINDS)
    if small_disk is None:
        made.missing["full disk"] = "no right to mount a small file system"
    try:
        made.network = NetworkCut(pods)
    except CannotCut as error:
        made.missing["cut off"] = str(error)
    try:
        if "power cut" in wanted:
            made.power = PowerSupply(pods, build_shim(tmp_path))
        made.disk = FailingDisk(tmp_path / "disk")
        join_environments(pods, made.disk)
    except NoCompiler as error:
        made.missing |= dict.fromkeys(("power cut", "hanging disk", "failing disk"), str(error))
    if "read-only" not in FAULTS or made.power is not None:
        made.missing["read-only"] = "not beside power cuts"
    else:
        try:
            made.erring = ErringFileSystem(pods.drive_path(2), tmp_path / "image", ERRING_SIZE_BYTES)
        except CannotMount as error:
            made.missing["read-only"] = str(error)
    yield made
    if made.erring is not None:
        made.erring.give_up()


def join_environments(pods: PodProcesses, disk: FailingDisk) -> None:
    """Both libraries are preloaded: a call that fails or hangs does so before the power cut's journal knows of it."""
    own, others = disk.environment, pods.pod_environment

    def joined(pod: int) -> dict[str, str]:
        there = others(pod) if others is not None else {}
        preload = ":".join(filter(None, (own["LD_PRELOAD"], there.get("LD_PRELOAD"))))
        return {**there, **own, "LD_PRELOAD": preload}

    pods.pod_environment = joined


@pytest.fixture
def pods(tmp_path: Path) -> PodProcesses:
    return PodProcesses(tmp_path / "pods", servers=4, volumes=1, encryption_keys=KEYS)


@pytest.mark.timeout(MINUTES * 60 + END_SECONDS)
async def test_everything_acknowledged_survives_mixed_faults(pods: PodProcesses, machinery: Machinery) -> None:
    assert set(FAULTS) <= set(KINDS), f"SOAK_FAULTS: choose from {', '.join(KINDS)}"
    try:
        await pods.start_all()
        async with S3Session(pods.access_key, pods.secret_key) as session:
            soak = Soak(pods, session, SEED, machinery)
            try:
                report = await soak.run(MINUTES, FAULTS)
            except BaseException:
                print(soak.report.table())
                raise
    finally:
        pods.stop()
    report.write(ROOT / ".bench" / "soak.json")
    print(f"\n{report.table()}")
