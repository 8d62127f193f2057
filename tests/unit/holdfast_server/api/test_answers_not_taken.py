"""Clients that ask and then take nothing: of answers that are written whole, and of a server that closes."""

from __future__ import annotations

import asyncio
import select
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from holdfast_server.api.server import FrontEnd, start
from holdfast_server.api.services import Limits, Services
from holdfast_server.testing.memory_services import Endpoint, memory_services, served

KEYS = 500
KEY_SIZE = 900
LEAST_SIZE = KEYS * KEY_SIZE
"""Of the listing; more than a client's kernel takes before the client reads."""
WAIT_SECONDS = 60.0


@pytest.fixture(params=[0.5, 60.0])
def take_seconds(request: Any) -> float:
    return float(request.param)


@pytest.fixture
def services(take_seconds: float, make_wire: Any) -> Services:
    """Of a store whose listing is large."""
    found = memory_services(limits=Limits(write_idle_seconds=take_seconds))
    with served(found) as endpoint, make_wire(endpoint) as wire:
        assert wire.ask("PUT", "/bucket").status == 200
        for number in range(KEYS):
            assert wire.ask("PUT", f"/bucket/{number:0{KEY_SIZE}d}").status == 200
        assert len(wire.ask("GET", "/bucket", query="list-type=2").body) > LEAST_SIZE
    return found


class Sink:
    """A client that asks for the listing and reads none of it."""

    def __init__(self, make_wire: Any, port: int) -> None:
        self.port = port
        self.wire = make_wire(Endpoint("127.0.0.1", port))
        self.wire.send(self.wire.head("GET", "/bucket", query="list-type=2"))
        readable, _, _ = select.select([self.wire.socket], [], [], WAIT_SECONDS)
        assert readable, "no answer has begun"

    def is_served(self) -> bool:
        """Whether the server's end of the connection is there; the client's is told nothing before it reads."""
        mine = f":{self.wire.socket.getsockname()[1]:04X}"
        lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()]
        return any(line[2].endswith(mine) and line[1].endswith(f":{self.port:04X}") for line in lines)

    def rest_size(self) -> int:
        size = 0
        connection: socket.socket = self.wire.socket
        try:
            while piece := connection.recv(1 << 20):
                size += len(piece)
        except OSError:
            pass
        self.wire.__exit__()
        return size


@pytest.mark.parametrize("take_seconds", [0.5], indirect=True)
def test_who_takes_nothing_of_an_answer_is_cut(services: Services, make_wire: Any) -> None:
    with served(services) as endpoint, make_wire(endpoint) as other:
        sink = Sink(make_wire, endpoint.port)
        deadline = time.monotonic() + WAIT_SECONDS
        while sink.is_served():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert other.ask("HEAD", "/bucket").status == 200
        assert sink.rest_size() < LEAST_SIZE


async def started(services: Services) -> FrontEnd:
    front = await start(services, "127.0.0.1", 0)
    assert front._listener is not None
    for listening in front._listener._sockets:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)  # else the kernel takes all of an answer
    return front


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_SECONDS):
        while not condition():
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("take_seconds", [60.0], indirect=True)
async def test_what_is_not_taken_counts_and_goes_for_others(services: Services, make_wire: Any) -> None:
    front = await started(services)
    documents = services.memory.documents
    sinks = [await asyncio.to_thread(Sink, make_wire, front.port) for _ in range(3)]
    await until(lambda: len(front._site._untaken) == 3)
    assert documents.used > LEAST_SIZE, "what three of them have not taken"
    assert services.memory.requests.used == 0
    others = documents.hold()
    await others.take(documents.capacity - documents.used + 1, WAIT_SECONDS)
    assert len(front._site._untaken) < 3
    others.close()
    await front.close(0)
    assert documents.used == 0
    for sink in sinks:
        assert await asyncio.to_thread(sink.rest_size) < LEAST_SIZE


@pytest.mark.parametrize("take_seconds", [60.0], indirect=True)
async def test_who_takes_it_late_goes_on_with_the_connection(services: Services, make_wire: Any) -> None:
    front = await started(services)
    sink = await asyncio.to_thread(Sink, make_wire, front.port)
    await until(lambda: len(front._site._untaken) == 1)
    sink.wire.send(sink.wire.head("HEAD", "/bucket"))

    def take_all() -> bytes:
        taken = b""
        while taken.count(b"HTTP/1.1 200") < 2 or not taken.endswith(b"\r\n\r\n"):
            taken += sink.wire.socket.recv(1 << 20)
        return taken

    assert len(await asyncio.to_thread(take_all)) > LEAST_SIZE
    await until(lambda: services.memory.documents.used == 0)
    sink.wire.__exit__()
    await front.close(0)


@pytest.mark.parametrize("take_seconds", [60.0], indirect=True)
async def test_a_server_that_closes_waits_for_no_client_for_long(services: Services, make_wire: Any) -> None:
    front = await started(services)
    sink = await asyncio.to_thread(Sink, make_wire, front.port)
    began = time.monotonic()
    await front.close(30.0)
    assert time.monotonic() - began < 15, "nobody waits for the rest"
    # The loop goes on: what is still open would be served as the client reads.
    assert await asyncio.to_thread(sink.rest_size) < LEAST_SIZE
