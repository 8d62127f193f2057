"""A large bucket over real pods: what a page costs, and that all pages together are exactly what is there.

With 12,000 keys in `make test`; `HOLDFAST_LISTING_KEYS=1000000` in `make soak`, where the tombstones are waited for
until they are gone.  One key of a hundred is not the same on all drives: they missed its write, or its delete.  Run
with `-s` for the figures; CPU is that of all pods together, and the same pages of a bucket of 10,000 keys, or of a
quarter, are asked for in the same run, so that the two can be compared on any machine.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import re
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from holdfast_server.clock.system import SystemClock
from holdfast_server.contract.geometry import resolve
from holdfast_server.drives import keys
from holdfast_server.drives.engine import Engine
from holdfast_server.drives.folder_layout import RECORDS_FOLDER
from holdfast_server.testing import bulk_load
from holdfast_server.testing.bulk_load import BODY, GROUP_SIZE, Load, key_of
from holdfast_server.testing.faults.s3_session import S3Session
from holdfast_server.testing.pods import PodProcesses

KEYS = int(os.environ.get("HOLDFAST_LISTING_KEYS", "12000"))
WAIT_SECONDS = float(os.environ.get("HOLDFAST_LISTING_WAIT_SECONDS", "0"))
"""For the tombstones to be gone; 0: not waited for."""
SMALL = min(10_000, KEYS // 4)
DELETED_BY_REQUESTS = min(KEYS // 6, 100_000)
PAGE = 1000
REPEATS = 10 if KEYS > 20_000 else 1
"""Of the pages whose cost is told; few where nobody reads it."""
TWO_HOURS_MS = 7_200_000

_NAME = re.compile(rb"<Key>([^<]*)</Key>|<CommonPrefixes><Prefix>([^<]*)</Prefix>")
_TOKEN = re.compile(rb"<NextContinuationToken>([^<]*)<")

pytestmark = pytest.mark.timeout(3 * 3600 if WAIT_SECONDS else 1200)


class Tenant:
    """Four pods, a client, and their processor time."""

    def __init__(self, pods: PodProcesses, session: S3Session) -> None:
        self.pods = pods
        self.session = session

    async def page(
        self, bucket: str, pod: int = 0, delimiter: str = "", after: str = "", token: str = ""
    ) -> tuple[list[str], str]:
        """Names in order, and the token of the next page."""
        query = f"list-type=2&max-keys={PAGE}"
        query += f"&delimiter={quote(delimiter, safe='')}" if delimiter else ""
        query += f"&start-after={quote(after, safe='')}" if after else ""
        query += f"&continuation-token={quote(token, safe='')}" if token else ""
        answer = await self.session.exchange(self.pods.endpoint(pod), "GET", bucket, query=query, keep=True)
        assert answer.ok, answer.body
        names = [(key or prefix).decode() for key, prefix in _NAME.findall(answer.body)]
        found = _TOKEN.search(answer.body)
        return names, found.group(1).decode() if found else ""

    async def names(self, bucket: str, pod: int, delimiter: str = "") -> AsyncIterator[str]:
        token = ""
        while True:
            found, token = await self.page(bucket, pod, delimiter, token=token)
            for name in found:
                yield name
            if not token:
                return

    async def delete(self, bucket: str, names: list[str], pod: int) -> None:
        objects = "".join(f"<Object><Key>{name}</Key></Object>" for name in names)
        body = f"<Delete><Quiet>true</Quiet>{objects}</Delete>".encode()
        md5 = {"content-md5": base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()}
        answer = await self.session.exchange(
            self.pods.endpoint(pod), "POST", bucket, query="delete=", body=body, headers=md5
        )
        assert answer.ok, answer.body

    def cpu_seconds(self) -> float:
        ticks = 0
        for process in self.pods.processes.values():
            fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")


async def cost(tenant: Tenant, bucket: str, after: str = "", delimiter: str = "") -> tuple[float, float]:
    """Milliseconds and CPU milliseconds of one page, the mean over all pods."""
    for pod in range(4 if REPEATS > 1 else 0):
        await tenant.page(bucket, pod, delimiter, after)
    cpu, began = tenant.cpu_seconds(), time.monotonic()
    for turn in range(REPEATS * 4):
        await tenant.page(bucket, turn % 4, delimiter, after)
    count = REPEATS * 4
    return (time.monotonic() - began) * 1000 / count, (tenant.cpu_seconds() - cpu) * 1000 / count


async def report(tenant: Tenant, what: str, large: int) -> None:
    for kind, delimiter, deep in (("plain", "", False), ("delimiter", "/", False), ("deep start-after", "", True)):
        told = []
        for bucket, count in (("small", SMALL), ("large", large)):
            after = key_of(count * 8 // 10) if deep else ""
            ms, cpu = await cost(tenant, bucket, after, delimiter)
            told.append(f"{bucket} {ms:.1f} ms, CPU {cpu:.1f} ms")
        print(f"{what}, {kind}: {'; '.join(told)}", flush=True)


def fill(pods: PodProcesses, loads: list[Load]) -> None:
    began = time.monotonic()
    folders = [pods.drive_path(pod) for pod in range(pods.servers)]
    bulk_load.load_drives(folders, loads, resolve(4, 1, None, None).parity_shards)
    print(f"loaded in {time.monotonic() - began:.0f} s", flush=True)


def settled_tombstones(pods: PodProcesses) -> list[int]:
    """Rows on each drive of stopped pods."""
    counts = []
    for pod in range(4):
        engine = Engine(pods.drive_path(pod) / RECORDS_FOLDER, create=False)
        try:
            counts.append(sum(1 for _ in _rows(engine, keys.SETTLED)))
        finally:
            engine.close()
    return counts


def _rows(engine: Engine, kind: bytes) -> Iterator[bytes]:
    cursor = engine.cursor(keys.successor(kind))
    cursor.seek(kind)
    while (key := cursor.key()) is not None:
        yield key
        cursor.next()


async def require_exactly(names: AsyncIterator[str], wanted: Iterator[str]) -> None:
    """The same names in the same order; nothing is kept in memory."""
    count = 0
    async for name in names:
        expected = next(wanted, None)
        assert name == expected, f"name {count} is {name}, not {expected}"
        count += 1
    assert next(wanted, None) is None, f"only {count} names"


def groups(load: Load) -> Iterator[str]:
    last = ""
    for key in bulk_load.present(load):
        group = key[: key.index("/") + 1]
        if group != last:
            yield group
        last = group


async def test_a_page_of_a_large_bucket(tmp_path: Path) -> None:
    pods = PodProcesses(tmp_path / "pods")
    try:
        await pods.start_all()
        async with S3Session(pods.access_key, pods.secret_key) as session:
            tenant = Tenant(pods, session)
            for name in ("small", "large"):
                assert (await session.exchange(pods.endpoint(), "PUT", name)).ok
            pods.stop()
            written_ms = SystemClock().now_ms() - TWO_HOURS_MS
            ids = {name: await bulk_load.bucket_id(pods.drive_path(0), name) for name in ("small", "large")}
            large = Load(ids["large"], KEYS, written_ms)
            fill(pods, [Load(ids["small"], SMALL, written_ms), large])
            await pods.start_all()
            await list_everything(tenant, large)
            await delete_everything(tenant, large)
    finally:
        pods.stop()


async def list_everything(tenant: Tenant, large: Load) -> None:
    await report(tenant, f"{KEYS} keys", KEYS)
    answer = await tenant.session.exchange(tenant.pods.endpoint(1), "GET", "large", key_of(KEYS - 2), keep=True)
    assert (answer.status, answer.body) == (200, BODY)
    began = time.monotonic()
    await require_exactly(tenant.names("large", 1), bulk_load.present(large))
    print(f"all {KEYS} keys in {time.monotonic() - began:.0f} s", flush=True)
    await require_exactly(tenant.names("large", 2, "/"), groups(large))
    deep = KEYS // GROUP_SIZE * 9 // 10 * GROUP_SIZE
    found, _ = await tenant.page("large", 3, after=key_of(deep))
    assert found == list(bulk_load.present(Load(large.bucket_id, min(deep + 1200, KEYS), 0, deep + 1)))[:PAGE]


async def delete_everything(tenant: Tenant, large: Load) -> None:
    """The larger part by tombstones that lie there already, the rest by requests; then list again."""
    pods = tenant.pods
    pods.stop()
    by_requests = DELETED_BY_REQUESTS
    # Written later than the tombstones that were dropped meanwhile: a drive takes nothing below its watermark.
    written_ms = large.written_ms + TWO_HOURS_MS // 4
    fill(pods, [Load(large.bucket_id, KEYS - by_requests, written_ms, deleted=True)])
    await pods.start_all()
    left = Load(large.bucket_id, KEYS, 0, KEYS - by_requests)
    found = [name async for name in tenant.names("large", 3)]
    assert found == list(bulk_load.present(left))
    await require_exactly(tenant.names("large", 1, "/"), groups(left))
    await report(tenant, f"{KEYS - by_requests} deleted, pods just started", KEYS)

    cpu, began = tenant.cpu_seconds(), time.monotonic()
    batches = [found[start : start + PAGE] for start in range(0, len(found), PAGE)]
    for turn, batch in enumerate(batches):
        await tenant.delete("large", batch, turn % 4)
        if turn % 10 == 1:
            first, _ = await tenant.page("large", (turn + 1) % 4)
            assert first[:1] == found[(turn + 1) * PAGE :][:1]
    seconds = time.monotonic() - began
    each = (tenant.cpu_seconds() - cpu) * 1e6 / len(found)
    print(f"{len(found)} deleted by requests in {seconds:.0f} s, {each:.0f} us CPU each", flush=True)
    assert await tenant.page("large", 0) == ([], "")
    await report(tenant, "all deleted a moment ago", KEYS)
    await require_exactly(tenant.names("small", 0), bulk_load.present(Load(b"", SMALL, 0)))
    if WAIT_SECONDS:
        await wait_until_gone(tenant)


async def wait_until_gone(tenant: Tenant) -> None:
    pods, began = tenant.pods, time.monotonic()
    total = KEYS + SMALL // (2 * bulk_load.DIFFERENCE_EVERY)
    cpu = tenant.cpu_seconds()
    space = sum(_folder_bytes(pods.drive_path(pod)) for pod in range(4))
    while time.monotonic() - began < WAIT_SECONDS:
        await asyncio.sleep(5)
        dropped = await asyncio.to_thread(_dropped, pods)
        print(f"  {time.monotonic() - began:.0f} s: {dropped} of {total} dropped", flush=True)
        if dropped >= total:
            break
    each = (tenant.cpu_seconds() - cpu) * 1e6 / total
    print(f"tombstones gone after {time.monotonic() - began:.0f} s, {each:.0f} us CPU each (idle load included)")
    await report(tenant, "tombstones dropped", KEYS)
    after = sum(_folder_bytes(pods.drive_path(pod)) for pod in range(4))
    print(f"on disk: {space / 1e6:.0f} MB before, {after / 1e6:.0f} MB after", flush=True)
    pods.stop()
    assert settled_tombstones(pods) == [0] * 4


def _dropped(pods: PodProcesses) -> int:
    total = 0.0
    for pod in range(4):
        with urllib.request.urlopen(f"{pods.endpoint(pod)}/metrics", timeout=10) as answer:
            found = re.search(rb"^holdfast_heal_dropped_tombstones_total (\S+)", answer.read(), re.MULTILINE)
            assert found is not None
            total += float(found.group(1))
    return int(total)


def _folder_bytes(folder: Path) -> int:
    total = 0
    for path in (folder / RECORDS_FOLDER).iterdir():
        try:
            total += path.stat().st_size
        except FileNotFoundError:
            continue
    return total
