"""Commits travel together while others are under way: one call to a drive at a time, with all that came up meanwhile.

A small write is a commit on every drive of its set, and what it costs is messages: each has a frame, two envelopes, a
call, an operation of the committing thread and a wake-up at both ends.  A drive commits what waits for it in batches
anyway, with one flush each; so what would wait there waits here, and is one of everything.  Alone, a commit goes out
at once: nothing is delayed for the sake of company.

Invariants: each is sent at most once (rule 6), or not at all where nobody waits for it any more when its turn comes;
its answer is its own; who gives up takes nobody's commit with it.  A call ends by its deadline at the latest, so
nothing waits here longer than that.

Not here: what a commit means; repairs, which take their time and are sent one by one.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from holdfast_server.drives.port import CommitReply, CommitRequest, DriveFull

MAX_COMMITS_PER_CALL = 64
"""With shards of 32 KiB that is 2 MiB, far below what a frame may have."""
MAX_BYTES_PER_CALL = 4 << 20
"""A record that remembers ten thousand parts has more than one MiB: of such, a frame would not hold all that wait."""
DATA_ID_BYTES = 18

Waiter = asyncio.Future[CommitReply]


class CommitQueue:
    """The commits for one drive.  Belongs to one event loop."""

    def __init__(
        self,
        send: Callable[[CommitRequest], asyncio.Future[CommitReply]],
        send_many: Callable[[Sequence[CommitRequest]], asyncio.Future[list[CommitReply | None]]],
    ) -> None:
        """`send_many`: None stands for what the drive had no room for."""
        self._send = send
        self._send_many = send_many
        self._under_way: asyncio.Future[Any] | None = None
        self._waiting: deque[tuple[CommitRequest, Waiter]] = deque()

    def add(self, request: CommitRequest) -> asyncio.Future[CommitReply]:
        if self._under_way is None:
            return self._follow(self._send(request))
        waiter: Waiter = asyncio.get_running_loop().create_future()
        self._waiting.append((request, waiter))
        return waiter

    def _follow(self, call: asyncio.Future[Any]) -> asyncio.Future[Any]:
        self._under_way = call
        call.add_done_callback(self._ended)
        return call

    def _ended(self, call: asyncio.Future[Any]) -> None:
        self._under_way = None
        batch: list[tuple[CommitRequest, Waiter]] = []
        size = 0
        while self._waiting and len(batch) < MAX_COMMITS_PER_CALL and size < MAX_BYTES_PER_CALL:
            one = self._waiting.popleft()
            if not one[1].done():
                batch.append(one)
                size += _size_of(one[0])
        if batch:
            sent = self._follow(self._send_many([request for request, _ in batch]))
            sent.add_done_callback(lambda done: _answered(done, [waiter for _, waiter in batch]))


def _size_of(request: CommitRequest) -> int:
    """In bytes, but for what is small in each."""
    held = request.held
    return len(held.record) + (len(held.inline) if held.inline is not None else 0) + DATA_ID_BYTES * len(held.data_ids)


def _answered(call: asyncio.Future[list[CommitReply | None]], waiters: Sequence[Waiter]) -> None:
    error = None if call.cancelled() else call.exception()
    replies = call.result() if error is None and not call.cancelled() else [None] * len(waiters)
    for waiter, reply in zip(waiters, replies, strict=True):
        if waiter.done():
            continue
        if call.cancelled():
            waiter.cancel()
        elif error is not None:
            waiter.set_exception(error)
        elif reply is None:
            waiter.set_exception(DriveFull("the drive has no room"))
        else:
            waiter.set_result(reply)
