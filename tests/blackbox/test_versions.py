"""Versions through real pods: whoever is asked, whoever is killed, whoever else is writing."""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from botocore.exceptions import BotoCoreError, ClientError

from holdfast_server.testing.pods import PodProcesses

SERVERS = 4
LARGE = random.Random(1).randbytes(3 << 20)
"""Shard files; smaller objects travel in their records."""
AWS = Path(sys.executable).with_name("aws")

T = TypeVar("T")


def make_bucket(clients: list[Any], name: str) -> None:
    clients[0].create_bucket(Bucket=name)
    clients[1].put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})


def versions(s3: Any, bucket: str, **asked: Any) -> list[tuple[str, str, bool]]:
    """Key, id, whether it is the latest; delete markers come after the objects of their page."""
    found = []
    for page in s3.get_paginator("list_object_versions").paginate(Bucket=bucket, **asked):
        for row in (*page.get("Versions", []), *page.get("DeleteMarkers", [])):
            found.append((row["Key"], row["VersionId"], row["IsLatest"]))
    return found


def body(s3: Any, bucket: str, version: str | None = None, key: str = "k") -> bytes:
    named = {"VersionId": version} if version else {}
    return s3.get_object(Bucket=bucket, Key=key, **named)["Body"].read()  # type: ignore[no-any-return]


def test_what_one_pod_keeps_every_pod_shows_reads_and_deletes(clients: list[Any]) -> None:
    make_bucket(clients, "kept")
    made = []
    for number in range(8):
        data = (LARGE if number % 2 else b"small") + bytes((number,))
        made.append((clients[number % SERVERS].put_object(Bucket="kept", Key="k", Body=data)["VersionId"], data))
    for s3 in clients:
        assert [version for _, version, _ in versions(s3, "kept", PaginationConfig={"PageSize": 3})] == [
            version for version, _ in reversed(made)
        ]
        for version, data in made:
            assert body(s3, "kept", version) == data
    # The current one goes, by another pod each time; what is beneath it is current at once, everywhere.
    while made:
        version, data = made.pop()
        assert body(clients[3], "kept") == data
        clients[len(made) % SERVERS].delete_object(Bucket="kept", Key="k", VersionId=version)
        assert len(versions(clients[(len(made) + 1) % SERVERS], "kept")) == len(made)
    assert "Contents" not in clients[2].list_objects_v2(Bucket="kept")
    clients[0].delete_bucket(Bucket="kept")


def test_a_bucket_begins_to_keep_versions_while_it_is_written(clients: list[Any]) -> None:
    """A version id once handed out stays good: no pod overwrites a version by what it knew before."""
    clients[0].create_bucket(Bucket="begun")

    def write(pod: int) -> list[tuple[str, bytes]]:
        made = []
        for number in range(30):
            data = b"%d by %d" % (number, pod)
            answer = clients[pod].put_object(Bucket="begun", Key="k", Body=data)
            if answer.get("VersionId", "null") != "null":
                made.append((answer["VersionId"], data))
        return made

    with ThreadPoolExecutor(SERVERS) as threads:
        writing = [threads.submit(write, pod) for pod in range(SERVERS)]
        clients[2].put_bucket_versioning(Bucket="begun", VersioningConfiguration={"Status": "Enabled"})
        made = [pair for task in writing for pair in task.result()]
    last = clients[0].put_object(Bucket="begun", Key="k", Body=b"last")["VersionId"]
    listed = {version for _, version, _ in versions(clients[3], "begun")}
    assert listed - {"null"} == {version for version, _ in made} | {last}
    for version, data in made:
        assert body(clients[1], "begun", version) == data


def attempt(call: Callable[[], T]) -> T | None:
    """None where the outcome is not known."""
    try:
        return call()
    except (ClientError, BotoCoreError):
        return None


def test_nothing_acknowledged_is_lost_or_comes_back_while_a_pod_is_killed(
    pods: PodProcesses, clients: list[Any]
) -> None:
    """Three pods write and delete versions of a few keys; the fourth dies under it and comes back."""
    make_bucket(clients, "killed")
    keys = [f"k{number}" for number in range(3)]
    written: dict[tuple[str, str], bytes] = {}
    touched: set[tuple[str, str]] = set()
    deleted: set[tuple[str, str]] = set()

    def work(pod: int) -> None:
        rng = random.Random(pod)
        s3 = clients[pod]
        for number in range(25):
            key = rng.choice(keys)
            if rng.random() < 0.6:
                data = b"%d by %d " % (number, pod) + (LARGE[:200_000] if rng.random() < 0.3 else b"")
                answer = attempt(lambda key=key, data=data: s3.put_object(Bucket="killed", Key=key, Body=data))  # type: ignore[misc]
                if answer is not None:
                    written[key, answer["VersionId"]] = data
                continue
            shown = attempt(lambda key=key: versions(s3, "killed", Prefix=key)) or []  # type: ignore[misc]
            if shown:
                chosen = shown[0][:2] if rng.random() < 0.5 else rng.choice(shown)[:2]
                touched.add(chosen)
                gone = attempt(
                    lambda chosen=chosen: s3.delete_object(Bucket="killed", Key=chosen[0], VersionId=chosen[1])  # type: ignore[misc]
                )
                if gone is not None:
                    deleted.add(chosen)

    with ThreadPoolExecutor(SERVERS) as threads:
        working = [threads.submit(work, pod) for pod in range(3)]
        pods.kill(3)
        for task in working[:1]:
            task.result()
        pods.start(3)
        for task in working:
            task.result()
    asyncio.run(pods.wait_healthy())
    there = {(key, version) for key, version, _ in versions(clients[3], "killed")}
    assert not there & deleted
    assert {pair for pair in written if pair not in touched} <= there
    for key, version in sorted(there):
        data = body(clients[0], "killed", version, key)
        assert written.get((key, version), data) == data
    for key in keys:
        latest = [version for name, version, newest in versions(clients[1], "killed", Prefix=key) if newest]
        assert len(latest) <= 1
        if latest:
            assert clients[2].head_object(Bucket="killed", Key=key)["VersionId"] == latest[0]


def test_the_aws_command_line_sees_the_same(pods: PodProcesses, clients: list[Any], tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "AWS_ACCESS_KEY_ID": pods.access_key,
        "AWS_SECRET_ACCESS_KEY": pods.secret_key,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": str(tmp_path / "none"),
    }

    def aws(*words: str) -> dict[str, Any]:
        command = [str(AWS), "--endpoint-url", pods.endpoint(0), "--output", "json", "s3api", *words]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout) if done.stdout.strip() else {}  # type: ignore[no-any-return]

    make_bucket(clients, "cli")
    made = [clients[1].put_object(Bucket="cli", Key="k", Body=b"%d" % number)["VersionId"] for number in range(3)]
    assert aws("get-bucket-versioning", "--bucket", "cli") == {"Status": "Enabled"}
    marker = aws("delete-object", "--bucket", "cli", "--key", "k")
    assert marker["DeleteMarker"] is True
    shown = aws("list-object-versions", "--bucket", "cli", "--page-size", "2")
    assert [row["VersionId"] for row in shown["Versions"]] == list(reversed(made))
    assert [row["VersionId"] for row in shown["DeleteMarkers"]] == [marker["VersionId"]]
    aws("get-object", "--bucket", "cli", "--key", "k", "--version-id", made[0], str(tmp_path / "read"))
    assert (tmp_path / "read").read_bytes() == b"0"
