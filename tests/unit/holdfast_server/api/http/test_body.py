"""A body that is received into memory its handler names: all of it in its place, and no more than was wanted."""

from __future__ import annotations

import asyncio
import random
import weakref
from collections.abc import Callable

import pytest

from holdfast_server.api.http.body import HttpBody
from holdfast_server.api.http.head import HeadReader
from holdfast_server.api.http.overdue import Overdue
from holdfast_server.s3.errors import S3Error

DATA = random.Random(5).randbytes(10_000)


class Wire:
    """A connection that has it all, and gives as much as is wanted."""

    def __init__(self, sizes: list[int]) -> None:
        head = HeadReader(1 << 13, 64).read(b"PUT /b/k HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(DATA))
        self.body = HttpBody(self, head, Overdue(asyncio.get_running_loop(), 60.0, HttpBody.stalled))
        self._sizes = sizes
        self.sent = 0

    def read_on(self) -> None:
        asyncio.get_running_loop().call_soon(self._go_on)

    def tell_to_continue(self) -> None:
        raise AssertionError("nobody asked for it")

    def came_with_the_head(self, size_bytes: int) -> None:
        assert self.body.arrived(DATA[:size_bytes]) == b""
        self.sent = size_bytes

    def _go_on(self) -> None:
        for size in self._sizes:
            target = self.body.target
            if not self.body.wants_more or target is None:
                return
            count = min(size, len(target))
            target[:count] = DATA[self.sent : self.sent + count]
            self.sent += count
            self.body.filled(count)
        self.read_on()


def places(*sizes: int) -> tuple[bytearray, list[memoryview]]:
    """One run of memory, cut into pieces."""
    memory = bytearray(sum(sizes))
    ends = [sum(sizes[: index + 1]) for index in range(len(sizes))]
    return memory, [memoryview(memory)[end - size : end] for size, end in zip(sizes, ends, strict=True)]


def after(wanted: int) -> Callable[[], bool]:
    """Says no once so many are full."""
    full = 0

    def go_on() -> bool:
        nonlocal full
        full += 1
        return full < wanted

    return go_on


@pytest.mark.parametrize("with_head", [0, 700, 1000, 2500, 10_000])
@pytest.mark.parametrize("sizes", [[1], [999, 1, 5000], [1 << 20]])
async def test_all_of_it_comes_to_its_place_however_it_is_cut(with_head: int, sizes: list[int]) -> None:
    wire = Wire(sizes)
    wire.came_with_the_head(with_head)
    memory, targets = places(1000, 1000, 3, 4997, 3000)
    assert await wire.body.fill(targets[:2], after(9)) == 2
    assert await wire.body.fill(targets[2:], after(9)) == 3
    assert bytes(memory) == DATA
    assert wire.body.ended
    assert wire.body.received_bytes == len(DATA)


@pytest.mark.parametrize("with_head", [0, 500, 2000, 2500, 3000])
async def test_nothing_is_taken_that_is_not_wanted_any_more(with_head: int) -> None:
    """What follows is there for who asks next."""
    wire = Wire([700])
    wire.came_with_the_head(with_head)
    memory, targets = places(1000, 1000, 1000, 7000)
    assert await wire.body.fill(targets, after(2)) == 2
    assert bytes(memory) == DATA[:2000] + bytes(8000)
    assert wire.sent == max(2000, with_head)
    assert await wire.body.fill(targets[2:], after(9)) == 2
    assert bytes(memory) == DATA


async def test_who_stalls_is_told_though_some_are_full() -> None:
    wire = Wire([0])
    wire.came_with_the_head(1500)
    memory, targets = places(1000, 9000)
    filling = asyncio.ensure_future(wire.body.fill(targets, after(9)))
    await asyncio.sleep(0)
    assert bytes(memory[:1500]) == DATA[:1500]
    wire.body.stalled()
    with pytest.raises(S3Error) as told:
        await filling
    assert told.value.code == "RequestTimeout"
    assert wire.body.target is None


@pytest.mark.parametrize("fails", [False, True])
async def test_who_wanted_it_is_let_go_of(fails: bool) -> None:
    """It may hold the body; the two would be left to the cycle collector."""
    wire = Wire([0 if fails else 5000])
    go_on = after(9)
    whose = weakref.ref(go_on)
    filling = asyncio.ensure_future(wire.body.fill(places(3000)[1], go_on))
    del go_on
    await asyncio.sleep(0)
    assert whose() is not None
    if fails:
        wire.body.broken()
    await asyncio.wait([filling])
    failed = filling.exception() is not None
    del filling
    await asyncio.sleep(0)
    assert (failed, whose()) == (fails, None)


async def test_small_pieces_that_nobody_has_taken_yet_are_kept_as_one() -> None:
    head = HeadReader(1 << 13, 64).read(b"PUT /b/k HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
    body = HttpBody(Wire([]), head, Overdue(asyncio.get_running_loop(), 60.0, HttpBody.stalled))
    payload = b"ab" * 5000
    wire = b"2\r\nab\r\n" * 5000 + b"0\r\n\r\n"
    for at in range(0, len(wire), 3000):
        assert body.arrived(wire[at : at + 3000]) == b""
    pieces = [piece async for piece in body.pieces()]
    assert b"".join(pieces) == payload
    assert len(pieces) <= 3
    assert body.received_bytes == len(payload)
