"""Objects of reduced redundancy on real pods: they take less room, and bear the losses that they were cut for."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from holdfast_server.contract import geometry
from holdfast_server.testing.boto import client_of, endpoint_of
from holdfast_server.testing.faults.inspection import inspect_set
from holdfast_server.testing.pods import PodProcesses

BUCKET = "reduced"
CLASS = "REDUCED_REDUNDANCY"
LARGE = random.Random(1).randbytes(6 << 20)
OBJECTS = {"small": b"a few bytes", "inline": LARGE[: 64 << 10], "file": LARGE[: 3 << 20]}
SERVERS = 4
ATTEMPTS = 8
REPAIR_SECONDS = 240.0


@pytest.fixture
async def pods(tmp_path: Path) -> AsyncIterator[PodProcesses]:
    pods = PodProcesses(tmp_path / "pods", servers=SERVERS)
    try:
        await pods.start_all()
        await pods.wait_whole()
        await asyncio.to_thread(client(pods, 0).create_bucket, Bucket=BUCKET)
        yield pods
    finally:
        pods.stop()


def client(pods: PodProcesses, pod: int, attempts: int = 9) -> Any:
    return client_of(endpoint_of(pods, pod), attempts=attempts)


def write(s3: Any, storage_class: str) -> None:
    for name, data in OBJECTS.items():
        s3.put_object(Bucket=BUCKET, Key=f"{storage_class}/{name}", Body=data, StorageClass=storage_class)
    key = f"{storage_class}/parts"
    upload = s3.create_multipart_upload(Bucket=BUCKET, Key=key, StorageClass=storage_class)["UploadId"]
    parts = []
    for number, data in enumerate((LARGE[: 5 << 20], LARGE[5 << 20 :]), 1):
        part = s3.upload_part(Bucket=BUCKET, Key=key, UploadId=upload, PartNumber=number, Body=data)
        parts.append({"PartNumber": number, "ETag": part["ETag"]})
    s3.complete_multipart_upload(Bucket=BUCKET, Key=key, UploadId=upload, MultipartUpload={"Parts": parts})


def check(s3: Any, storage_class: str) -> None:
    for name, data in {**OBJECTS, "parts": LARGE}.items():
        found = s3.get_object(Bucket=BUCKET, Key=f"{storage_class}/{name}")
        assert found["Body"].read() == data, name
        assert found.get("StorageClass", "STANDARD") == storage_class


def stored_bytes(pods: PodProcesses) -> int:
    """Of shard files."""
    pods.wait_placed()
    folders = [pods.drive_path(pod) / "shards" for pod in range(SERVERS)]
    return sum(path.stat().st_size for folder in folders for path in folder.rglob("*") if path.is_file())


async def write_reduced(pods: PodProcesses, full_bytes: int) -> None:
    """A pod that seems away for a moment has them stored with all redundancy: until they are not."""
    shares = []
    while not (shares and 1.3 < shares[-1] < 1.6):
        assert len(shares) < ATTEMPTS, f"two of four shards are parity, and one of four, but: {shares}"
        before = stored_bytes(pods)
        await asyncio.to_thread(write, client(pods, len(shares) % SERVERS), CLASS)
        shares.append(full_bytes / (stored_bytes(pods) - before))


async def test_objects_bear_the_losses_that_they_were_cut_for(pods: PodProcesses) -> None:
    everybody = [client(pods, pod) for pod in range(SERVERS)]
    await asyncio.to_thread(write, everybody[0], "STANDARD")
    await write_reduced(pods, stored_bytes(pods))

    pods.kill(3)
    for s3 in everybody[:3]:
        for storage_class in ("STANDARD", CLASS):
            await asyncio.to_thread(check, s3, storage_class)
    await asyncio.to_thread(write, everybody[0], CLASS)
    await asyncio.to_thread(check, everybody[2], CLASS)

    pods.kill(2)
    await asyncio.to_thread(check, everybody[0], "STANDARD")
    impatient = client(pods, 0, attempts=1)
    with pytest.raises(ClientError) as refused:
        await asyncio.to_thread(impatient.get_object, Bucket=BUCKET, Key=f"{CLASS}/small")
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 503

    for pod in (2, 3):
        pods.start(pod)
        await pods.wait_ready(pod)
    await pods.wait_whole(REPAIR_SECONDS)
    for storage_class in ("STANDARD", CLASS):
        await asyncio.to_thread(check, everybody[3], storage_class)
    pods.stop()
    findings = inspect_set({pod: pods.drive_path(pod) for pod in range(SERVERS)}, geometry.quorums(SERVERS, 2))
    assert findings.missing == []


async def test_a_drive_that_was_emptied_is_given_its_shards_again(pods: PodProcesses) -> None:
    await asyncio.to_thread(write, client(pods, 0), CLASS)
    pods.kill(1)
    pods.empty(1)
    pods.start(1)
    await pods.wait_ready(1)
    await pods.wait_whole(REPAIR_SECONDS)
    pods.kill(2)
    for pod in (0, 1, 3):
        await asyncio.to_thread(check, client(pods, pod), CLASS)
