"""A request that has ended leaves nothing to Python's cycle collector that had its body's memory.

The collector comes by when twenty thousand objects have been made, which may be a hundred failed uploads: what those
still had would come on top of all bounds.  So neither a failure, nor what it went through, may be part of a cycle.
"""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from types import FrameType, TracebackType
from typing import Any, cast

import pytest

from holdfast_server.clock.system import SystemClock
from holdfast_server.drives.port import DriveOffline
from holdfast_server.s3.errors import S3Error
from holdfast_server.s3.request import Response
from holdfast_server.testing.memory_cluster import MemoryCluster
from holdfast_server.testing.memory_services import memory_services

MIB = 1 << 20
SMALL, WHOLE, STREAMED = b"x" * 100, os.urandom(3 * MIB // 2), os.urandom(12 * MIB)
"""The last is more than one batch, so that some of it is with the drives when the rest does not come."""
LARGE_BYTES = 32 << 10


class Wire:
    """A body that comes in pieces; `breaks_off`: the client leaves before the last of it."""

    def __init__(self, data: bytes, breaks_off: bool) -> None:
        self.size_bytes: int | None = len(data)
        self._data, self._at, self._breaks_off = data, 0, breaks_off

    def _come(self, size_bytes: int) -> bytes:
        if self._breaks_off and self._at + size_bytes >= len(self._data):
            raise S3Error("IncompleteBody")
        piece = self._data[self._at : self._at + size_bytes]
        self._at += len(piece)
        return piece

    async def pieces(self) -> AsyncIterator[bytes]:
        while self._at < len(self._data):
            yield self._come(100_000)

    async def fill(self, targets: Any, go_on: Callable[[], bool]) -> int:
        for full, target in enumerate(targets, 1):
            target[:] = self._come(len(target))
            if not go_on():
                return full
        return len(targets)


class Store:
    """Asks the dispatcher; behind it the real object store over drives in memory."""

    def __init__(self, api: Any) -> None:
        self.cluster = MemoryCluster(SystemClock())
        api.services = memory_services(objects=self.cluster.store, clock=api.clock)
        self._send = api.send

    async def ask(
        self, method: str, path: str, data: bytes = b"", query: str = "", breaks_off: bool = False, **more: str
    ) -> Response:
        headers = {name.replace("_", "-"): value for name, value in more.items()}
        response: Response = await self._send(method, path, Wire(data, breaks_off), query, **headers)
        return response

    async def get(self, key: str, breaks_off: bool) -> int:
        response = await self.ask("GET", f"/b01/{key}")
        if not isinstance(response.body, bytes):
            async with aclosing(cast(AsyncGenerator[bytes], response.body.pieces)) as pieces:
                async for _ in pieces:
                    if breaks_off:
                        break
        return response.status


@dataclass(frozen=True)
class Case:
    status: int
    ask: Callable[[Store], Awaitable[Response]]
    lost: bool = False
    """Commits do not arrive."""


CASES = {
    "put small": Case(200, lambda store: store.ask("PUT", "/b01/k", SMALL)),
    "put whole": Case(200, lambda store: store.ask("PUT", "/b01/k", WHOLE)),
    "put streamed": Case(200, lambda store: store.ask("PUT", "/b01/k", STREAMED)),
    "small breaks off": Case(400, lambda store: store.ask("PUT", "/b01/k", SMALL, breaks_off=True)),
    "whole breaks off": Case(400, lambda store: store.ask("PUT", "/b01/k", WHOLE, breaks_off=True)),
    "streamed breaks off": Case(400, lambda store: store.ask("PUT", "/b01/k", STREAMED, breaks_off=True)),
    "wrong digest": Case(400, lambda store: store.ask("PUT", "/b01/k", WHOLE, content_md5="1B2M2Y8AsgTpgAmY7PhCfg==")),
    "condition fails": Case(412, lambda store: store.ask("PUT", "/b01/whole", WHOLE, if_none_match="*")),
    "small is lost": Case(503, lambda store: store.ask("PUT", "/b01/k", SMALL), lost=True),
    "whole is lost": Case(503, lambda store: store.ask("PUT", "/b01/k", WHOLE), lost=True),
    "streamed is lost": Case(503, lambda store: store.ask("PUT", "/b01/k", STREAMED), lost=True),
    "head of nothing": Case(404, lambda store: store.ask("HEAD", "/b01/nothing")),
    "no such bucket": Case(404, lambda store: store.ask("PUT", "/b02/k", WHOLE)),
    "long document": Case(400, lambda store: store.ask("POST", "/b01", WHOLE * 3, query="delete=", content_md5="x")),
    "delete": Case(204, lambda store: store.ask("DELETE", "/b01/k")),
    "list": Case(200, lambda store: store.ask("GET", "/b01", query="list-type=2")),
}


@pytest.fixture
async def store(unserved_api: Any) -> AsyncIterator[Store]:
    store = Store(unserved_api)
    assert (await store.ask("PUT", "/b01")).status == 200
    assert (await store.ask("PUT", "/b01/whole", WHOLE)).status == 200
    yield store
    store.cluster.hook = None
    await store.cluster.close()


async def left_by(store: Store, work: Callable[[], Awaitable[None]]) -> list[Any]:
    """What only the collector could free."""
    await work()  # what is imported, compiled and remembered the first time
    await store.cluster.settle()
    gc.collect()
    gc.disable()
    try:
        for _ in range(3):
            await work()
        await store.cluster.settle()
        await asyncio.sleep(0.01)
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        return gc.garbage[:]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


def told(garbage: list[Any]) -> list[str]:
    """Of it, what a failure has, and what has the memory of a body."""
    found = [repr(one)[:200] for one in garbage if isinstance(one, FrameType | TracebackType | BaseException)]
    for one in garbage:
        for had in gc.get_referents(one):
            if isinstance(had, bytes | bytearray | memoryview) and memoryview(had).nbytes >= LARGE_BYTES:
                found.append(f"{type(one).__qualname__} has {memoryview(had).nbytes} bytes")
    return found


@pytest.mark.parametrize("name", CASES)
async def test_of_a_request_that_has_ended(store: Store, name: str) -> None:
    case = CASES[name]

    async def lose(_: int, verb: str, __: Any) -> None:
        if verb == "commit":
            raise DriveOffline("lost")

    async def work() -> None:
        store.cluster.hook = lose if case.lost else None
        assert (await case.ask(store)).status == case.status

    assert told(await left_by(store, work)) == []


@pytest.mark.parametrize("breaks_off", [False, True])
@pytest.mark.parametrize("lost", [False, True])
async def test_of_a_download(store: Store, breaks_off: bool, lost: bool) -> None:
    """`lost`: of two drives nothing comes."""

    async def lose(position: int, verb: str, _: Any) -> None:
        if position < 2 and verb in ("query", "read_blocks"):
            raise DriveOffline("lost")

    async def work() -> None:
        store.cluster.hook = lose if lost else None
        assert await store.get("whole", breaks_off) == 200

    assert told(await left_by(store, work)) == []


async def test_the_test_would_notice(store: Store) -> None:
    async def work() -> None:
        error = S3Error("NoSuchKey")
        error.__cause__ = error
        store.cluster.calls.append((0, "noticed"))

    assert len(told(await left_by(store, work))) == 3
