"""Clients as they are in production, at work while a test does something to the tenant: none of them may notice."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import boto3  # type: ignore[import-untyped]
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

KEYS = 50
LARGE_SIZE_BYTES = 150_000
PAUSE_SECONDS = 0.03
"""Between two writes: a client as fast as it can be takes the processors that the roll it watches would need."""


def s3(endpoint: str, keys: Mapping[str, str]) -> Any:
    """A client with the retries that SDKs come with, in their standard mode."""
    return boto3.client(
        "s3", endpoint_url=endpoint, region_name="us-east-1",
        aws_access_key_id=keys["accessKey"], aws_secret_access_key=keys["secretKey"],
        config=Config(
            retries={"max_attempts": 8, "mode": "standard"}, s3={"addressing_style": "path"},
            connect_timeout=5, read_timeout=30,
        ),
    )  # fmt: skip


@dataclass
class Traffic:
    """What one client did while something happened."""

    done: int = 0
    failures: list[str] = field(default_factory=list)


@contextmanager
def traffic(endpoint: str, keys: Mapping[str, str], bucket: str = "first", prefix: str = "t") -> Iterator[Traffic]:
    """A client that writes and reads back, small and large, until the block ends."""
    told, stop = Traffic(), threading.Event()

    def work() -> None:
        client = s3(endpoint, keys)
        while not stop.is_set():
            body = b"%d:" % told.done + bytes(LARGE_SIZE_BYTES if told.done % 3 == 0 else 100)
            key = f"{prefix}/{told.done % KEYS}"
            try:
                client.put_object(Bucket=bucket, Key=key, Body=body)
                if client.get_object(Bucket=bucket, Key=key)["Body"].read() != body:
                    told.failures.append(f"operation {told.done}: another body")
            except (ClientError, BotoCoreError, OSError) as error:
                told.failures.append(f"operation {told.done}: {error}")
            told.done += 1
            stop.wait(PAUSE_SECONDS)

    worker = threading.Thread(target=work)
    worker.start()
    try:
        yield told
    finally:
        stop.set()
        worker.join()
