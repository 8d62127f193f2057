"""Listing over several erasure sets: the walks of `listing`, one per set, merged into one in order.

`walk_sets` is for sets that share no key: what one of them has, no other has, but for common prefixes.

`walk_placed` is for a map in which keys have several look-up sets.  A key that one set shows may be overwritten or
deleted in another, so the sets' tombstones take part: of what the sets say at one name the greatest stamp counts.
Where that is a tombstone of a version that moved (`Kind.MOVED`) and the version itself is not in sight, the sets were
scanned at different moments, and the register is read.  A common prefix that a set shows is there only if the set's
first live key below it is; if that one is overwritten elsewhere, the keys below the prefix are walked one by one to
the first that lives.

Bounds: one found item per set, beside what each set's walk holds.
"""

from __future__ import annotations

import heapq
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import replace

from holdfast_server.drives.port import Register
from holdfast_server.objects.asking import together
from holdfast_server.objects.erasure_set import ErasureSet
from holdfast_server.objects.listing import RESOLVE_WIDTH, Found, Position, SetWalk, Walk, counts
from holdfast_server.objects.look_up import LookUp
from holdfast_server.objects.record import Kind

Same = list[Found]
"""What the sets say at one name; never empty."""


async def walk_sets(sets: list[ErasureSet], walk: Walk) -> AsyncGenerator[Found]:
    """The merged walk over several sets; a name that more than one set has comes once.

    Whoever stops before the end closes it (`aclosing`), or the scans' last calls outlive the request.
    """
    if len(sets) == 1:
        async with aclosing(SetWalk(sets[0], walk).found()) as found:
            async for item in found:
                yield item
        return
    async with aclosing(_merged(sets, walk)) as merged:
        async for same in merged:
            yield same[0]


async def walk_placed(
    sets: list[ErasureSet], walk: Walk, look_up: Callable[[Register], LookUp]
) -> AsyncGenerator[Found]:
    """The merged walk over the sets of a map in which a register may be in several of them.  See `walk_sets`."""
    async with aclosing(_merged(sets, replace(walk, tombstones=True))) as merged:
        async for same in merged:
            found = (
                await _judge_group(sets, walk, same, look_up) if same[0].group else await _judge(walk, same, look_up)
            )
            if found is not None:
                yield found


async def _judge(walk: Walk, same: Same, look_up: Callable[[Register], LookUp]) -> Found | None:
    newest = max(same, key=_rank)
    assert newest.record is not None
    if newest.record.kind is Kind.MOVED:
        current = (await look_up(newest.register).read()).current.record
        return Found(newest.register, current) if current is not None and counts(current, walk) else None
    return newest if counts(newest.record, walk) else None


def _rank(found: Found) -> tuple[int, bool]:
    assert found.record is not None
    return found.record.stamp, found.record.kind is not Kind.MOVED


async def _judge_group(
    sets: list[ErasureSet], walk: Walk, same: Same, look_up: Callable[[Register], LookUp]
) -> Found | None:
    first = min((found.register for found in same), key=_position)
    placed = look_up(first)
    if len(placed.sets) == 1:
        return Found(first, None, same[0].group)
    current = (await placed.read()).current.record
    if current is not None and counts(current, walk):
        return Found(first, None, same[0].group)
    below = Walk(walk.space, same[0].group, start=_position(first), page_size=RESOLVE_WIDTH, hidden=walk.hidden)
    async with aclosing(walk_placed(sets, below, look_up)) as others:
        found = await anext(others, None)
    return Found(found.register, None, same[0].group) if found is not None else None


def _position(register: Register) -> Position:
    return register.key.encode(), register.version


async def _merged(sets: list[ErasureSet], walk: Walk) -> AsyncGenerator[Same]:
    """What the sets say, name by name."""
    async with AsyncExitStack() as stack:
        streams = [
            await stack.enter_async_context(aclosing(SetWalk(erasure_set, walk).found())) for erasure_set in sets
        ]
        if len(streams) == 1:
            async for item in streams[0]:
                yield [item]
            return
        async with aclosing(_merge(streams)) as merged:
            async for same in merged:
                yield same


async def _merge(streams: Sequence[AsyncIterator[Found]]) -> AsyncGenerator[Same]:
    heads: list[tuple[Position, int, Found]] = []

    async def push(index: int) -> None:
        item = await anext(streams[index], None)
        if item is not None:
            heapq.heappush(heads, (item.name, index, item))

    await together(map(push, range(len(streams))))
    while heads:
        name = heads[0][0]
        same: Same = []
        while heads and heads[0][0] == name:
            _, index, item = heapq.heappop(heads)
            same.append(item)
            await push(index)
        yield same
