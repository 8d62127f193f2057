"""The registers of one space in order, read from the table: `scanning.Registers` for the local drive.

Registers rest in two places (see `register_rows`): those of which only a marked tombstone is left, and all others.
A listing walks the second alone and so never meets the first, however many there are; healing walks both, merged.

A row that fails its checksum is left out of the walk and named in `rotten`.
"""

from __future__ import annotations

from heapq import merge
from operator import itemgetter

from holdfast_server.drives import keys, rows
from holdfast_server.drives.engine import Cursor
from holdfast_server.drives.scanning import Registers, Walk

_RECORDS = keys.RECORDS[0]


def live_registers(table: Cursor, space: bytes, rotten: list[bytes]) -> Registers:
    """All but the settled tombstones: joins the two neighbouring rows of each register."""
    place = keys.REGISTER + keys.space_start(space)

    def walk(start: bytes) -> Walk:
        # Once per row of every listing: names that are at hand.
        key_at, value, advance, seek, behind = table.unchecked_key, table.value, table.next, table.seek, len(place)
        from_bytes = int.from_bytes
        seek(place + start)
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
                row = key[:-1]
                if following is not None and following[-1] != _RECORDS and following[:-1] == row:
                    elsewhere = yield row[behind:], records, from_bytes(value(), "big")
                    if elsewhere is None:
                        advance()
                        following = key_at()
                else:
                    elsewhere = yield row[behind:], records, 0
                if elsewhere is not None:
                    seek(place + elsewhere)
                    following = key_at()
            key = following
        table.check()

    return walk


def settled_tombstones(table: Cursor, space: bytes, rotten: list[bytes]) -> Registers:
    """The settled tombstones alone, one row each."""
    place = keys.SETTLED + keys.space_start(space)

    def walk(start: bytes) -> Walk:
        table.seek(place + start)
        while (key := table.key()) is not None:
            elsewhere = None
            try:
                record = rows.decode_settled(table.value()).record
            except rows.RowCorrupt:
                rotten.append(key[1:])
            else:
                elsewhere = yield key[len(place) :], (record,), record.stamp
            if elsewhere is None:
                table.next()
            else:
                table.seek(place + elsewhere)

    return walk


def all_registers(live: Registers, settled: Registers) -> Registers:
    """Both, in one order.  No register is in both places."""

    def walk(start: bytes) -> Walk:
        elsewhere: bytes | None = start
        while elsewhere is not None:
            merged, elsewhere = merge(live(elsewhere), settled(elsewhere), key=itemgetter(0)), None
            for shown in merged:
                elsewhere = yield shown
                if elsewhere is not None:
                    break

    return walk
