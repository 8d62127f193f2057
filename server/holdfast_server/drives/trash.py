"""Shard files that perhaps no record names any more, and when they may go (rule 13).

Dropping a record takes away its reference rows and puts its data ids into the trash, in the same batch, but for those
that another record has for readers still (`register_rows`): their time begins when that one is dropped.  A
file is reclaimed (unlinked, or kept to be written over: `spares`) only when nothing refers to it *then* (a
completed upload's object takes over its parts' files, so a file may have had two owners), and at least
`delay_seconds` after it was trashed and after it was last read: a reader that found the record before it was
dropped can still finish.  It reads the files of one record one after the other, and may take hours for all of them, so
they wait for each other: none goes while one of them is read (`RecentReads.keep_together`).

Trash rows are numbered; their times are kept in memory only, by checkpoints one second apart.  After a
restart everything in the trash waits the full delay anew, each file for itself.  All but `RecentReads` runs on the
committing thread, so that "nothing refers to it" cannot become untrue behind their back: what is about to be
unlinked is *condemned*, and a commit that names it is told NO_DATA.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from functools import partial

from holdfast_server.clock.port import Clock
from holdfast_server.drives import keys
from holdfast_server.drives.engine import Engine
from holdfast_server.drives.group_commit import Transaction

RECLAIM_DELAY_SECONDS = 30.0
REAP_BATCH = 256
MAX_RECENT_READS = 200_000
"""Beyond this many shards read within the delay no note is taken of each: reclaim pauses as a whole."""
MAX_TOGETHER = 200_000
"""Files in the trash that wait for each other; beyond this each is for itself, and beyond half of it where none of them
was being read."""


class _Together:
    __slots__ = ("read_seconds",)

    def __init__(self, read_seconds: float) -> None:
        self.read_seconds = read_seconds
        """When one of them was read last."""


class RecentReads:
    """Which shards were read lately.  Safe from any thread; remembers between one and two delays."""

    def __init__(self, clock: Clock, delay_seconds: float) -> None:
        self._clock = clock
        self._delay_seconds = delay_seconds
        self._lock = threading.Lock()
        self._young: set[bytes] = set()
        self._old: set[bytes] = set()
        self._together: dict[bytes, _Together] = {}
        self._turned = clock.monotonic_seconds()
        self._overflow_until = float("-inf")

    def add(self, data_id: bytes) -> None:
        with self._lock:
            self._turn()
            together = self._together.get(data_id)
            if together is not None:
                together.read_seconds = self._clock.monotonic_seconds()
            if len(self._young) >= MAX_RECENT_READS:
                self._overflow_until = self._clock.monotonic_seconds() + self._delay_seconds
            else:
                self._young.add(data_id)

    def contains(self, data_id: bytes) -> bool:
        with self._lock:
            self._turn()
            now = self._clock.monotonic_seconds()
            if now < self._overflow_until or self._known(data_id):
                return True
            together = self._together.get(data_id)
            return together is not None and now - together.read_seconds < self._delay_seconds

    def keep_together(self, data_ids: Sequence[bytes]) -> None:
        """One record named them: to read one of them is to read all, until `forget`."""
        with self._lock:
            self._turn()
            is_read = any(map(self._known, data_ids))
            if len(self._together) + len(data_ids) > (MAX_TOGETHER if is_read else MAX_TOGETHER // 2):
                return
            together = _Together(self._clock.monotonic_seconds() if is_read else float("-inf"))
            self._together.update(dict.fromkeys(data_ids, together))

    def forget(self, data_id: bytes) -> None:
        """It is in the trash no more."""
        with self._lock:
            self._together.pop(data_id, None)

    def _known(self, data_id: bytes) -> bool:
        return data_id in self._young or data_id in self._old

    def _turn(self) -> None:
        now = self._clock.monotonic_seconds()
        if now - self._turned >= self._delay_seconds:
            stale = now - self._turned >= 2 * self._delay_seconds
            self._old = set() if stale else self._young
            self._young, self._turned = set(), now


class Trash:
    def __init__(self, engine: Engine, clock: Clock, delay_seconds: float) -> None:
        self._clock = clock
        self._delay_seconds = delay_seconds
        self._engine = engine
        self.recent_reads = RecentReads(clock, delay_seconds)
        last = engine.last(keys.TRASH)
        self._sequence = keys.to_number(last[1:9]) if last is not None else 0
        self._checkpoints: deque[tuple[float, int]] = deque()
        """(time, sequence): everything numbered up to `sequence` was trashed no later than `time`."""
        if self._sequence:
            self._checkpoints.append((clock.monotonic_seconds(), self._sequence))
        self._ripe = 0
        self._condemned: set[bytes] = set()

    def add(self, transaction: Transaction, data_id: bytes) -> None:
        self._sequence += 1
        transaction.put(keys.TRASH + keys.number(self._sequence), data_id)
        now = self._clock.monotonic_seconds()
        if self._checkpoints and int(self._checkpoints[-1][0]) == int(now):
            self._checkpoints.pop()
        self._checkpoints.append((now, self._sequence))

    def add_all(self, transaction: Transaction, data_ids: Sequence[bytes]) -> None:
        """What one record named."""
        for data_id in data_ids:
            self.add(transaction, data_id)
        if len(data_ids) > 1:
            # Not of what stays named because its batch fails.
            transaction.afterwards.append(partial(self.recent_reads.keep_together, data_ids))

    def condemned(self, data_id: bytes) -> bool:
        return data_id in self._condemned

    def condemn(self, transaction: Transaction) -> tuple[list[tuple[bytes, bytes]], bool]:
        """The next files to unlink, as (trash row, data id), of which nothing will refer to them from now on; and
        whether there may be more once these are gone.

        Where nothing can be written for want of room, the other rows stay as they are: what is unlinked makes some."""
        horizon = self._horizon()
        taken_over = {
            key[1:17] for key, value in transaction.changes.items() if key[:1] == keys.REFERENCE and value is not None
        }
        chosen = []
        rows = self._engine.items(keys.TRASH, limit=REAP_BATCH)
        more = len(rows) == REAP_BATCH and transaction.no_room is None
        for row, data_id in rows:
            if keys.to_number(row[1:9]) > horizon:
                more = False
                break
            referred = data_id in taken_over or bool(self._engine.items(keys.REFERENCE + data_id, limit=1))
            if referred or self.recent_reads.contains(data_id):
                if transaction.no_room is None:
                    transaction.delete(row)
                    if referred:
                        self.recent_reads.forget(data_id)
                    else:
                        self.add(transaction, data_id)
            else:
                self.recent_reads.forget(data_id)
                self._condemned.add(data_id)
                chosen.append((row, data_id))
        return chosen, more

    def unlinked(self, transaction: Transaction, chosen: list[tuple[bytes, bytes]]) -> None:
        for row, data_id in chosen:
            transaction.delete(row)
            self._condemned.discard(data_id)

    def _horizon(self) -> int:
        due = self._clock.monotonic_seconds() - self._delay_seconds
        while self._checkpoints and self._checkpoints[0][0] <= due:
            self._ripe = self._checkpoints.popleft()[1]
        return self._ripe
