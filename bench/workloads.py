"""The workloads: what is sent, by how many clients, and what must be there first.

Keys that are written are new in every round.  What is read is written once; where it is there already, as on a peer
that ran before, it is taken as it is.
"""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import msgspec

from bench.client import Connection, Operation, RequestFailed, drive
from bench.target import Target
from holdfast_server.contract.buckets import BucketEtag
from holdfast_server.contract.names import ADMIN_PREFIX

BUCKET = "bench"
SMALL_BYTES = 4 << 10
MIXED_BYTES = 256 << 10
CHUNK_BYTES = 1536 << 10
LARGE_BYTES = 64 << 20
PART_BYTES = 16 << 20
KEYS_READ = 256
LARGE_KEYS = 8
LARGE_CLIENTS = 4
"""One for each server of what is usually measured.  With two, half of them coordinate nothing, and how much of a
machine lies idle while both wait for its disk is chance."""
REMOVED_BYTES = MIXED_BYTES
"""Objects of that size and more are removed after the round that wrote them, or a run would fill the disk."""
REMOVERS = 8
LOKI_WRITERS = 32
LOKI_READERS = 150
PAGE_KEYS = 1000
KEYS_PER_PREFIX = 10
SETUP_SECONDS = 900.0
KNOWN_SECONDS = 60.0
"""Pods that have just been started find each other."""

MIX = "GHGPGHGDGHGPGHGDGHHP"
"""45 % GET, 30 % HEAD, 15 % PUT, 10 % DELETE, spread evenly."""

SIZES_BYTES = {"small": SMALL_BYTES, "mixed": MIXED_BYTES, "loki": CHUNK_BYTES, "large": LARGE_BYTES}
"""Of the objects that are read, by the first part of their keys."""

Prepare = Callable[[Target], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Workload:
    name: str
    clients: int
    operation: Operation
    prepare: Prepare | None = None


async def make_bucket(target: Target) -> None:
    connection = Connection(target, 0)
    try:
        await connection.request("PUT", f"/{BUCKET}")
    except RequestFailed as error:
        if "BucketAlready" not in str(error):
            raise
    finally:
        await connection.close()


async def set_opaque_etags(target: Target) -> None:
    """Of that bucket, once its pods know each other.  Raises RequestFailed."""
    connection = Connection(target, 0)
    path, wanted = f"{ADMIN_PREFIX}/buckets/{BUCKET}/etag", msgspec.json.encode(BucketEtag(etag="Opaque"))
    end = time.monotonic() + KNOWN_SECONDS
    try:
        while True:
            try:
                await connection.request("PUT", path, body=wanted)
            except RequestFailed as error:
                if "503" not in str(error) or time.monotonic() > end:
                    raise
                await asyncio.sleep(0.5)
            else:
                return
    finally:
        await connection.close()


async def remove(target: Target, paths: list[str]) -> None:
    """What a round wrote; not measured, and no error if some of it is gone already."""

    async def operation(connection: Connection, number: int) -> int:
        await connection.request("DELETE", paths[number])
        return 0

    if paths:
        await drive(target, operation, REMOVERS, SETUP_SECONDS, len(paths))


def _put(prefix: str, data: bytes) -> Operation:
    async def operation(connection: Connection, number: int) -> int:
        path = f"/{BUCKET}/{prefix}/{connection.run}/{number:08d}"
        if len(data) >= REMOVED_BYTES:
            connection.written.append(path)
        await connection.request("PUT", path, body=data)
        return len(data)

    return operation


def get(prefix: str, count: int = KEYS_READ) -> Operation:
    """Of the objects that `filled` wrote, in turn."""
    size_bytes = SIZES_BYTES[prefix]

    async def operation(connection: Connection, number: int) -> int:
        await connection.request("GET", f"/{BUCKET}/{prefix}/{number % count:08d}")
        return size_bytes

    return operation


def filled(prefix: str, data: bytes, count: int = KEYS_READ, clients: int = 8) -> Prepare:
    """Objects `prefix`/0 to `count`."""
    return _written(lambda number: f"/{BUCKET}/{prefix}/{number:08d}", count, data, clients)


def _written(path: Callable[[int], str], count: int, data: bytes, clients: int) -> Prepare:
    async def prepare(target: Target) -> None:
        async def operation(connection: Connection, number: int) -> int:
            await connection.request("PUT", path(number), body=data)
            return len(data)

        if not await _is_there(target, path(count - 1)):
            sample = await drive(target, operation, clients, SETUP_SECONDS, count)
            if sample.operations < count:
                raise RequestFailed(f"{target.name}: {sample.operations} of {count} objects; {sample.first_error}")

    return prepare


async def _is_there(target: Target, path: str) -> bool:
    connection = Connection(target, 0)
    try:
        await connection.request("HEAD", path)
    except RequestFailed:
        return False
    finally:
        await connection.close()
    return True


def _multipart(data: bytes) -> Operation:
    # Views: copies of the parts were two thirds of what the load generator took.
    bodies = [memoryview(data)[start : start + PART_BYTES] for start in range(0, len(data), PART_BYTES)]

    async def operation(connection: Connection, number: int) -> int:
        path = f"/{BUCKET}/put-large/{connection.run}/{number:04d}"
        connection.written.append(path)
        _, begun = await connection.request("POST", path, "uploads=", keep=True)
        found = re.search(rb"<UploadId>([^<]+)<", begun)
        if found is None:
            raise RequestFailed(f"no upload id: {begun!r}")
        upload = found[1].decode()
        parts = []
        for part, body in enumerate(bodies, 1):
            answer, _ = await connection.request("PUT", path, f"partNumber={part}&uploadId={upload}", body)
            parts.append(f"<Part><PartNumber>{part}</PartNumber><ETag>{answer['etag']}</ETag></Part>")
        document = f"<CompleteMultipartUpload>{''.join(parts)}</CompleteMultipartUpload>".encode()
        _, done = await connection.request("POST", path, f"uploadId={upload}", document, keep=True)
        if b"<Error>" in done:
            raise RequestFailed(f"not completed: {done!r}")
        return len(data)

    return operation


def _listed_path(number: int) -> str:
    return f"/{BUCKET}/listed/{number // KEYS_PER_PREFIX:07d}/chunk-{number % KEYS_PER_PREFIX}"


def _list(keys: int, delimiter: bool) -> Operation:
    """Pages of 1,000 keys in turn; with delimiter, of as many prefixes as there are, 1,000 at most."""
    keys_of_a_page = PAGE_KEYS * (KEYS_PER_PREFIX if delimiter else 1)
    pages = max(1, keys // keys_of_a_page)
    tail = "&delimiter=%2F" if delimiter else ""

    async def operation(connection: Connection, number: int) -> int:
        first_prefix = number % pages * keys_of_a_page // KEYS_PER_PREFIX
        after = f"&start-after=listed%2F{first_prefix:07d}" if number % pages else ""
        query = f"list-type=2&max-keys={PAGE_KEYS}&prefix=listed%2F{after}{tail}"
        await connection.request("GET", f"/{BUCKET}", query)
        return 0

    return operation


def _mixed(data: bytes) -> Operation:
    written: dict[str, deque[str]] = {}

    async def operation(connection: Connection, number: int) -> int:
        mine = written.setdefault(connection.run, deque())
        what = MIX[number % len(MIX)]
        path = f"/{BUCKET}/mixed/{number % KEYS_READ:08d}"
        if what == "P":
            connection.kind, path = "PUT", f"/{BUCKET}/put-mixed/{connection.run}/{number:08d}"
            await connection.request("PUT", path, body=data)
            mine.append(path)
            connection.written.append(path)
            return len(data)
        if what == "D" and mine:
            connection.kind = "DELETE"
            await connection.request("DELETE", mine.popleft())
            return 0
        connection.kind = "HEAD" if what == "H" else "GET"
        await connection.request(connection.kind, path)
        return 0 if what == "H" else len(data)

    return operation


def _loki(data: bytes) -> Operation:
    put, read = _put("put-loki", data), get("loki")

    async def operation(connection: Connection, number: int) -> int:
        writes = connection.index < LOKI_WRITERS
        connection.kind = "PUT" if writes else "GET"
        return await (put if writes else read)(connection, number)

    return operation


def workloads(listed_keys: int) -> list[Workload]:
    """All of them; `listed_keys` lie below the prefix that is listed."""
    small, chunk, large, mixed = (os.urandom(n) for n in (SMALL_BYTES, CHUNK_BYTES, LARGE_BYTES, MIXED_BYTES))
    listed = _written(_listed_path, listed_keys, b"x", 32)
    return [
        Workload("PUT 4 KiB", 32, _put("put-small", small)),
        Workload("GET 4 KiB", 32, get("small"), filled("small", small)),
        Workload("PUT 1.5 MiB", 8, _put("put-loki", chunk)),
        Workload("GET 1.5 MiB", 8, get("loki"), filled("loki", chunk)),
        Workload("PUT 64 MiB multipart", LARGE_CLIENTS, _multipart(large)),
        Workload("GET 64 MiB", LARGE_CLIENTS, get("large", LARGE_KEYS), filled("large", large, LARGE_KEYS, 2)),
        Workload("LIST 1,000", 2, _list(listed_keys, False), listed),
        Workload("LIST 1,000 with delimiter", 2, _list(listed_keys, True), listed),
        Workload("mixed 256 KiB", 32, _mixed(mixed), filled("mixed", mixed)),
        Workload("Loki 1.5 MiB", LOKI_WRITERS + LOKI_READERS, _loki(chunk), filled("loki", chunk)),
    ]
