"""One client connection's HTTP/1.1, just enough of it to cost less than what is measured.

Bytes are received into one buffer per connection that is used again and again; bodies that nobody wants are counted,
not kept.  One request at a time.  Bodies of answers: Content-Length, chunked, none, or until the connection ends.

Not here: pipelining, TLS, compressed bodies, redirects.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import cast

RECEIVE_BYTES = 256 << 10
MAX_HEAD_BYTES = 64 << 10
_NO_BODY = frozenset({204, 304})


class WireError(Exception):
    """The connection ended, or what came is no HTTP."""


@dataclass(slots=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytearray = field(default_factory=bytearray)
    size_bytes: int = 0
    """Of the body, kept or not."""


class _Part(Enum):
    HEAD = auto()
    SIZED = auto()
    CHUNKED = auto()
    UNTIL_END = auto()


class Wire(asyncio.BufferedProtocol):
    """What the transport calls, and `exchange` for its owner."""

    def __init__(self) -> None:
        self._receiving = bytearray(RECEIVE_BYTES)
        self._view = memoryview(self._receiving)
        self._transport: asyncio.Transport | None = None
        self._waiting: asyncio.Future[Answer] | None = None
        self._pending = bytearray()
        self._part = _Part.HEAD
        self._answer: Answer | None = None
        self._left = 0
        self._keep = self._bodiless = False
        self.ended = True

    async def exchange(self, head: bytes, body: bytes | memoryview, keep: bool, bodiless: bool) -> Answer:
        """Send a request and wait for its whole answer.  `keep`: its body too; `bodiless`: it has none, as for HEAD.
        Raises WireError."""
        if self._transport is None or self.ended:
            raise WireError("the connection is closed")
        self._keep, self._bodiless = keep, bodiless
        self._part, self._answer = _Part.HEAD, None
        self._pending.clear()
        self._waiting = asyncio.get_running_loop().create_future()
        self._transport.write(head)
        if body:
            self._transport.write(body)
        return await self._waiting

    def close(self) -> None:
        self.ended = True
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport, self.ended = cast(asyncio.Transport, transport), False  # uvloop's is no subclass

    def connection_lost(self, error: Exception | None) -> None:
        self.ended = True
        if self._part is _Part.UNTIL_END and error is None:
            self._finish()
        elif self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(WireError(f"the connection ended: {error}"))

    def get_buffer(self, sizehint: int) -> bytearray:
        return self._receiving

    def buffer_updated(self, count: int) -> None:
        if self._waiting is None or self._waiting.done():
            self.close()  # bytes that nobody asked for
            return
        try:
            self._feed(self._view[:count])
        except (ValueError, IndexError) as error:
            self._waiting.set_exception(WireError(f"not HTTP: {error}"))
            self.close()

    def _feed(self, data: memoryview) -> None:
        if self._part is _Part.HEAD:
            self._pending += data
            end = self._pending.find(b"\r\n\r\n")
            if end < 0:
                if len(self._pending) > MAX_HEAD_BYTES:
                    raise ValueError("an endless head")
                return
            rest = bytes(self._pending[end + 4 :])
            self._begin(bytes(self._pending[:end]))
            self._pending.clear()
            data = memoryview(rest)
        if self._part is _Part.CHUNKED:
            self._pending += data
            self._chunks()
        elif self._part is not _Part.HEAD:
            self._take(data)
            self._left -= len(data)
            if self._part is _Part.SIZED and self._left <= 0:
                self._finish()

    def _begin(self, head: bytes) -> None:
        lines = head.decode("latin-1").split("\r\n")
        headers = {}
        for line in lines[1:]:
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        status = int(lines[0].split(None, 2)[1])
        self._answer = Answer(status, headers)
        self._keep = self._keep or status >= 300
        if self._bodiless or status in _NO_BODY:
            self._part, self._left = _Part.SIZED, 0
        elif "chunked" in headers.get("transfer-encoding", "").lower():
            self._part = _Part.CHUNKED
        elif "content-length" in headers:
            self._part, self._left = _Part.SIZED, int(headers["content-length"])
        else:
            self._part = _Part.UNTIL_END

    def _chunks(self) -> None:
        while True:
            line = self._pending.find(b"\r\n")
            if line < 0:
                return
            size = int(bytes(self._pending[:line]).split(b";")[0], 16)
            if len(self._pending) < line + 2 + size + 2:
                return
            self._take(memoryview(bytes(self._pending[line + 2 : line + 2 + size])))
            del self._pending[: line + 2 + size + 2]
            if size == 0:
                self._finish()
                return

    def _take(self, data: memoryview) -> None:
        assert self._answer is not None
        self._answer.size_bytes += len(data)
        if self._keep:
            self._answer.body += data

    def _finish(self) -> None:
        answer, waiting = self._answer, self._waiting
        assert answer is not None
        assert waiting is not None
        self._part = _Part.HEAD
        if answer.headers.get("connection", "").lower() == "close":
            self.close()
        if not waiting.done():
            waiting.set_result(answer)
