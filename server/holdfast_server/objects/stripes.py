"""A body on its way in, cut into stripes: in the pieces it comes in, or received right where it will be coded.

A body that has a `Filler` (its bytes come as they are, and their number is known) is received into the memory of its
blocks, and never copied after that; of all others the pieces are kept until a thread copies them there.

A batch of stripes is as many as the caller has room for, and as many as come soon: a client that is slow is not waited
for with what it has sent.  Where a batch was laid out for more than came, what is left of its memory goes with it.

Not here: whose memory it is (`writing`), coding (`erasure.codec`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate, chain
from typing import Protocol

from holdfast_server.erasure.codec import Codec, Layout
from holdfast_server.objects.port import Body, Filler

JOINED_BELOW_BYTES = 4 << 10
"""Smaller pieces are joined: a view of two bytes takes a hundred times as much, and what it is a view of stays."""


@dataclass(slots=True)
class Batch:
    """Consecutive stripes, none empty."""

    sizes: list[int]
    pieces: list[list[bytes | memoryview]]
    """By stripe; none of them where there is a `layout`, which has it all."""
    layout: Layout | None = None

    def let_go(self) -> None:
        """Of its memory; how large it was stays known."""
        self.pieces, self.layout = [], None


class Room(Protocol):
    """What stripes are received into, counted."""

    def take(self, size_bytes: int) -> bool:
        """For a stripe of that size; False if there is none."""

    def give(self, size_bytes: int) -> None:
        """It was not used."""

    def came(self) -> None:
        """One more of them is there."""


Came = Callable[[Layout, int], None]
"""The stripe of that number is in its place; called on the loop, in order."""


class Stripes(Protocol):
    """What is left of a body."""

    is_direct: bool
    """Nothing is kept in pieces."""
    ended: bool
    """There is no more than what was taken."""

    @property
    def upcoming_bytes(self) -> int:
        """What the next stripe will have, at most."""

    async def take(self, most: int, room: Room, came: Came, seconds: float | None = None) -> Batch:
        """The next stripes, at most so many, as far as there is room, and no more of them after so many seconds.
        Empty if there is no room or no more.  Each that comes where it will be coded is told of at once.
        Raises what the body raises."""


def stripes_of(body: Body, codec: Codec, size_bytes: int, filler: Filler | None) -> Stripes:
    """`size_bytes` is that of a stripe; `filler` the body's, if it is to be used."""
    if filler is None or body.size_bytes is None:
        return _InPieces(body, size_bytes)
    return _InPlace(filler, codec, body.size_bytes, size_bytes)


class _Patience:
    """Whether what was asked for should have come by now."""

    def __init__(self, seconds: float | None) -> None:
        self._loop = asyncio.get_running_loop()
        self._until = None if seconds is None else self._loop.time() + seconds

    @property
    def ended(self) -> bool:
        return self._until is not None and self._loop.time() > self._until


class _InPlace:
    is_direct = True

    def __init__(self, filler: Filler, codec: Codec, body_size_bytes: int, stripe_size_bytes: int) -> None:
        self._filler, self._codec = filler, codec
        self._left_bytes, self._stripe_size_bytes = body_size_bytes, stripe_size_bytes
        self._before_bytes = 0
        """Of each shard, of the stripes that were taken."""
        self.ended = not body_size_bytes

    @property
    def upcoming_bytes(self) -> int:
        return min(self._left_bytes, self._stripe_size_bytes)

    async def take(self, most: int, room: Room, came: Came, seconds: float | None = None) -> Batch:
        patience = _Patience(seconds)
        sizes = self._sizes(most, room.take)
        if not sizes:
            return Batch([], [])
        layout = Layout(self._codec, sizes, self._before_bytes)
        stripes = [layout.stripe(index) for index in range(len(sizes))]
        last_pieces = set(accumulate(map(len, stripes)))
        pieces = filled = 0

        def go_on() -> bool:
            nonlocal pieces, filled
            pieces += 1
            if pieces not in last_pieces:
                return True
            came(layout, filled)
            filled += 1
            room.came()
            return not patience.ended

        await self._filler.fill(list(chain.from_iterable(stripes)), go_on)
        self._left_bytes -= sum(sizes[:filled])
        self._before_bytes += sum(map(self._codec.block_size_bytes, sizes[:filled]))
        self.ended = not self._left_bytes
        for size in sizes[filled:]:
            room.give(size)
        layout.shorten(filled)
        return Batch(sizes[:filled], [], layout)

    def _sizes(self, most: int, take: Callable[[int], bool]) -> list[int]:
        sizes: list[int] = []
        left = self._left_bytes
        while left and len(sizes) < most:
            size = min(left, self._stripe_size_bytes)
            if not take(size):
                break
            sizes.append(size)
            left -= size
        return sizes


class _InPieces:
    is_direct = False

    def __init__(self, body: Body, size_bytes: int) -> None:
        self._size_bytes = size_bytes
        self._chunks = body.chunks()
        self._rest: memoryview | None = None
        self._left_bytes = body.size_bytes
        self.ended = False

    @property
    def upcoming_bytes(self) -> int:
        if self.ended:
            return 0
        return self._size_bytes if self._left_bytes is None else min(self._size_bytes, self._left_bytes)

    async def take(self, most: int, room: Room, came: Came, seconds: float | None = None) -> Batch:
        patience = _Patience(seconds)
        batch = Batch([], [])
        while len(batch.sizes) < most and not self.ended and not (batch.sizes and patience.ended):
            if not room.take(self.upcoming_bytes):
                break
            chunks = await self._next()
            size = sum(map(len, chunks))
            if size:
                batch.pieces.append(chunks)
                batch.sizes.append(size)
                room.came()
        return batch

    async def _next(self) -> list[bytes | memoryview]:
        """Chunks that add up to one stripe, to less at the end, to nothing after it."""
        taken = await self._chunks_of_next()
        if self._left_bytes is not None:
            self._left_bytes -= min(self._left_bytes, sum(map(len, taken)))
        return taken

    async def _chunks_of_next(self) -> list[bytes | memoryview]:
        taken: list[bytes | memoryview] = []
        small = bytearray()
        room = self._size_bytes
        while room and not self.ended:
            view = self._rest
            self._rest = None
            if view is None:
                try:
                    view = memoryview(await anext(self._chunks))
                except StopAsyncIteration:
                    self.ended = True
                    break
            piece = view[:room]
            if len(piece) < JOINED_BELOW_BYTES:
                small += piece
            else:
                if small:
                    taken.append(memoryview(small))
                    small = bytearray()
                taken.append(piece)
            if len(view) > room:
                self._rest = view[room:]
            room -= min(room, len(view))
        if small:
            taken.append(memoryview(small))
        if not room and self._rest is None and not self.ended:
            await self._look_ahead()
        return taken

    async def _look_ahead(self) -> None:
        """Know whether a full stripe was the last one."""
        async for chunk in self._chunks:
            if len(chunk):
                self._rest = memoryview(chunk)
                return
        self.ended = True
