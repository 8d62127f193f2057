"""Four real pods under random requests of clients without manners: they stay alive, their memory stays flat, and good
requests in between succeed.

A few hundred visits in every test run, HOLDFAST_HAMMER_MINUTES of them in `make soak`; HOLDFAST_HAMMER_SEED (1) makes
other ones.
"""

from __future__ import annotations

import asyncio
import os
import re
import time
from pathlib import Path
from typing import Any

import pytest

from holdfast_server.memory.limits import MIB, MemoryLimits
from holdfast_server.s3.signing import KeyPair
from holdfast_server.testing.boto import client_of, endpoint_of
from holdfast_server.testing.hammer import Hammer
from holdfast_server.testing.pods import PodProcesses
from holdfast_server.testing.wire import in_flight, peak_bytes, staged

MINUTES = float(os.environ.get("HOLDFAST_HAMMER_MINUTES", "0"))
SEED = int(os.environ.get("HOLDFAST_HAMMER_SEED", "1"))
SHORT_VISITS = 300
VISITS_PER_SECOND = 100.0
GROWTH_BOUND_BYTES = 48 * MIB
"""From the end of the first fifth of a long run to its end: caches of records and threads' arenas fill in the first."""
LARGE = os.urandom(4 * MIB)
OUR_FAULT = re.compile(r".*(?:answered InternalError|Unhandled exception|the front end failed).*")
"""Lines of a pod's log that no request may bring about."""


def write_and_read(one: Any, other: Any, key: str) -> None:
    body = os.urandom(20_000)
    one.put_object(Bucket="good", Key=key, Body=body)
    assert other.get_object(Bucket="good", Key=key)["Body"].read() == body


def resident_bytes(pods: PodProcesses) -> list[int]:
    found = []
    for process in pods.processes.values():
        status = Path(f"/proc/{process.pid}/status").read_text()
        found.append(int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) * 1024)
    return found


@pytest.mark.timeout(600 + 120 * MINUTES)
async def test_pods_bear_whatever_comes(pods: PodProcesses) -> None:
    clients = [client_of(endpoint_of(pods, pod), attempts=5, read_timeout=120) for pod in range(pods.servers)]
    for bucket in ("hammer", "good"):
        clients[0].create_bucket(Bucket=bucket)
    clients[0].put_object(Bucket="hammer", Key="large", Body=LARGE)
    hammer = Hammer(
        [pods.address(pod) for pod in range(pods.servers)], KeyPair(pods.access_key, pods.secret_key), SEED,
        VISITS_PER_SECOND,
    )  # fmt: skip
    ends = time.monotonic() + 60 * MINUTES
    over = asyncio.Event()
    sizes: list[list[int]] = []
    good = 0

    async def good_requests() -> None:
        """With a stock client and its ordinary retries, one after the other, through every pod."""
        nonlocal good
        while not over.is_set():
            one, other = clients[good % len(clients)], clients[(good + 1) % len(clients)]
            await asyncio.to_thread(write_and_read, one, other, f"k{good % 50}")
            good += 1
            sizes.append(resident_bytes(pods))
            await asyncio.sleep(0.2)

    async with asyncio.TaskGroup() as group:
        group.create_task(good_requests())
        await hammer.run(lambda visits: time.monotonic() < ends if MINUTES else visits < SHORT_VISITS)
        over.set()

    first, last = sizes[len(sizes) // 5], sizes[-1]
    print(f"{sum(hammer.outcomes.values())} visits {dict(hammer.outcomes.most_common())}, {good} good writes and reads")
    for name, found in (("first", sizes[0]), ("after a fifth", first), ("last", last), ("peak", peak_bytes(pods))):
        print(f"resident, {name}: {[size // MIB for size in found]} MiB")
    assert hammer.faults == []
    assert good > 0
    assert all(process.poll() is None for process in pods.processes.values())
    assert max(peak_bytes(pods)) <= MemoryLimits().bound_bytes(pods.volumes)
    if MINUTES:
        assert max(after - before for before, after in zip(first, last, strict=True)) <= GROWTH_BOUND_BYTES
    for pod in pods.processes:
        log = (pods.directory / f"{pods.prefix}{pod}.log").read_text(errors="replace")
        assert OUR_FAULT.findall(log) == []
    async with asyncio.timeout(120):
        while await asyncio.to_thread(in_flight, pods) or staged(pods):
            await asyncio.sleep(0.2)
    for s3 in clients:
        s3.close()
