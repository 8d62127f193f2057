"""The copy of docs/migrating-from-minio.md: rclone takes a bucket from one endpoint to another, and finds it whole.

The old store is a single pod with keys of its own, as a small MinIO would be.  Objects come with metadata, in parts,
with names that need escaping; the copy is repeated after the old store has changed, as one does before switching over.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
import shlex
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from holdfast_server.testing.boto import client_of, endpoint_of
from holdfast_server.testing.pods import PodProcesses

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(shutil.which("rclone") is None, reason="rclone is not installed"),
]

GUIDE = Path(__file__).parents[2] / "docs" / "migrating-from-minio.md"
PART_BYTES = 5 * 1024**2
NAMES = ("plain", "a folder/with spaces & more", "ümläut/日本", "100%/+plus", "fake/1f:2e:3d=", "deep/" * 20 + "end")


@pytest.fixture
async def stores(tmp_path: Path) -> AsyncIterator[tuple[PodProcesses, PodProcesses]]:
    old = PodProcesses(tmp_path / "old", servers=1, volumes=1, access_key="minio-root")
    new = PodProcesses(tmp_path / "new", servers=4, volumes=1)
    try:
        await asyncio.gather(old.start_all(), new.start_all())
        yield old, new
    finally:
        old.stop()
        new.stop()


def s3(store: PodProcesses) -> Any:
    return client_of(endpoint_of(store), attempts=5)


def fill(store: PodProcesses) -> None:
    client, source = s3(store), random.Random(5)
    client.create_bucket(Bucket="chunks")
    for number, name in enumerate(NAMES):
        body = source.randbytes(0 if number == 0 else 40_000 * number)
        client.put_object(Bucket="chunks", Key=name, Body=body, Metadata={"owner": "loki"}, ContentType="text/x-log")
    upload = client.create_multipart_upload(Bucket="chunks", Key="in parts", Metadata={"owner": "loki"})["UploadId"]
    parts = []
    for number in (1, 2):
        answer = client.upload_part(
            Bucket="chunks", Key="in parts", UploadId=upload, PartNumber=number, Body=source.randbytes(PART_BYTES)
        )
        parts.append({"PartNumber": number, "ETag": answer["ETag"]})
    client.complete_multipart_upload(Bucket="chunks", Key="in parts", UploadId=upload, MultipartUpload={"Parts": parts})


def contents(store: PodProcesses) -> dict[str, tuple[bytes, str, dict[str, str]]]:
    client = s3(store)
    found = {}
    for entry in client.list_objects_v2(Bucket="chunks").get("Contents", []):
        answer = client.get_object(Bucket="chunks", Key=entry["Key"])
        owner = {name: value for name, value in answer["Metadata"].items() if name == "owner"}
        found[entry["Key"]] = (answer["Body"].read(), answer["ContentType"], owner)
    return found


def commands(old: PodProcesses, new: PodProcesses) -> list[list[str]]:
    """Those of the guide, with the endpoints and keys of this test."""
    lines = re.findall(r"^\$ (rclone .*)$", GUIDE.read_text(), re.MULTILINE)
    found = []
    for line in lines:
        store = old if " old " in line else new
        given = {"endpoint": store.endpoint(), "access_key_id": store.access_key, "secret_access_key": store.secret_key}
        for name, value in given.items():
            line = re.sub(rf"\b{name}=\S+", f"{name}={value}", line)
        found.append(shlex.split(line))
    return found


def run(command: list[str], config: Path) -> None:
    # rclone, too, reads the variables of the AWS tools, and cannot do with some of them.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    environment["RCLONE_CONFIG"] = str(config)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout + done.stderr}"


async def test_a_bucket_is_copied_by_the_commands_of_the_guide(
    stores: tuple[PodProcesses, PodProcesses], tmp_path: Path
) -> None:
    old, new = stores
    await asyncio.to_thread(fill, old)
    given = commands(old, new)
    assert [command[1] for command in given] == ["config", "config", "sync", "check"]
    for command in given:
        await asyncio.to_thread(run, command, tmp_path / "rclone.conf")
    copied = await asyncio.to_thread(contents, new)
    assert copied == await asyncio.to_thread(contents, old)
    assert set(copied) == {*NAMES, "in parts"}
    assert {owner["owner"] for _, _, owner in copied.values()} == {"loki"}

    s3(old).put_object(Bucket="chunks", Key="plain", Body=b"changed", Metadata={"owner": "loki"})
    s3(old).delete_object(Bucket="chunks", Key=NAMES[1])
    for command in given[2:]:
        await asyncio.to_thread(run, command, tmp_path / "rclone.conf")
    copied = await asyncio.to_thread(contents, new)
    assert copied == await asyncio.to_thread(contents, old)
    assert copied["plain"][0] == b"changed"
    assert NAMES[1] not in copied
