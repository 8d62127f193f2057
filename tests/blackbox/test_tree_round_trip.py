"""A tree of files goes up and comes down through stock clients, on the whole stack, while pods are killed.

The clients talk to the Service of the stand-in cluster, as they would to a real one; a pod is killed in each
direction and the kubelet restarts it.  No client may report a failure and every sha256 must be equal.

`make soak` adds files of this machine until there are 5,000 and 2 GB (`HOLDFAST_TREE_SYSTEM_FILES`, `…_BYTES`).
"""

import contextlib
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import boto3
import pytest

from holdfast_server.testing.standin import StandIn
from holdfast_server.testing.trees import copy_system_tree, digest_tree, long_name, make_tree

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
FILES = 100
TOTAL_BYTES = 40_000_000
SYSTEM_FILES = int(os.environ.get("HOLDFAST_TREE_SYSTEM_FILES", "0"))
SYSTEM_BYTES = int(os.environ.get("HOLDFAST_TREE_SYSTEM_BYTES", "0"))
CLIENT_TIMEOUT_SECONDS = 1800
KILL_AFTER_SECONDS = 1.0


@pytest.fixture(scope="module")
def standin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StandIn]:
    standin = StandIn(tmp_path_factory.mktemp("standin") / "state", ROOT / "examples/loki/tenant.yaml")
    try:
        standin.start()
        yield standin
    finally:
        standin.stop()


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("tree")
    make_tree(directory, FILES, TOTAL_BYTES, seed=7)
    if SYSTEM_FILES:
        copy_system_tree(directory, SYSTEM_FILES, SYSTEM_BYTES)
    path = directory / long_name(len("tree/"))
    path.parent.mkdir(parents=True)
    path.write_bytes(b"the longest key")
    return directory


def run(standin: StandIn, *command: str | Path) -> None:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    environment = {**inherited, **standin.environment, "AWS_CONFIG_FILE": "/dev/null", "LC_ALL": "C.UTF-8"}
    done = subprocess.run(
        [str(word) for word in command], env=environment, capture_output=True, text=True,
        timeout=CLIENT_TIMEOUT_SECONDS,
    )  # fmt: skip
    assert done.returncode == 0, f"{command[0]} ended with {done.returncode}:\n{(done.stdout + done.stderr)[-3000:]}"


class AwsCli:
    def up(self, standin: StandIn, tree: Path, bucket: str) -> None:
        run(standin, BIN / "aws", "s3", "sync", "--quiet", tree, f"s3://{bucket}/tree/")

    def down(self, standin: StandIn, bucket: str, to: Path) -> None:
        run(standin, BIN / "aws", "s3", "sync", "--quiet", f"s3://{bucket}/tree/", to)


class Rclone:
    OPTIONS = (
        "--config", "/dev/null", "--s3-provider", "Minio", "--s3-env-auth", "--s3-force-path-style", "--transfers", "8",
    )  # fmt: skip

    def up(self, standin: StandIn, tree: Path, bucket: str) -> None:
        run(standin, "rclone", *self._options(standin), "copy", tree, f":s3:{bucket}/tree")

    def down(self, standin: StandIn, bucket: str, to: Path) -> None:
        run(standin, "rclone", *self._options(standin), "copy", f":s3:{bucket}/tree", to)

    def _options(self, standin: StandIn) -> tuple[str, ...]:
        return (*self.OPTIONS, "--s3-endpoint", standin.environment["AWS_ENDPOINT_URL_S3"])


class S3cmd:
    def up(self, standin: StandIn, tree: Path, bucket: str) -> None:
        run(standin, *self._options(standin), "sync", f"{tree}/", f"s3://{bucket}/tree/")

    def down(self, standin: StandIn, bucket: str, to: Path) -> None:
        run(standin, *self._options(standin), "sync", f"s3://{bucket}/tree/", f"{to}/")

    def _options(self, standin: StandIn) -> tuple[str | Path, ...]:
        host = standin.environment["AWS_ENDPOINT_URL_S3"].removeprefix("http://")
        keys = standin.environment
        return (
            BIN / "s3cmd", "--config=/dev/null", "--no-ssl", f"--host={host}", f"--host-bucket={host}",
            f"--access_key={keys['AWS_ACCESS_KEY_ID']}", f"--secret_key={keys['AWS_SECRET_ACCESS_KEY']}",
            "--no-progress", "--quiet", "--encoding=UTF-8",
        )  # fmt: skip


class Boto3:
    def up(self, standin: StandIn, tree: Path, bucket: str) -> None:
        s3 = s3_client(standin)
        names = list(digest_tree(tree))
        self._all(lambda name: s3.upload_file(str(tree / name), bucket, f"tree/{name}"), names)

    def down(self, standin: StandIn, bucket: str, to: Path) -> None:
        s3 = s3_client(standin)
        pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix="tree/")
        keys = [entry["Key"] for page in pages for entry in page.get("Contents", [])]

        def fetch(key: str) -> None:
            path = to / key.removeprefix("tree/")
            path.parent.mkdir(parents=True, exist_ok=True)
            s3.download_file(bucket, key, str(path))

        self._all(fetch, keys)

    def _all(self, work: Callable[[str], object], names: list[str]) -> None:
        with ThreadPoolExecutor(8) as executor:
            list(executor.map(work, names))


def s3_client(standin: StandIn) -> Any:
    keys = standin.environment
    return boto3.client(
        "s3", endpoint_url=keys["AWS_ENDPOINT_URL_S3"], region_name=keys["AWS_REGION"],
        aws_access_key_id=keys["AWS_ACCESS_KEY_ID"], aws_secret_access_key=keys["AWS_SECRET_ACCESS_KEY"],
    )  # fmt: skip


@contextlib.contextmanager
def killing(standin: StandIn, pod: str) -> Iterator[None]:
    """Kill a pod a moment after the block began; returns when it is back, so that one at a time is away."""
    before = standin.pod_pid(pod)
    timer = threading.Timer(KILL_AFTER_SECONDS, standin.kill_pod, [pod])
    timer.start()
    try:
        yield
    finally:
        timer.join()
        standin.wait_restarted(pod, before)
        standin.wait_whole()


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", [AwsCli, Rclone, S3cmd, Boto3])
def test_a_tree_goes_up_and_comes_down_while_pods_are_killed(
    kind: type[Any], standin: StandIn, tree: Path, tmp_path: Path
) -> None:
    if kind is Rclone and shutil.which("rclone") is None:
        pytest.skip("rclone is not installed")
    bucket = f"tree-{kind.__name__.lower()}"
    s3_client(standin).create_bucket(Bucket=bucket)
    down = tmp_path / "down"
    down.mkdir()
    with killing(standin, "logs-pool-main-1"):
        kind().up(standin, tree, bucket)
    with killing(standin, "logs-pool-main-2"):
        kind().down(standin, bucket, down)
    assert digest_tree(down) == digest_tree(tree)
