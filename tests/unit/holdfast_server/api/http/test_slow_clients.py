"""Who gives way while others wait: clients of which next to nothing comes, and nobody else.  In virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import cast

import pytest

from holdfast_server.api.http.body import SLOW_SECONDS, HttpBody
from holdfast_server.api.http.head import Head
from holdfast_server.api.http.places import GRACE_SECONDS, Bounds, Handler, Site
from holdfast_server.memory.budget import LOOK_AROUND_SECONDS, Budget, Overloaded
from holdfast_server.s3.errors import S3Error
from holdfast_server.testing import virtual_time

BODY_BYTES = 64 << 20
STRIPE_BYTES = 1 << 20
IDLE_SECONDS = 60.0
BOUNDS = Bounds(
    connections=9, secure_places=1, line_bytes=999, head_bytes=999, headers=9, head_seconds=60,
    keepalive_seconds=60, read_idle_seconds=IDLE_SECONDS, write_idle_seconds=60,
)  # fmt: skip
HEAD = Head(
    method="PUT", raw_path="/", raw_query="", headers={}, is_http_1_0=False, keeps_alive=True, size_bytes=BODY_BYTES,
    awaits_continue=False,
)  # fmt: skip


class Upload:
    """A body that comes, and a handler that takes it: in place, or in pieces."""

    def __init__(self, site: Site, in_place: bool) -> None:
        self._body = HttpBody(self, HEAD, site.body_waits)
        self._in_place = in_place
        self.told = ""
        self.ended_after: float | None = None
        """When the handler was told that its client is too slow."""

    def read_on(self) -> None: ...

    def tell_to_continue(self) -> None: ...

    def send(self, size_bytes: int) -> None:
        while size_bytes and self._in_place and (target := self._body.target) is not None:
            taken = min(size_bytes, len(target))
            self._body.filled(taken)
            size_bytes -= taken
        if size_bytes:
            self._body.arrived(bytes(size_bytes))

    async def handle(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            if self._in_place:
                while True:
                    await self._body.fill([memoryview(bytearray(STRIPE_BYTES))], lambda: True)
            async for _ in self._body.pieces():
                pass
        except S3Error as error:
            self.told, self.ended_after = error.code, loop.time()


@asynccontextmanager
async def somebody_waiting(site: Site) -> AsyncIterator[Budget]:
    budget = Budget("bytes", 1, wait_seconds=1000, most_waiting=9)
    budget.add_relief(site.relieve)
    await budget.take(1)
    waiting = asyncio.ensure_future(budget.take(1))
    try:
        yield budget
    finally:
        waiting.cancel()
        with suppress(asyncio.CancelledError, Overloaded):
            await waiting


async def client(upload: Upload, pattern: tuple[int, ...], seconds: float) -> None:
    """Sends so many bytes in each second, over and over."""
    for second in range(int(seconds)):
        if upload.ended_after is not None:
            return
        upload.send(pattern[second % len(pattern)])
        await asyncio.sleep(1)


@pytest.mark.parametrize("in_place", [True, False], ids=["in place", "in pieces"])
@pytest.mark.parametrize(
    ("pattern", "is_slow"),
    [
        ((0,), True),
        ((1,), True),
        ((20_000,), True),
        ((1_200_000, *[0] * 99), True),
        ((100_000,), False),
        ((40_000,), False),
        ((500_000, 0, 0, 0, 0), False),  # 100 KB/s over a line that is lost for seconds
    ],
    ids=["stalled", "a byte a second", "20 KB/s", "a burst and nothing", "100 KB/s", "40 KB/s", "a bad line"],
)
def test_who_sends_next_to_nothing_gives_way_while_others_wait(
    pattern: tuple[int, ...], is_slow: bool, in_place: bool
) -> None:
    async def scene() -> tuple[float | None, str, int]:
        places = Site(cast(Handler, None), BOUNDS)
        upload = Upload(places, in_place)
        async with somebody_waiting(places) as budget, asyncio.TaskGroup() as group:
            handling = group.create_task(upload.handle())
            await client(upload, pattern, 50)
            handling.cancel()
        return upload.ended_after, upload.told, budget.evicted

    ended_after, told, evicted = virtual_time.run(scene())
    assert (told, evicted) == (("RequestTimeout", 1) if is_slow else ("", 0))
    if is_slow:
        # The burst is looked at once, and found good, before it counts as one that was long ago.
        assert ended_after is not None
        assert ended_after <= SLOW_SECONDS + GRACE_SECONDS + 3 * LOOK_AROUND_SECONDS
    else:
        assert ended_after is None


def test_who_has_been_slow_for_long_goes_soon_after_somebody_comes() -> None:
    async def scene() -> float | None:
        places = Site(cast(Handler, None), BOUNDS)
        upload = Upload(places, in_place=True)
        async with asyncio.TaskGroup() as group:
            group.create_task(upload.handle())
            await client(upload, (1,), 30)
            assert upload.ended_after is None, "nobody waited"
            async with somebody_waiting(places):
                await client(upload, (1,), 30)
        return upload.ended_after

    ended_after = virtual_time.run(scene())
    assert ended_after is not None
    # Sooner than whoever waits is told to come again.
    assert ended_after - 30 <= GRACE_SECONDS + 2 * LOOK_AROUND_SECONDS


def test_time_that_the_server_takes_is_not_the_clients() -> None:
    """It waits for its turn, half a minute for each stripe, and is sent each in time."""

    async def scene() -> bool:
        places = Site(cast(Handler, None), BOUNDS)
        body = HttpBody(Upload(places, in_place=True), HEAD, places.body_waits)
        async with somebody_waiting(places):
            for _ in range(4):
                await asyncio.sleep(30)
                filling = asyncio.ensure_future(body.fill([memoryview(bytearray(100_000))], lambda: True))
                await asyncio.sleep(SLOW_SECONDS / 2)
                body.filled(100_000)
                await filling
        return True

    assert virtual_time.run(scene())


def test_one_at_a_time_goes_and_has_a_moment_to_send_something_after_all() -> None:
    async def scene() -> tuple[list[bool], list[bool]]:
        places = Site(cast(Handler, None), BOUNDS)
        uploads = [Upload(places, in_place=True) for _ in range(3)]
        now = asyncio.get_running_loop().time
        async with asyncio.TaskGroup() as group:
            handling = [group.create_task(upload.handle()) for upload in uploads]
            # As if this pod had lain still meanwhile: all look silent, but one has sent something.
            await asyncio.sleep(SLOW_SECONDS * 2)
            at_once = [places.relieve(now())]
            uploads[0].send(500_000)
            await asyncio.sleep(GRACE_SECONDS)
            later = [places.relieve(now()) for _ in range(3)]
            assert not handling[0].done()
            handling[0].cancel()
        return at_once, later

    assert virtual_time.run(scene()) == ([False], [True, True, False])
