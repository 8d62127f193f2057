"""The load generator: keep-alive connections that send signed requests and read whole answers.

It speaks just enough HTTP/1.1 (Content-Length bodies only) to cost less than what it measures; its own CPU is
reported beside the target's.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from bench.target import Target
from holdfast_server.s3.signing import KeyPair, sign_headers

READ_LIMIT_BYTES = 1 << 20


class RequestFailed(Exception):
    """An answer that is not 2xx."""


class Connection:
    def __init__(self, target: Target, index: int) -> None:
        self._host, self._port = target.endpoints[index % len(target.endpoints)]
        self._pair = KeyPair(access_key=target.access_key, secret_key=target.secret_key)
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def request(
        self, method: str, path: str, query: str = "", body: bytes = b"", keep: bool = False
    ) -> tuple[dict[str, str], bytes]:
        """One exchange; the answer's body is returned if `keep`, else read and thrown away."""
        if self._streams is None:
            self._streams = await asyncio.open_connection(self._host, self._port, limit=READ_LIMIT_BYTES)
        reader, writer = self._streams
        headers = {"host": f"{self._host}:{self._port}", "content-length": str(len(body))}
        signed = sign_headers(self._pair, method, path, query, headers, time.time_ns() // 1_000_000)
        head = "".join(f"{name}: {value}\r\n" for name, value in signed.items())
        target = f"{path}?{query}" if query else path
        writer.write(f"{method} {target} HTTP/1.1\r\n{head}\r\n".encode())
        if body:
            writer.write(body)
            await writer.drain()
        status, answer = await self._head(reader)
        data = await self._body(reader, int(answer.get("content-length", "0")), keep or status >= 300)
        if status >= 300:
            raise RequestFailed(f"{method} {target}: {status} {data[:300]!r}")
        return answer, data

    async def _head(self, reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
        lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {}
        for line in lines[1:]:
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        return int(lines[0].split()[1]), headers

    async def _body(self, reader: asyncio.StreamReader, length: int, keep: bool) -> bytes:
        if keep:
            return await reader.readexactly(length)
        while length:
            data = await reader.read(min(length, READ_LIMIT_BYTES))
            if not data:
                raise RequestFailed("the answer ended early")
            length -= len(data)
        return b""

    async def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()


@dataclass(slots=True)
class Sample:
    """One round of one workload on one target."""

    operations: int
    payload_bytes: int
    wall_seconds: float
    cpu_seconds: float
    client_cpu_seconds: float
    latencies_seconds: list[float] = field(repr=False, default_factory=list)

    def quantile_ms(self, q: float) -> float:
        ordered = sorted(self.latencies_seconds)
        return ordered[min(len(ordered) - 1, int(q * len(ordered)))] * 1000 if ordered else 0.0


Operation = Callable[[Connection, int], Awaitable[int]]
"""Runs one operation, numbered; returns its payload's bytes."""


async def drive(target: Target, operation: Operation, clients: int, seconds: float, limit: int = 1 << 60) -> Sample:
    """Run an operation over and over on `clients` connections, for a time or a number of operations."""
    connections = [Connection(target, index) for index in range(clients)]
    latencies: list[float] = []
    payload = number = 0
    cpu, own = target.cpu_seconds(), time.process_time()
    begin = time.perf_counter()

    async def loop(connection: Connection) -> None:
        nonlocal payload, number
        while number < limit and time.perf_counter() - begin < seconds:
            number += 1
            start = time.perf_counter()
            moved = await operation(connection, number - 1)  # apart: += would read the sum before the await
            payload += moved
            latencies.append(time.perf_counter() - start)

    try:
        async with asyncio.TaskGroup() as group:
            for connection in connections:
                group.create_task(loop(connection))
        wall = time.perf_counter() - begin
        return Sample(len(latencies), payload, wall, target.cpu_seconds() - cpu, time.process_time() - own, latencies)
    finally:
        for connection in connections:
            await connection.close()
