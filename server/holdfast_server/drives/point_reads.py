"""Queries: from memory at once, the others many at a time and off the loop; durable answers only.

What the table has in memory is read where it is asked for: handing a question to a thread costs several times the look.
Such a look takes several rows one after the other, so it counts only if no batch was written meanwhile.

While a job is reading, queries pile up and the next job answers them together: one call into the table, one
wake-up of the loop.  A query whose rows belong to a batch that is written but not yet flushed is not answered
from here; it goes through the committing thread, behind the flush (see `group_commit`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from holdfast_server.drives import keys, register_rows, rows
from holdfast_server.drives.disk_threads import DiskThreads
from holdfast_server.drives.engine import Engine
from holdfast_server.drives.group_commit import MAX_WAITING_OPERATIONS, GroupCommit
from holdfast_server.drives.port import DriveError, QueryReply
from holdfast_server.drives.register_verbs import RegisterVerbs
from holdfast_server.drives.rows import RowCorrupt

MAX_QUERIES_PER_JOB = 256
MAX_JOBS = 2
"""So that one cold read does not hold up everything behind it."""


class _Query:
    __slots__ = ("future", "inline", "row")

    def __init__(self, row: bytes, inline: bool, future: asyncio.Future[QueryReply]) -> None:
        self.row = row
        self.inline = inline
        self.future = future


class PointReads:
    """Lives on one event loop; its jobs run on `threads`."""

    def __init__(
        self,
        engine: Engine,
        commits: GroupCommit,
        verbs: RegisterVerbs,
        threads: DiskThreads,
        on_fault: Callable[[Exception], DriveError],
    ) -> None:
        self._engine = engine
        self._commits = commits
        self._verbs = verbs
        self._threads = threads
        self._on_fault = on_fault
        self._waiting: list[_Query] = []
        self._jobs: set[asyncio.Task[None]] = set()

    def query(self, row: bytes, with_inline: bool) -> asyncio.Future[QueryReply]:
        """Never raises itself; the future raises DriveError."""
        query = _Query(row, with_inline, asyncio.get_running_loop().create_future())
        known = self._look(query)
        if known is not None:
            query.future.set_result(known)
            return query.future
        if len(self._waiting) >= MAX_WAITING_OPERATIONS:
            query.future.set_exception(DriveError(f"{MAX_WAITING_OPERATIONS} queries are waiting for this drive"))
            return query.future
        self._waiting.append(query)
        if len(self._jobs) < MAX_JOBS:
            job = asyncio.create_task(self._answer_waiting())
            self._jobs.add(job)
            job.add_done_callback(self._jobs.discard)
        return query.future

    async def _answer_waiting(self) -> None:
        while self._waiting:
            batch = self._waiting[:MAX_QUERIES_PER_JOB]
            del self._waiting[:MAX_QUERIES_PER_JOB]
            try:
                answers = await self._threads.run(partial(self._read, batch))
            except Exception as error:
                fault = self._on_fault(error)
                for query in batch:
                    if not query.future.done():
                        query.future.set_exception(fault)
                continue
            for query, answer in zip(batch, answers, strict=True):
                if query.future.done():
                    continue
                if answer is not None:
                    query.future.set_result(answer)
                else:
                    self._ask_behind_the_flush(query)

    def _ask_behind_the_flush(self, query: _Query) -> None:
        asked = self._commits.submit(
            register_rows.wanted(query.row),
            lambda transaction: self._verbs.query(transaction, query.row, query.inline),
        )
        asked.add_done_callback(partial(_hand_over, query.future))

    def _look(self, query: _Query) -> QueryReply | None:
        """The answer, if memory has it."""
        writes = self._commits.writes
        wanted = register_rows.wanted(query.row)
        values = self._engine.peek(wanted)
        state = self._state(query.row, values, self._verbs.healing) if values is not None else None
        if state is None:
            return None
        apart = _apart(query, state)
        found = self._engine.peek(apart)
        if found is None or not self._commits.settled(wanted):
            return None
        if writes % 2 or writes != self._commits.writes:
            return None
        return self._reply(query, state, dict(zip(apart, found, strict=True)))

    def _read(self, batch: list[_Query]) -> list[QueryReply | None]:
        """Answers, None where one must go behind the flush."""
        # Before the read, too: a register that is healed meanwhile, or a drive that becomes full, was a hole when it
        # was looked at, and that must not be told as the word of a full drive.
        healing, damaged = self._verbs.healing, frozenset(self._verbs.damaged.rows())
        wanted = [key for query in batch for key in register_rows.wanted(query.row)]
        values = self._engine.get(wanted)
        states = [
            self._state(query.row, found, healing) if query.row not in damaged else None
            for query, *found in zip(batch, values[::3], values[1::3], values[2::3], strict=True)
        ]
        apart = [
            key for query, state in zip(batch, states, strict=True) if state is not None for key in _apart(query, state)
        ]
        shards = dict(zip(apart, self._engine.get(apart), strict=True))
        # Only now: see `group_commit` for why looking after the read is enough.
        settled = [self._commits.settled(register_rows.wanted(query.row)) for query in batch]
        return [
            self._reply(query, state, shards) if is_settled and state is not None else None
            for query, state, is_settled in zip(batch, states, settled, strict=True)
        ]

    def _state(self, row: bytes, values: list[bytes | None], healing: bool) -> register_rows.State | None:
        """None where the rows are damaged: the committing thread sees to it."""
        if self._verbs.damaged.bound(row) is not None:
            return None
        try:
            return register_rows.state_from(row, values, self._verbs.watermarks, healing)
        except RowCorrupt:
            return None

    def _reply(self, query: _Query, state: register_rows.State, shards: dict[bytes, bytes | None]) -> QueryReply | None:
        found = {}
        if query.inline:
            for record in state.records:
                if record.inline_apart:
                    data = shards[keys.inline_key(query.row, record.stamp)]
                    if data is None:
                        # Dropped between the two reads: the register has changed, ask again.
                        return None
                    try:
                        found[record.stamp] = rows.decode_inline(data)
                    except RowCorrupt:
                        return None
        return register_rows.reply(state, found, query.inline)


def _apart(query: _Query, state: register_rows.State) -> list[bytes]:
    """Rows with what the records do not have themselves."""
    if not query.inline:
        return []
    return [keys.inline_key(query.row, record.stamp) for record in state.records if record.inline_apart]


def _hand_over(waiting: asyncio.Future[QueryReply], asked: asyncio.Future[QueryReply]) -> None:
    error = asked.exception()
    if waiting.done():
        return
    if error is not None:
        waiting.set_exception(error)
    else:
        waiting.set_result(asked.result())
