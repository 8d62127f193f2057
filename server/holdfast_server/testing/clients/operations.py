"""What every client is asked to do, and how it is told that it did.

A reference client (anything with `put`, `get` and so on that is known to work) looks at the same bucket from the other
side: what the client wrote is read by the reference, what the client reads was written by it.  Bytes are compared in
every operation, and links are followed by a plain HTTP client.
"""

from __future__ import annotations

import random
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from holdfast_server.testing.clients.driver import ClientFailed, Driver, NotOffered

YES, NO, ABSENT = "yes", "no", "–"

HARD_KEY = "a b/ü+c=d:e'f%41.bin"
SMALL_BYTES = 70_001
LARGE_BYTES = (11 << 20) + 17
LINK_TIMEOUT_SECONDS = 60.0


class Reference(Protocol):
    """The other side."""

    def put(self, bucket: str, key: str, body: bytes) -> None: ...

    def get(self, bucket: str, key: str) -> bytes | None:
        """None where there is no such key."""

    def part_count(self, bucket: str, key: str) -> int:
        """Of a multipart object; 0 of any other."""


@dataclass(slots=True)
class Bench:
    """One client at its work."""

    client: Driver
    reference: Reference
    folder: Path
    bucket: str
    versioned_bucket: str

    def body(self, seed: str, size: int = SMALL_BYTES) -> bytes:
        return random.Random(seed).randbytes(size)

    def file(self, body: bytes) -> str:
        path = self.folder / "up.bin"
        path.write_bytes(body)
        return str(path)

    def read(self, do: str, **arguments: str | int) -> bytes:
        """What the client has read into a file."""
        path = self.folder / "down.bin"
        path.unlink(missing_ok=True)
        self.client.call(do, path=str(path), **arguments)
        return path.read_bytes()


def _expect(found: object, wanted: object, what: str) -> None:
    if found != wanted:
        shown = [repr(value)[:200] for value in (found, wanted)]
        raise ClientFailed(f"{what}: {shown[0]} instead of {shown[1]}")


def put(bench: Bench) -> None:
    for key, size in ((HARD_KEY, SMALL_BYTES), ("put/empty", 0)):
        body = bench.body(key, size)
        bench.client.call("put", bucket=bench.bucket, key=key, path=bench.file(body))
        _expect(bench.reference.get(bench.bucket, key), body, f"what was put as {key}")


def get(bench: Bench) -> None:
    for size in (0, SMALL_BYTES, LARGE_BYTES):
        key, body = f"get/{size} {HARD_KEY}", bench.body("get", size)
        bench.reference.put(bench.bucket, key, body)
        _expect(bench.read("get", bucket=bench.bucket, key=key), body, f"{size} bytes")


def get_range(bench: Bench) -> None:
    body = bench.body("range")
    bench.reference.put(bench.bucket, "range", body)
    for first, last in ((0, 0), (100, 40_000), (SMALL_BYTES - 7, SMALL_BYTES - 1)):
        found = bench.read("range", bucket=bench.bucket, key="range", first=first, last=last)
        _expect(found, body[first : last + 1], f"bytes {first} to {last}")


def list_keys(bench: Bench) -> None:
    keys = sorted([f"list/{number}" for number in range(12)] + [f"list/deep/{HARD_KEY}"])
    for key in [*keys, "lisu"]:
        bench.reference.put(bench.bucket, key, b"x")
    found = bench.client.call("list", bucket=bench.bucket, prefix="list/")
    assert isinstance(found, list)
    _expect(sorted(found), keys, "the keys")


def multipart(bench: Bench) -> None:
    body = bench.body("multipart", LARGE_BYTES)
    bench.client.call("multipart", bucket=bench.bucket, key="multipart", path=bench.file(body))
    _expect(bench.reference.get(bench.bucket, "multipart"), body, "the whole")
    if bench.reference.part_count(bench.bucket, "multipart") < 2:
        raise ClientFailed("it was not uploaded in parts")


def copy(bench: Bench) -> None:
    key, body = f"copy/{HARD_KEY}", bench.body("copy")
    bench.reference.put(bench.bucket, key, body)
    bench.client.call("copy", bucket=bench.bucket, key=key, to="copied +1")
    _expect(bench.reference.get(bench.bucket, "copied +1"), body, "the copy")
    _expect(bench.reference.get(bench.bucket, key), body, "the original")


def delete(bench: Bench) -> None:
    key = f"delete/{HARD_KEY}"
    bench.reference.put(bench.bucket, key, b"x")
    bench.reference.put(bench.bucket, "delete/kept", b"kept")
    bench.client.call("delete", bucket=bench.bucket, key=key)
    _expect(bench.reference.get(bench.bucket, key), None, "what was deleted")
    _expect(bench.reference.get(bench.bucket, "delete/kept"), b"kept", "what was not")


def _follow(method: str, link: object, body: bytes | None = None) -> bytes:
    assert isinstance(link, str)
    request = urllib.request.Request(link, data=body, method=method)
    if body is not None:
        request.add_header("Content-Type", "")  # urllib would make one up, which version 2 signs
    with urllib.request.urlopen(request, timeout=LINK_TIMEOUT_SECONDS) as answer:
        found: bytes = answer.read()
        return found


def presigned_get(bench: Bench) -> None:
    key, body = f"signed/{HARD_KEY}", bench.body("presigned")
    bench.reference.put(bench.bucket, key, body)
    _expect(_follow("GET", bench.client.call("sign_get", bucket=bench.bucket, key=key)), body, "through the link")


def presigned_put(bench: Bench) -> None:
    key, body = f"signed/put {HARD_KEY}", bench.body("presigned put")
    _follow("PUT", bench.client.call("sign_put", bucket=bench.bucket, key=key), body)
    _expect(bench.reference.get(bench.bucket, key), body, "what was sent to the link")


def versions(bench: Bench) -> None:
    """The client overwrites, finds the version beneath by its own listing, and reads both."""
    old, new = bench.body("old"), bench.body("new")
    for body in (old, new):
        bench.client.call("put", bucket=bench.versioned_bucket, key="twice", path=bench.file(body))
    _expect(bench.read("get", bucket=bench.versioned_bucket, key="twice"), new, "the newest")
    _expect(bench.read("get_former", bucket=bench.versioned_bucket, key="twice"), old, "the one before")


OPERATIONS: dict[str, Callable[[Bench], None]] = {
    "put": put,
    "get": get,
    "range": get_range,
    "list": list_keys,
    "multipart": multipart,
    "copy": copy,
    "delete": delete,
    "presigned GET": presigned_get,
    "presigned PUT": presigned_put,
    "versions": versions,
}


def run_all(bench: Bench) -> tuple[dict[str, str], list[str]]:
    """The client's row, and why of each `no`.  A client with a way of its own of keeping things is asked for that."""
    cells, reasons = {}, []
    for name, operation in OPERATIONS.items():
        try:
            operation(bench)
            cells[name] = YES
        except NotOffered:
            cells[name] = ABSENT
        except (ClientFailed, OSError, ValueError) as error:  # ValueError: a link that is none
            cells[name] = NO
            reasons.append(f"{name}: {error}")
    return cells, reasons
