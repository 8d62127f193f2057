"""Registers that some drive of the set missed, oldest first, kept over restarts.

A register may be noted *again* while its repair is under way, and the second miss must not be forgotten with the
first.  So a second note gives the register a new number, and `repaired` takes it out only under the number that
`repairs` handed out.  That guards the drive whose entry is being worked off; the other holders handed out nothing,
and are guarded by the version: `repaired` says up to which stamp the register is whole, and what is newer stays
(`register_verbs`).

All methods run on the committing thread.
"""

from __future__ import annotations

from holdfast_server.drives import keys
from holdfast_server.drives.engine import Engine
from holdfast_server.drives.group_commit import Transaction

MAX_HANDED_OUT = 100_000
"""Repairs whose number is remembered; beyond it the oldest are forgotten and, at worst, repaired twice."""


class RepairQueue:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        last = engine.last(keys.REPAIR)
        self._sequence = keys.to_number(last[1:9]) if last is not None else 0
        self._handed_out: dict[bytes, bytes] = {}
        self.length = _rows(engine, keys.REPAIR_OF)
        """Registers waiting; may be read from any thread."""

    def add(self, transaction: Transaction, row: bytes) -> None:
        known = transaction.get(keys.REPAIR_OF + row)
        if known is not None:
            if self._handed_out.get(row) != known:
                return
            transaction.delete(keys.REPAIR + known)
        else:
            transaction.afterwards.append(lambda: self._count(1))
        self._sequence += 1
        number = keys.number(self._sequence)
        transaction.put(keys.REPAIR + number, row)
        transaction.put(keys.REPAIR_OF + row, number)

    def remove(self, transaction: Transaction, row: bytes) -> None:
        known = transaction.get(keys.REPAIR_OF + row)
        handed_out = self._handed_out.pop(row, known)
        if known is None or known != handed_out:
            return
        transaction.delete(keys.REPAIR + known)
        transaction.delete(keys.REPAIR_OF + row)
        transaction.afterwards.append(lambda: self._count(-1))

    def _count(self, more: int) -> None:
        self.length += more

    def oldest(self, transaction: Transaction, limit: int) -> list[bytes]:
        """Row keys; those added or removed in the very same batch may be missing or still there."""
        rows = []
        for key, row in self._engine.items(keys.REPAIR, limit=limit):
            if key in transaction.changes and transaction.changes[key] is None:
                continue
            self._handed_out.pop(row, None)
            self._handed_out[row] = key[1:9]
            rows.append(row)
        while len(self._handed_out) > MAX_HANDED_OUT:
            self._handed_out.pop(next(iter(self._handed_out)))
        return rows


def _rows(engine: Engine, prefix: bytes) -> int:
    cursor = engine.cursor(end=keys.successor(prefix))
    cursor.seek(prefix)
    count = 0
    while cursor.key() is not None:
        count += 1
        cursor.next()
    return count
