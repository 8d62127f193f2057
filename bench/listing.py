"""`python -m bench.listing`: what a page of 1,000 costs in buckets of different sizes; it should be the same.

Four pods of one drive each (2 + 2).  The buckets' records are laid on the drives of stopped pods by
`holdfast_server.testing.bulk_load`, as requests would have left them, which takes a hundredth of the time; then pages
are asked for: from the start, from the middle, and with a delimiter, where each of a page's 1,000 common prefixes
hides ten keys.  With `--versions` another bucket has one key of so many versions, which are listed from the newest and
from the middle.  CPU is that of all pods.

Not here: other stores, into which a million keys would have to go by requests; `python -m bench` lists 10,000 of them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import time
from pathlib import Path

import uvloop

from bench import report
from bench.client import Connection, Operation, Sample, drive
from bench.target import Target, of_pods
from holdfast_server.objects.record import place_of
from holdfast_server.testing import bulk_load
from holdfast_server.testing.bulk_load import Load, key_of
from holdfast_server.testing.pods import PodProcesses

SERVERS, PARITY = 4, 2
CALM_CPU = 0.1
"""Of a core, all pods together: what was laid there is looked through when they start, and that is no listing's."""
CALM_SECONDS = 5.0
MAX_CALMING_SECONDS = 600.0
PAGE_KEYS = 1000
VERSIONED, KEY = "versioned", "key"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.listing", description="pages of small and large buckets")
    parser.add_argument("--keys", type=int, action="append", metavar="COUNT", help="of one bucket each; 10k and 1M")
    parser.add_argument("--versions", type=int, default=0, metavar="COUNT", help="of one key in a bucket of its own")
    parser.add_argument("--seconds", type=float, default=4.0, help="per round of a workload")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clients", type=int, default=1)
    parser.add_argument("--directory", type=Path, default=Path(".bench"))
    return parser.parse_args()


def bucket_of(keys: int) -> str:
    return f"keys-{keys}"


def _page(bucket: str, after: str, delimiter: bool) -> Operation:
    query = f"list-type=2&max-keys={PAGE_KEYS}"
    query += f"&start-after={after.replace('/', '%2F')}" if after else ""
    query += "&delimiter=%2F" if delimiter else ""

    async def operation(connection: Connection, number: int) -> int:
        await connection.request("GET", f"/{bucket}", query)
        return 0

    return operation


def _versions_page(before: str) -> Operation:
    query = f"versions=&max-keys={PAGE_KEYS}" + (f"&key-marker={KEY}&version-id-marker={before}" if before else "")

    async def operation(connection: Connection, number: int) -> int:
        await connection.request("GET", f"/{VERSIONED}", query)
        return 0

    return operation


async def fill(pods: PodProcesses, sizes: list[int], versions: int = 0) -> Load | None:
    """From nothing to running pods with those buckets; what was laid as versions."""
    await pods.start_all()
    connection = Connection(of_pods("", pods), 0)
    for keys in sizes:
        await connection.request("PUT", f"/{bucket_of(keys)}")
    if versions:
        await connection.request("PUT", f"/{VERSIONED}")
        enabled = b"<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>"
        await connection.request("PUT", f"/{VERSIONED}", "versioning=", enabled)
    await connection.close()
    pods.stop()
    folders, written_ms = [pods.drive_path(pod) for pod in range(SERVERS)], int(time.time() * 1000) - 3600_000
    ids = {keys: await bulk_load.bucket_id(folders[0], bucket_of(keys)) for keys in sizes}
    loads = [Load(ids[keys], keys, written_ms, differences=False) for keys in sizes]
    kept = None
    if versions:
        bucket = await bulk_load.bucket_id(folders[0], VERSIONED)
        kept = Load(bucket, versions, written_ms, versions_of=KEY)
        loads.append(kept)
    began = time.monotonic()
    await asyncio.to_thread(bulk_load.load_drives, folders, loads, PARITY)
    print(f"{sum(sizes) + versions} versions laid on {SERVERS} drives in {time.monotonic() - began:.0f} s", flush=True)
    await pods.start_all()
    return kept


async def calm(target: Target) -> None:
    """Wait until the pods have done what they do after a start.  Raises TimeoutError."""
    began = time.monotonic()
    async with asyncio.timeout(MAX_CALMING_SECONDS):
        share = 1.0
        while share > CALM_CPU:
            before, since = target.cpu_seconds(), time.monotonic()
            await asyncio.sleep(CALM_SECONDS)
            share = (target.cpu_seconds() - before) / (time.monotonic() - since)
    print(f"at rest {time.monotonic() - began:.0f} s after they were ready", flush=True)


async def measure(target: Target, sizes: list[int], options: argparse.Namespace) -> list[report.Row]:
    """Buckets in turn, so that the machine's drift meets all alike."""
    rows = []
    pages = {"first page": (0.0, False), "from the middle": (0.5, False), "delimiter": (0.0, True),
             "delimiter, from the middle": (0.5, True)}  # fmt: skip
    for name, (where, delimiter) in pages.items():
        samples: dict[int, list[Sample]] = {keys: [] for keys in sizes}
        for turn in range(options.rounds + 1):
            for keys in sizes:
                operation = _page(bucket_of(keys), key_of(int(keys * where)) if where else "", delimiter)
                seconds = options.seconds if turn else min(1.0, options.seconds)
                sample = await drive(target, operation, options.clients, seconds)
                if turn:  # the first one warms caches
                    samples[keys].append(sample)
        rows += [report.summarize(name, f"{keys:,} keys", found) for keys, found in samples.items()]
    return rows


async def measure_versions(target: Target, load: Load, options: argparse.Namespace) -> list[report.Row]:
    rows = []
    middle = place_of(bulk_load.stamp_of(load, load.last // 2)).hex()
    for name, before in (("versions, the newest", ""), ("versions, from the middle", middle)):
        samples = []
        for turn in range(options.rounds + 1):
            seconds = options.seconds if turn else min(1.0, options.seconds)
            samples.append(await drive(target, _versions_page(before), options.clients, seconds))
        rows.append(report.summarize(name, f"{load.last:,} of one key", samples[1:]))
    return rows


async def run(options: argparse.Namespace) -> list[report.Row]:
    sizes = options.keys or [10_000, 1_000_000]
    folder = options.directory / "listing"
    shutil.rmtree(folder, ignore_errors=True)
    pods = PodProcesses(folder, servers=SERVERS)
    try:
        kept = await fill(pods, sizes, options.versions)
        target = of_pods("Holdfast", pods)
        await calm(target)
        rows = await measure(target, sizes, options)
        return rows + (await measure_versions(target, kept, options) if kept is not None else [])
    finally:
        pods.stop()
        shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    options = parse()
    rows = uvloop.run(run(options))
    options.directory.mkdir(parents=True, exist_ok=True)
    (options.directory / "listing.json").write_text(json.dumps({"machine": report.machine(), "rows": rows}, indent=2))
    print(report.table(rows))


if __name__ == "__main__":
    main()
