"""The verbs on registers, as operations of the committing thread.

Each method makes one operation's work: it loads the register's state, lets `rules` decide, saves the
difference, and says whether its answer must be durable.  Nothing here waits, and nothing here answers.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from holdfast_server.clock.port import Clock
from holdfast_server.drives import keys, register_rows, rules
from holdfast_server.drives.damaged_registers import DamagedRegisters
from holdfast_server.drives.engine import Engine
from holdfast_server.drives.group_commit import Transaction
from holdfast_server.drives.leases import Leases
from holdfast_server.drives.port import (
    CommitMode,
    CommitReply,
    CommitRequest,
    CommitStatus,
    DriveFull,
    FenceReply,
    PrepareReply,
    PrepareStatus,
    QueryReply,
    Register,
    TombstoneReply,
    TombstoneState,
)
from holdfast_server.drives.register_rows import (
    PART_LETTER,
    UPLOAD_LETTER,
    RegisterRows,
    SettledAges,
    State,
    Watermarks,
    reply,
)
from holdfast_server.drives.repair_queue import RepairQueue
from holdfast_server.drives.rows import RowCorrupt
from holdfast_server.drives.shard_files import ShardFiles
from holdfast_server.drives.space import Space
from holdfast_server.drives.trash import Trash

SWEEP_BATCH = 256

log = logging.getLogger(__name__)
_GREATEST_STAMP = keys.META + b"greatest-stamp"


class RegisterVerbs:
    def __init__(
        self, engine: Engine, clock: Clock, trash: Trash, shards: ShardFiles, space: Space, healing: bool
    ) -> None:
        self.healing = healing
        self.repairs = RepairQueue(engine)
        self.watermarks = Watermarks(engine)
        self.ages = SettledAges(clock)
        self._rows = RegisterRows(self.watermarks, trash, self.ages)
        self._leases: Leases[bytes] = Leases(clock)
        self.damaged = DamagedRegisters(engine)
        self._trash = trash
        self._shards = shards
        self._space = space
        self._engine = engine
        stored = engine.get([_GREATEST_STAMP])[0]
        self.greatest_stamp = max(keys.to_number(stored) if stored else 0, self.watermarks.greatest)
        """The greatest stamp this drive has accepted, fenced or dropped; read from any thread."""

    def query(self, transaction: Transaction, row: bytes, with_inline: bool) -> QueryReply:
        state = self._load(transaction, row)
        try:
            shards = self._rows.inline_shards(transaction, row, state) if with_inline else {}
        except RowCorrupt as error:
            self._found_damaged(transaction, row, error)
            return reply(self._load(transaction, row), {}, with_inline)
        return reply(state, shards, with_inline)

    def examine(self, transaction: Transaction, row: bytes) -> None:
        """A walk met a row that fails its checksum."""
        self._load(transaction, row)

    def commit(self, transaction: Transaction, row: bytes, request: CommitRequest) -> CommitReply:
        state = self._load(transaction, row)
        held = request.held
        status, accepted = rules.judge_commit(state, request, self._leases.live(row))
        if not accepted:
            if status is CommitStatus.OK:
                # A shard healed under a record that is held already: what was sealed takes the old one's place.
                self._claim(transaction, held.data_ids)
            return CommitReply(status, state.highest)
        if request.mode is not CommitMode.HEAL and self.damaged.bound(row) is not None:
            # Whatever it may replace here is unknown: only what the others have decided is taken.
            return CommitReply(CommitStatus.REFUSED, state.highest)
        from_reserve = request.from_reserve or request.mode is CommitMode.ROLL_FORWARD
        if not held.tombstone and self._space.refuses(len(held.record) + len(held.inline or b""), from_reserve):
            raise DriveFull("no room for another record: the reserve for deletes is reached")
        if not self._has_shards(held.data_ids):
            return CommitReply(CommitStatus.NO_DATA, state.highest)
        transaction.durable = True
        self._claim(transaction, held.data_ids)
        rules.accept(state, self._rows.add(transaction, row, held))
        self._rows.save(transaction, row, state, [])
        self.damaged.clear(transaction, row)
        if request.mode in (CommitMode.PLAIN, CommitMode.CONDITIONAL):
            self._leases.use_up(row)
        self._saw(transaction, held.stamp)
        return CommitReply(CommitStatus.OK, state.highest)

    def note(self, transaction: Transaction, register: Register, row: bytes, stamp: int, whole: bool) -> None:
        state = self._load(transaction, row)
        before = state.mark
        older = rules.note(state, stamp)
        if state.mark != before:
            self._rows.save_mark(transaction, row, state.mark)
            if register.space[:1] == UPLOAD_LETTER and state.records[-1].tombstone:
                # The upload's parts go, too.  The intent rests in the same batch: a crash between two sweeps must not
                # leave any behind.
                transaction.put(keys.SWEEP + row, b"")
        if older or (state.settled and not self._rows.rests_settled(transaction, row)):
            self._rows.save(transaction, row, state, older)
        if not whole:
            self.repairs.add(transaction, row)

    def prepare(
        self, transaction: Transaction, row: bytes, expected: int, lease: bytes, duration_seconds: float
    ) -> PrepareReply:
        state = self._load(transaction, row)
        status = rules.judge_prepare(state, expected, lease, self._leases.live(row))
        if status is PrepareStatus.PROMISED:
            self._leases.grant(row, lease, duration_seconds)
        return PrepareReply(status, state.highest, state.healing)

    def release(self, transaction: Transaction, row: bytes, lease: bytes) -> None:
        self._leases.release(row, lease)

    def fence(self, transaction: Transaction, row: bytes, stamp: int) -> FenceReply:
        state = self._load(transaction, row)
        before = state.fence
        fenced = rules.fence(state, stamp)
        if state.fence != before:
            transaction.durable = True
            self._rows.save(transaction, row, state, [])
            self._saw(transaction, stamp)
        return FenceReply(fenced, state.healing, state.newest)

    def remove(self, transaction: Transaction, row: bytes, stamp: int) -> None:
        state = self._load(transaction, row)
        bound = self.damaged.bound(row)
        if bound is not None and stamp > bound:
            # Whoever takes back one version is never above the bound: what this drive held by then is not.
            transaction.durable = True
            self.damaged.clear(transaction, row)
            self._rows.save(transaction, row, state, [])
            return
        gone = rules.remove(state, stamp)
        if gone:
            transaction.durable = True
            self._rows.save(transaction, row, state, gone)

    def weigh_tombstones(
        self, transaction: Transaction, tombstones: Sequence[tuple[bytes, int]], settled_seconds: float
    ) -> TombstoneReply:
        """`tombstones`: row keys and stamps."""
        # The notes that settled them were not flushed: without it, a loss of power could bring back what they dropped
        # after the other drives had let go of the tombstone above it.
        transaction.durable = True
        states = tuple(self._weigh(transaction, row, stamp, settled_seconds) for row, stamp in tombstones)
        return TombstoneReply(states, self.healing)

    def _weigh(self, transaction: Transaction, row: bytes, stamp: int, settled_seconds: float) -> TombstoneState:
        state = self._load(transaction, row)
        long_enough = self._rows.settled_seconds(transaction, row) >= settled_seconds
        if row[1:2] == UPLOAD_LETTER and transaction.get(keys.SWEEP + row) is not None:
            long_enough = False
        weighed = rules.weigh_tombstone(state, stamp, long_enough)
        if weighed is TombstoneState.GONE:
            # No tombstone is here to keep out repairs that began before it, and the others may drop theirs now.
            self.watermarks.raise_to(transaction, row, rules.raised(state.watermark, stamp))
        return weighed

    def drop_tombstones(self, transaction: Transaction, tombstones: Sequence[tuple[bytes, int]]) -> None:
        for row, stamp in tombstones:
            self._drop(transaction, row, stamp)

    def _drop(self, transaction: Transaction, row: bytes, stamp: int) -> None:
        state = self._load(transaction, row)
        transaction.durable = True
        gone = rules.drop(state, stamp)
        self.watermarks.raise_to(transaction, row, state.watermark)
        if gone or (state.fence and state.forgotten):
            self._rows.save(transaction, row, state, gone)
            if not state.forgotten:
                transaction.delete(keys.mark_key(row))  # what stays is the fence of a newer version
        self._saw(transaction, stamp)

    def repaired(self, transaction: Transaction, row: bytes, stamp: int) -> None:
        # Something newer may have been missed by others since: its note, if not its entry, is on the way.
        if self._load(transaction, row).newest <= stamp:
            self.repairs.remove(transaction, row)

    def sweep_parts(self, transaction: Transaction) -> bool:
        """Drop some parts of an upload whose tombstone was noted; whether there may be more to do."""
        pending = self._engine.items(keys.SWEEP, limit=1)
        if not pending:
            return False
        intent = pending[0][0]
        upload = keys.decode_row_key(intent[1:])
        prefix = keys.seek_key(PART_LETTER + upload.space[1:], upload.key.encode(), upload.version)
        found = [key[1:-1] for key, _ in self._engine.items(keys.REGISTER + prefix, limit=SWEEP_BATCH)]
        for row in dict.fromkeys(found):
            state = self._load(transaction, row)
            gone, state.records, state.fence, state.mark = state.records, [], 0, 0
            self._rows.save(transaction, row, state, gone)
        if not found:
            transaction.delete(intent)
        return True

    def trash_unnamed(self, transaction: Transaction, data_ids: Sequence[bytes]) -> int:
        """Have those of these shard files reclaimed that no record names; how many.  `Trash.condemn` looks again.

        A reference says who to ask and no more: a row that failed its checksum could not tell which ones it had, and
        theirs is not known to have ended until the register has been healed.
        """
        named_by = {data_id: register_rows.references(self._engine, data_id) for data_id in data_ids}
        transaction.load(key for rows in named_by.values() for row in rows for key in register_rows.wanted(row))
        count = 0
        for data_id, rows in named_by.items():
            former = [row for row in rows if not self._may_name(transaction, row, data_id)]
            for row in former:
                transaction.delete(keys.reference_key(data_id, row))
            if len(former) == len(rows):
                self._trash.add(transaction, data_id)
                count += 1
        return count

    def _may_name(self, transaction: Transaction, row: bytes, data_id: bytes) -> bool:
        state = self._load(transaction, row)
        return self.damaged.bound(row) is not None or any(data_id in record.data_ids for record in state.records)

    def _load(self, transaction: Transaction, row: bytes) -> State:
        """The register's state; that of a damaged one is what a healing drive would say."""
        bound = self.damaged.bound(row)
        try:
            state = self._rows.load(transaction, row, self.healing or bound is not None)
        except RowCorrupt as error:
            # Known or not: the operation that found it may have come to nothing, and the row is what it was.
            bound = self._found_damaged(transaction, row, error)
            state = self._rows.load(transaction, row, healing=True)
        if bound is not None:
            state.fence = max(state.fence, bound)
        return state

    def _found_damaged(self, transaction: Transaction, row: bytes, error: RowCorrupt) -> int:
        log.error("%r fails its checksum and will be repaired: %s", keys.decode_row_key(row), error)
        transaction.durable = True
        self.damaged.add(transaction, row, self.greatest_stamp)
        self.repairs.add(transaction, row)
        return self.greatest_stamp

    def _claim(self, transaction: Transaction, data_ids: tuple[bytes, ...]) -> None:
        claimed = self._shards.claim(data_ids)
        if claimed:
            transaction.otherwise.append(lambda: self._shards.unclaim(claimed))

    def _has_shards(self, data_ids: tuple[bytes, ...]) -> bool:
        # What is condemned is unlinked wherever it is, so one that was staged anew will not do either.
        return all(
            not self._trash.condemned(data_id) and (self._shards.is_staged(data_id) or self._shards.is_placed(data_id))
            for data_id in data_ids
        )

    def _saw(self, transaction: Transaction, stamp: int) -> None:
        """Kept in every batch that accepts something: the pod's clock must restart above it."""
        if stamp > self.greatest_stamp:
            self.greatest_stamp = stamp
            transaction.put(_GREATEST_STAMP, keys.number(stamp))
