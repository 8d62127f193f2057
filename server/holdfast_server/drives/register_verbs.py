"""The verbs on registers, as operations of the committing thread.

Each method makes one operation's work: it loads the register's state, lets `rules` decide, saves the
difference, and says whether its answer must be durable.  Nothing here waits, and nothing here answers.
"""

from __future__ import annotations

from holdfast_server.clock.port import Clock
from holdfast_server.drives import keys, rules
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
)
from holdfast_server.drives.register_rows import RegisterRows, Watermarks, reply
from holdfast_server.drives.repair_queue import RepairQueue
from holdfast_server.drives.shard_files import ShardFiles
from holdfast_server.drives.space import Space
from holdfast_server.drives.trash import Trash

UPLOAD_LETTER = b"u"
PART_LETTER = b"p"
"""First letters of a space (`objects.record`): noting a tombstone of an upload drops the upload's parts."""

SWEEP_BATCH = 256
_GREATEST_STAMP = keys.META + b"greatest-stamp"


class RegisterVerbs:
    def __init__(
        self, engine: Engine, clock: Clock, trash: Trash, shards: ShardFiles, space: Space, healing: bool
    ) -> None:
        self.healing = healing
        self.repairs = RepairQueue(engine)
        self.watermarks = Watermarks(engine)
        self._rows = RegisterRows(self.watermarks, trash)
        self._leases: Leases[bytes] = Leases(clock)
        self._trash = trash
        self._shards = shards
        self._space = space
        self._engine = engine
        stored = engine.get([_GREATEST_STAMP])[0]
        self.greatest_stamp = max(keys.to_number(stored) if stored else 0, self.watermarks.greatest)
        """The greatest stamp this drive has accepted, fenced or dropped; read from any thread."""

    def query(self, transaction: Transaction, row: bytes, with_inline: bool) -> QueryReply:
        state = self._rows.load(transaction, row, self.healing)
        shards = self._rows.inline_shards(transaction, row, state) if with_inline else {}
        return reply(state, shards, with_inline)

    def commit(self, transaction: Transaction, row: bytes, request: CommitRequest) -> CommitReply:
        state = self._rows.load(transaction, row, self.healing)
        held = request.held
        status, accepted = rules.judge_commit(state, request, self._leases.live(row))
        if not accepted:
            if status is CommitStatus.OK:
                # A shard healed under a record that is held already: what was sealed takes the old one's place.
                self._shards.claim(held.data_ids)
            return CommitReply(status, state.highest)
        if not held.tombstone and self._space.refuses(len(held.record) + len(held.inline or b"")):
            raise DriveFull("no room for another record: the reserve for deletes is reached")
        if not self._has_shards(held.data_ids):
            return CommitReply(CommitStatus.NO_DATA, state.highest)
        transaction.durable = True
        self._shards.claim(held.data_ids)
        rules.accept(state, self._rows.add(transaction, row, held))
        self._rows.save(transaction, row, state, [])
        if request.mode in (CommitMode.PLAIN, CommitMode.CONDITIONAL):
            self._leases.use_up(row)
        self._saw(transaction, held.stamp)
        return CommitReply(CommitStatus.OK, state.highest)

    def note(self, transaction: Transaction, register: Register, row: bytes, stamp: int, whole: bool) -> None:
        state = self._rows.load(transaction, row, self.healing)
        before = state.mark
        older = rules.note(state, stamp)
        if state.mark != before:
            self._rows.save_mark(transaction, row, state.mark)
            if register.space[:1] == UPLOAD_LETTER and state.records[-1].tombstone:
                # The intent rests in the same batch: a crash between two sweeps must not leave parts behind.
                transaction.put(keys.SWEEP + row, b"")
        if older:
            self._rows.save(transaction, row, state, older)
        if not whole:
            self.repairs.add(transaction, row)

    def prepare(
        self, transaction: Transaction, row: bytes, expected: int, lease: bytes, duration_seconds: float
    ) -> PrepareReply:
        state = self._rows.load(transaction, row, self.healing)
        status = rules.judge_prepare(state, expected, lease, self._leases.live(row))
        if status is PrepareStatus.PROMISED:
            self._leases.grant(row, lease, duration_seconds)
        return PrepareReply(status, state.highest, state.healing)

    def release(self, transaction: Transaction, row: bytes, lease: bytes) -> None:
        self._leases.release(row, lease)

    def fence(self, transaction: Transaction, row: bytes, stamp: int) -> FenceReply:
        state = self._rows.load(transaction, row, self.healing)
        before = state.fence
        fenced = rules.fence(state, stamp)
        if state.fence != before:
            transaction.durable = True
            self._rows.save(transaction, row, state, [])
            self._saw(transaction, stamp)
        return FenceReply(fenced, state.healing, state.newest)

    def remove(self, transaction: Transaction, row: bytes, stamp: int) -> None:
        state = self._rows.load(transaction, row, self.healing)
        gone = rules.remove(state, stamp)
        if gone:
            transaction.durable = True
            self._rows.save(transaction, row, state, gone)

    def drop(self, transaction: Transaction, row: bytes, stamp: int) -> None:
        state = self._rows.load(transaction, row, self.healing)
        transaction.durable = True
        gone = rules.drop(state, stamp)
        self.watermarks.raise_to(transaction, row, stamp)
        if gone or state.forgotten:
            self._rows.save(transaction, row, state, gone)
            transaction.delete(keys.mark_key(row))
        self._saw(transaction, stamp)

    def repaired(self, transaction: Transaction, row: bytes, stamp: int) -> None:
        # Something newer may have been missed by others since: its note, if not its entry, is on the way.
        if self._rows.load(transaction, row, self.healing).newest <= stamp:
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
            state = self._rows.load(transaction, row, self.healing)
            gone, state.records, state.fence, state.mark = state.records, [], 0, 0
            self._rows.save(transaction, row, state, gone)
        if not found:
            transaction.delete(intent)
        return True

    def _has_shards(self, data_ids: tuple[bytes, ...]) -> bool:
        return all(
            self._shards.is_staged(data_id) or (not self._trash.condemned(data_id) and self._shards.is_placed(data_id))
            for data_id in data_ids
        )

    def _saw(self, transaction: Transaction, stamp: int) -> None:
        """Kept in every batch that accepts something: the pod's clock must restart above it."""
        if stamp > self.greatest_stamp:
            self.greatest_stamp = stamp
            transaction.put(_GREATEST_STAMP, keys.number(stamp))
