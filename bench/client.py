"""The load generator: keep-alive connections that send signed requests and read whole answers.

Each of `clients` connections sends its next request when the last one is answered.  The generator's own CPU is
reported beside the target's, and so is what the whole machine was busy with, so that work that the kernel does for a
target outside its processes is seen too.  An error ends nothing by itself: it is counted, and the first one told.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from bench.processes import machine_busy_seconds
from bench.target import Target
from bench.wire import Answer, Wire, WireError
from holdfast_server.s3.signing import KeyPair, sign_headers

REQUEST_TIMEOUT_SECONDS = 60.0
ERRORS_IN_A_ROW = 50
"""Of one connection; then the run is given up."""


class RequestFailed(Exception):
    """An answer that is not 2xx, or none."""


class Connection:
    def __init__(self, target: Target, index: int, run: str = "") -> None:
        self.target = target
        self.index = index
        self.run = run
        """Differs between rounds, for keys that are new."""
        self.kind = ""
        """What the operation says it did; latencies are told apart by it."""
        self.written: list[str] = []
        """Paths of objects worth removing when the round is over."""
        self._host, self._port = target.endpoints[index % len(target.endpoints)]
        self._pair = KeyPair(access_key=target.access_key, secret_key=target.secret_key)
        self._wire: Wire | None = None

    async def request(
        self, method: str, path: str, query: str = "", body: bytes | memoryview = b"", keep: bool = False
    ) -> tuple[dict[str, str], bytes]:
        """One exchange; the answer's body is returned if `keep`, else read and thrown away.  Raises RequestFailed."""
        target = f"{path}?{query}" if query else path
        head = self.signed(method, path, query, body)
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_SECONDS):
                answer = await self._exchange(head, body, keep, method == "HEAD")
        except (OSError, WireError, TimeoutError) as error:
            await self.close()
            raise RequestFailed(f"{method} {target}: {error or 'no answer in time'}") from error
        if not 200 <= answer.status < 300:
            raise RequestFailed(f"{method} {target}: {answer.status} {bytes(answer.body[:300])!r}")
        return answer.headers, bytes(answer.body)

    def signed(self, method: str, path: str, query: str, body: bytes | memoryview) -> bytes:
        """The head of a request, to be sent soon."""
        headers = {"host": f"{self._host}:{self._port}", "content-length": str(len(body))}
        signed = sign_headers(self._pair, method, path, query, headers, time.time_ns() // 1_000_000)
        lines = "".join(f"{name}: {value}\r\n" for name, value in signed.items())
        target = f"{path}?{query}" if query else path
        return f"{method} {target} HTTP/1.1\r\n{lines}\r\n".encode()

    async def _exchange(self, head: bytes, body: bytes | memoryview, keep: bool, bodiless: bool) -> Answer:
        if self._wire is None or self._wire.ended:
            loop = asyncio.get_running_loop()
            _, self._wire = await loop.create_connection(Wire, self._host, self._port)
        return await self._wire.exchange(head, body, keep, bodiless)

    async def close(self) -> None:
        if self._wire is not None:
            self._wire.close()
            self._wire = None


@dataclass(slots=True)
class Sample:
    """One round of one workload on one target."""

    operations: int
    payload_bytes: int
    wall_seconds: float
    cpu_seconds: float
    client_cpu_seconds: float
    latencies_seconds: list[float] = field(repr=False, default_factory=list)
    machine_cpu_seconds: float = 0.0
    """What all processes and the kernel were busy, the load generator not counted."""
    errors: int = 0
    first_error: str = ""
    by_kind: dict[str, list[float]] = field(repr=False, default_factory=dict)
    """Latencies of operations that say what they did."""
    written: list[str] = field(repr=False, default_factory=list)

    def quantile_ms(self, q: float, kind: str = "") -> float:
        ordered = sorted(self.by_kind.get(kind, []) if kind else self.latencies_seconds)
        return ordered[min(len(ordered) - 1, int(q * len(ordered)))] * 1000 if ordered else 0.0


Operation = Callable[[Connection, int], Awaitable[int]]
"""Runs one operation, numbered; returns its payload's bytes."""


class _Round:
    def __init__(self, operation: Operation, seconds: float, limit: int) -> None:
        self._operation = operation
        self._limit = limit
        self._began = time.perf_counter()
        self._end = self._began + seconds
        self._number = 0
        self.payload_bytes = 0
        self.latencies: list[float] = []
        self.by_kind: dict[str, list[float]] = {}
        self.errors = 0
        self.first_error = ""

    async def loop(self, connection: Connection) -> None:
        """At least one operation, however late its turn comes: a busy machine must not make an empty round."""
        in_a_row = 0
        begun = False
        while self._number < self._limit and not (begun and time.perf_counter() >= self._end):
            begun = True
            self._number += 1
            start = time.perf_counter()
            try:
                moved = await self._operation(connection, self._number - 1)
            except RequestFailed as error:
                in_a_row += 1
                self._failed(error, in_a_row)
                continue
            in_a_row = 0
            self.payload_bytes += moved
            took = time.perf_counter() - start
            self.latencies.append(took)
            if connection.kind:
                self.by_kind.setdefault(connection.kind, []).append(took)

    def _failed(self, error: RequestFailed, in_a_row: int) -> None:
        self.errors += 1
        self.first_error = self.first_error or str(error)
        if in_a_row >= ERRORS_IN_A_ROW:
            raise error

    @property
    def wall_seconds(self) -> float:
        return time.perf_counter() - self._began


async def drive(target: Target, operation: Operation, clients: int, seconds: float, limit: int = 1 << 60) -> Sample:
    """Run an operation over and over on `clients` connections, for a time or a number of operations.  Raises
    RequestFailed where a connection has had nothing but errors for too long."""
    run = os.urandom(4).hex()
    connections = [Connection(target, index, run) for index in range(clients)]
    cpu, machine, own = target.cpu_seconds(), machine_busy_seconds(), time.process_time()
    this = _Round(operation, seconds, limit)
    try:
        await _all(this, connections)
        wall, used = this.wall_seconds, time.process_time() - own
        return Sample(
            operations=len(this.latencies),
            payload_bytes=this.payload_bytes,
            wall_seconds=wall,
            cpu_seconds=target.cpu_seconds() - cpu,
            client_cpu_seconds=used,
            latencies_seconds=this.latencies,
            machine_cpu_seconds=machine_busy_seconds() - machine - used,
            errors=this.errors,
            first_error=this.first_error,
            by_kind=this.by_kind,
            written=[path for connection in connections for path in connection.written],
        )
    finally:
        for connection in connections:
            await connection.close()


async def _all(this: _Round, connections: list[Connection]) -> None:
    try:
        async with asyncio.TaskGroup() as group:
            for connection in connections:
                group.create_task(this.loop(connection))
    except* RequestFailed as failures:
        raise RequestFailed(str(failures.exceptions[0])) from failures
