"""`python -m bench`: see the package."""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import re
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import uvloop

from bench import nothing, plot, report
from bench.client import RequestFailed, Sample, drive
from bench.target import Target, of_peer, of_pods
from bench.workloads import Workload, make_bucket, remove, set_opaque_etags, workloads
from holdfast_server.testing.pods import PodProcesses

Geometry = tuple[int, int, int]
"""Servers, drives of each, parity shards."""

SETTLE_SECONDS = 25.0
"""After the last request: stores tidy up, and give memory back, when nobody asks anything."""


def geometry(text: str) -> Geometry:
    """`4x1:2`.  Raises ValueError."""
    found = re.fullmatch(r"(\d+)x(\d+):(\d+)", text)
    if found is None:
        raise ValueError(f"--geometry {text!r}: expected SERVERSxDRIVES:PARITY")
    return int(found[1]), int(found[2]), int(found[3])


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench", description="CPU per operation of a tenant of real pods")
    parser.add_argument(
        "--geometry", action="append", type=geometry, metavar="SERVERSxDRIVES:PARITY", help="one tenant each; 4x1:2"
    )
    parser.add_argument("--seconds", type=float, default=4.0, help="per round of a workload")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--keys", type=int, default=10_000, help="keys in the listed prefix")
    parser.add_argument("--workload", action="append", default=[], help="only those whose name contains this")
    parser.add_argument("--peer", action="append", default=[], type=of_peer, metavar="NAME=URL[+URL…],KEY,SECRET,PID…")
    parser.add_argument("--peers-only", action="store_true", help="start no pods")
    parser.add_argument(
        "--opaque-etags", action="store_true", help="each tenant a second time, with a bucket that has them"
    )
    parser.add_argument("--ceiling", action="store_true", help="an endpoint without a store in turn with the others")
    parser.add_argument("--rest", type=float, default=10.0, metavar="SECONDS", help="measured without requests; 0: not")
    parser.add_argument("--prepare-only", action="store_true", help="write what is read, and measure nothing")
    parser.add_argument("--directory", type=Path, default=Path(".bench"))
    return parser.parse_args()


def chosen(options: argparse.Namespace) -> list[Workload]:
    wanted = [text.lower() for text in options.workload]
    found = workloads(options.keys)
    return [one for one in found if not wanted or any(text in one.name.lower() for text in wanted)]


async def measure(targets: list[Target], options: argparse.Namespace) -> AsyncIterator[report.Row]:
    """Targets in turn, round by round, another one first each time, so that the machine's drift meets all alike.  One
    that fails a workload for good is left out of it, and has a row that says why."""
    for workload in chosen(options):
        samples: dict[str, list[Sample]] = {target.name: [] for target in targets}
        failures: dict[str, str] = {}
        for target in targets:
            try:
                if workload.prepare is not None:
                    await workload.prepare(target)
            except RequestFailed as error:
                failures[target.name] = str(error)
        for turn in range(0 if options.prepare_only else options.rounds):
            first = turn % len(targets)
            for target in targets[first:] + targets[:first]:
                if target.name in failures:
                    continue
                try:
                    sample = await drive(target, workload.operation, workload.clients, options.seconds)
                    samples[target.name].append(sample)
                    await remove(target, sample.written)
                except RequestFailed as error:
                    failures[target.name] = str(error)
        for name, rounds in samples.items():
            if name in failures:
                yield report.failed(workload.name, name, failures[name])
            elif rounds:
                yield report.summarize(workload.name, name, rounds)


async def rest(targets: list[Target], seconds: float) -> list[report.Row]:
    """What they cost while nobody asks anything; all at the same time, once they have come to rest."""
    await asyncio.sleep(SETTLE_SECONDS)
    cpu, began = [target.cpu_seconds() for target in targets], time.monotonic()
    await asyncio.sleep(seconds)
    rows = []
    for target, before in zip(targets, cpu, strict=True):
        used, resident = target.cpu_seconds() - before, target.resident_bytes()
        rows.append({
            "target": target.name,
            "processes": len(resident),
            "percent_of_a_core": used / (time.monotonic() - began) * 100,
            "resident_mb": sum(resident) / 1e6,
        })  # fmt: skip
    return rows


async def run(options: argparse.Namespace) -> dict[str, Any]:
    geometries = [] if options.peers_only else options.geometry or [(4, 1, 2)]
    result: dict[str, Any] = {"machine": report.machine(), "rounds": options.rounds, "seconds": options.seconds}
    result |= {"rows": [], "rest": []}
    with ExitStack() as stack:
        targets = []
        opaque: list[Target] = []
        kinds = (False, True) if options.opaque_etags else (False,)
        for (servers, volumes, parity), is_opaque in itertools.product(geometries, kinds):
            size = servers * volumes
            folder = options.directory / f"pods-{servers}x{volumes}-{parity}{'-opaque' if is_opaque else ''}"
            shutil.rmtree(folder, ignore_errors=True)
            pods = PodProcesses(folder, servers=servers, volumes=volumes, set_size=size, parity=parity)
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            stack.callback(pods.stop)
            await pods.start_all()
            name = f"Holdfast {size - parity}+{parity}{', opaque ETags' if is_opaque else ''}"
            targets.append(of_pods(name, pods))
            opaque += [targets[-1]] if is_opaque else []
        targets += options.peer
        for target in targets:
            await make_bucket(target)
        for target in opaque:
            await set_opaque_etags(target)
        stores = list(targets)
        if options.ceiling:
            targets.append(stack.enter_context(nothing.running()))
        print(report.table([]), flush=True)
        async for row in measure(targets, options):
            print(report.table([row]).splitlines()[-1], flush=True)
            result["rows"].append(row)
            write_json(result, options.directory)  # after every row: a run takes long, and may be ended
        if options.rest and result["rows"]:
            result["rest"] = await rest(stores, options.rest)
    return result


def write_json(result: dict[str, Any], directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "results.json").write_text(json.dumps(result, indent=2) + "\n")


def main() -> None:
    options = parse()
    result = uvloop.run(run(options))
    if not result["rows"]:
        return
    write_json(result, options.directory)
    told = "\n\n".join([report.comparisons(result["rows"], nothing.NAME), report.resting(result["rest"])])
    whole = f"Machine: {result['machine']}\n\n{told}\n\n{report.table(result['rows'])}\n"
    (options.directory / "results.md").write_text(whole)
    figures = plot.write(result["rows"], options.directory)
    print(f"\n{told}\n\nMachine: {result['machine']}\nWritten: {options.directory}/results.json, results.md,",
          ", ".join(path.name for path in figures))  # fmt: skip


if __name__ == "__main__":
    main()
