"""A client of which nothing is counted: its bytes go from and to the socket as they are, without asyncio's streams."""

from __future__ import annotations

import asyncio
import re
import socket

RECEIVE_BYTES = 256 << 10
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)


class RefusedRequest(Exception):
    """An answer that is not 2xx."""


class Exchanges:
    """One kept connection; one request at a time."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._loop = asyncio.get_running_loop()
        self._buffer = memoryview(bytearray(RECEIVE_BYTES))
        self._socket = socket.create_connection(address)
        self._socket.setblocking(False)

    async def ask(self, head: bytes, body: bytes) -> None:
        """Send it and take the whole answer.  Raises RefusedRequest, ConnectionError."""
        await self._loop.sock_sendall(self._socket, head)
        if body:
            await self._loop.sock_sendall(self._socket, body)
        received = await self._receive(0)
        while (end := bytes(self._buffer[:received]).find(b"\r\n\r\n")) < 0:
            received += await self._receive(received)
        answer = bytes(self._buffer[: end + 2])
        if not answer.startswith(b"HTTP/1.1 2"):
            raise RefusedRequest(f"{head[:80]!r}: {bytes(self._buffer[:received])!r}")
        found = _LENGTH.search(answer)
        left = int(found[1]) if found is not None and not head.startswith(b"HEAD ") else 0
        left -= received - (end + 4)
        while left > 0:
            left -= await self._receive(0)

    async def _receive(self, at: int) -> int:
        count = await self._loop.sock_recv_into(self._socket, self._buffer[at:])
        if not count:
            raise ConnectionError("the answer ended early")
        return count

    def close(self) -> None:
        self._socket.close()
