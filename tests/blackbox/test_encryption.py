"""Encryption through real pods: nothing in the clear on drives, keys that come and go, repairs without any."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from holdfast_server.contract.encryption_keys import fingerprint
from holdfast_server.testing import boto
from holdfast_server.testing.pods import PodProcesses

SERVERS = 4
ONE, TWO = "11" * 32, "22" * 32
CUSTOMER = {"SSECustomerAlgorithm": "AES256", "SSECustomerKey": "c" * 32}
TEXT = b"what must not be found on any drive, said often enough to be found if it is. "
SMALL, LARGE = TEXT * 20, TEXT * 40_000
"""In the record, and in shard files of several stripes."""
WAITS = 600
"""Looks, a tenth of a second apart."""


@pytest.fixture
async def pods(tmp_path: Path) -> AsyncIterator[PodProcesses]:
    started = PodProcesses(tmp_path, servers=SERVERS, encryption_keys={"default.1": ONE})
    try:
        await started.start_all()
        yield started
    finally:
        started.stop()


def client_of(pods: PodProcesses, pod: int, attempts: int) -> Any:
    return boto.client_of(boto.endpoint_of(pods, pod), attempts=attempts)


def read(client: Any, key: str, **more: Any) -> bytes:
    return bytes(client.get_object(Bucket="b01", Key=key, **more)["Body"].read())


def found_on_drives(pods: PodProcesses, text: bytes) -> bool:
    pods.wait_placed()
    files = [path for pod in range(SERVERS) for path in pods.drive_path(pod).rglob("*") if path.is_file()]
    return any(text in contents(path) for path in files)


def contents(path: Path) -> bytes:
    """Empty if it has gone meanwhile, as files of a table do."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


async def until(holds: Callable[[], bool]) -> None:
    for _ in range(WAITS):
        if await asyncio.to_thread(holds):
            return
        await asyncio.sleep(0.1)
    raise AssertionError("it did not come to that")


def has_keys(pods: PodProcesses, pod: int, keys: dict[str, str]) -> bool:
    health: Any = pods.health(pod)
    wanted = sorted(fingerprint(name, bytes.fromhex(text)).hex() for name, text in keys.items())
    return bool(health.get("encryption", {}).get("fingerprints") == wanted)


async def test_objects_are_sealed_on_every_drive_and_readable_through_every_pod(
    pods: PodProcesses, clients: list[Any]
) -> None:
    def work() -> None:
        clients[0].create_bucket(Bucket="b01")
        for pod, (key, body) in enumerate((("small", SMALL), ("large", LARGE))):
            clients[pod].put_object(Bucket="b01", Key=f"s3-{key}", Body=body, ServerSideEncryption="AES256")
            clients[pod].put_object(Bucket="b01", Key=f"c-{key}", Body=body, **CUSTOMER)
        for client in clients:
            for key, body in (("small", SMALL), ("large", LARGE)):
                assert read(client, f"s3-{key}") == body
                assert read(client, f"c-{key}", **CUSTOMER) == body
                assert read(client, f"s3-{key}", Range="bytes=777-1010") == body[777:1011]
        assert not found_on_drives(pods, TEXT[:30])
        clients[0].put_object(Bucket="b01", Key="open", Body=LARGE)
        assert found_on_drives(pods, TEXT[:30]), "the search finds what is not encrypted"

    await asyncio.to_thread(work)


async def test_an_emptied_drive_is_filled_without_keys(pods: PodProcesses, clients: list[Any]) -> None:
    clients[0].create_bucket(Bucket="b01")
    for key, body in (("small", SMALL), ("large", LARGE)):
        await asyncio.to_thread(clients[0].put_object, Bucket="b01", Key=key, Body=body, ServerSideEncryption="AES256")
    # From here on no pod has a key that it could repair with.
    for pod in range(SERVERS):
        pods.stop_one(pod)
        pods.write_encryption_keys(pod, {})
    pods.empty(2)
    for pod in range(SERVERS):
        pods.start(pod)
    await pods.wait_healthy()
    await pods.wait_whole()
    with closing(client_of(pods, 0, attempts=1)) as impatient, pytest.raises(ClientError) as caught:
        await asyncio.to_thread(
            impatient.put_object, Bucket="b01", Key="new", Body=SMALL, ServerSideEncryption="AES256"
        )
    assert caught.value.response["Error"]["Code"] == "ServiceUnavailable", "which clients repeat"
    for pod in range(SERVERS):
        assert has_keys(pods, pod, {})
        pods.write_encryption_keys(pod, {"default.1": ONE})
    for pod in range(SERVERS):
        await until(lambda pod=pod: has_keys(pods, pod, {"default.1": ONE}))  # type: ignore[misc]
    pods.kill_together((0, 1))
    for key, body in (("small", SMALL), ("large", LARGE)):
        assert await asyncio.to_thread(read, clients[2], key) == body, "with what the emptied drive was filled with"


async def test_a_new_key_is_used_once_every_pod_has_it_and_an_old_one_is_missed_by_name(
    pods: PodProcesses, clients: list[Any]
) -> None:
    both = {"default.1": ONE, "default.2": TWO}
    clients[0].create_bucket(Bucket="b01")

    def put(key: str) -> None:
        clients[0].put_object(Bucket="b01", Key=key, Body=SMALL, ServerSideEncryption="AES256")

    for pod in range(SERVERS - 1):
        pods.write_encryption_keys(pod, both)
    for pod in range(SERVERS - 1):
        await until(lambda pod=pod: has_keys(pods, pod, both))  # type: ignore[misc]
    await asyncio.to_thread(put, "old")
    assert await asyncio.to_thread(read, clients[SERVERS - 1], "old") == SMALL, "the pod that has only the first key"
    pods.write_encryption_keys(SERVERS - 1, both)
    await until(lambda: has_keys(pods, SERVERS - 1, both))

    pods.write_encryption_keys(0, {"default.2": TWO})
    await until(lambda: has_keys(pods, 0, {"default.2": TWO}))
    with closing(client_of(pods, 0, attempts=1)) as impatient, pytest.raises(ClientError) as caught:
        await asyncio.to_thread(read, impatient, "old")
    assert caught.value.response["Error"]["Code"] == "ServiceUnavailable"
    assert "'default.1'" in caught.value.response["Error"]["Message"]
    assert await asyncio.to_thread(read, clients[1], "old") == SMALL
    # Now that a pod lacks the first key, only the second can be used.
    await asyncio.to_thread(put, "new")
    for client in clients:
        assert await asyncio.to_thread(read, client, "new") == SMALL
