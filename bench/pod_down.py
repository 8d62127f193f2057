"""`python -m bench.pod_down`: what reads cost, and what clients feel, while one pod of four is gone.

Four pods of one drive each (2 + 2); GET of 1.5 MiB objects through the three pods that stay, as a Service routes it
once the dead pod is no endpoint any more:

- *whole*: all four run;
- *at the moment*: the pod is killed in the middle of the round, with no word to anybody;
- *down*: it stays away;
- *back*: it has been started again, and nothing is missing any more.

The figures to compare are *down*'s with *whole*'s: CPU, p99, errors.  A client does not retry here: every error counts.

Not here: writes (`python -m bench.healing` measures what they leave to repair), reads through the Service.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import uvloop

from bench import report
from bench.client import Sample, drive
from bench.target import Target, of_pods
from bench.workloads import CHUNK_BYTES, filled, get, make_bucket
from holdfast_server.testing.pods import PodProcesses

VICTIM = 3
WHOLE, MOMENT, DOWN, BACK = "whole", "at the moment", "down", "back"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.pod_down", description="reads while one pod of four is gone")
    parser.add_argument("--seconds", type=float, default=4.0, help="per round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--directory", type=Path, default=Path(".bench"))
    return parser.parse_args()


def _survivors(pods: PodProcesses) -> Target:
    """The pods that stay serve; the CPU is that of all that run."""
    whole = of_pods("Holdfast", pods)
    return replace(whole, endpoints=whole.endpoints[:VICTIM])


async def _killed_meanwhile(pods: PodProcesses, clients: int, seconds: float) -> Sample:
    """The victim's own CPU ends with it and is not in the sample."""
    target = _survivors(pods)
    kept = replace(target, pids=tuple(process.pid for pod, process in pods.processes.items() if pod != VICTIM))

    async def kill() -> None:
        await asyncio.sleep(seconds / 2)
        await asyncio.to_thread(pods.kill, VICTIM)

    async with asyncio.TaskGroup() as group:
        group.create_task(kill())
        sample = group.create_task(drive(kept, get("loki"), clients, seconds))
    return sample.result()


async def measure(pods: PodProcesses, options: argparse.Namespace) -> dict[str, list[Sample]]:
    """Rounds of all four in turn, so that the machine's drift meets all alike."""
    samples: dict[str, list[Sample]] = {WHOLE: [], MOMENT: [], DOWN: [], BACK: []}
    clients, seconds = options.clients, options.seconds
    await drive(_survivors(pods), get("loki"), clients, seconds / 2)
    for _ in range(options.rounds):
        samples[WHOLE].append(await drive(_survivors(pods), get("loki"), clients, seconds))
        samples[MOMENT].append(await _killed_meanwhile(pods, clients, seconds))
        samples[DOWN].append(await drive(_survivors(pods), get("loki"), clients, seconds))
        pods.start(VICTIM)
        await pods.wait_ready(VICTIM)
        await pods.wait_whole()
        samples[BACK].append(await drive(_survivors(pods), get("loki"), clients, seconds))
    return samples


async def run(options: argparse.Namespace) -> list[report.Row]:
    folder = options.directory / "pod-down"
    shutil.rmtree(folder, ignore_errors=True)
    pods = PodProcesses(folder)
    try:
        await pods.start_all()
        await make_bucket(_survivors(pods))
        await filled("loki", os.urandom(CHUNK_BYTES))(_survivors(pods))
        samples = await measure(pods, options)
    finally:
        pods.stop()
        shutil.rmtree(folder, ignore_errors=True)
    return [report.summarize("GET 1.5 MiB", name, found) for name, found in samples.items()]


def main() -> None:
    options = parse()
    rows = uvloop.run(run(options))
    options.directory.mkdir(parents=True, exist_ok=True)
    (options.directory / "pod_down.json").write_text(json.dumps({"machine": report.machine(), "rows": rows}, indent=2))
    print(report.table(rows))
    whole, down = rows[0], rows[2]
    cpu = down["cpu_microseconds_per_operation"] / whole["cpu_microseconds_per_operation"]
    print(f"\nOne pod down: {cpu:.2f}× the CPU, {down['p99_ms'] / whole['p99_ms']:.2f}× p99, {down['errors']} errors;",
          f"at the moment: {rows[1]['errors']} errors")  # fmt: skip
    for row in rows:
        if row["first_error"]:
            print(f"{row['target']}: {row['first_error']}")


if __name__ == "__main__":
    main()
