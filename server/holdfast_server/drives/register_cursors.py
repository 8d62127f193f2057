"""The registers of one space in order, read from the table: `scanning.Registers` for the local drive.

Registers rest in two places (see `register_rows`): those of which only a marked tombstone is left, and all others.
A listing walks the second alone and so never meets the first, however many there are; healing walks both, merged.

A row that fails its checksum is left out of the walk and named in `rotten`.
"""

from __future__ import annotations

from collections.abc import Iterator
from heapq import merge
from operator import itemgetter

from holdfast_server.drives import keys, rows
from holdfast_server.drives.engine import Cursor
from holdfast_server.drives.scanning import Registers, Shown

_RECORDS = keys.RECORDS[0]


def live_registers(table: Cursor, space: bytes, rotten: list[bytes]) -> Registers:
    """All but the settled tombstones: joins the two neighbouring rows of each register."""
    place = keys.REGISTER + keys.space_start(space)

    def walk(start: bytes) -> Iterator[Shown]:
        # Once per row of every listing: names that are at hand.
        key_at, value, advance, behind = table.unchecked_key, table.value, table.next, len(place)
        from_bytes = int.from_bytes
        table.seek(place + start)
        key = key_at()
        while key is not None:
            try:
                records = rows.decode(value()).records if key[-1] == _RECORDS else None
            except rows.RowCorrupt:
                rotten.append(key[1:-1])
                records = None
            advance()
            following = key_at()
            if records is not None:  # else it is a mark that was left alone
                if following is not None and following[-1] != _RECORDS and following[:-1] == key[:-1]:
                    yield key[behind:-1], records, from_bytes(value(), "big")
                    # Not before: whoever has met a group goes on elsewhere.
                    advance()
                    following = key_at()
                else:
                    yield key[behind:-1], records, 0
            key = following
        table.check()

    return walk


def settled_tombstones(table: Cursor, space: bytes, rotten: list[bytes]) -> Registers:
    """The settled tombstones alone, one row each."""
    place = keys.SETTLED + keys.space_start(space)

    def walk(start: bytes) -> Iterator[Shown]:
        table.seek(place + start)
        while (key := table.key()) is not None:
            try:
                record = rows.decode_settled(table.value()).record
            except rows.RowCorrupt:
                rotten.append(key[1:])
            else:
                yield key[len(place) :], (record,), record.stamp
            table.next()

    return walk


def all_registers(live: Registers, settled: Registers) -> Registers:
    """Both, in one order.  No register is in both places."""
    return lambda start: merge(live(start), settled(start), key=itemgetter(0))
