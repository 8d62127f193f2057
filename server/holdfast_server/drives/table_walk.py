"""Walking the table for a listing, on what is durable.

A walk sees the table as of a moment when no batch was between write and flush, so it cannot show a record that
a power cut would take back.  Iterators of rocksdict hold the GIL through their disk reads: walks run one at a
time on a thread of their own, over small rows (large inline shards rest elsewhere), with read-ahead.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import Executor

from holdfast_server.drives import keys, rows
from holdfast_server.drives.engine import Cursor, Engine
from holdfast_server.drives.group_commit import GroupCommit, Transaction
from holdfast_server.drives.port import Held, Register, ScanPage, ScanRequest
from holdfast_server.drives.scanning import scan_page


class TableWalk:
    def __init__(self, engine: Engine, commits: GroupCommit, executor: Executor) -> None:
        self._engine = engine
        self._commits = commits
        self._executor = executor

    async def page(self, request: ScanRequest, healing: bool) -> ScanPage:
        cursor = await self._cursor(keys.successor(keys.REGISTER + keys.space_start(request.space)))
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, _walk, cursor, request, healing)

    async def spaces(self, after: bytes, limit: int) -> list[bytes]:
        """The spaces above `after`, by seeking from one to the next."""
        cursor = await self._cursor(keys.successor(keys.REGISTER))
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, _spaces, cursor, after, limit)

    async def _cursor(self, end: bytes | None) -> Cursor:
        # On the thread: making a cursor may open files.
        loop = asyncio.get_running_loop()
        cursor = await loop.run_in_executor(self._executor, self._cursor_if_settled, end)
        if cursor is None:
            cursor = await self._commits.submit((), _nothing, lambda _: self._engine.cursor(end))
        assert cursor is not None
        return cursor

    def _cursor_if_settled(self, end: bytes | None) -> Cursor | None:
        return self._commits.if_settled(lambda: self._engine.cursor(end))


def _nothing(transaction: Transaction) -> Cursor | None:
    return None


def _walk(cursor: Cursor, request: ScanRequest, healing: bool) -> ScanPage:
    return scan_page(_Registers(cursor, request.space), request, healing)


def _spaces(cursor: Cursor, after: bytes, limit: int) -> list[bytes]:
    found: list[bytes] = []
    while len(found) < limit:
        last = found[-1] if found else after
        beyond = keys.successor(keys.REGISTER + keys.space_start(last)) if last else keys.REGISTER
        if beyond is None:
            break
        cursor.seek(beyond)
        key = cursor.key()
        if key is None:
            break
        found.append(key[2 : 2 + key[1]])
    return found


class _Registers:
    """`scanning.RegisterCursor` over the table: joins the two neighbouring rows of each register."""

    def __init__(self, rows: Cursor, space: bytes) -> None:
        self._space = space
        self._rows = rows
        self._current: tuple[Register, tuple[Held, ...], int] | None = None

    def seek(self, key: bytes, version: bytes) -> None:
        self._rows.seek(keys.REGISTER + keys.seek_key(self._space, key, version))
        self._take()

    def current(self) -> tuple[Register, tuple[Held, ...], int] | None:
        return self._current

    def next(self) -> None:
        self._take()

    def _take(self) -> None:
        """Read the register under the cursor and leave the cursor behind it."""
        self._current = None
        while (key := self._rows.key()) is not None and key[-1:] != keys.RECORDS:
            self._rows.next()
        if key is None:
            return
        row = key[1:-1]
        records = tuple(record.held() for record in rows.decode(self._rows.value()).records)
        self._rows.next()
        mark = 0
        if self._rows.key() == keys.mark_key(row):
            mark = keys.to_number(self._rows.value())
            self._rows.next()
        self._current = keys.decode_row_key(row), records, mark
