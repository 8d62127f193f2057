"""Registers in the table: load one's state, write it back, with the rows that hang on it.  Committing thread only.

A register is up to four kinds of row (see `keys`): its records, its mark, large inline shards, and a
reference row per shard file that a record names.  `save` writes the difference between two states of one
register, so that no verb has to remember which rows go together: references and shards come and go in the
very batch that adds or drops the record.

A register of which only a marked tombstone is left is one row instead, in a place of its own: a listing walks
past the deleted without meeting them, and what may be dropped (rule 10) is found without looking for it.  That
row also says since when, by the monotonic clock of the process that wrote it; to another process that time means
nothing, so after a restart all wait as if they had been settled at its start.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from holdfast_server.clock.port import Clock
from holdfast_server.drives import keys, rows
from holdfast_server.drives.engine import Engine
from holdfast_server.drives.group_commit import Transaction
from holdfast_server.drives.port import WATERMARK_RANGES, Held, QueryReply
from holdfast_server.drives.rows import RegisterRow, SettledRow, StoredRecord
from holdfast_server.drives.rules import RegisterState
from holdfast_server.drives.trash import Trash

State = RegisterState[StoredRecord]


PROCESS_ID_SIZE_BYTES = 8
UPLOAD_LETTER = b"u"
PART_LETTER = b"p"
"""First letters of a space (`objects.record`)."""


def references(engine: Engine, data_id: bytes) -> list[bytes]:
    """The row keys of the registers that are said to name a shard file."""
    prefix = keys.REFERENCE + data_id
    return [key[len(prefix) :] for key, _ in engine.items(prefix)]


def wanted(row: bytes) -> tuple[bytes, bytes, bytes]:
    """The table keys that `load` reads."""
    register = keys.REGISTER + row
    return register + keys.RECORDS, register + keys.MARK, keys.SETTLED + row


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


def state_from(row: bytes, values: Sequence[bytes | None], watermarks: Watermarks, healing: bool) -> State:
    """`values`: of the keys `wanted`, read at one moment."""
    records, mark, settled = values
    if settled is not None:
        alone = rows.decode_settled(settled)
        return RegisterState([alone.record], alone.fence, alone.record.stamp, watermarks.of(row), healing)
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


class SettledAges:
    """How long ago a tombstone was settled, as far as this process can know.  Any thread."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._process = clock.random_bytes(PROCESS_ID_SIZE_BYTES)
        self._opened_ms = self._now_ms()

    def _now_ms(self) -> int:
        return int(self._clock.monotonic_seconds() * 1000)

    def row(self, record: StoredRecord, fence: int) -> SettledRow:
        """Settled now."""
        return SettledRow(record, fence, self._process, self._now_ms())

    def seconds(self, row: SettledRow) -> float:
        since_ms = row.since_ms if row.process == self._process else self._opened_ms
        return (self._now_ms() - since_ms) / 1000


class RegisterRows:
    def __init__(self, watermarks: Watermarks, trash: Trash, ages: SettledAges) -> None:
        self.watermarks = watermarks
        self._trash = trash
        self._ages = ages

    def load(self, transaction: Transaction, row: bytes, healing: bool) -> State:
        return state_from(row, [transaction.get(key) for key in wanted(row)], self.watermarks, healing)

    def rests_settled(self, transaction: Transaction, row: bytes) -> bool:
        """Whether it is in the place of settled tombstones."""
        return transaction.get(keys.settled_key(row)) is not None

    def settled_seconds(self, transaction: Transaction, row: bytes) -> float:
        """Since when there is only a marked tombstone; 0 if that is not so."""
        settled = transaction.get(keys.settled_key(row))
        return self._ages.seconds(rows.decode_settled(settled)) if settled is not None else 0.0

    def inline_shards(self, transaction: Transaction, row: bytes, state: State) -> dict[int, bytes]:
        found = {}
        for record in state.records:
            if record.inline_apart and (data := transaction.get(keys.inline_key(row, record.stamp))) is not None:
                found[record.stamp] = rows.decode_inline(data)
        return found

    def save(self, transaction: Transaction, row: bytes, state: State, gone: list[StoredRecord]) -> None:
        """Write the state's records and fence; `gone` are the records it had before and has no more."""
        former = transaction.get(keys.settled_key(row))
        if state.settled:
            self._save_settled(transaction, row, state, former)
        elif former is not None:
            transaction.delete(keys.settled_key(row))
            if not state.forgotten:
                self._save_records(transaction, row, state)
                if state.mark:
                    self.save_mark(transaction, row, state.mark)
        elif state.forgotten:
            transaction.delete(keys.records_key(row))
            transaction.delete(keys.mark_key(row))
        else:
            self._save_records(transaction, row, state)
        self._let_go(transaction, row, state, gone)

    def _save_records(self, transaction: Transaction, row: bytes, state: State) -> None:
        transaction.put(keys.records_key(row), rows.encode(RegisterRow(state.fence, tuple(state.records))))

    def _save_settled(self, transaction: Transaction, row: bytes, state: State, former: bytes | None) -> None:
        settled = self._ages.row(state.records[0], state.fence)
        if former is None:
            transaction.delete(keys.records_key(row))
            transaction.delete(keys.mark_key(row))
        elif (before := rows.decode_settled(former)).record.stamp == settled.record.stamp:
            settled = SettledRow(settled.record, settled.fence, before.process, before.since_ms)
        transaction.put(keys.settled_key(row), rows.encode_settled(settled))

    def _let_go(self, transaction: Transaction, row: bytes, state: State, gone: list[StoredRecord]) -> None:
        kept = {data_id for record in state.records for data_id in record.data_ids}
        for record in gone:
            if record.inline_apart:
                transaction.delete(keys.inline_key(row, record.stamp))
            unnamed = [data_id for data_id in record.data_ids if data_id not in kept]
            for data_id in unnamed:
                transaction.delete(keys.reference_key(data_id, row))
            self._trash.add_all(transaction, self._without_shared(transaction, row, unnamed))

    def _without_shared(self, transaction: Transaction, row: bytes, data_ids: list[bytes]) -> list[bytes]:
        """Those that no other register names to readers: of the others the delay has not begun.

        Who shares with one record shares its first file (an object with its parts, a version that rests with what was
        current).  Parts are no such register: they go with their upload, and an object's files are to be kept together
        (`Trash`).
        """
        if not data_ids:
            return data_ids
        others = [
            other
            for other in references(transaction.engine, data_ids[0])
            if other != row
            and other[1:2] != PART_LETTER
            and transaction.get(keys.reference_key(data_ids[0], other)) is not None
        ]
        if not others or len(data_ids) == 1:
            return [] if others else data_ids
        shared: set[bytes] = set()
        for other in others:
            with contextlib.suppress(rows.RowCorrupt):  # it keeps its references
                state = self.load(transaction, other, healing=False)
                shared.update(data_id for record in state.records for data_id in record.data_ids)
        return [data_id for data_id in data_ids if data_id not in shared]

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
