"""Random requests at real pods, by clients that know no manners: what a port on the internet sees in a day.

Seeded, bounded in rate and in how many are under way.  Every visit is one connection: a request that is well signed or
not, damaged or not, sent at once, by the byte or not to its end, and an answer that is read, left lying or not waited
for.  The visits are counted by what came of them; what must never come (a 500, an answer that is no HTTP) is kept.

Not here: whether the pods bear it (`tests/blackbox/test_hammer.py` looks at processes, memory, logs, good requests).
"""

from __future__ import annotations

import asyncio
import collections
import random
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from holdfast_server.contract import names
from holdfast_server.s3.signing import KeyPair, sign_headers

CONCURRENT_VISITS = 24
VISIT_SECONDS = 10.0
"""Longer than any way of being slow; then the client vanishes."""
ANSWER_SECONDS = 2.0
KEPT_FAULTS = 20

_METHODS = ("GET", "GET", "PUT", "PUT", "POST", "DELETE", "HEAD", "OPTIONS", "PATCH", "TRACE", "BREW", "get")
_KEYS = ("", "/", "/a", "/b/c", "/%C3%BC", "/" + "k" * 1100, "//", "/..", "/%00", "/a%2Fb", "/large", "/%zz")
_OTHER_PATHS = ("/", "/no-bucket/a", "*", "x")
_QUERIES = (
    "", "", "", "list-type=2", "list-type=2&max-keys=1&prefix=a", "uploads", "uploads=", "tagging", "acl", "policy",
    "cors", "versioning", "versions", "delete", "partNumber=1&uploadId=x", "partNumber=99999&uploadId=x", "location",
    "lifecycle", "encryption", "object-lock", "attributes", "max-keys=-1", "continuation-token=%FF", "&&&", "=",
    "a=b&a=c", "select", "X-Amz-Algorithm=AWS4-HMAC-SHA256", "Signature=a&AWSAccessKeyId=b&Expires=1",
    "response-content-type=%0a",
)  # fmt: skip
_HEADERS = (
    ("range", "bytes=0-1"), ("range", "bytes=9-1"), ("expect", "100-continue"), ("content-md5", "AAAA"),
    ("x-amz-copy-source", "/hammer/a"), ("x-amz-copy-source", "/%zz"), ("x-amz-tagging", "a=b"),
    ("x-amz-acl", "public-read"), ("x-amz-meta-a", "ü"), ("x-amz-meta-b", "v" * 3000), ("if-none-match", "*"),
    ("if-match", '"x"'), ("x-amz-content-sha256", "STREAMING-UNSIGNED-PAYLOAD-TRAILER"),
    ("x-amz-decoded-content-length", "5"), ("x-amz-checksum-crc32", "AAAAAA=="),
    ("x-amz-trailer", "x-amz-checksum-crc32"), ("connection", "close"), ("x-amz-storage-class", "GLACIER"),
    ("x-amz-server-side-encryption", "AES256"), ("origin", "https://a"), ("x-amz-object-lock-mode", "COMPLIANCE"),
    ("content-encoding", "aws-chunked"), ("upgrade", "websocket"), ("x-amz-security-token", "\udcff"),
    ("content-type", "multipart/form-data; boundary=b"), ("transfer-encoding", "chunked"),
)  # fmt: skip
_BODIES = (
    b"", b"", b"hello", bytes(70_000), bytes(600_000), b"<Delete><Object><Key>a</Key></Object></Delete>", b"<a>" * 5000,
    b'<!DOCTYPE a [<!ENTITY l "ha">]><a>&l;</a>', b"5\r\nhello\r\n0\r\n\r\n", b"{", b"--b\r\n", b"\xff" * 100,
    b"<Tagging><TagSet><Tag><Key>a</Key><Value>b</Value></Tag></TagSet></Tagging>",
)  # fmt: skip
_NOISE = (
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200), b"SSH-2.0-OpenSSH_9.2\r\n", b"\x00" * 300,
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 5000, b"GET /" + b"a" * 60_000,
    b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n", b"\r\n" * 500, b"GET",
    b"GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nabc",
)  # fmt: skip
_WAYS = ("at once", "at once", "at once", "damaged", "cut short", "half-closed", "by the byte", "not read", "twice")
_STATUS = re.compile(rb"HTTP/(?:0\.9|1\.[01]) (\d{3}) ")
_MAY_FAIL = frozenset({501, 503, 507})
"""The only 5xx: not implemented, slow down, full."""


@dataclass(slots=True)
class Hammer:
    """Visits to the pods at `hosts`.  The keys' owner should have a bucket `hammer` with an object `large`."""

    hosts: Sequence[str]
    keys: KeyPair
    seed: int
    visits_per_second: float
    outcomes: collections.Counter[str] = field(default_factory=collections.Counter)
    faults: list[str] = field(default_factory=list)
    _random: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    async def run(self, going_on: Callable[[int], bool]) -> None:
        """Visits until `going_on(visits so far)` says no."""
        places = asyncio.Semaphore(CONCURRENT_VISITS)
        started, count = time.monotonic(), 0
        async with asyncio.TaskGroup() as group:
            while going_on(count):
                await places.acquire()
                visit = group.create_task(self._visit(count))
                visit.add_done_callback(lambda _: places.release())
                count += 1
                await asyncio.sleep(max(0.0, started + count / self.visits_per_second - time.monotonic()))

    def _request(self) -> bytes:
        choose = self._random
        if choose.random() < 0.15:
            return choose.choice(_NOISE)
        method = choose.choice(_METHODS)
        path = "/hammer" + choose.choice(_KEYS) if choose.random() < 0.85 else choose.choice(_OTHER_PATHS)
        query = choose.choice(_QUERIES)
        body = choose.choice(_BODIES)
        headers = {"host": "store"}
        if choose.random() < 0.9:
            headers["content-length"] = str(len(body))
        headers.update(choose.sample(_HEADERS, choose.choice((0, 0, 1, 1, 2, 4))))
        if choose.random() < 0.75:
            return self._signed(method, path, query, headers) + body
        return _head(method, path, query, headers) + body

    def _signed(self, method: str, path: str, query: str, headers: dict[str, str]) -> bytes:
        payload_hash = headers.pop("x-amz-content-sha256", "UNSIGNED-PAYLOAD")
        now_ms = time.time_ns() // 1_000_000
        return _head(method, path, query, sign_headers(self.keys, method, path, query, headers, now_ms, payload_hash))

    def _damaged(self, wire: bytes) -> bytes:
        data = bytearray(wire)
        for _ in range(self._random.randint(1, 5)):
            at = self._random.randint(0, len(data))
            data[at : at + self._random.choice((0, 1, 1, 8))] = self._random.randbytes(
                self._random.choice((0, 1, 1, 5))
            )
        return bytes(data)

    async def _visit(self, number: int) -> None:
        # Drawn before the first await: the same seed makes the same visits whatever their timing.
        way, host = self._random.choice(_WAYS), self.hosts[number % len(self.hosts)]
        wire = self._request()
        if way == "damaged":
            wire = self._damaged(wire)
        elif way == "cut short":
            wire = wire[: self._random.randrange(len(wire))]
        elif way == "twice":
            wire += self._request()
        elif way == "not read":
            wire = self._signed("GET", "/hammer/large", "", {"host": "store"})
        try:
            async with asyncio.timeout(VISIT_SECONDS):
                heard = await self._talk(host, wire, way)
        except (OSError, TimeoutError) as error:
            self.outcomes[type(error).__name__] += 1
            return
        self._judge(heard, wire, way)

    async def _talk(self, host: str, wire: bytes, way: str) -> bytes:
        """What was heard before this client had enough."""
        reader, writer = await asyncio.open_connection(host, names.S3_PORT)
        try:
            if way == "by the byte":
                for byte in wire[:40]:
                    if writer.transport.is_closing():
                        break
                    writer.write(bytes((byte,)))
                    await asyncio.sleep(0.05)
                wire = wire[40:]
            writer.write(wire)
            await writer.drain()
            if way == "half-closed" and writer.can_write_eof():
                writer.write_eof()
            if way == "cut short":
                return b""
            if way == "not read":
                await asyncio.sleep(ANSWER_SECONDS)
                return await reader.read(100)
            return await self._answers(reader)
        finally:
            writer.transport.abort()

    async def _answers(self, reader: asyncio.StreamReader) -> bytes:
        heard = b""
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                while piece := await reader.read(65536):
                    heard += piece
        except TimeoutError:
            pass  # the connection is kept for the next request
        return heard

    def _judge(self, heard: bytes, wire: bytes, way: str) -> None:
        first = _STATUS.match(heard)
        self.outcomes[first[1].decode() if first else "nothing"] += 1
        statuses = [int(status) for status in _STATUS.findall(heard)] if heard.count(b"HTTP/1.1 ") < 20 else []
        bad = [status for status in statuses if status >= 500 and status not in _MAY_FAIL]
        if (bad or (heard and not first)) and len(self.faults) < KEPT_FAULTS:
            self.faults.append(f"{way}: {wire[:600]!r} → {heard[:400]!r}")


def _head(method: str, path: str, query: str, headers: Mapping[str, str]) -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    target = f"{path}?{query}" if query else path
    return f"{method} {target} HTTP/1.1\r\n{lines}\r\n".encode("utf-8", "surrogateescape")
