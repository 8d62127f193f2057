"""The soak: mixed traffic from clients with ordinary retries, faults at random, one or two at once, for a long time.

Faults stay inside the budget: each is followed by full redundancy, as every pod sees it and with traffic going on,
before the next one comes; what loses something comes alone (`ALONE`), of the others two may strike two pods at the same
time.  Rot and missing files are followed by a scan, because only that finds them for certain.  At
the end every key is read back through every pod and the drives of the stopped pods are inspected.

Beside the main bucket, some clients write to one that seals what it holds, keeps its versions, and may be told to hold
them for good.

`KINDS` has the faults; each can be run alone.  What cannot be made on a machine (a full disk without the right to
mount, a power cut without a compiler) is left out and reported as skipped (`Machinery`).
"""

from __future__ import annotations

import asyncio
import errno
import os
import random
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from holdfast_server.objects.asking import together
from holdfast_server.testing.faults.failing_disk import ErringFileSystem, FailingDisk
from holdfast_server.testing.faults.ledger import PromiseBroken
from holdfast_server.testing.faults.network_cut import NetworkCut, Way
from holdfast_server.testing.faults.power_loss import PowerSupply
from holdfast_server.testing.faults.rounds import BUCKET, CrashRounds
from holdfast_server.testing.faults.s3_session import NoAnswer, S3Session
from holdfast_server.testing.faults.scanning import scan_everything
from holdfast_server.testing.faults.soak_report import FaultSeen, SoakReport
from holdfast_server.testing.faults.traffic import PART_SIZE_BYTES, Mix, Retries, Traffic
from holdfast_server.testing.pods import PodProcesses

KEYS = 120
CLIENTS = 6
WHOLE_TIMEOUT_SECONDS = 300.0
KEPT_BUCKET = "soak-kept"
KEPT_KEYS = 20
KEPT_CLIENTS = 2
KEPT_PAUSE_SECONDS = 0.4
"""Nothing that is replaced goes away, so it is written slowly."""
UNMOUNT_SECONDS = 30.0
CALM_SECONDS = (1.0, 6.0)
"""Between two faults."""
TWO_AT_ONCE = 0.4
"""How often another fault comes with one that may have company."""
MAX_BURIED_BYTES = 2 << 30
"""What the shim may keep of removed files before a power cut clears them away."""
RSS_SAMPLE_SECONDS = 1.0
FULL_LEAVES_BYTES = 8 << 20
FILL_ATTEMPTS = 20
MIX = Mix(
    put_inline=26, put_file=16, delete=8, read=24, create=4, replace=4, multipart=1, read_range=8, listing=5,
    inline_sizes_bytes=(4096,), file_sizes_bytes=(1_500_000, 1_572_864), multipart_sizes_bytes=(64 << 20,), reduced=0.1,
)  # fmt: skip
KEPT_MIX = Mix(
    put_inline=20, put_file=10, delete=6, read=20, create=2, replace=4, multipart=1, read_range=6, delete_version=20,
    hold=6, file_sizes_bytes=(70_000, 1_572_864), multipart_sizes_bytes=(PART_SIZE_BYTES + 1,),
)  # fmt: skip
SEALED = (
    b"<ServerSideEncryptionConfiguration><Rule><ApplyServerSideEncryptionByDefault><SSEAlgorithm>AES256</SSEAlgorithm>"
    b"</ApplyServerSideEncryptionByDefault></Rule></ServerSideEncryptionConfiguration>"
)
RETRIES = Retries(attempts=10)


@dataclass(slots=True)
class Machinery:
    """What faults are made with, where there is the right and the means."""

    power: PowerSupply | None = None
    disk: FailingDisk | None = None
    network: NetworkCut | None = None
    full_disk: Path | None = None
    """A file system of its own holds the last pod's folder, which may be filled up."""
    erring: ErringFileSystem | None = None
    """Holds the drive of the last pod but one."""
    missing: dict[str, str] = field(default_factory=dict)
    """Kinds of fault that cannot be made, and why."""


class Soak:
    """See the module.  The pods are running."""

    def __init__(self, pods: PodProcesses, session: S3Session, seed: int, machinery: Machinery) -> None:
        self.pods, self.session, self.seed, self.machinery = pods, session, seed, machinery
        self.power = power = machinery.power
        endpoints = [pods.endpoint(pod) for pod in range(pods.servers)]
        keys = [f"soak/{index:03d}" for index in range(KEYS)]
        self.crash = CrashRounds(pods, session, seed, power)
        self.crash.traffic = self.traffic = Traffic(session, endpoints, BUCKET, keys, seed, MIX, RETRIES)
        kept = [f"kept/{index:03d}" for index in range(KEPT_KEYS)]
        self.kept = Traffic(session, endpoints, KEPT_BUCKET, kept, seed + 1, KEPT_MIX, RETRIES)
        self.kept.pause_seconds = KEPT_PAUSE_SECONDS
        self.chance = random.Random(f"soak {seed}")
        self._struck: set[int] = set()
        """Pods that the present faults have chosen."""
        self.report = SoakReport(seed=seed, minutes=0)
        self._began = time.monotonic()

    async def run(self, minutes: float, kinds: tuple[str, ...] = ()) -> SoakReport:
        """Raises PromiseBroken with seed and the last faults."""
        async with self.under_traffic():
            await self._fault_loop(minutes * 60, kinds or tuple(KINDS))
        return self.report

    @asynccontextmanager
    async def under_traffic(self) -> AsyncIterator[None]:
        """Traffic for as long as the block lasts; then everything is read back, and the pods are stopped and their
        drives inspected.  Raises PromiseBroken with seed and the last faults."""
        await self.crash.make_bucket()
        await self._make_kept_bucket()
        try:
            async with asyncio.TaskGroup() as group:
                watching = group.create_task(self._watch_memory())
                group.create_task(self.traffic.run(CLIENTS))
                group.create_task(self.kept.run(KEPT_CLIENTS))
                yield
                self.traffic.stop()
                self.kept.stop()
                watching.cancel()
            await self._end()
        except BaseExceptionGroup as group:
            raise self._told(group.exceptions[0]) from group
        except (PromiseBroken, TimeoutError, RuntimeError) as error:
            raise self._told(error) from error

    async def roll(self, pod: int) -> None:
        """One pod, as an operator rolls it: returns when all is whole again."""
        await asyncio.to_thread(self.pods.stop_one, pod)
        await self._start([pod])
        await self._wait_whole(f"a roll of pod {pod}")

    async def kill(self, pod: int) -> None:
        """Likewise."""
        self.pods.kill(pod)
        await self._start([pod])
        await self._wait_whole(f"a kill of pod {pod}")

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
            others = [other for other in possible if _go_together(kind, other)]
            if others and self.chance.random() < TWO_AT_ONCE:
                await self._faults((kind, self.chance.choice(others)))
            else:
                await self._faults((kind,))

    def _skip(self, kind: str) -> bool:
        why = self.machinery.missing.get(kind)
        if why:
            self.report.skipped_kinds[kind] = why
        return bool(why)

    async def _make_kept_bucket(self) -> None:
        """As soon as every pod is known to be able to."""
        endpoint, exchange = self.pods.endpoint(0), self.session.exchange
        async with asyncio.timeout(WHOLE_TIMEOUT_SECONDS):
            for query, body, headers in (
                ("", b"", {"x-amz-bucket-object-lock-enabled": "true"}), ("encryption=", SEALED, None),
            ):  # fmt: skip
                while True:
                    try:
                        answer = await exchange(endpoint, "PUT", KEPT_BUCKET, "", query, body, headers)
                        if answer.ok or answer.code == "BucketAlreadyOwnedByYou":
                            break
                    except NoAnswer:
                        pass
                    await asyncio.sleep(0.2)

    async def _faults(self, kinds: tuple[str, ...]) -> None:
        """All at once."""
        traffic, before = self.traffic, (self.traffic.longest_seconds, self.traffic.failed)
        traffic.longest_seconds = 0.0
        began = time.monotonic()
        self._struck.clear()
        details = await together(KINDS[kind](self) for kind in kinds)
        over = time.monotonic()
        kind, detail = " and ".join(sorted(kinds)), "; ".join(details)
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
        """None that another fault has chosen."""
        pod = self.chance.choice([pod for pod in range(self.pods.servers) if pod not in self._struck])
        self._struck.add(pod)
        return pod

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
        full_disk = self.machinery.full_disk
        assert full_disk is not None
        ballast, seconds = full_disk / "ballast", self.chance.uniform(2, 10)
        try:
            with ballast.open("wb") as file:
                fill_up(file.fileno(), FULL_LEAVES_BYTES)
            await asyncio.sleep(seconds)
        finally:
            ballast.unlink()
        return f"pod {self.pods.servers - 1} for {seconds:.1f} s"

    async def cut_off(self) -> str:
        """Nothing that other pods send reaches one, or nothing that it sends, or neither; clients reach it."""
        network, pod, way = self.machinery.network, self._any_pod(), self.chance.choice(list(Way))
        assert network is not None
        seconds = self.chance.uniform(1, 20)
        try:
            network.cut(pod, way)
            await asyncio.sleep(seconds)
        finally:
            network.heal()
        return f"{way.value} pod {pod} for {seconds:.1f} s"

    async def hang_disk(self) -> str:
        """Reads, writes or syncs of a pod's drive do not come back."""
        return await self._fail_disk("hang", 20)

    async def fail_disk(self) -> str:
        """They end with EIO."""
        return await self._fail_disk("eio", 6)

    async def _fail_disk(self, how: str, most_seconds: float) -> str:
        disk, pod, seconds = self.machinery.disk, self._any_pod(), self.chance.uniform(1, most_seconds)
        assert disk is not None
        kinds = self.chance.choice((("sync",), ("write",), ("read",), ("read", "write", "sync")))
        try:
            disk.set(*((kind, how, self.pods.drive_path(pod)) for kind in kinds))
            await asyncio.sleep(seconds)
        finally:
            disk.set()
        return f"{', '.join(kinds)} of pod {pod} for {seconds:.1f} s"

    async def turn_read_only(self) -> str:
        """The file system finds an error; the pod goes on for a while, is killed, and finds it mounted anew."""
        erring, pod, seconds = self.machinery.erring, self.pods.servers - 2, self.chance.uniform(1, 10)
        assert erring is not None
        erring.turn_read_only()
        await asyncio.sleep(seconds)
        self.pods.kill(pod)
        async with asyncio.timeout(UNMOUNT_SECONDS):
            while not await asyncio.to_thread(erring.unmount):
                await asyncio.sleep(0.1)
        await asyncio.to_thread(erring.mount)
        await self._start([pod])
        return f"pod {pod} for {seconds:.1f} s"

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
        await self.kept.check()
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
        versions = self.kept.versions
        report.kept_operations = dict(self.kept.counts)
        report.versions_kept, report.versions_deleted = len(versions.kept), len(versions.gone)
        report.versions_held = len(versions.held)
        report.failed_operations += self.kept.failed


def fill_up(descriptor: int, leaves_bytes: int) -> None:
    """Let a file take all but so much of its file system."""
    for _ in range(FILL_ATTEMPTS):
        facts = os.fstatvfs(descriptor)
        left = facts.f_bavail * facts.f_frsize - leaves_bytes
        if left <= 0:
            return
        try:
            os.posix_fallocate(descriptor, os.fstat(descriptor).st_size, left)
        except OSError as error:
            if error.errno != errno.ENOSPC:  # pods took some of it meanwhile
                raise


KINDS: dict[str, Callable[[Soak], Coroutine[Any, Any, str]]] = {
    "kill one": Soak.kill_one,
    "kill all": Soak.kill_all,
    "restart": Soak.restart,
    "suspend": Soak.suspend,
    "empty drive": Soak.empty_drive,
    "flip byte": Soak.flip_byte,
    "delete file": Soak.delete_file,
    "full disk": Soak.fill_disk,
    "power cut": Soak.cut_power,
    "cut off": Soak.cut_off,
    "hanging disk": Soak.hang_disk,
    "failing disk": Soak.fail_disk,
    "read-only": Soak.turn_read_only,
}
"""Every kind of fault."""
ALONE = frozenset(("kill all", "empty drive", "flip byte", "delete file", "power cut", "read-only"))
"""Kinds that take all pods, or something that must not be missing when another pod is."""
ONE_DISK = frozenset(("hanging disk", "failing disk"))
"""Kinds that are made with the same rules."""


def _go_together(kind: str, other: str) -> bool:
    both = {kind, other}
    return kind != other and not both & ALONE and both != ONE_DISK
