"""The requests that are counted: signed beforehand, sent one after the other over one connection to one pod.

Each operation has several requests, for as many turns; what must be there first is asked for by `prepare`.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from bench.client import Connection
from holdfast_server.api import bucket_record
from holdfast_server.testing.memory_cluster import BytesBody
from holdfast_server.testing.whole_pods import FourPods

SMALL_BYTES = 4 << 10
CHUNK_BYTES = 3 << 19
PART_BYTES = 16 << 20
LISTED_KEYS, _AT_ONCE = 1050, 50
BUCKET, LISTED = "counted", "listed"


@dataclass(frozen=True, slots=True)
class Request:
    method: str
    path: str
    query: str = ""
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Operation:
    name: str
    request: Callable[[int], Request]
    """By number; each is sent once."""
    size_bytes: int
    """Of what is stored or read."""
    prepare: Callable[[Connection, int], Awaitable[None]] | None = None
    """Given how many requests will be sent."""


def operations() -> list[Operation]:
    small, chunk = b"s" * SMALL_BYTES, bytes(range(256)) * (CHUNK_BYTES // 256)
    upload, large = _Upload("parts", chunk), _Upload("large-parts", bytes(range(256)) * (PART_BYTES // 256))
    return [
        Operation("PUT 4 KiB", _on("PUT", "put-small", small), SMALL_BYTES),
        Operation("GET 4 KiB", _on("GET", "small"), SMALL_BYTES, _filled("small", small)),
        Operation("HEAD", _on("HEAD", "head"), 0, _filled("head", small)),
        Operation("DELETE", _on("DELETE", "deleted"), 0, _filled("deleted", small)),
        Operation("PUT 1.5 MiB", _on("PUT", "put-chunk", chunk), CHUNK_BYTES),
        Operation("GET 1.5 MiB", _on("GET", "chunk"), CHUNK_BYTES, _filled("chunk", chunk)),
        Operation("PUT part 1.5 MiB", upload.part, CHUNK_BYTES, upload.begin),
        Operation("PUT part 16 MiB", large.part, PART_BYTES, large.begin),
        Operation("LIST 1,000", lambda n: Request("GET", f"/{LISTED}", "list-type=2&max-keys=1000"), 0),
        Operation("LIST 100 prefixes", lambda n: Request("GET", f"/{LISTED}", "delimiter=%2F&max-keys=100"), 0),
    ]


def _on(method: str, prefix: str, body: bytes = b"") -> Callable[[int], Request]:
    return lambda number: Request(method, f"/{BUCKET}/{prefix}/{number:04d}", body=body)


def _filled(prefix: str, body: bytes) -> Callable[[Connection, int], Awaitable[None]]:
    async def prepare(connection: Connection, count: int) -> None:
        for number in range(count):
            await connection.request("PUT", f"/{BUCKET}/{prefix}/{number:04d}", body=body)

    return prepare


class _Upload:
    def __init__(self, key: str, body: bytes) -> None:
        self._path = f"/{BUCKET}/{key}"
        self._body = body
        self._id = ""

    async def begin(self, connection: Connection, _: int) -> None:
        _, begun = await connection.request("POST", self._path, "uploads=", keep=True)
        found = re.search(rb"<UploadId>([^<]+)<", begun)
        assert found is not None, begun
        self._id = found[1].decode()

    def part(self, number: int) -> Request:
        return Request("PUT", self._path, f"partNumber={number + 1}&uploadId={self._id}", self._body)


def _listed(number: int) -> str:
    """Ten keys to a group."""
    return f"{number // 10:02x}/{number % 10}"


async def make_buckets(connection: Connection, pods: FourPods) -> None:
    """One that is empty, and one of `LISTED_KEYS` keys."""
    for name in (BUCKET, LISTED):
        await connection.request("PUT", f"/{name}")
    store = pods.pods[0].store
    found = await store.get_document(bucket_record.document_name(LISTED))
    assert found is not None
    bucket_id = bucket_record.decode(found.body).id
    for first in range(0, LISTED_KEYS, _AT_ONCE):
        some = range(first, first + _AT_ONCE)
        await asyncio.gather(*(store.put_object(bucket_id, _listed(number), BytesBody(b"x")) for number in some))
