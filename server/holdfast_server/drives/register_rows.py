"""Registers in the table: load one's state, write it back, with the rows that hang on it.  Committing thread only.

A register is up to four kinds of row (see `keys`): its records, its mark, large inline shards, and a
reference row per shard file that a record names.  `save` writes the difference between two states of one
register, so that no verb has to remember which rows go together: references and shards come and go in the
very batch that adds or drops the record.
"""

from __future__ import annotations

from holdfast_server.drives import keys, rows
from holdfast_server.drives.engine import Engine
from holdfast_server.drives.group_commit import Transaction
from holdfast_server.drives.port import WATERMARK_RANGES, Held, QueryReply
from holdfast_server.drives.rows import RegisterRow, StoredRecord
from holdfast_server.drives.rules import RegisterState
from holdfast_server.drives.trash import Trash

State = RegisterState[StoredRecord]


def wanted(row: bytes) -> tuple[bytes, bytes]:
    """The table keys that `load` reads."""
    return keys.records_key(row), keys.mark_key(row)


class Watermarks:
    """The drive's watermarks, kept in memory; read from any thread, raised by the committing thread."""

    def __init__(self, engine: Engine) -> None:
        values = engine.get([keys.watermark_key(index) for index in range(WATERMARK_RANGES)])
        self._values = [keys.to_number(value) if value else 0 for value in values]

    def of(self, row: bytes) -> int:
        return self._values[keys.watermark_range(row)]

    def raise_to(self, transaction: Transaction, row: bytes, stamp: int) -> None:
        index = keys.watermark_range(row)
        if stamp > self._values[index]:
            self._values[index] = stamp
            transaction.put(keys.watermark_key(index), keys.number(stamp))

    @property
    def greatest(self) -> int:
        return max(self._values)


def state_from(row: bytes, records: bytes | None, mark: bytes | None, watermarks: Watermarks, healing: bool) -> State:
    stored = rows.decode(records)
    return RegisterState(
        list(stored.records), stored.fence, keys.to_number(mark) if mark else 0, watermarks.of(row), healing
    )


def reply(state: State, shards: dict[int, bytes], with_inline: bool) -> QueryReply:
    """`shards`: by stamp, the inline shards that rest in rows of their own."""
    held = tuple(
        record.held((shards.get(record.stamp) if record.inline_apart else record.inline) if with_inline else None)
        for record in state.records
    )
    return QueryReply(held, state.mark, state.highest, state.watermark, state.healing)


class RegisterRows:
    def __init__(self, watermarks: Watermarks, trash: Trash) -> None:
        self.watermarks = watermarks
        self._trash = trash

    def load(self, transaction: Transaction, row: bytes, healing: bool) -> State:
        records, mark = (transaction.get(key) for key in wanted(row))
        return state_from(row, records, mark, self.watermarks, healing)

    def inline_shards(self, transaction: Transaction, row: bytes, state: State) -> dict[int, bytes]:
        found = {}
        for record in state.records:
            if record.inline_apart and (data := transaction.get(keys.inline_key(row, record.stamp))) is not None:
                found[record.stamp] = rows.decode_inline(data)
        return found

    def save(self, transaction: Transaction, row: bytes, state: State, gone: list[StoredRecord]) -> None:
        """Write the state's records and fence; `gone` are the records it had before and has no more."""
        if state.forgotten:
            transaction.delete(keys.records_key(row))
            transaction.delete(keys.mark_key(row))
        else:
            stored = RegisterRow(state.fence, tuple(state.records))
            transaction.put(keys.records_key(row), rows.encode(stored))
        kept = {data_id for record in state.records for data_id in record.data_ids}
        for record in gone:
            if record.inline_apart:
                transaction.delete(keys.inline_key(row, record.stamp))
            for data_id in record.data_ids:
                if data_id not in kept:
                    transaction.delete(keys.reference_key(data_id, row))
                    self._trash.add(transaction, data_id)

    def save_mark(self, transaction: Transaction, row: bytes, mark: int) -> None:
        transaction.put(keys.mark_key(row), keys.number(mark))

    def add(self, transaction: Transaction, row: bytes, held: Held) -> StoredRecord:
        """The rows beside the record's own: its inline shard, its references."""
        stored = rows.stored(held)
        if stored.inline_apart:
            assert held.inline is not None
            transaction.put(keys.inline_key(row, held.stamp), rows.encode_inline(held.inline))
        for data_id in held.data_ids:
            transaction.put(keys.reference_key(data_id, row), b"")
        return stored
