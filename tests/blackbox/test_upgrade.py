"""Pods of this release beside pods of a next one: rolled one by one there and back, and no request fails.

The next release is made up (`testing.upgrades.next_server`): it speaks a newer protocol, appends fields to all that it
says and writes, and asks what this release does not know.
"""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path
from typing import Any

import pytest

from holdfast_server.testing.boto import client_of, endpoint_of
from holdfast_server.testing.pods import PodProcesses
from holdfast_server.testing.repeating import Repeating
from holdfast_server.testing.upgrades import next_server

TODAY = ("-m", "holdfast_server.main")
SIZES_BYTES = (10, 5_000, 200_000, 2_500_000)
BUCKET = "rolled"


class Traffic(Repeating):
    """One client per pod that is up, with an SDK's retries; remembers what was acknowledged."""

    def __init__(self, pods: PodProcesses) -> None:
        super().__init__()
        self._clients = {
            pod: client_of(endpoint_of(pods, pod), attempts=9, connect_timeout=5) for pod in range(pods.servers)
        }
        self.up = set(self._clients)
        self.acknowledged: dict[str, int] = {}
        self.operations = 0

    def client(self, number: int) -> Any:
        up = sorted(self.up)
        return self._clients[up[number % len(up)]]

    def step(self, number: int) -> None:
        """Write through one pod, read back through another, now and then list."""
        key = f"k/{number % 30}"
        self.client(number).put_object(Bucket=BUCKET, Key=key, Body=body(key, number))
        self.acknowledged[key] = number
        self.check(key, number + 1)
        self.operations += 2
        if number % 10 == 0:
            listed = self.client(number + 2).list_objects_v2(Bucket=BUCKET)["Contents"]
            assert {entry["Key"] for entry in listed} == set(self.acknowledged)

    async def goes_on(self) -> None:
        """Returns after some operations that began after this was called."""
        wanted = self.operations + 8
        while self.operations < wanted and not self.failures:
            await asyncio.sleep(0.05)

    def check(self, key: str, through: int) -> None:
        version = self.acknowledged[key]
        assert self.client(through).get_object(Bucket=BUCKET, Key=key)["Body"].read() == body(key, version), key


def body(key: str, version: int) -> bytes:
    size = SIZES_BYTES[version % len(SIZES_BYTES)]
    return (f"{key} {version} ".encode() * size)[:size]


@pytest.mark.timeout(300)
async def test_pods_are_rolled_to_a_next_release_and_back_under_traffic(tmp_path: Path) -> None:
    pods = PodProcesses(tmp_path / "tenant", servers=3, parity=1)
    try:
        await pods.start_all()
        traffic = Traffic(pods)
        traffic.client(0).create_bucket(Bucket=BUCKET)
        with traffic.running():
            for entry, name in ((next_server.ENTRY, "next"), (TODAY, "today")):
                pods.entry = entry
                for pod in range(pods.servers):
                    traffic.up.discard(pod)
                    await traffic.goes_on()  # a Service, too, sends a pod nothing more before it ends
                    await asyncio.to_thread(pods.stop_one, pod)
                    pods.start(pod)
                    await pods.wait_ready(pod)
                    await pods.wait_whole()
                    traffic.up.add(pod)
                    await traffic.goes_on()
                if name == "next":
                    await asyncio.to_thread(mixed_bucket, traffic)
                    assert all(has_news(pods.drive_path(pod)) for pod in range(pods.servers)), "it wrote as today's"
        assert not traffic.failures
        for key, pod in itertools.product(traffic.acknowledged, range(pods.servers)):
            await asyncio.to_thread(traffic.check, key, pod)
    finally:
        pods.stop()


def has_news(drive: Path) -> bool:
    """Whether what the next release appends is in the drive's table."""
    return any(next_server.NEWS.encode() in path.read_bytes() for path in (drive / "records").glob("*.log"))


def mixed_bucket(traffic: Traffic) -> None:
    """What the next release makes of buckets and uploads is there for today's when it is rolled back."""
    client = traffic.client(0)
    client.create_bucket(Bucket="of-next")
    upload = client.create_multipart_upload(Bucket=BUCKET, Key="k/0")["UploadId"]
    part = client.upload_part(Bucket=BUCKET, Key="k/0", UploadId=upload, PartNumber=1, Body=b"part")
    client.abort_multipart_upload(Bucket=BUCKET, Key="k/0", UploadId=upload)
    assert part["ETag"]
    assert {bucket["Name"] for bucket in traffic.client(1).list_buckets()["Buckets"]} == {BUCKET, "of-next"}
