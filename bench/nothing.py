"""`python -m bench.nothing HOST PORT`: an S3 endpoint without a store, to see what the load generator can do at most.

It answers every request at once: bodies sent are counted and thrown away, objects read are zeros of the size that
their key's first part says.  Measured in turn with real targets it gives the ceiling of every row: a row close to
its ceiling would say something about the generator, not about the store.
"""

from __future__ import annotations

import asyncio
import ctypes
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import uvloop

from bench.target import Target
from bench.workloads import SIZES_BYTES

NAME = "no store"
RECEIVE_BYTES = 256 << 10
_UPLOAD = b"<A><UploadId>upload</UploadId></A>"
_PR_SET_PDEATHSIG = 1


class _Server(asyncio.BufferedProtocol):
    def __init__(self) -> None:
        self._receiving = bytearray(RECEIVE_BYTES)
        self._view = memoryview(self._receiving)
        self._head = bytearray()
        self._zeros = {size: bytes(size) for size in SIZES_BYTES.values()}
        self._left = 0
        self._answer = self._body = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass

    def get_buffer(self, sizehint: int) -> bytearray:
        return self._receiving

    def buffer_updated(self, count: int) -> None:
        assert self._transport is not None
        if self._left:
            self._left -= count
        else:
            self._head += self._view[:count]
            end = self._head.find(b"\r\n\r\n")
            if end < 0:
                return
            self._begin(bytes(self._head[:end]), len(self._head) - end - 4)
            self._head.clear()
        if self._left <= 0:
            self._left = 0
            self._transport.write(self._answer)
            if self._body:
                self._transport.write(self._body)

    def _begin(self, head: bytes, came: int) -> None:
        method, target, _ = head.split(b"\r\n", 1)[0].split(b" ")
        length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        self._left = int(length.partition(b":")[2]) - came
        parts = target.partition(b"?")[0].decode().split("/")
        size = SIZES_BYTES.get(parts[2], 0) if len(parts) > 2 and method in (b"GET", b"HEAD") else 0
        body = _UPLOAD if method == b"POST" else b"" if method == b"HEAD" else self._zeros.get(size, b"")
        length_told = size if method == b"HEAD" else len(body)
        self._answer = b'HTTP/1.1 200 OK\r\nETag: "e"\r\nContent-Length: %d\r\n\r\n' % length_told
        self._body = body


async def _serve(host: str, port: int) -> None:
    server = await asyncio.get_running_loop().create_server(_Server, host, port)
    await server.serve_forever()


@contextmanager
def running() -> Iterator[Target]:
    """A process of its own, ended on the way out and by the kernel if this process dies."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "bench.nothing", "127.0.0.1", str(port)]
    process = subprocess.Popen(command, preexec_fn=lambda: ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL))
    try:
        while not _listens(port):
            if process.poll() is not None:
                raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}")
            time.sleep(0.02)
        yield Target(NAME, (("127.0.0.1", port),), "key", "secret", (process.pid,))
    finally:
        process.kill()
        process.wait()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


if __name__ == "__main__":
    uvloop.run(_serve(sys.argv[1], int(sys.argv[2])))
