"""The registers of one space in order, read from the table: `scanning.RegisterCursor` for the local drive.

Registers rest in two places (see `register_rows`): those of which only a marked tombstone is left, and all others.
A listing walks the second alone and so never meets the first, however many there are; healing walks both, merged.

A row that fails its checksum is left out of the walk and named in `rotten`.
"""

from __future__ import annotations

from holdfast_server.drives import keys, rows
from holdfast_server.drives.engine import Cursor
from holdfast_server.drives.port import Held, Register

Found = tuple[Register, tuple[Held, ...], int]
"""A register, its records, its mark."""


class LiveRegisters:
    """All but the settled tombstones: joins the two neighbouring rows of each register."""

    def __init__(self, table: Cursor, space: bytes, rotten: list[bytes]) -> None:
        self._space = space
        self._table = table
        self._rotten = rotten
        self._found: tuple[tuple[Held, ...], int] = ((), 0)
        self.row: bytes | None = None
        """Row key of the current register; None at the end."""

    def seek(self, key: bytes, version: bytes) -> None:
        self._table.seek(keys.REGISTER + keys.seek_key(self._space, key, version))
        self.next()

    def current(self) -> Found | None:
        return None if self.row is None else (keys.decode_row_key(self.row), *self._found)

    def next(self) -> None:
        """Read the register under the cursor and leave the cursor behind it."""
        self.row = None
        table = self._table
        while (key := table.key()) is not None:
            if key[-1:] == keys.RECORDS:
                try:
                    stored = rows.decode(table.value()).records
                    break
                except rows.RowCorrupt:
                    self._rotten.append(key[1:-1])
            table.next()
        if key is None:
            return
        self.row = key[1:-1]
        mark = 0
        table.next()
        if table.key() == keys.mark_key(self.row):
            mark = keys.to_number(table.value())
            table.next()
        self._found = tuple([record.held() for record in stored]), mark


class SettledTombstones:
    """The settled tombstones alone, one row each."""

    def __init__(self, table: Cursor, space: bytes, rotten: list[bytes]) -> None:
        self._space = space
        self._table = table
        self._rotten = rotten
        self._found: rows.SettledRow | None = None
        self.row: bytes | None = None
        """As `LiveRegisters.row`."""

    def seek(self, key: bytes, version: bytes) -> None:
        self._table.seek(keys.SETTLED + keys.seek_key(self._space, key, version))
        self._take()

    def current(self) -> Found | None:
        if self.row is None or self._found is None:
            return None
        held = self._found.record.held()
        return keys.decode_row_key(self.row), (held,), held.stamp

    def next(self) -> None:
        self._table.next()
        self._take()

    def _take(self) -> None:
        self.row = None
        while (key := self._table.key()) is not None:
            try:
                self._found = rows.decode_settled(self._table.value())
                self.row = key[1:]
                return
            except rows.RowCorrupt:
                self._rotten.append(key[1:])
                self._table.next()


class AllRegisters:
    """Both, in one order.  No register is in both places."""

    def __init__(self, live: LiveRegisters, settled: SettledTombstones) -> None:
        self._live = live
        self._settled = settled
        self._first: LiveRegisters | SettledTombstones = live

    def seek(self, key: bytes, version: bytes) -> None:
        self._live.seek(key, version)
        self._settled.seek(key, version)
        self._choose()

    def current(self) -> Found | None:
        return self._first.current()

    def next(self) -> None:
        self._first.next()
        self._choose()

    def _choose(self) -> None:
        live, settled = self._live.row, self._settled.row
        self._first = self._settled if settled is not None and (live is None or settled < live) else self._live
