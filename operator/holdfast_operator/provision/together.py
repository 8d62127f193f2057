"""Calls to the store, a few at a time: each waits for disks, and a Tenant may declare hundreds of buckets and users."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

AT_A_TIME = 8

T = TypeVar("T")


async def together(calls: Sequence[Callable[[], Awaitable[T]]]) -> list[T]:
    """What they return, in their order; begun in that order.  The first failure is raised as itself and ends the
    others."""
    found: dict[int, T] = {}
    waiting = iter(enumerate(calls))

    async def work() -> None:
        for index, call in waiting:
            found[index] = await call()

    try:
        async with asyncio.TaskGroup() as group:
            workers = [group.create_task(work()) for _ in calls[:AT_A_TIME]]
            for worker in workers:
                # Within the group, as in `lease`: after a failure no cancellation of this task may stay counted.
                await worker
    except* Exception as failures:
        raise failures.exceptions[0] from None
    return [found[index] for index in range(len(calls))]
