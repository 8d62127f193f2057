"""The workloads: what is sent, by how many clients, and what must be there first."""

from __future__ import annotations

import os
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from bench.client import Connection, Operation, drive
from bench.target import Target

BUCKET = "bench"
SMALL_BYTES = 4 << 10
CHUNK_BYTES = 1_500_000
LARGE_BYTES = 64 << 20
PART_BYTES = 16 << 20
KEYS_READ = 256
LARGE_KEYS = 2
SETUP_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class Workload:
    name: str
    clients: int
    operation: Operation
    prepare: Callable[[Target], Awaitable[object]] | None = None


async def make_bucket(target: Target) -> None:
    connection = Connection(target, 0)
    try:
        await connection.request("PUT", f"/{BUCKET}")
    finally:
        await connection.close()


def _put(prefix: str, data: bytes) -> Operation:
    run = os.urandom(4).hex()

    async def operation(connection: Connection, number: int) -> int:
        await connection.request("PUT", f"/{BUCKET}/{prefix}/{run}/{number:08d}", body=data)
        return len(data)

    return operation


def _get(prefix: str, count: int, size_bytes: int) -> Operation:
    async def operation(connection: Connection, number: int) -> int:
        await connection.request("GET", f"/{BUCKET}/{prefix}/{number % count:08d}")
        return size_bytes

    return operation


def _filled(prefix: str, count: int, data: bytes, clients: int = 8) -> Callable[[Target], Awaitable[object]]:
    async def prepare(target: Target) -> object:
        async def operation(connection: Connection, number: int) -> int:
            await connection.request("PUT", f"/{BUCKET}/{prefix}/{number:08d}", body=data)
            return len(data)

        return await drive(target, operation, clients, SETUP_SECONDS, count)

    return prepare


def _multipart(data: bytes) -> Operation:
    run = os.urandom(4).hex()

    async def operation(connection: Connection, number: int) -> int:
        path = f"/{BUCKET}/large/{run}/{number:04d}"
        _, begun = await connection.request("POST", path, "uploads=", keep=True)
        found = re.search(rb"<UploadId>([^<]+)<", begun)
        assert found is not None, begun
        upload = found[1].decode()
        parts = []
        for part, start in enumerate(range(0, len(data), PART_BYTES), 1):
            body = data[start : start + PART_BYTES]
            answer, _ = await connection.request("PUT", path, f"partNumber={part}&uploadId={upload}", body)
            parts.append(f"<Part><PartNumber>{part}</PartNumber><ETag>{answer['etag']}</ETag></Part>")
        body = f"<CompleteMultipartUpload>{''.join(parts)}</CompleteMultipartUpload>".encode()
        await connection.request("POST", path, f"uploadId={upload}", body)
        return len(data)

    return operation


def _list(prefix: str, pages: int, delimiter: bool) -> Operation:
    tail = "&delimiter=%2F" if delimiter else ""

    async def operation(connection: Connection, number: int) -> int:
        after = f"{prefix}/{(number % pages) * 1000:08d}".replace("/", "%2F")
        query = f"list-type=2&max-keys=1000&prefix={prefix}%2F&start-after={after}{tail}"
        await connection.request("GET", f"/{BUCKET}", query)
        return 0

    return operation


def workloads(listed_keys: int) -> list[Workload]:
    small, chunk, large = os.urandom(SMALL_BYTES), os.urandom(CHUNK_BYTES), os.urandom(LARGE_BYTES)
    pages = max(1, listed_keys // 1000 - 1)
    return [
        Workload("PUT 4 KiB", 32, _put("put-small", small)),
        Workload("GET 4 KiB", 32, _get("small", KEYS_READ, SMALL_BYTES), _filled("small", KEYS_READ, small)),
        Workload("PUT 1.5 MB", 8, _put("put-chunk", chunk)),
        Workload("GET 1.5 MB", 8, _get("chunk", KEYS_READ, CHUNK_BYTES), _filled("chunk", KEYS_READ, chunk)),
        Workload("PUT 64 MiB multipart", 2, _multipart(large)),
        Workload("GET 64 MiB", 2, _get("large", LARGE_KEYS, LARGE_BYTES), _filled("large", LARGE_KEYS, large, 2)),
        Workload("LIST 1,000", 2, _list("listed", pages, False), _filled("listed", listed_keys, b"x", 32)),
        Workload("LIST 1,000 with delimiter", 2, _list("listed", pages, True)),
    ]
