"""Reads that begin anew when the version they found is gone before its first byte was shown (rule 13).

Between the look-up of a version and the first of its bytes it may be overwritten and its shards unlinked: a drive
keeps them for a while, but not for a reader that waits longer than that.  Nothing has been answered by then, so the
whole request is decided again, conditions, ranges and headers too, by the version that is current now.

Not here: a version that goes while it is being sent; the drives put off its reclaim with every block they give.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from holdfast_server.objects.port import Vanished

READ_ATTEMPTS = 4
"""A key that is overwritten faster than it can be read is answered SlowDown in the end."""

T = TypeVar("T")


async def starting_again(attempt: Callable[[], Awaitable[T]]) -> T:
    """The first attempt that does not end in Vanished.  Raises Vanished (503) when all do."""
    for _ in range(READ_ATTEMPTS - 1):
        try:
            return await attempt()
        except Vanished:
            continue
    return await attempt()
