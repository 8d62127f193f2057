"""Memory of real pods under load: whatever clients do, no pod passes the bound that `memory.limits` adds up to.

Every test ends by looking at the peak (VmHWM) of every pod, and that nothing is kept of requests that ended:
no places, no bytes, no staged shards.  `HOLDFAST_MEMORY_TEST_MIB=5120` makes the large object one of 5 GiB.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import urllib.request
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config

from holdfast_server.memory.limits import KIB, MIB, MemoryLimits
from holdfast_server.testing.pods import PodProcesses
from holdfast_server.testing.wire import Wire, counted, get, in_flight, peak_bytes, put, staged

BUCKET = "memory"
SERVERS = 4
VOLUMES = 2
BOUND_BYTES = MemoryLimits().bound_bytes(VOLUMES)
IDLE_BOUND_BYTES = 150 * MIB
LARGE_BYTES = int(os.environ.get("HOLDFAST_MEMORY_TEST_MIB", "300")) * MIB
CHUNK_BYTES = 1_500_000
MAX_PUT_BYTES = 5 << 30


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Removed when it is no longer in use: objects of gigabytes are written into it."""
    folder = tmp_path_factory.mktemp("memory")
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def pods(directory: Path) -> Iterator[PodProcesses]:
    pods = PodProcesses(directory / "pods", servers=SERVERS, volumes=VOLUMES)
    try:
        asyncio.run(pods.start_all())
        assert max(peak_bytes(pods)) < IDLE_BOUND_BYTES
        client(pods).create_bucket(Bucket=BUCKET)
        yield pods
    finally:
        pods.stop()


@pytest.fixture(autouse=True)
async def bounded(pods: PodProcesses) -> AsyncIterator[None]:
    """Around every test."""
    yield
    print(f"peaks {[peak // MIB for peak in peak_bytes(pods)]} MiB, bound {BOUND_BYTES // MIB} MiB")
    assert max(peak_bytes(pods)) <= BOUND_BYTES
    async with asyncio.timeout(90):
        while await asyncio.to_thread(in_flight, pods):
            await asyncio.sleep(0.1)
        while staged(pods):
            await asyncio.sleep(0.1)


def client(pods: PodProcesses, **config: Any) -> Any:
    """A stock client with the retries it has by default."""
    return boto3.client(
        "s3", endpoint_url=pods.endpoint(0), region_name="us-east-1",
        aws_access_key_id=pods.access_key, aws_secret_access_key=pods.secret_key,
        config=Config(s3={"addressing_style": "path"}, read_timeout=120, **config),
    )  # fmt: skip


async def test_five_hundred_uploads_and_downloads_at_once_are_served_or_told_to_slow_down(pods: PodProcesses) -> None:
    written = await counted(put(pods, f"/{BUCKET}/burst/{number}", CHUNK_BYTES) for number in range(500))
    print(f"written: {written}")
    assert set(written) <= {"200", "SlowDown"}
    assert written["200"]
    assert await put(pods, f"/{BUCKET}/burst/0", CHUNK_BYTES) == "200"
    read = await counted(get(pods, f"/{BUCKET}/burst/0", CHUNK_BYTES) for _ in range(500))
    print(f"read: {read}")
    assert set(read) <= {"200", "SlowDown"}
    assert read["200"]


async def test_with_ordinary_retries_every_request_of_a_burst_succeeds(pods: PodProcesses) -> None:
    s3 = client(pods, max_pool_connections=150)

    def one(number: int) -> int:
        s3.put_object(Bucket=BUCKET, Key=f"retried/{number}", Body=bytes(CHUNK_BYTES))
        return len(s3.get_object(Bucket=BUCKET, Key=f"retried/{number}")["Body"].read())

    def all_at_once() -> list[int]:
        with ThreadPoolExecutor(150) as executor:
            return list(executor.map(one, range(150)))

    assert await asyncio.to_thread(all_at_once) == [CHUNK_BYTES] * 150


async def test_what_loki_reads_at_once_is_never_refused(pods: PodProcesses) -> None:
    assert await put(pods, f"/{BUCKET}/chunk", CHUNK_BYTES) == "200"
    assert await counted(get(pods, f"/{BUCKET}/chunk", CHUNK_BYTES) for _ in range(150)) == {"200": 150}


@pytest.mark.timeout(3600)
async def test_a_large_object_goes_in_and_comes_out_beside_a_reader_that_takes_next_to_nothing(
    pods: PodProcesses, directory: Path
) -> None:
    source = directory / "large"
    digest = await asyncio.to_thread(make_file, source)
    try:
        s3 = client(pods)
        with source.open("rb") as body:
            await asyncio.to_thread(s3.put_object, Bucket=BUCKET, Key="large", Body=body)
        async with Wire(pods) as slow:
            slow.writer.write(slow.head("GET", f"/{BUCKET}/large"))
            assert (await slow.answer())[0] == 200
            nibbling = asyncio.ensure_future(nibble(slow))
            assert await asyncio.to_thread(read_digest, s3, "large") == digest
            assert await put(pods, f"/{BUCKET}/small", 1000) == "200"
            await asyncio.to_thread(s3.upload_file, str(source), BUCKET, "parts")  # by parts, ten at a time
            assert await asyncio.to_thread(read_digest, s3, "parts") == digest
            assert not nibbling.done()
            nibbling.cancel()
    finally:
        source.unlink()
    for key in ("large", "parts"):
        await asyncio.to_thread(s3.delete_object, Bucket=BUCKET, Key=key)


def make_file(path: Path) -> str:
    digest = hashlib.md5()
    block = os.urandom(MIB)
    with path.open("wb") as file:
        for number in range(LARGE_BYTES // MIB):
            piece = number.to_bytes(8, "big") + block[8:]
            digest.update(piece)
            file.write(piece)
    return digest.hexdigest()


def read_digest(s3: Any, key: str) -> str:
    digest = hashlib.md5()
    for piece in s3.get_object(Bucket=BUCKET, Key=key)["Body"].iter_chunks(MIB):
        digest.update(piece)
    return digest.hexdigest()


async def nibble(wire: Wire) -> None:
    """1 KB/s."""
    while await wire.reader.read(1024):
        await asyncio.sleep(1)


async def test_clients_that_vanish_leave_nothing_behind(pods: PodProcesses) -> None:
    """The fixture waits until no request is under way and no shard is staged."""
    assert await put(pods, f"/{BUCKET}/left", 8 * MIB) == "200"

    async def vanish(number: int) -> None:
        async with Wire(pods) as wire:
            if number % 2:
                wire.writer.write(wire.head("PUT", f"/{BUCKET}/gone", content_length=str(8 * MIB)) + bytes(3 * MIB))
                await asyncio.sleep(0.2)
            else:
                wire.writer.write(wire.head("GET", f"/{BUCKET}/left"))
                await wire.reader.read(1000)

    await asyncio.gather(*(vanish(number) for number in range(60)))
    async with Wire(pods) as wire:
        wire.writer.write(wire.head("GET", f"/{BUCKET}/gone"))
        assert (await wire.answer())[0] == 404


async def test_slow_uploads_do_not_keep_small_requests_out(pods: PodProcesses) -> None:
    streams = MemoryLimits().streams
    async with asyncio.TaskGroup() as group:
        stuck = [group.create_task(upload_slowly(pods, number)) for number in range(streams + 10)]
        await asyncio.sleep(2)
        assert await put(pods, f"/{BUCKET}/quick", 4 * KIB) == "200"
        assert await get(pods, f"/{BUCKET}/quick", 4 * KIB) == "200"
        for task in stuck:
            task.cancel()


@pytest.mark.parametrize(
    ("size", "sent", "at_once"),
    [
        (60 * KIB, KIB, MemoryLimits().requests),
        (8 * MIB, MIB + KIB, MemoryLimits().write_bytes // (2 * MIB)),
    ],
    ids=["small", "large"],
)
async def test_uploads_that_stall_give_way_to_those_that_wait(
    pods: PodProcesses, size: int, sent: int, at_once: int
) -> None:
    """They hold all that uploads of their size may hold."""

    async def stall(number: int) -> None:
        async with Wire(pods) as wire:
            wire.writer.write(wire.head("PUT", f"/{BUCKET}/stalled-{number}", content_length=str(size)))
            wire.writer.write(bytes(sent))
            await wire.answer()

    before = evicted(pods)
    stalled = [asyncio.ensure_future(stall(number)) for number in range(at_once)]
    try:
        await asyncio.sleep(2)
        async with asyncio.timeout(240):
            # Either may come first: a little room may be left.
            while await put(pods, f"/{BUCKET}/brisk", size, patient=True) != "200" or evicted(pods) == before:
                await asyncio.sleep(0.1)
    finally:
        for task in stalled:
            task.cancel()
        await asyncio.gather(*stalled, return_exceptions=True)


def evicted(pods: PodProcesses) -> float:
    """Uploads and downloads that had to go for others."""
    with urllib.request.urlopen(f"{pods.probe_endpoint(0)}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return sum(float(line.split()[1]) for line in lines if line.startswith("holdfast_budget_evicted_total{"))


async def upload_slowly(pods: PodProcesses, number: int) -> None:
    async with Wire(pods) as wire:
        wire.writer.write(wire.head("PUT", f"/{BUCKET}/slow-{number}", content_length=str(4 * MIB)))
        for _ in range(60):
            wire.writer.write(bytes(10 * KIB))
            await asyncio.sleep(1)


async def test_a_pod_that_hangs_does_not_let_data_for_it_pile_up(pods: PodProcesses) -> None:
    pods.suspend(3)
    try:
        written = await counted(put(pods, f"/{BUCKET}/hung/{number}", CHUNK_BYTES) for number in range(120))
    finally:
        pods.resume(3)
    print(f"written beside a hung pod: {written}")
    assert set(written) <= {"200", "SlowDown"}
    assert max(peak_bytes(pods)) <= BOUND_BYTES
    await pods.wait_whole()


@pytest.mark.parametrize(
    ("headers", "body", "code"),
    [
        ({"content_length": str(MAX_PUT_BYTES + 1), "expect": "100-continue"}, b"", b"EntityTooLarge"),
        (
            {
                "content_length": "1000000",
                "x_amz_decoded_content_length": "1000",
                "x_amz_content_sha256": "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
            },
            b"ffffffffffffffff\r\n" + bytes(1000),
            b"IncompleteBody",
        ),
    ],
    ids=["more than 5 GiB", "a chunk of 16 EiB"],
)
async def test_what_announces_too_much_is_refused_before_it_is_sent(
    pods: PodProcesses, headers: dict[str, str], body: bytes, code: bytes
) -> None:
    async with Wire(pods) as wire:
        wire.writer.write(wire.head("PUT", f"/{BUCKET}/absurd", **headers) + body)
        status, _, answer = await wire.answer()
        assert status == 400
        assert b"<Code>" + code + b"</Code>" in answer


async def test_heads_and_documents_without_end_are_bounded(pods: PodProcesses) -> None:
    async def endless_head() -> bytes:
        async with Wire(pods) as wire:
            wire.writer.write(
                b"GET / HTTP/1.1\r\nHost: x\r\n" + b"".join(b"a%d: %s\r\n" % (n, b"v" * 9000) for n in range(99))
            )
            return (await wire.answer())[2]

    async def huge_document() -> bytes:
        async with Wire(pods) as wire:
            size = str(1 << 30)
            wire.writer.write(
                wire.head("POST", f"/{BUCKET}", "delete=", content_length=size, content_md5="x") + bytes(MIB)
            )
            return (await wire.answer())[2]

    for answer in await asyncio.gather(*(endless_head() for _ in range(100))):
        # On a machine that is busy enough, its time is over first.
        assert b"RequestHeaderSectionTooLarge" in answer or b"RequestTimeout" in answer
    for answer in await asyncio.gather(*(huge_document() for _ in range(50))):
        assert b"MaxMessageLengthExceeded" in answer


async def test_pods_at_rest_have_given_back_what_work_took(pods: PodProcesses) -> None:
    """The last one: after all of the above."""
    async with asyncio.timeout(100):
        while max(resident_bytes(process.pid) for process in pods.processes.values()) >= IDLE_BOUND_BYTES:
            await asyncio.sleep(1)


def resident_bytes(pid: int) -> int:
    pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")
