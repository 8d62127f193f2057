"""`python -m bench.healing`: how fast redundancy comes back, and what clients feel of it.

Four pods of one drive each (2 + 2), real processes on loopback.

- *missed*: one pod is killed, objects are written without it, it is started again; the time from its readiness
  until every repair queue is empty.
- *emptied, small* and *emptied, large*: one pod's drive is emptied; the time from the drive's adoption (which waits
  30 s by rule 11, not counted) until it is full, and what was brought to it.
- *reads*: latencies of GET 4 KiB, at a rate the pods are not filled by, without healing, and while a drive is filled.

With `--json` the figures go into a file as well.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import uvloop

from bench import report
from bench.client import Connection, Sample, drive
from bench.target import Target, of_pods
from bench.workloads import BUCKET, make_bucket
from holdfast_server.testing.pods import PodProcesses

VICTIM = 3
SMALL_BYTES = 4 << 10
LARGE_BYTES = 4 << 20
WRITERS = 16
READERS = 4
READ_RATE_PER_SECOND = 200
POLL_SECONDS = 0.05
LIMIT_SECONDS = 3600.0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.healing", description="how fast redundancy comes back")
    parser.add_argument("--missed", type=int, default=10_000, help="writes that a pod misses")
    parser.add_argument("--small", type=int, default=20_000, help="objects of 4 KiB on the drive that is emptied")
    parser.add_argument("--large", type=int, default=200, help="objects of 4 MiB on the drive that is emptied")
    parser.add_argument("--read-seconds", type=float, default=15.0)
    parser.add_argument("--only", default="", help="missed, small, large or reads")
    parser.add_argument("--directory", type=Path, default=Path(".bench"))
    parser.add_argument("--json", type=Path, default=None)
    return parser.parse_args()


@dataclass(frozen=True, slots=True)
class Figure:
    name: str
    value: float
    unit: str


class Run:
    """One tenant of pods, from nothing."""

    def __init__(self, folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        self._folder = folder
        self.pods = PodProcesses(folder)

    async def __aenter__(self) -> Run:
        await self.pods.start_all()
        await make_bucket(self.others())
        return self

    async def __aexit__(self, *_: object) -> None:
        self.pods.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def others(self) -> Target:
        """Every pod but the victim."""
        whole = of_pods("Holdfast", self.pods)
        return Target(whole.name, whole.endpoints[:VICTIM], whole.access_key, whole.secret_key, whole.pids)

    async def put(self, prefix: str, count: int, size_bytes: int) -> None:
        data = os.urandom(size_bytes)

        async def operation(connection: Connection, number: int) -> int:
            await connection.request("PUT", f"/{BUCKET}/{prefix}/{number:08d}", body=data)
            return size_bytes

        await drive(self.others(), operation, WRITERS, LIMIT_SECONDS, count)

    async def bring_back(self) -> None:
        self.pods.start(VICTIM)
        await self.pods.wait_ready(VICTIM)

    async def until_victim_is(self, state: str) -> float:
        """When it was seen to be so."""
        while True:
            health = await asyncio.to_thread(self.pods.health, 0)
            drives = health.get("drives")
            if isinstance(drives, list) and any(d["ordinal"] == VICTIM and d["state"] == state for d in drives):
                return time.perf_counter()
            await asyncio.sleep(POLL_SECONDS)

    async def empty_victim(self) -> float:
        """Returns when the empty drive has been adopted."""
        self.pods.kill(VICTIM)
        self.pods.empty(VICTIM)
        self.pods.start(VICTIM)
        return await self.until_victim_is("healing")


async def missed(folder: Path, count: int) -> list[Figure]:
    async with Run(folder) as run:
        run.pods.kill(VICTIM)
        await run.put("missed", count, SMALL_BYTES)
        await run.bring_back()
        began = time.perf_counter()
        await run.pods.wait_whole(LIMIT_SECONDS)
        seconds = time.perf_counter() - began
    return [Figure(f"{count} missed writes, from ready to full redundancy", seconds, "s")]


async def emptied(folder: Path, count: int, size_bytes: int, name: str) -> list[Figure]:
    async with Run(folder) as run:
        await run.put(name, count, size_bytes)
        began = await run.empty_victim()
        seconds = await run.until_victim_is("ok") - began
    return [
        Figure(f"emptied drive, {count} {name} objects", seconds, "s"),
        Figure(f"emptied drive, {name} objects", count / seconds, "objects/s"),
        Figure(f"emptied drive, {name} objects, object bytes", count * size_bytes / seconds / 1e6, "MB/s"),
        Figure(f"emptied drive, {name} objects, shard bytes written", count * size_bytes / 2 / seconds / 1e6, "MB/s"),
    ]


async def reads(folder: Path, count: int, seconds: float) -> list[Figure]:
    async with Run(folder) as run:
        await run.put("small", count, SMALL_BYTES)
        await run.put("large", 100, LARGE_BYTES)
        interval = READERS / READ_RATE_PER_SECOND

        async def get(connection: Connection, number: int) -> int:
            began = time.perf_counter()
            await connection.request("GET", f"/{BUCKET}/small/{number * 7919 % count:08d}")
            took = time.perf_counter() - began
            lasting.append(took)
            await asyncio.sleep(max(0.0, interval - took))
            return SMALL_BYTES

        async def sample(name: str) -> list[Figure]:
            lasting.clear()
            await drive(run.others(), get, READERS, seconds)
            kept = Sample(len(lasting), 0, seconds, 0, 0, list(lasting))
            return [Figure(f"GET 4 KiB {name}, p{q * 100:g}", kept.quantile_ms(q), "ms") for q in (0.5, 0.99)]

        lasting: list[float] = []
        await sample("warming up")
        quiet = await sample("without healing")
        await run.empty_victim()
        began = time.perf_counter()
        healing = await sample("while a drive is filled")
        filled = await run.until_victim_is("ok") - began
    longest = Figure("the filling beside these reads", filled, "s")
    ratio = Figure("p99 while filling ÷ p99 without", healing[1].value / quiet[1].value, "")
    return [*quiet, *healing, ratio, longest]


async def measure(options: argparse.Namespace) -> list[Figure]:
    folder = options.directory / "healing"
    parts = {
        "missed": lambda: missed(folder, options.missed),
        "small": lambda: emptied(folder, options.small, SMALL_BYTES, "small"),
        "large": lambda: emptied(folder, options.large, LARGE_BYTES, "large"),
        "reads": lambda: reads(folder, options.small, options.read_seconds),
    }
    figures = []
    for name, part in parts.items():
        if options.only in ("", name):
            for figure in await part():
                print(f"{figure.value:10.2f} {figure.unit:10} {figure.name}", flush=True)
                figures.append(figure)
    return figures


def main() -> None:
    options = parse()
    figures = uvloop.run(measure(options))
    print(f"Machine: {report.machine()}; load: {os.getloadavg()[0]:.1f}")
    if options.json is not None:
        made = {"machine": report.machine(), "figures": [asdict(figure) for figure in figures]}
        options.json.write_text(json.dumps(made, indent=2) + "\n")


if __name__ == "__main__":
    main()
