"""Listing over several erasure sets: the walks of `listing`, one per set, merged into one in order.

A name that more than one set has (a common prefix, or a key whose placement moved with an epoch) comes once.

Bounds: one found item per set, beside what each set's walk holds.
"""

from __future__ import annotations

import heapq
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AsyncExitStack, aclosing

from holdfast_server.objects.asking import together
from holdfast_server.objects.erasure_set import ErasureSet
from holdfast_server.objects.listing import Found, Position, SetWalk, Walk


async def walk_sets(sets: list[ErasureSet], walk: Walk) -> AsyncGenerator[Found]:
    """The merged walk over several sets; a name that more than one set has comes once, its newest.

    Whoever stops before the end closes it (`aclosing`), or the scans' last calls outlive the request.
    """
    async with AsyncExitStack() as stack:
        streams = [
            await stack.enter_async_context(aclosing(SetWalk(erasure_set, walk).found())) for erasure_set in sets
        ]
        merged = streams[0] if len(streams) == 1 else await stack.enter_async_context(aclosing(_merge(streams)))
        async for item in merged:
            yield item


async def _merge(streams: Sequence[AsyncIterator[Found]]) -> AsyncGenerator[Found]:
    heads: list[tuple[Position, int, Found]] = []

    async def push(index: int) -> None:
        item = await anext(streams[index], None)
        if item is not None:
            heapq.heappush(heads, (item.name, index, item))

    await together(map(push, range(len(streams))))
    while heads:
        name = heads[0][0]
        same: list[Found] = []
        while heads and heads[0][0] == name:
            _, index, item = heapq.heappop(heads)
            same.append(item)
            await push(index)
        yield max(same, key=_stamp)


def _stamp(found: Found) -> int:
    return found.record.stamp if found.record is not None else 0
