"""The soak: mixed traffic from clients with ordinary retries, faults at random, one after another, for a long time.

Faults stay inside the budget: each is followed by full redundancy, as every pod sees it and with traffic going on,
before the next one comes; rot and missing files are followed by a scan, because only that finds them for certain.  At
the end every key is read back through every pod and the drives of the stopped pods are inspected.

`KINDS` has the faults; each can be run alone.  What cannot be made on a machine (a full disk without the right to
mount, a power cut without a compiler) is left out and reported as skipped.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from holdfast_server.testing.faults.ledger import PromiseBroken
from holdfast_server.testing.faults.power_loss import PowerSupply
from holdfast_server.testing.faults.rounds import BUCKET, CrashRounds
from holdfast_server.testing.faults.s3_session import S3Session
from holdfast_server.testing.faults.scanning import scan_everything
from holdfast_server.testing.faults.soak_report import FaultSeen, SoakReport
from holdfast_server.testing.faults.traffic import Mix, Retries, Traffic
from holdfast_server.testing.pods import PodProcesses

KEYS = 120
CLIENTS = 6
WHOLE_TIMEOUT_SECONDS = 300.0
CALM_SECONDS = (1.0, 6.0)
"""Between two faults."""
MAX_BURIED_BYTES = 2 << 30
"""What the shim may keep of removed files before a power cut clears them away."""
RSS_SAMPLE_SECONDS = 1.0
FULL_LEAVES_BYTES = 8 << 20
MIX = Mix(
    put_inline=26, put_file=16, delete=8, read=24, create=4, replace=4, multipart=1, read_range=8, listing=5,
    inline_sizes_bytes=(4096,), file_sizes_bytes=(1_500_000,), multipart_sizes_bytes=(64 << 20,),
)  # fmt: skip
RETRIES = Retries(attempts=10)


class Soak:
    """See the module.  The pods are running."""

    def __init__(
        self, pods: PodProcesses, session: S3Session, seed: int, power: PowerSupply | None, full_disk: Path | None
    ) -> None:
        """`full_disk`: where a file system of its own holds the last pod's folder, which may be filled up."""
        self.pods, self.session, self.seed, self.power, self.full_disk = pods, session, seed, power, full_disk
        endpoints = [pods.endpoint(pod) for pod in range(pods.servers)]
        keys = [f"soak/{index:03d}" for index in range(KEYS)]
        self.crash = CrashRounds(pods, session, seed, power)
        self.crash.traffic = self.traffic = Traffic(session, endpoints, BUCKET, keys, seed, MIX, RETRIES)
        self.chance = random.Random(f"soak {seed}")
        self.report = SoakReport(seed=seed, minutes=0)
        self._began = time.monotonic()

    async def run(self, minutes: float, kinds: tuple[str, ...] = ()) -> SoakReport:
        """Raises PromiseBroken with seed and the last faults."""
        await self.crash.make_bucket()
        try:
            async with asyncio.TaskGroup() as group:
                watching = group.create_task(self._watch_memory())
                traffic = group.create_task(self.traffic.run(CLIENTS))
                await self._fault_loop(minutes * 60, kinds or tuple(KINDS))
                self.traffic.stop()
                await traffic
                watching.cancel()
            await self._end()
        except BaseExceptionGroup as group:
            raise self._told(group.exceptions[0]) from group
        except (PromiseBroken, TimeoutError, RuntimeError) as error:
            raise self._told(error) from error
        return self.report

    def _told(self, error: BaseException) -> PromiseBroken:
        faults = "\n  ".join(f"{f.at_seconds:.0f} s: {f.kind}, {f.detail}" for f in self.report.faults[-6:])
        return PromiseBroken(f"soak, seed {self.seed}; the last faults:\n  {faults}\n{type(error).__name__}: {error}")

    async def _fault_loop(self, seconds: float, kinds: tuple[str, ...]) -> None:
        possible = [kind for kind in kinds if not self._skip(kind)]
        while (now := time.monotonic() - self._began) < seconds:
            await asyncio.sleep(min(self.chance.uniform(*CALM_SECONDS), seconds - now))
            kind = self.chance.choice(possible)
            if self.power is not None and self.power.buried_bytes() > MAX_BURIED_BYTES:
                kind = "power cut"
            await self._one_fault(kind)

    def _skip(self, kind: str) -> bool:
        why = ""
        if kind == "power cut" and self.power is None:
            why = "no C compiler"
        if kind == "full disk" and self.full_disk is None:
            why = "no right to mount a small file system"
        if why:
            self.report.skipped_kinds[kind] = why
        return bool(why)

    async def _one_fault(self, kind: str) -> None:
        traffic, before = self.traffic, (self.traffic.longest_seconds, self.traffic.failed)
        traffic.longest_seconds = 0.0
        began = time.monotonic()
        detail = await KINDS[kind](self)
        over = time.monotonic()
        await self._wait_whole(f"{kind}: {detail}")
        self.report.faults.append(
            FaultSeen(
                kind=kind,
                detail=detail,
                at_seconds=began - self._began,
                lasted_seconds=over - began,
                whole_after_seconds=time.monotonic() - over,
                longest_operation_seconds=traffic.longest_seconds,
                failed_operations=traffic.failed - before[1],
            )
        )
        traffic.longest_seconds = max(traffic.longest_seconds, before[0])

    async def _wait_whole(self, after: str) -> None:
        await self.pods.wait_healthy()
        try:
            await self.pods.wait_whole(WHOLE_TIMEOUT_SECONDS)
        except TimeoutError:
            raise PromiseBroken(f"not whole {WHOLE_TIMEOUT_SECONDS:.0f} s after {after}") from None
        self.crash.check_tables()

    # --- the faults
    def _any_pod(self) -> int:
        return self.chance.randrange(self.pods.servers)

    async def kill_one(self) -> str:
        pod = self._any_pod()
        self.pods.kill(pod)
        await asyncio.sleep(self.chance.uniform(0, 5))
        await self._start([pod])
        return f"pod {pod}"

    async def kill_all(self) -> str:
        self.pods.kill_together(range(self.pods.servers))
        await self._start(range(self.pods.servers))
        return "all pods"

    async def restart(self) -> str:
        """SIGTERM, as a roll does it."""
        pod = self._any_pod()
        await asyncio.to_thread(self.pods.stop_one, pod)
        await self._start([pod])
        return f"pod {pod}"

    async def suspend(self) -> str:
        pod, seconds = self._any_pod(), self.chance.uniform(1, 15)
        self.pods.suspend(pod)
        try:
            await asyncio.sleep(seconds)
        finally:
            self.pods.resume(pod)
        return f"pod {pod} for {seconds:.1f} s"

    async def empty_drive(self) -> str:
        pod = self._any_pod()
        self.pods.kill(pod)
        self.pods.empty(pod)
        if self.power is not None:
            self.power.settle(pod)
        await self._start([pod])
        return f"pod {pod}"

    async def flip_byte(self) -> str:
        path = self._any_shard()
        if path is None:
            return "no shard file there"
        try:
            with path.open("r+b") as file:
                at = self.chance.randrange(os.fstat(file.fileno()).st_size)
                file.seek(at)
                byte = file.read(1)[0]
                file.seek(at)
                file.write(bytes((byte ^ 0x20,)))
        except (FileNotFoundError, ValueError):
            return "the file was reclaimed meanwhile"
        await self._scan()
        return f"{path.parent.parent.parent.parent.name} {path.name} at {at}"

    async def delete_file(self) -> str:
        path = self._any_shard()
        if path is None:
            return "no shard file there"
        path.unlink(missing_ok=True)
        await self._scan()
        return f"{path.parent.parent.parent.parent.name} {path.name}"

    async def fill_disk(self) -> str:
        """The last pod's file system is full for some seconds."""
        assert self.full_disk is not None
        ballast, seconds = self.full_disk / "ballast", self.chance.uniform(2, 10)
        facts = os.statvfs(self.full_disk)
        size = facts.f_bavail * facts.f_frsize - FULL_LEAVES_BYTES
        with ballast.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, max(1, size))
        await asyncio.sleep(seconds)
        ballast.unlink()
        return f"pod {self.pods.servers - 1} for {seconds:.1f} s"

    async def cut_power(self) -> str:
        assert self.power is not None
        self.pods.kill_together(range(self.pods.servers))
        done = self.power.cut(random.Random(self.chance.random()))
        await self._start(range(self.pods.servers))
        return done

    def _any_shard(self) -> Path | None:
        files = sorted((self.pods.drive_path(self._any_pod()) / "shards").glob("*/*"))
        return self.chance.choice(files) if files else None

    async def _scan(self) -> None:
        await scan_everything(self.session, self.pods)

    async def _start(self, pods: range | list[int]) -> None:
        for pod in pods:
            self.pods.start(pod)
        for pod in pods:
            await self.pods.wait_ready(pod)

    # --- watching and ending
    async def _watch_memory(self) -> None:
        page = os.sysconf("SC_PAGE_SIZE")
        while True:
            for pod, process in list(self.pods.processes.items()):
                try:
                    rss = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1]) * page
                except (OSError, IndexError):
                    continue
                name = f"pod {pod}"
                self.report.largest_rss_bytes[name] = max(rss, self.report.largest_rss_bytes.get(name, 0))
            await asyncio.sleep(RSS_SAMPLE_SECONDS)

    async def _end(self) -> None:
        began = time.monotonic()
        await self._wait_whole("the last fault")
        self.report.whole_at_end_seconds = time.monotonic() - began
        self.report.minutes = (time.monotonic() - self._began) / 60
        findings = await self.crash.finish()
        report, traffic, ledger = self.report, self.traffic, self.traffic.ledger
        report.operations = dict(traffic.counts)
        report.acknowledged, report.undecided = ledger.acknowledged, ledger.left_undecided
        report.took_effect_late, report.observations = ledger.took_effect_late, ledger.observed
        report.retries, report.failed_operations = traffic.retried, traffic.failed
        report.longest_operation_seconds = traffic.longest_seconds
        report.bytes_written, report.bytes_read = traffic.bytes_written, traffic.bytes_read
        report.keys_verified = sum(1 for _, etag in ledger.expected() if etag)
        report.registers, report.shards_verified = findings.registers, findings.shards_verified
        report.left_over_files = len(findings.left_over)


KINDS: dict[str, Callable[[Soak], Awaitable[str]]] = {
    "kill one": Soak.kill_one,
    "kill all": Soak.kill_all,
    "restart": Soak.restart,
    "suspend": Soak.suspend,
    "empty drive": Soak.empty_drive,
    "flip byte": Soak.flip_byte,
    "delete file": Soak.delete_file,
    "full disk": Soak.fill_disk,
    "power cut": Soak.cut_power,
}
"""Every kind of fault."""
