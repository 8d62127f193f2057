"""What the walk over buckets costs: CPU seconds of one core per million records, with and without lifecycle rules.

    python -m bench.bucket_walk [--keys 100000]

Records as requests leave them lie on one real drive; the walk is the pods' own, its keeper has rules that make nothing
due.  CPU is the whole process's, the drive's threads included.  Not here: the deletions themselves.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from holdfast_server.api.lifecycle import facts_of
from holdfast_server.clock.system import SystemClock
from holdfast_server.contract.healing import BucketUsage
from holdfast_server.drives.identity import read_identity
from holdfast_server.drives.local import DriveSettings, LocalDrive
from holdfast_server.drives.slot import Slot
from holdfast_server.heal.bucket_keeper import Buckets, Outcome, WalkedBucket
from holdfast_server.heal.bucket_walk import BucketWalk, WalkState
from holdfast_server.heal.pacing import Pacer
from holdfast_server.heal.settings import HealSettings
from holdfast_server.objects.foreground import Foreground
from holdfast_server.objects.record import Record
from holdfast_server.s3.expiry import Calendar, Facts
from holdfast_server.s3.lifecycle import LifecycleRule, Terms
from holdfast_server.testing import bulk_load
from holdfast_server.testing.bulk_load import Load
from holdfast_server.testing.pods import PodProcesses

BUCKET = b"bucket of a load"


class _Keeper:
    """`heal.bucket_keeper.BucketKeeper` of one bucket."""

    calendar = Calendar()

    def __init__(self, rules: list[LifecycleRule]) -> None:
        self._rules = rules
        self.counted_versions = 0

    def now_ms(self) -> int:
        return int(time.time() * 1000)

    def facts(self, found: Record) -> Facts:
        return facts_of(found)

    async def look(self) -> Buckets:
        return Buckets({BUCKET: WalkedBucket("bench", self._rules)}, frozenset())

    async def begin_count(self, set_name: str, bucket_id: bytes) -> None:
        return None

    def counted(self, set_name: str, usage: BucketUsage, counted_ms: int) -> None:
        self.counted_versions = usage.versions

    async def expire(self, *_: Any) -> Outcome:
        raise AssertionError("nothing is due")

    settle = end_upload = expire


class _Alone:
    """As much of an erasure set as the walk looks at."""

    name = "bench"

    def __init__(self, drive: LocalDrive) -> None:
        self._drives = {drive.position: drive}

    def drives(self) -> dict[int, LocalDrive]:
        return self._drives


def _rules() -> dict[str, list[LifecycleRule]]:
    everything = LifecycleRule(id="all", enabled=True, filter=Terms(), days=30, abort_days=7)
    by_prefix = [LifecycleRule(id=f"{n}", enabled=True, filter=Terms(prefix=f"{n}/"), days=30) for n in range(5)]
    tagged = LifecycleRule(id="t", enabled=True, filter=Terms(tags={"a": "b"}, larger_than_bytes=1), days=3)
    return {
        "no rules": [],
        "one rule": [everything],
        "six rules": [*by_prefix, everything],
        "seven rules, one by tag": [*by_prefix, everything, tagged],
    }


async def _measure(folder: Path) -> None:
    identity = read_identity(folder)
    assert identity is not None
    clock, settings = SystemClock(), HealSettings()
    slot = Slot(identity.tenant, identity.pool, identity.set, identity.position)
    drive = await LocalDrive.open(folder, slot, clock, DriveSettings())
    alone: Any = _Alone(drive)
    for name, rules in _rules().items():
        keeper = _Keeper(rules)
        nothing: Any = None
        walk = BucketWalk(nothing, keeper, Pacer(clock, Foreground(), settings), clock, settings)
        state = WalkState(hurry=True)
        began, cpu = time.monotonic(), time.process_time()
        while await walk.step(drive, alone, state):
            pass
        million = 1e6 / keeper.counted_versions
        cpu_seconds, seconds = (time.process_time() - cpu) * million, (time.monotonic() - began) * million
        print(f"{name:25} {cpu_seconds:6.1f} CPU s per million records, {seconds:6.1f} s by the clock")
    await drive.close()


async def _made(pods: PodProcesses) -> None:
    await pods.start_all()
    pods.stop()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.bucket_walk", description=__doc__)
    parser.add_argument("--keys", type=int, default=100_000)
    keys = parser.parse_args().keys
    with TemporaryDirectory() as directory:
        pods = PodProcesses(Path(directory), servers=4)
        asyncio.run(_made(pods))
        load = Load(BUCKET, keys, int(time.time() * 1000) - 86_400_000)
        bulk_load.load_drives([pods.drive_path(pod) for pod in range(4)], [load], 2)
        asyncio.run(_measure(pods.drive_path(0)))


if __name__ == "__main__":
    main()
