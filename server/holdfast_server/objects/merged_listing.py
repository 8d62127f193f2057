"""Listing over several erasure sets: the walks of `listing`, one per set, merged into one in order.

`walk_sets` is for sets that share no key: what one of them has, no other has, but for common prefixes.

`walk_placed` is for a map in which keys have several look-up sets.  A key that one set shows may be overwritten or
deleted in another, so the sets' tombstones take part: of what the sets say at one name the greatest stamp counts.
Where that is a tombstone of a version that moved (`Kind.MOVED`) and the version itself is not in sight, the sets were
scanned at different moments, and the register is read.  A common prefix that a set shows is there only if the set's
first live key below it is; if that one is overwritten elsewhere, the keys below the prefix are walked one by one to
the first that lives.

Each set is asked for its share of a page, and a little more: keys are spread evenly, so that the sets' first pages
make one page of all, and sets cost no more together than one would.

Bounds: one run per set, beside what each set's walk holds.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import replace
from itertools import groupby
from math import isqrt
from operator import attrgetter

from holdfast_server.drives import names
from holdfast_server.drives.port import Register
from holdfast_server.objects.asking import together
from holdfast_server.objects.erasure_set import ErasureSet
from holdfast_server.objects.listing import RESOLVE_WIDTH, Found, Run, SetWalk, Walk, counts, one_by_one
from holdfast_server.objects.look_up import LookUp
from holdfast_server.objects.record import Kind

Same = list[Found]
"""What the sets say at one name; never empty."""

_name = attrgetter("name")


async def walk_sets(sets: list[ErasureSet], walk: Walk) -> AsyncGenerator[Run]:
    """The merged walk over several sets; a name that more than one set has comes once.

    Whoever stops before the end closes it (`aclosing`), or the scans' last calls outlive the request.
    """
    async with aclosing(_merged(sets, walk)) as merged:
        async for run in merged:
            # Keys are each in one set only.
            yield [next(same) for _, same in groupby(run, _name)] if walk.delimiter and len(sets) > 1 else run


async def walk_placed(sets: list[ErasureSet], walk: Walk, look_up: Callable[[Register], LookUp]) -> AsyncGenerator[Run]:
    """The merged walk over the sets of a map in which a register may be in several of them.  See `walk_sets`."""
    async with aclosing(_merged(sets, replace(walk, tombstones=True))) as merged:
        async for run in merged:
            judged: Run = []
            for _, one in groupby(run, _name):
                same = list(one)
                found = (
                    await _judge_group(sets, walk, same, look_up)
                    if same[0].group
                    else await _judge(walk, same, look_up)
                )
                if found is not None:
                    judged.append(found)
            if judged:
                yield judged


async def _judge(walk: Walk, same: Same, look_up: Callable[[Register], LookUp]) -> Found | None:
    newest = max(same, key=_rank)
    assert newest.record is not None
    if newest.record.kind is Kind.MOVED:
        current = (await look_up(newest.register).read()).current.record
        return Found(newest.name, newest.register, current) if current is not None and counts(current, walk) else None
    return newest if counts(newest.record, walk) else None


def _rank(found: Found) -> tuple[int, bool]:
    assert found.record is not None
    return found.record.stamp, found.record.kind is not Kind.MOVED


async def _judge_group(
    sets: list[ErasureSet], walk: Walk, same: Same, look_up: Callable[[Register], LookUp]
) -> Found | None:
    first = min((found.register for found in same), key=names.name_of)
    placed = look_up(first)
    if len(placed.sets) == 1:
        return Found(same[0].name, first, None, same[0].group)
    current = (await placed.read()).current.record
    if current is not None and counts(current, walk):
        return Found(same[0].name, first, None, same[0].group)
    below = Walk(walk.space, same[0].group, start=names.name_of(first), page_size=RESOLVE_WIDTH, hidden=walk.hidden)
    async with aclosing(one_by_one(walk_placed(sets, below, look_up))) as others:
        found = await anext(others, None)
    return Found(same[0].name, found.register, None, same[0].group) if found is not None else None


async def _merged(sets: list[ErasureSet], walk: Walk) -> AsyncGenerator[Run]:
    """What all sets show, in order; what several show at one name is together in one run."""
    share = replace(walk, page_size=_share(walk.page_size, len(sets)))
    async with AsyncExitStack() as stack:
        streams = [
            await stack.enter_async_context(aclosing(SetWalk(erasure_set, share).runs())) for erasure_set in sets
        ]
        if len(streams) == 1:
            async for run in streams[0]:
                yield run
            return
        async with aclosing(_merge(streams)) as merged:
            async for run in merged:
                yield run


def _share(page_size: int, sets: int) -> int:
    """How many entries to ask one of the sets for, so that all together nearly always have a page."""
    even = -(-page_size // sets)
    return min(page_size, even + 4 * isqrt(even) + 4)


async def _merge(streams: Sequence[AsyncGenerator[Run]]) -> AsyncGenerator[Run]:
    waiting: dict[int, Run] = {}
    live = set(range(len(streams)))

    async def fill(index: int) -> None:
        run = await anext(streams[index], None)
        if run is None:
            live.discard(index)
        else:
            waiting[index] = run

    while True:
        await together(map(fill, [index for index in sorted(live) if index not in waiting]))
        if not waiting:
            return
        # Beyond the least of the last nothing is known yet of the stream that it is the last of.
        horizon = min([run[-1].name for run in waiting.values()])
        taken: Run = []
        for index, run in list(waiting.items()):
            count = bisect_right(run, horizon, key=_name)
            taken += run[:count]
            if count < len(run):
                waiting[index] = run[count:]
            else:
                del waiting[index]
        taken.sort(key=_name)
        yield taken
