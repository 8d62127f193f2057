"""`python -m bench`: see the package."""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import uvloop

from bench import report
from bench.client import Sample, drive
from bench.target import Target, of_peer, of_pods
from bench.workloads import make_bucket, workloads
from holdfast_server.testing.pods import PodProcesses


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench", description="CPU per operation of a tenant of real pods")
    parser.add_argument("--servers", type=int, default=4)
    parser.add_argument("--volumes", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=4.0, help="per round of a workload")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--keys", type=int, default=10_000, help="keys in the listed prefix")
    parser.add_argument("--only", default="", help="run workloads whose name contains this")
    parser.add_argument("--peer", action="append", default=[], type=of_peer, metavar="NAME=URL,KEY,SECRET,PID…")
    parser.add_argument("--directory", type=Path, default=Path(".bench"))
    return parser.parse_args()


async def measure(targets: list[Target], options: argparse.Namespace) -> list[dict[str, Any]]:
    """Targets in turn, round by round, so that the machine's drift meets all alike."""
    rows = []
    for target in targets:
        await make_bucket(target)
    for workload in workloads(options.keys):
        if options.only.lower() not in workload.name.lower():
            continue
        samples: dict[str, list[Sample]] = {target.name: [] for target in targets}
        for target in targets:
            if workload.prepare is not None:
                await workload.prepare(target)
        for _ in range(options.rounds):
            for target in targets:
                sample = await drive(target, workload.operation, workload.clients, options.seconds)
                samples[target.name].append(sample)
        for name, rounds in samples.items():
            rows.append(report.summarize(workload.name, name, rounds))
            print(report.table(rows[-1:]).splitlines()[-1], flush=True)
    return rows


async def run(options: argparse.Namespace) -> None:
    data = options.directory / "pods"
    shutil.rmtree(data, ignore_errors=True)
    pods = PodProcesses(data, servers=options.servers, volumes=options.volumes)
    try:
        await pods.start_all()
        targets = [of_pods("Holdfast", pods), *options.peer]
        print(report.table([]), flush=True)
        rows = await measure(targets, options)
        resident = [round(size / 1e6) for size in targets[0].resident_bytes()]
    finally:
        pods.stop()
        shutil.rmtree(data, ignore_errors=True)
    result = {"machine": report.machine(), "pods_resident_mb": resident, "rows": rows}
    path = options.directory / "results.json"
    path.write_text(json.dumps(result, indent=2) + "\n")
    print(f"\nMachine: {result['machine']}; pods' resident memory at the end, MB: {resident}\nJSON: {path}")


if __name__ == "__main__":
    uvloop.run(run(parse()))
