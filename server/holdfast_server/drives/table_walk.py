"""Walking the table for a listing, on what is durable.

A walk sees the table as of a moment when no batch was between write and flush, so it cannot show a record that
a power cut would take back.  Iterators of rocksdict hold the GIL through their disk reads: walks run one at a
time on a thread of their own, over small rows (large inline shards rest elsewhere), with read-ahead.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import msgspec

from holdfast_server.drives import keys, names, rows, scanning
from holdfast_server.drives.disk_threads import DiskThreads
from holdfast_server.drives.engine import Cursor, Engine
from holdfast_server.drives.group_commit import GroupCommit, Transaction
from holdfast_server.drives.port import (
    MAX_TOMBSTONES,
    ListPage,
    ListRequest,
    ScanPage,
    ScanRequest,
    Tombstone,
    TombstonePage,
    TombstoneRequest,
)
from holdfast_server.drives.register_cursors import all_registers, live_registers, settled_tombstones
from holdfast_server.drives.register_rows import SettledAges
from holdfast_server.drives.register_verbs import RegisterVerbs
from holdfast_server.drives.scanning import MAX_STEPS, Registers

T = TypeVar("T")


class TableWalk:
    def __init__(self, engine: Engine, commits: GroupCommit, verbs: RegisterVerbs, walker: DiskThreads) -> None:
        self._engine = engine
        self._commits = commits
        self._verbs = verbs
        self._walker = walker

    async def scan_page(self, request: ScanRequest, healing: bool) -> ScanPage:
        damaged = self._verbs.damaged.rows()
        page, rotten = await self._walk(request, lambda registers: scanning.scan_page(registers, request, healing))
        start = names.start_at(max(request.start, request.prefix))
        following = None if page.next_start is None else names.start_at(page.next_start, page.next_version)
        if not page.healing and self._passed_damage(request.space, start, following, (*damaged, *rotten)):
            # What is damaged, or was when the walk began, was left out, and nobody may take that for an absence.
            page = msgspec.structs.replace(page, healing=True)
        return page

    async def list_page(self, request: ListRequest, healing: bool) -> ListPage:
        damaged = self._verbs.damaged.rows()
        page, rotten = await self._walk(request, lambda registers: scanning.list_page(registers, request, healing))
        start = max(request.start, names.escape(request.prefix))
        if not page.healing and self._passed_damage(request.space, start, page.following, (*damaged, *rotten)):
            page = msgspec.structs.replace(page, healing=True)  # as above
        return page

    async def _walk(self, request: ScanRequest | ListRequest, work: Callable[[Registers], T]) -> tuple[T, list[bytes]]:
        """`work` over the registers asked for, on a thread; and the rows that fail their checksums there, which are
        seen to."""

        def registers() -> tuple[Registers, list[bytes]]:
            return _registers(self._engine, request)

        def at_once() -> tuple[T, list[bytes]] | None:
            found = self._commits.if_settled(registers)
            return None if found is None else (work(found[0]), found[1])

        # One hand-over to the thread, where nothing is between write and flush; making a cursor may open files, too.
        done = await self._walker.run(at_once)
        if done is None:
            walked, rotten = await self._at_a_settled_moment(registers)
            done = await self._walker.run(lambda: work(walked)), rotten
        result, rotten = done
        for row in rotten:
            await self._commits.submit((), partial(_examine, self._verbs, row))
        return result, rotten

    def _passed_damage(self, space: bytes, start: bytes, following: bytes | None, besides: tuple[bytes, ...]) -> bool:
        place = keys.space_start(space)
        behind = keys.successor(place) if following is None else place + following
        return self._verbs.damaged.within(place + start, behind, besides)

    async def spaces(self, after: bytes, limit: int) -> list[bytes]:
        """The spaces above `after`, by seeking from one to the next."""

        def cursors() -> list[tuple[bytes, Cursor]]:
            return [(place, self._engine.cursor(keys.successor(place))) for place in (keys.REGISTER, keys.SETTLED)]

        found = await self._at_a_settled_moment(cursors)
        return await self._walker.run(lambda: _spaces(found, after, limit))

    async def tombstones(self, request: TombstoneRequest) -> TombstonePage:
        """Settled tombstones that are old enough."""
        end = keys.settled_key(keys.row_key(request.last))
        cursor = await self._at_a_settled_moment(lambda: self._engine.cursor(end))
        return await self._walker.run(lambda: _tombstones(cursor, request, self._verbs.ages))

    async def _at_a_settled_moment(self, make: Callable[[], T]) -> T:
        """Run `make`, which takes cursors, while everything in the table is durable."""
        # On the thread: making a cursor may open files.
        made = await self._walker.run(lambda: self._commits.if_settled(make))
        if made is None:
            made = await self._commits.submit((), _nothing, lambda _: make())
        assert made is not None
        return made


def _nothing(transaction: Transaction) -> Any:
    return None


def _registers(engine: Engine, request: ScanRequest | ListRequest) -> tuple[Registers, list[bytes]]:
    """What is asked for, and the list where the walk names the rows that fail their checksums."""
    rotten: list[bytes] = []

    def cursor(place: bytes) -> Cursor:
        return engine.cursor(keys.successor(place + keys.space_start(request.space)))

    live = live_registers(cursor(keys.REGISTER), request.space, rotten)
    if not request.tombstones:
        return live, rotten
    return all_registers(live, settled_tombstones(cursor(keys.SETTLED), request.space, rotten)), rotten


def _tombstones(cursor: Cursor, request: TombstoneRequest, ages: SettledAges) -> TombstonePage:
    found: list[Tombstone] = []
    limit = max(1, min(request.limit, MAX_TOMBSTONES))
    cursor.seek(keys.settled_key(keys.row_key(request.first)))
    steps = 0
    while (key := cursor.key()) is not None:
        if steps >= MAX_STEPS or len(found) >= limit:
            return TombstonePage(tuple(found), keys.decode_row_key(key[1:]))
        steps += 1
        try:
            settled = rows.decode_settled(cursor.value())
        except rows.RowCorrupt:
            cursor.next()
            continue  # reads find it, and have it repaired
        if ages.seconds(settled) >= request.settled_seconds:
            found.append(Tombstone(keys.decode_row_key(key[1:]), settled.record.stamp))
        cursor.next()
    return TombstonePage(tuple(found), None)


def _examine(verbs: RegisterVerbs, row: bytes, transaction: Transaction) -> None:
    verbs.examine(transaction, row)


def _spaces(cursors: list[tuple[bytes, Cursor]], after: bytes, limit: int) -> list[bytes]:
    found: list[bytes] = []
    while len(found) < limit:
        last = found[-1] if found else after
        beyond = keys.successor(keys.space_start(last)) if last else b""
        if beyond is None:
            break
        following = [space for place, cursor in cursors if (space := _space_from(cursor, place + beyond)) is not None]
        if not following:
            break
        found.append(min(following, key=keys.space_start))
    return found


def _space_from(cursor: Cursor, start: bytes) -> bytes | None:
    cursor.seek(start)
    key = cursor.key()
    return key[2 : 2 + key[1]] if key is not None else None
