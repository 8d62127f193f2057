"""Registers whose rows failed their checksum on this drive.

What such a row held is unknown: it is never served, and it must not count as an absence either, or a drive that
lost a record would vote that the record never was.  So the register is noted as damaged, durably, and from then on
answered for as a healing drive answers: its silence, promise and fence do not count (rule 3).  The only write
accepted on it is a heal, which brings a version that the other drives have judged committed; that ends it.  What
may have been held or fenced is at most the greatest stamp the drive had seen by then, and counts as fenced.  Where the
others have nothing, it ends when they have made sure that nothing up to there is committed (`Drive.remove`).

It ends when the heal is durable and not before: until then a reader finds neither the new row nor the old one.  And who
reads looks here twice, before and after: a register that was damaged at either moment may have been so when its row
was read.

Changed by the committing thread, looked at from any.
"""

from __future__ import annotations

from collections.abc import Iterable

from holdfast_server.drives import keys, register_rows
from holdfast_server.drives.engine import Engine
from holdfast_server.drives.group_commit import Transaction


class DamagedRegisters:
    def __init__(self, engine: Engine) -> None:
        self._bounds = {key[1:]: keys.to_number(value) for key, value in engine.items(keys.DAMAGED)}

    def __len__(self) -> int:
        return len(self._bounds)

    def bound(self, row: bytes) -> int | None:
        """The greatest stamp that the damaged register may have held or fenced; None if it is not damaged."""
        return self._bounds.get(row) if self._bounds else None

    def rows(self) -> tuple[bytes, ...]:
        """Of all that are damaged now."""
        return tuple(self._bounds) if self._bounds else ()

    def within(self, lower: bytes, upper: bytes | None, besides: Iterable[bytes] = ()) -> bool:
        """Whether a register from `lower` up to, not including, `upper` is damaged, or is one of those `besides`."""
        return any(lower <= row and (upper is None or row < upper) for row in (*self.rows(), *besides))

    def add(self, transaction: Transaction, row: bytes, bound: int) -> None:
        self._bounds[row] = bound
        transaction.put(keys.DAMAGED + row, keys.number(bound))
        # With the inline shards, which nothing would lead to any more.
        for key in (*register_rows.wanted(row), *(key for key, _ in transaction.engine.items(keys.INLINE + row))):
            transaction.delete(key)

    def clear(self, transaction: Transaction, row: bytes) -> None:
        if row in self._bounds:
            transaction.delete(keys.DAMAGED + row)
            transaction.afterwards.append(lambda: self._end(row))

    def _end(self, row: bytes) -> None:
        self._bounds.pop(row, None)
