"""Locked versions through real pods: whoever deletes, through whichever pod, while pods are rolled and lost."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from holdfast_server.testing.pods import PodProcesses

SERVERS = 4
RACES = 8
LARGE = random.Random(2).randbytes(200_000)
"""Shard files; smaller objects travel in their records."""
LATER = datetime.now(UTC).replace(microsecond=0) + timedelta(days=30)


def told(call: Callable[[], Any]) -> str:
    """`done`, or the error's code."""
    try:
        call()
    except ClientError as error:
        return str(error.response["Error"]["Code"])
    return "done"


def versions(s3: Any, bucket: str) -> dict[tuple[str, str], bool]:
    """Key and id of every version that is no delete marker → whether it is the latest."""
    found = {}
    for page in s3.get_paginator("list_object_versions").paginate(Bucket=bucket):
        found.update({(row["Key"], row["VersionId"]): row["IsLatest"] for row in page.get("Versions", [])})
    return found


def test_a_lock_and_a_deletion_through_different_pods_have_an_order(clients: list[Any]) -> None:
    """Of a version that is current, and of one beneath it; whoever comes first, all pods agree on it for good."""
    clients[0].create_bucket(Bucket="raced", ObjectLockEnabledForBucket=True)
    held = []
    with ThreadPoolExecutor(3) as threads:
        for number in range(RACES):
            rng = random.Random(number)
            key, (locker, deleter, other) = f"k{number % 2}", rng.sample(range(SERVERS), 3)
            version = clients[other].put_object(Bucket="raced", Key=key, Body=LARGE if number % 3 else b"x")[
                "VersionId"
            ]
            if number % 4 > 1:
                clients[locker].put_object(Bucket="raced", Key=key, Body=b"above")
            named = {"Bucket": "raced", "Key": key, "VersionId": version}
            lock = threads.submit(
                told, lambda s3=clients[locker], n=named: s3.put_object_legal_hold(**n, LegalHold={"Status": "ON"})
            )
            delete = threads.submit(told, lambda s3=clients[deleter], n=named: s3.delete_object(**n))
            above = threads.submit(
                told, lambda s3=clients[other], k=key: s3.put_object(Bucket="raced", Key=k, Body=b"at once")
            )
            assert above.result() == "done"
            outcome = (lock.result(), delete.result())
            there = {(key, version) in versions(s3, "raced") for s3 in clients}
            if outcome[0] == "done":
                assert (outcome[1], there) == ("AccessDenied", {True}), outcome
                held.append(named)
            else:
                assert (outcome, there) == (("NoSuchVersion", "done"), {False})
    for named in held:
        assert told(lambda n=named: clients[0].delete_object(**n, BypassGovernanceRetention=True)) == "AccessDenied"  # type: ignore[misc]
        assert {s3.get_object_legal_hold(**named)["LegalHold"]["Status"] for s3 in clients} == {"ON"}


def test_versions_and_locks_go_through_a_roll_and_an_emptied_drive(pods: PodProcesses, clients: list[Any]) -> None:
    clients[0].create_bucket(Bucket="rolled", ObjectLockEnabledForBucket=True)
    written: dict[tuple[str, str], bytes] = {}
    locked: set[tuple[str, str]] = set()
    rolling = True

    def write(worker: int) -> None:
        rng, number = random.Random(worker), 0
        while rolling or number < 10:
            number += 1
            s3, key, data = rng.choice(clients), rng.choice(("a", "b")), b"%d/%d" % (worker, number)
            data += LARGE if rng.random() < 0.2 else b""
            try:
                version = s3.put_object(Bucket="rolled", Key=key, Body=data)["VersionId"]
                written[key, version] = data
                named = {"Bucket": "rolled", "Key": key, "VersionId": version}
                kept = {"Mode": "COMPLIANCE", "RetainUntilDate": LATER}
                if rng.random() < 0.5:
                    rng.choice(clients).put_object_retention(**named, Retention=kept)
                    locked.add((key, version))
                elif rng.random() < 0.3:
                    written.pop((key, version))  # undecided, should no answer come
                    rng.choice(clients).delete_object(**named)
            except ClientError as error:
                if error.response["ResponseMetadata"]["HTTPStatusCode"] < 500:
                    raise
            except BotoCoreError:
                continue  # the pod is away

    with ThreadPoolExecutor(2) as threads:
        writers = [threads.submit(write, worker) for worker in range(2)]
        for pod in (0, 3):
            pods.stop_one(pod)
            pods.start(pod)
            asyncio.run(pods.wait_healthy())
        rolling = False
        for writer in writers:
            writer.result()
    assert locked
    pods.kill(1)
    pods.empty(1)
    pods.start(1)
    asyncio.run(pods.wait_whole())
    pods.kill(2)
    for s3 in (clients[0], clients[1]):
        there = versions(s3, "rolled")
        assert set(written) <= set(there)
        for key, version in sorted(written)[:40]:
            assert s3.get_object(Bucket="rolled", Key=key, VersionId=version)["Body"].read() == written[key, version]
        for key, version in sorted(locked)[:20]:
            named = {"Bucket": "rolled", "Key": key, "VersionId": version}
            assert s3.get_object_retention(**named)["Retention"]["RetainUntilDate"] == LATER
            bypassing = {**named, "BypassGovernanceRetention": True}
            assert told(lambda s3=s3, n=bypassing: s3.delete_object(**n)) == "AccessDenied"  # type: ignore[misc]
    pods.start(2)
    asyncio.run(pods.wait_healthy())
