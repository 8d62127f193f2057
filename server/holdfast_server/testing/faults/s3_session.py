"""A lean asynchronous S3 client without retries: one exchange, one outcome, nothing hidden.

Stock clients retry inside, and then nobody knows whether a failed operation was sent once or three times (aiohttp
does so too, for methods it takes for idempotent).  Here every exchange is sent once, over HTTP/1.1 as plain as it
gets, and ends as an answer with a status, or as `NoAnswer`, which leaves a write undecided.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from urllib.parse import quote, urlsplit
from xml.etree import ElementTree

from holdfast_server.s3.signing import KeyPair, encode_path, sign_headers

TIMEOUT_SECONDS = 40.0
"""Longer than a pod lets an operation run, so that its answer is the verdict where there is one."""
READ_SIZE_BYTES = 1 << 18


class NoAnswer(Exception):
    """The connection broke or nothing came in time."""


class NotSent(NoAnswer):
    """There was no connection: the pod never saw the request."""


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    etag: str
    size_bytes: int
    sha256: bytes
    body: bytes
    """Kept only where it was asked for, or where the status is an error."""
    version_id: str = ""

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300

    @property
    def code(self) -> str:
        """The S3 error code; the status where there is none."""
        start = self.body.find(b"<Code>")
        end = self.body.find(b"</Code>", start)
        return self.body[start + 6 : end].decode() if 0 <= start < end else str(self.status)


Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class S3Session:
    """Connections to all pods of one tenant; use as `async with`."""

    def __init__(self, access_key: str, secret_key: str, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        self._pair = KeyPair(access_key=access_key, secret_key=secret_key)
        self._timeout_seconds = timeout_seconds
        self._idle: dict[str, list[Streams]] = defaultdict(list)

    async def __aenter__(self) -> S3Session:
        return self

    async def __aexit__(self, *_: object) -> None:
        for idle in self._idle.values():
            for _reader, writer in idle:
                writer.close()

    async def exchange(
        self,
        endpoint: str,
        method: str,
        bucket: str,
        key: str = "",
        query: str = "",
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        keep: bool = False,
    ) -> Answer:
        """One request.  Raises NoAnswer; an answer that ends early is none."""
        host = urlsplit(endpoint).netloc
        path = encode_path(bucket, key)
        given = {"host": host, "content-length": str(len(body)), **(headers or {})}
        signed = sign_headers(self._pair, method, path, query, given, time.time_ns() // 1_000_000)
        lines = [f"{method} {path}{'?' + query if query else ''} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in signed.items()]
        try:
            async with asyncio.timeout(self._timeout_seconds):
                reader, writer = await self._connection(host)
                try:
                    writer.write("\r\n".join([*lines, "", ""]).encode())
                    if body:
                        writer.write(body)
                        await writer.drain()
                    answer, reusable = await _read(reader, keep, method == "HEAD")
                except BaseException:
                    writer.close()
                    raise
                if reusable:
                    self._idle[host].append((reader, writer))
                else:
                    writer.close()
                return answer
        except (OSError, EOFError, ValueError, asyncio.LimitOverrunError, TimeoutError) as error:
            raise NoAnswer(f"{type(error).__name__}: {error}") from error

    async def _connection(self, host: str) -> Streams:
        """An idle one that is still open, or a new one.  Raises NotSent."""
        idle = self._idle[host]
        while idle:
            reader, writer = idle.pop()
            if not reader.at_eof() and not writer.is_closing() and reader.exception() is None:
                return reader, writer
            writer.close()
        name, _, port = host.rpartition(":")
        try:
            return await asyncio.open_connection(name, int(port), limit=READ_SIZE_BYTES)
        except OSError as error:
            raise NotSent(str(error)) from error

    async def list_keys(self, endpoint: str, bucket: str, prefix: str = "") -> dict[str, str]:
        """Every key with its ETag.  Raises NoAnswer, also for an answer that is no 200."""
        found: dict[str, str] = {}
        token = ""
        while True:
            query = f"list-type=2&max-keys=200&prefix={prefix}" + (f"&continuation-token={token}" if token else "")
            answer = await self.exchange(endpoint, "GET", bucket, query=query, keep=True)
            if answer.status != 200:
                raise NoAnswer(f"LIST: {answer.status} {answer.code}")
            document = ElementTree.fromstring(answer.body)
            space = document.tag.partition("}")[0] + "}"
            for entry in document.iter(f"{space}Contents"):
                found[entry.findtext(f"{space}Key", "")] = entry.findtext(f"{space}ETag", "").strip('"')
            token = quote(document.findtext(f"{space}NextContinuationToken", ""), safe="-_.~")
            if document.findtext(f"{space}IsTruncated") != "true":
                return found

    async def list_versions(self, endpoint: str, bucket: str) -> dict[tuple[str, str], str]:
        """(key, version id) → ETag, empty for delete markers.  Raises NoAnswer, also for an answer that is no 200."""
        found: dict[tuple[str, str], str] = {}
        after = ""
        while True:
            answer = await self.exchange(endpoint, "GET", bucket, query=f"max-keys=300&versions={after}", keep=True)
            if answer.status != 200:
                raise NoAnswer(f"LIST versions: {answer.status} {answer.code}")
            document = ElementTree.fromstring(answer.body)
            space = document.tag.partition("}")[0] + "}"
            for entry in (*document.iter(f"{space}Version"), *document.iter(f"{space}DeleteMarker")):
                named = entry.findtext(f"{space}Key", ""), entry.findtext(f"{space}VersionId", "")
                found[named] = entry.findtext(f"{space}ETag", "").strip('"')
            if document.findtext(f"{space}IsTruncated") != "true":
                return found
            key = quote(document.findtext(f"{space}NextKeyMarker", ""), safe="-_.~")
            after = f"&key-marker={key}&version-id-marker={document.findtext(f'{space}NextVersionIdMarker', '')}"


async def _read(reader: asyncio.StreamReader, keep: bool, headless: bool) -> tuple[Answer, bool]:
    """The answer, and whether the connection can be used again."""
    status, headers = await _read_head(reader)
    while status == 100:
        status, headers = await _read_head(reader)
    digest = hashlib.sha256()
    size = 0
    kept = bytearray()
    if not headless and status not in (204, 304):
        async for piece in _pieces(reader, headers):
            digest.update(piece)
            size += len(piece)
            if keep or status >= 300:
                kept += piece
    etag, version_id = headers.get("etag", "").strip('"'), headers.get("x-amz-version-id", "")
    answer = Answer(status, etag, size, digest.digest(), bytes(kept), version_id)
    return answer, headers.get("connection", "").lower() != "close"


async def _read_head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    pairs = (line.partition(":") for line in lines[1:] if line)
    return int(lines[0].split()[1]), {name.lower(): value.strip() for name, _, value in pairs}


async def _pieces(reader: asyncio.StreamReader, headers: Mapping[str, str]) -> AsyncIterator[bytes]:
    """Raises EOFError if the connection ends before the body does."""
    if headers.get("transfer-encoding", "").lower() == "chunked":
        while size := int((await reader.readuntil(b"\r\n")).partition(b";")[0], 16):
            yield await reader.readexactly(size)
            await reader.readexactly(2)
        await reader.readuntil(b"\r\n")
        return
    left = int(headers.get("content-length", "0"))
    while left:
        piece = await reader.read(min(left, READ_SIZE_BYTES))
        if not piece:
            raise EOFError(f"{left} bytes of the body are missing")
        left -= len(piece)
        yield piece
