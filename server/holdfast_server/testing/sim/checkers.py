"""The judges of a run: each promise has one, by name.

`judge` asks those that look at the history alone; `ending` asks those that look at the drives once the faults are off;
a few are asked on the spot (`workload`: HalfVisibleWrites, ListingAgrees of one page).  Each raises `Violation`.
The narrow ones come first, so that what they see is called by its own name; `Linearizability` sees everything that any
of the others about single keys could.

Not here: making the history.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from holdfast_server.contract.geometry import Quorums
from holdfast_server.testing.memory_drive import MemoryDrive
from holdfast_server.testing.sim.history import (
    CONFLICT,
    DONE,
    MISMATCH,
    MISSING,
    WRITES,
    History,
    Operation,
    Upload,
    Violation,
)
from holdfast_server.testing.sim.linearizability import linearizable


class EveryDriveAnswered:
    """Rule 2: a write is acknowledged only when every drive it was sent to has answered, or missed its deadline."""

    def check(self, history: History) -> None:
        for operation in history.operations:
            if operation.result == DONE:
                early = sorted({position for (_, position), ended in operation.commits.items() if not ended})
                if early:
                    raise Violation(type(self).__name__, f"{operation.told()} without waiting for drives {early}")


class NeedlessRefusals:
    """Where nothing can go wrong, nothing is refused; but of writes that meet, rule 6 may refuse any."""

    def check(self, history: History, calm: bool) -> None:
        if not calm:
            return
        for operation in history.operations:
            if not operation.certain and (operation.reads or not self._meets_another(history, operation)):
                raise Violation(type(self).__name__, f"without any fault: {operation.told()}")

    def _meets_another(self, history: History, operation: Operation) -> bool:
        return any(
            not other.reads
            and other is not operation
            and (other.end is None or other.end > operation.start)
            and other.start < (operation.end or operation.gave_up)
            for other in history.of(operation.key)
        )


class AcknowledgedWrites:
    """Nobody reads past an acknowledged write: not what was before it, where nothing else was written since."""

    def check(self, operations: Sequence[Operation]) -> None:
        writes = [op for op in operations if op.kind in WRITES and op.result not in (MISMATCH, CONFLICT, MISSING)]
        if any(op.kind == "complete" for op in writes):
            return
        for write in writes:
            if write.result != DONE or write.end is None:
                continue
            others = [op for op in writes if op is not write and (op.end is None or op.end > write.start)]
            for read in operations:
                later = read.reads and read.certain and read.start > write.end
                if later and all(op.start > (read.end or 0) for op in others) and not _shows(read, write):
                    raise Violation(type(self).__name__, f"{write.told()} is lost to {read.told()}")


class SeenStaysSeen:
    """What was seen and then gone is not seen again, and what was seen is gone only if something replaced it."""

    def check(self, operations: Sequence[Operation]) -> None:
        reads = [op for op in operations if op.reads and op.certain and isinstance(op.result, int) and op.result > 0]
        repeated = {op.number for op in operations if op.kind == "complete"}
        for first in reads:
            for between in operations:
                if not (between.reads and between.certain) or between.start < (first.end or 0):
                    continue
                if between.result == first.result or between.result == -1:
                    continue
                for again in reads:
                    if again.result == first.result not in repeated and again.start > (between.end or 0):
                        raise Violation(
                            type(self).__name__, f"{first.result} came back: {between.told()} then {again.told()}"
                        )


class Linearizability:
    """One order explains every answer about a key, conditional writes, listings and uploads included."""

    def check(self, operations: Sequence[Operation]) -> None:
        if not linearizable(operations):
            raise Violation(type(self).__name__, f"no order explains what was answered about {operations[0].key}")


class MultipartOutcome:
    """An upload ends once: completed, with the same answer to everyone who asks again, or aborted."""

    def check(self, history: History) -> None:
        for upload in history.uploads:
            self._completed_after_abort(upload)
            self._forgot_completion(upload)

    def _completed_after_abort(self, upload: Upload) -> None:
        for abort in upload.aborts:
            for complete in upload.completes:
                after = abort.result == DONE == complete.result and complete.start > (abort.end or 0)
                if after and all(other.start > (abort.end or 0) for other in upload.completes):
                    raise Violation(type(self).__name__, f"{complete.told()} after {abort.told()}")

    def _forgot_completion(self, upload: Upload) -> None:
        if upload.aborts:
            return
        for complete in upload.completes:
            if complete.result == MISSING:
                raise Violation(type(self).__name__, f"{complete.told()}, yet nobody aborted it")


class HealingConverges:
    """With the faults off, repair makes every register whole on every drive, and the repair queues run empty."""

    def check(self, drives: Sequence[MemoryDrive], undecidable: set[bytes]) -> None:
        for row in sorted({row for drive in drives for row in drive.rows()} - undecidable):
            states = [drive.state_of(row) for drive in drives]
            stamps = {tuple(held.stamp for held in state.records) for state in states}
            if len(stamps) > 1 or any(len(state.records) > 1 for state in states):
                raise Violation(type(self).__name__, f"{row!r} differs: {[s.records and s.newest for s in states]}")
        named = [drive.named_shards() for drive in drives]
        for drive, names in zip(drives, named, strict=True):
            if not undecidable and names != named[0]:
                raise Violation(type(self).__name__, f"drive {drive.position} names other shards than drive 0")
            if rotten := [data_id.hex() for data_id in sorted(names) if not drive.has_healthy(data_id)]:
                raise Violation(type(self).__name__, f"drive {drive.position} lacks shards {rotten}")
            if left := drive.repair_rows() - undecidable:
                raise Violation(type(self).__name__, f"drive {drive.position} has yet to repair {sorted(left)}")


class NothingGrows:
    """After reclaim a drive holds the shards that its records name, and nothing else."""

    def check(self, drives: Iterable[MemoryDrive]) -> None:
        for drive in drives:
            leaked = drive.shard_ids() - drive.named_shards()
            if leaked:
                names = sorted(data_id.hex()[:6] for data_id in leaked)
                raise Violation(type(self).__name__, f"drive {drive.position} keeps shards {names}")


def judge(history: History, calm: bool) -> None:
    """All that the history alone can tell.  Raises Violation, TooLong."""
    EveryDriveAnswered().check(history)
    NeedlessRefusals().check(history, calm)
    MultipartOutcome().check(history)
    keys = dict.fromkeys(operation.key for operation in history.operations)
    for key in keys:
        operations = history.of(key)
        AcknowledgedWrites().check(operations)
        SeenStaysSeen().check(operations)
        Linearizability().check(operations)


def copies_suffice(quorums: Quorums) -> int:
    """How many drives, whichever they are, must be enough to read a version with these numbers once it is whole."""
    return max(quorums.data_shards, quorums.read_quorum)


def _shows(read: Operation, write: Operation) -> bool:
    if read.result == -1:
        return bool(write.number)
    return read.result == (write.number or None)
