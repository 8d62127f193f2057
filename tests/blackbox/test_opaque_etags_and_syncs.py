"""Programs that compare a tree with a bucket have nothing to do a second time, where ETags are no MD5s, too.

A client that took such an ETag for an MD5 would find every file changed, or damaged; so each uploads, small files,
large ones and ones in parts, is asked again, and fetches everything into an empty folder.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from holdfast_server.testing.boto import client_of, endpoint_of, set_opaque_etags
from holdfast_server.testing.commands import run_command
from holdfast_server.testing.pods import PodProcesses
from holdfast_server.testing.trees import digest_tree

BIN = Path(sys.executable).parent
MIB = 1 << 20
SIZES_BYTES = {"empty": 0, "inline": 1_000, "last inline": 65_536, "whole": 1_500_000, "in parts": 17 * MIB + 3}
CLIENT_TIMEOUT_SECONDS = 240.0
RCLONE = ("rclone", "--config", "/dev/null", "--s3-provider", "Other", "--s3-env-auth", "--s3-force-path-style")
IN_PARTS = ("--s3-upload-cutoff", "6M", "--s3-chunk-size", "6M")
CLIENTS: Mapping[str, tuple[str | Path, ...]] = {
    "awscli": (BIN / "aws", "s3", "sync", "--no-progress"),
    "s3cmd": (BIN / "s3cmd", "--config=/dev/null", "--no-ssl", "--no-progress", "--multipart-chunk-size-mb=6", "sync"),
    "rclone": (*RCLONE, *IN_PARTS, "sync"),
    "rclone by checksum": (*RCLONE, *IN_PARTS, "sync", "--checksum"),
}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tree")
    chance = random.Random(9)
    for name, size in SIZES_BYTES.items():
        (folder / name).write_bytes(chance.randbytes(size))
    return folder


@pytest.fixture
def s3(pods: PodProcesses) -> Iterator[Any]:
    with closing(client_of(endpoint_of(pods, 1), attempts=5)) as client:
        yield client


async def run(pods: PodProcesses, name: str, source: str | Path, target: str | Path, home: Path) -> None:
    """One sync."""
    program, *words = CLIENTS[name]
    host = pods.endpoint(2).removeprefix("http://")
    if program == "rclone":
        words[:0] = ["--s3-endpoint", pods.endpoint(2)]
    elif name == "s3cmd":
        words[:0] = [f"--host={host}", f"--host-bucket={host}"]
        words[:0] = [f"--access_key={pods.access_key}", f"--secret_key={pods.secret_key}"]
    environment = {
        "AWS_ENDPOINT_URL_S3": pods.endpoint(2),
        "AWS_ACCESS_KEY_ID": pods.access_key,
        "AWS_SECRET_ACCESS_KEY": pods.secret_key,
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": "/dev/null",
        "AWS_EC2_METADATA_DISABLED": "true",
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "LC_ALL": "C.UTF-8",
    }
    arguments: Sequence[str | Path] = [*words, source, target]
    done = await run_command(str(program), arguments, environment, timeout_seconds=CLIENT_TIMEOUT_SECONDS)
    assert done.code == 0, done.out + done.err
    # Of what they fetch, too: a warning of a digest that does not match ends with 0.
    assert "MD5" not in done.out + done.err, done.out + done.err


def stored(s3: Any, bucket: str) -> dict[str, tuple[object, str]]:
    entries = s3.list_objects_v2(Bucket=bucket).get("Contents", [])
    return {entry["Key"]: (entry["LastModified"], entry["ETag"]) for entry in entries}


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", CLIENTS)
def test_a_second_sync_finds_nothing_to_do(
    name: str, pods: PodProcesses, s3: Any, bucket: str, tree: Path, tmp_path: Path
) -> None:
    if shutil.which(CLIENTS[name][0]) is None:
        pytest.skip(f"{CLIENTS[name][0]} is not installed")
    remote = f":s3:{bucket}" if name.startswith("rclone") else f"s3://{bucket}/"
    local, back = f"{tree}/", f"{tmp_path / 'back'}/"
    (tmp_path / "back").mkdir()

    async def there_twice_and_back() -> None:
        await set_opaque_etags(pods, bucket)
        await run(pods, name, local, remote, tmp_path)
        first = stored(s3, bucket)
        assert first.keys() == SIZES_BYTES.keys()
        assert first["in parts"][1].endswith('-3"')
        # Whose client sends the MD5 of what it sends whole has it as the ETag.
        assert ("-" in first["whole"][1]) is not name.startswith("rclone")
        await run(pods, name, local, remote, tmp_path)
        assert stored(s3, bucket) == first, "sent again"
        await run(pods, name, remote, back, tmp_path)

    asyncio.run(there_twice_and_back())
    assert digest_tree(tmp_path / "back") == digest_tree(tree)
    fetched = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "back").iterdir()}
    asyncio.run(run(pods, name, remote, back, tmp_path))
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "back").iterdir()} == fetched, "fetched again"
