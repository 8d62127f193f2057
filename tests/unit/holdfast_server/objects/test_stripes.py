"""Stripes that are received in place: as many at a time as there is room for and as come soon."""

from __future__ import annotations

import asyncio
import random
import tracemalloc
from collections.abc import AsyncIterator, Callable, Sequence

from holdfast_server.erasure.codec import Layout, codec
from holdfast_server.objects.stripes import Batch, stripes_of
from holdfast_server.testing.memory_cluster import BytesBody

STRIPE_BYTES = 1000
DATA = random.Random(3).randbytes(7 * STRIPE_BYTES + 1)


class SlowFiller:
    """Takes so long for each piece."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._body = BytesBody(DATA, fills=True)

    async def fill(self, targets: Sequence[memoryview], go_on: Callable[[], bool]) -> int:
        for full, target in enumerate(targets, 1):
            await asyncio.sleep(self._seconds)
            await self._body.fill([target], lambda: True)
            if not go_on():
                return full
        return len(targets)


class Room:
    def __init__(self, size_bytes: int) -> None:
        self.left_bytes = size_bytes
        self.came_count = 0

    def take(self, size_bytes: int) -> bool:
        if size_bytes > self.left_bytes:
            return False
        self.left_bytes -= size_bytes
        return True

    def give(self, size_bytes: int) -> None:
        self.left_bytes += size_bytes

    def came(self) -> None:
        self.came_count += 1


class Arrivals:
    """What is told of each stripe, at the moment when it is told."""

    def __init__(self) -> None:
        self.indexes: list[int] = []
        self.data = b""

    def __call__(self, layout: Layout, index: int) -> None:
        self.indexes.append(index)
        self.data += b"".join(map(bytes, layout.stripe(index)))


def data_of(batch: Batch) -> bytes:
    layout = batch.layout
    assert layout is not None
    assert layout.stripes == len(batch.sizes)
    return b"".join(bytes(view) for index in range(layout.stripes) for view in layout.stripe(index))


async def test_who_is_slow_is_not_waited_for_with_what_has_come() -> None:
    body = BytesBody(DATA, fills=True)
    stripes = stripes_of(body, codec(2, 2), STRIPE_BYTES, SlowFiller(0.02))
    room, came = Room(1 << 20), Arrivals()
    taken: list[Batch] = []
    while not stripes.ended:
        taken.append(await stripes.take(4, room, came, seconds=0.05))
    assert [len(batch.sizes) for batch in taken] == [2, 2, 2, 2]  # two pieces each, and more than 0.05 s after four
    assert b"".join(map(data_of, taken)) == DATA
    assert (1 << 20) - room.left_bytes == len(DATA)  # what was laid out for more was given back
    assert room.came_count == 8
    assert came.indexes == [0, 1] * 4
    assert came.data == DATA  # each was told of when it was all there


async def test_no_more_are_received_than_there_is_room_for() -> None:
    body = BytesBody(DATA, fills=True)
    stripes = stripes_of(body, codec(2, 2), STRIPE_BYTES, body)
    came = Arrivals()
    first = await stripes.take(8, Room(3 * STRIPE_BYTES + 5), came, seconds=1.0)
    assert first.sizes == [STRIPE_BYTES] * 3
    assert (await stripes.take(8, Room(0), came, seconds=1.0)).sizes == []
    rest = await stripes.take(8, Room(1 << 20), came, seconds=1.0)
    assert rest.sizes == [STRIPE_BYTES] * 4 + [1]
    assert stripes.ended
    assert data_of(first) + data_of(rest) == came.data == DATA


class CutBody(BytesBody):
    """In views of two bytes each, as many small chunks on the wire make them."""

    async def chunks(self) -> AsyncIterator[bytes | memoryview]:
        for at in range(0, len(self._data), 2):
            yield memoryview(self._data)[at : at + 2]


async def test_what_comes_in_tiny_pieces_takes_no_more_memory_than_it_has() -> None:
    data = random.Random(4).randbytes((1 << 16) + 7)
    stripes = stripes_of(CutBody(data), codec(2, 2), 1 << 16, None)
    tracemalloc.start()
    try:
        batch = await stripes.take(1, Room(1 << 21), Arrivals())
        held_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert batch.sizes == [1 << 16]
    assert b"".join(batch.pieces[0]) == data[: 1 << 16]
    assert held_bytes < 2 << 16
    rest = await stripes.take(1, Room(1 << 21), Arrivals())
    assert b"".join(rest.pieces[0]) == data[1 << 16 :]
