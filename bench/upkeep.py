"""`python -m bench.upkeep`: how fast a tenant of four pods is ready, and what it costs while nobody asks anything.

- *from nothing*: four processes with empty drives, until every pod is ready and sees the write quorum;
- *again*: the same drives, with objects on them, after all pods were killed at once;
- *a Tenant*: `holdfast-local run` with a Tenant of four servers from nothing, until the operator says Ready; the API
  server, the node and the operator start within that time too;
- *at rest*: CPU of one core and resident memory of each pod, some time after the start and after the last request.

Not here: the operator's own rest (`python -m bench.operator_load`), pods on a cluster, where images are pulled.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import signal
import statistics
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import uvloop

from bench import report
from bench.client import drive
from bench.processes import tree
from bench.target import of_pods
from bench.workloads import SMALL_BYTES, filled, get, make_bucket
from holdfast_server.testing.pods import PodProcesses

POLL_SECONDS = 0.02
LIMIT_SECONDS = 300.0
STOP_SECONDS = 60.0
TENANT = """
apiVersion: holdfast.dev/v1
kind: Tenant
metadata: {name: bench}
spec:
  pools:
    - name: main
      servers: 4
      volumesPerServer: 1
      volumeClaimTemplate: {spec: {resources: {requests: {storage: 1Gi}}}}
"""


@dataclass(frozen=True, slots=True)
class Figure:
    name: str
    value: float
    unit: str
    each: tuple[float, ...]
    """What `value` is the median of, or of each pod."""


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.upkeep", description="start to ready, and rest")
    parser.add_argument("--rounds", type=int, default=3, help="of starts")
    parser.add_argument("--objects", type=int, default=2000, help="of 4 KiB, there at the second start and at rest")
    parser.add_argument("--settle", type=float, default=30.0, metavar="SECONDS", help="before rest is measured")
    parser.add_argument("--rest", type=float, default=30.0, metavar="SECONDS")
    parser.add_argument("--only", choices=("start", "tenant", "rest"), default=None)
    parser.add_argument("--directory", type=Path, default=Path(".bench"))
    return parser.parse_args()


async def _started(pods: PodProcesses) -> float:
    began = time.perf_counter()
    await pods.start_all()
    for pod in pods.processes:
        await pods.wait_ready(pod)
    return time.perf_counter() - began


async def starts(folder: Path, options: argparse.Namespace) -> list[Figure]:
    nothing, again = [], []
    for _ in range(options.rounds):
        shutil.rmtree(folder, ignore_errors=True)
        pods = PodProcesses(folder)
        try:
            nothing.append(await _started(pods))
            await _filled(pods, options.objects)
            pods.kill_together(list(pods.processes))
            again.append(await _started(pods))
        finally:
            pods.stop()
            shutil.rmtree(folder, ignore_errors=True)
    return [_median("4 pods, from nothing to ready", nothing), _median("4 pods again, after kill -9 of all", again)]


def _median(name: str, seconds: list[float]) -> Figure:
    return Figure(name, statistics.median(seconds), "s", tuple(seconds))


async def _filled(pods: PodProcesses, count: int) -> None:
    target = of_pods("Holdfast", pods)
    await make_bucket(target)
    await filled("small", os.urandom(SMALL_BYTES), count, 16)(target)


async def tenants(folder: Path, options: argparse.Namespace) -> list[Figure]:
    """Each in a folder of its own, which is its whole state."""
    seconds = []
    for _ in range(options.rounds):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        try:
            seconds.append(await _tenant_ready(folder))
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    return [_median("a Tenant of 4 servers with its cluster, from nothing to Ready", seconds)]


async def _tenant_ready(folder: Path) -> float:
    manifest, state = folder / "tenant.yaml", folder / "state"
    manifest.write_text(TENANT)
    began = time.perf_counter()
    with (folder / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "holdfast_local.main", "run", "--tenant", str(manifest), "--state", str(state),
            stdout=log, stderr=log,
        )  # fmt: skip
    try:
        async with asyncio.timeout(LIMIT_SECONDS):
            while not (state / "env").exists():  # written once the Tenant is Ready
                if process.returncode is not None:
                    raise RuntimeError((folder / "log").read_text()[-2000:])
                await asyncio.sleep(POLL_SECONDS)
        return time.perf_counter() - began
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(STOP_SECONDS):
                await process.wait()


async def at_rest(folder: Path, options: argparse.Namespace) -> list[Figure]:
    shutil.rmtree(folder, ignore_errors=True)
    pods = PodProcesses(folder)
    try:
        await pods.start_all()
        await _filled(pods, options.objects)
        await drive(of_pods("Holdfast", pods), get("small"), 16, 2.0)
        await asyncio.sleep(options.settle)
        pids = [process.pid for process in pods.processes.values()]
        before, began = [tree([pid])[pid].cpu_seconds for pid in pids], time.perf_counter()
        await asyncio.sleep(options.rest)
        took, after = time.perf_counter() - began, [tree([pid])[pid] for pid in pids]
        shares = tuple((now.cpu_seconds - cpu) / took * 100 for now, cpu in zip(after, before, strict=True))
        resident = tuple(now.resident_bytes / 1e6 for now in after)
    finally:
        pods.stop()
        shutil.rmtree(folder, ignore_errors=True)
    return [
        Figure("a pod at rest, the worst of 4", max(shares), "% of a core", shares),
        Figure("a pod's resident memory at rest, the most of 4", max(resident), "MB", resident),
    ]


async def run(options: argparse.Namespace) -> list[Figure]:
    parts = {"start": starts, "tenant": tenants, "rest": at_rest}
    figures = []
    for name, part in parts.items():
        if options.only in (None, name):
            for figure in await part(options.directory / "upkeep", options):
                each = ", ".join(f"{value:.2f}" for value in figure.each)
                print(f"{figure.value:10.2f} {figure.unit:12} {figure.name} ({each})", flush=True)
                figures.append(figure)
    return figures


def main() -> None:
    options = parse()
    figures = uvloop.run(run(options))
    made = {"machine": report.machine(), "figures": [asdict(figure) for figure in figures]}
    options.directory.mkdir(parents=True, exist_ok=True)
    (options.directory / "upkeep.json").write_text(json.dumps(made, indent=2) + "\n")
    print(f"Machine: {report.machine()}; load: {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
