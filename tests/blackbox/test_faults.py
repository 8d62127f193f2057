"""Promises 1 to 6 on real processes: pods are killed, drives emptied and bytes flipped under a stock client.

The client remembers what was acknowledged; whatever it remembers must read back, byte for byte.
"""

import asyncio
import functools
import hashlib
import os
import random
import shutil
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config

from holdfast_server.drives.inspection import verify_file
from holdfast_server.drives.port import ShardCorrupt
from holdfast_server.objects.record import STRIPE_SIZE_BYTES
from holdfast_server.testing.pods import PodProcesses

BUCKET = "faults"
SERVERS = 4


def client(pods: PodProcesses, pod: int, attempts: int = 8) -> Any:
    config = Config(
        retries={"max_attempts": attempts, "mode": "standard"}, connect_timeout=3, read_timeout=30,
        s3={"addressing_style": "path"}, max_pool_connections=32,
    )  # fmt: skip
    return boto3.client(
        "s3", endpoint_url=pods.endpoint(pod), region_name="us-east-1", config=config,
        aws_access_key_id=pods.access_key, aws_secret_access_key=pods.secret_key,
    )  # fmt: skip


def content(key: str, size: int) -> bytes:
    return random.Random(key).randbytes(size)


@functools.cache
def digest_of(key: str, size: int) -> bytes:
    """Each object is compared several times, and making its content anew takes longer than reading it."""
    return hashlib.sha256(content(key, size)).digest()


@pytest.fixture
async def pods(tmp_path: Path) -> AsyncIterator[PodProcesses]:
    pods = PodProcesses(tmp_path / "pods", servers=SERVERS, volumes=2)
    try:
        await pods.start_all()
        await asyncio.to_thread(client(pods, 0).create_bucket, Bucket=BUCKET)
        yield pods
    finally:
        pods.stop()


def sizes() -> Iterator[int]:
    while True:
        yield from (0, 700, 4096, 65_536, 65_537, 300_000, 1_500_000, 3_200_000)


def write_all(s3: Any, prefix: str, count: int) -> dict[str, int]:
    """Puts objects of mixed sizes; returns what was acknowledged."""
    wanted = list(zip((f"{prefix}/{index:04d}" for index in range(count)), sizes(), strict=False))

    def put(item: tuple[str, int]) -> None:
        s3.put_object(Bucket=BUCKET, Key=item[0], Body=content(*item))

    with ThreadPoolExecutor(8) as executor:
        list(executor.map(put, wanted))
    return dict(wanted)


def check_all(s3: Any, wanted: dict[str, int]) -> None:
    def check(item: tuple[str, int]) -> None:
        data = s3.get_object(Bucket=BUCKET, Key=item[0])["Body"].read()
        assert hashlib.sha256(data).digest() == digest_of(*item), item

    with ThreadPoolExecutor(8) as executor:
        list(executor.map(check, wanted.items()))


def listed(s3: Any, prefix: str) -> set[str]:
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
    return {entry["Key"] for page in pages for entry in page.get("Contents", [])}


async def test_a_pod_killed_and_restarted_during_writes_and_reads_is_invisible(pods: PodProcesses) -> None:
    s3 = client(pods, 0)
    stop = threading.Event()

    async def killer() -> None:
        for round_ in range(3):
            await asyncio.sleep(0.4)
            pod = 1 + round_ % 3
            pods.kill(pod)
            await asyncio.sleep(0.5)
            pods.start(pod)
            await pods.wait_ready(pod)
        stop.set()

    async with asyncio.TaskGroup() as group:
        group.create_task(killer())
        written: dict[str, int] = {}
        number = 0
        while not stop.is_set():
            written |= await asyncio.to_thread(write_all, s3, f"w{number}", 24)
            await asyncio.to_thread(check_all, s3, dict(list(written.items())[-24:]))
            number += 1
    for pod in range(SERVERS):
        await asyncio.to_thread(check_all, client(pods, pod), written)
        assert await asyncio.to_thread(listed, client(pods, pod), "w") == set(written)


async def test_with_half_of_the_pods_down_everything_is_readable_and_writes_are_refused(pods: PodProcesses) -> None:
    written = await asyncio.to_thread(write_all, client(pods, 0), "half", 32)
    pods.kill(2)
    pods.kill(3)
    for pod in (0, 1):
        await asyncio.to_thread(check_all, client(pods, pod), written)
        assert await asyncio.to_thread(listed, client(pods, pod), "half") == set(written)
    s3 = client(pods, 0, attempts=1)
    with pytest.raises(s3.exceptions.ClientError) as refused:
        await asyncio.to_thread(s3.put_object, Bucket=BUCKET, Key="no", Body=b"x")
    assert refused.value.response["Error"]["Code"] == "SlowDown"
    for pod in (2, 3):
        pods.start(pod)
        await pods.wait_ready(pod)
    await pods.wait_healthy()
    await asyncio.to_thread(client(pods, 0).put_object, Bucket=BUCKET, Key="yes", Body=b"x")


async def test_after_kill_9_of_all_pods_at_once_everything_acknowledged_is_there(pods: PodProcesses) -> None:
    acknowledged: dict[str, int] = {}
    s3 = client(pods, 1, attempts=1)
    killed = threading.Event()

    def write_until_it_fails() -> None:
        for index, size in enumerate(sizes()):
            key = f"all/{index:05d}"
            try:
                s3.put_object(Bucket=BUCKET, Key=key, Body=content(key, size))
            except Exception:
                if killed.is_set():
                    return
            else:
                acknowledged[key] = size

    async with asyncio.TaskGroup() as group:
        group.create_task(asyncio.to_thread(write_until_it_fails))
        while len(acknowledged) < 50:
            await asyncio.sleep(0.01)
        killed.set()
        for pod in range(SERVERS):
            pods.processes[pod].kill()
        for pod in range(SERVERS):
            pods.kill(pod)
    for pod in range(SERVERS):
        pods.start(pod)
    await pods.wait_healthy()
    await asyncio.to_thread(check_all, client(pods, 2), acknowledged)
    assert await asyncio.to_thread(listed, client(pods, 3), "all") >= set(acknowledged)


async def shard_files(pods: PodProcesses, pod: int, volume: int = 0) -> list[Path]:
    drive = pods.drive_path(pod, volume)
    await asyncio.to_thread(pods.wait_placed)
    return sorted(path for path in (drive / "shards").rglob("*") if path.is_file())


async def test_a_flipped_byte_and_a_deleted_drive_folder_are_read_around(pods: PodProcesses) -> None:
    written = await asyncio.to_thread(write_all, client(pods, 0), "rot", 32)
    flipped = 0
    for path in await shard_files(pods, 1):
        data = bytearray(path.read_bytes())
        data[len(data) // 3] ^= 0x40
        path.write_bytes(data)
        flipped += 1
    assert flipped
    lost = pods.drive_path(3, 1)
    while lost.exists():  # its pod runs, and may make a file in a folder that has just been emptied
        shutil.rmtree(lost, ignore_errors=True)
    for pod in range(SERVERS):
        await asyncio.to_thread(check_all, client(pods, pod), written)
        assert await asyncio.to_thread(listed, client(pods, pod), "rot") == set(written)


async def test_rot_on_every_drive_is_read_around_and_rebuilt_where_each_stripe_is_left(pods: PodProcesses) -> None:
    """Of the first four stripes none is whole on all drives, and no drive has all four of them."""
    size = 8 * STRIPE_SIZE_BYTES
    await asyncio.to_thread(client(pods, 0).put_object, Bucket=BUCKET, Key="rot", Body=content("rot", size))
    drives = [(pod, volume) for pod in range(SERVERS) for volume in range(2)]
    files = [path for drive in drives for path in await shard_files(pods, *drive)]
    assert len(files) == len(drives)
    for number, path in enumerate(files):
        block_bytes = path.stat().st_size // 8
        with path.open("r+b") as file:
            file.seek(number % 4 * block_bytes + 1000)
            byte = file.read(1)[0]
            file.seek(-1, os.SEEK_CUR)
            file.write(bytes((byte ^ 1,)))
    assert sum(map(is_rotten, files)) == len(files)
    for pod in range(SERVERS):
        await asyncio.to_thread(check_all, client(pods, pod), {"rot": size})
    async with asyncio.timeout(150):
        while any(map(is_rotten, files)):
            await asyncio.sleep(0.2)
    await asyncio.to_thread(check_all, client(pods, 3), {"rot": size})


def is_rotten(path: Path) -> bool:
    try:
        verify_file(path, bytes.fromhex(path.name))
    except ShardCorrupt:
        return True
    return False


async def test_rot_on_another_pod_is_healed_by_whoever_reads_it(pods: PodProcesses) -> None:
    """What a pod gives to others it does not look at; those who get it do, and have it repaired."""
    written = {f"read/{index:04d}": 1_500_000 for index in range(24)}
    with ThreadPoolExecutor(4) as executor:
        put = client(pods, 0).put_object
        list(executor.map(lambda item: put(Bucket=BUCKET, Key=item[0], Body=content(*item)), written.items()))
    whole = {path: path.read_bytes() for path in await shard_files(pods, 1)}
    assert whole
    for path, data in whole.items():
        with path.open("r+b") as file:
            file.seek(len(data) // 3)
            file.write(bytes([data[len(data) // 3] ^ 0x40]))
    for pod in (0, 2, 3):
        await asyncio.to_thread(check_all, client(pods, pod), written)
    # Of each object so many data shards are read that some of these were, though nobody knows which.
    async with asyncio.timeout(120):
        while not any(path.read_bytes() == data for path, data in whole.items()):
            await asyncio.sleep(0.1)
    await pods.wait_healthy()
    for pod in range(SERVERS):
        await asyncio.to_thread(check_all, client(pods, pod), written)


async def test_an_emptied_drive_and_missed_writes_heal_by_themselves(pods: PodProcesses) -> None:
    before = await asyncio.to_thread(write_all, client(pods, 0), "before", 24)
    pods.kill(2)
    missed = await asyncio.to_thread(write_all, client(pods, 0), "missed", 24)
    pods.empty(2, 0)
    pods.start(2)
    await pods.wait_whole(150)
    # Now the other half may go, and what was healed must carry the reads.
    pods.kill(0)
    pods.kill(1)
    await asyncio.to_thread(check_all, client(pods, 2), before | missed)
