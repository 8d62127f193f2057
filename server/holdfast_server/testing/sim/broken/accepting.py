"""What drives take, broken: rules 5, 6, 7 and 9 on their side, and the log."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any
from unittest import mock

import msgspec

from holdfast_server.drives import keys, rules
from holdfast_server.drives.port import CommitMode, CommitReply, CommitRequest, CommitStatus, PrepareStatus
from holdfast_server.testing.memory_drive import MemoryDrive, _Unsynced
from holdfast_server.testing.sim.broken import both


def repairs_go_over_leases() -> AbstractContextManager[Any]:
    """A version is made committed in the midst of another's conditional write."""

    def judge(state: Any, request: CommitRequest, lease: Any) -> tuple[CommitStatus, bool]:
        return honest(state, request, None)

    honest = rules._judge_repair
    return mock.patch.object(rules, "_judge_repair", judge)


def repairs_go_over_fences() -> AbstractContextManager[Any]:
    """A version is made committed where the drive holds, or has promised never to take, something at or above it."""

    def judge(state: Any, request: CommitRequest, lease: Any) -> tuple[CommitStatus, bool]:
        return honest(replace(state, records=[], fence=0), request, lease)

    honest = rules._judge_repair
    return mock.patch.object(rules, "_judge_repair", judge)


def repairs_go_over_everything() -> AbstractContextManager[Any]:
    """Roll-forward is accepted over newer versions, fences and leases."""
    return mock.patch.object(rules, "_judge_repair", return_value=(CommitStatus.OK, True))


def repairs_go_over_watermarks() -> AbstractContextManager[Any]:
    """What a drive has dropped a tombstone above is written again, whatever the writer had seen."""

    def judge(state: Any, request: CommitRequest, lease: Any) -> tuple[CommitStatus, bool]:
        return honest(state, msgspec.structs.replace(request, watermark=state.watermark), lease)

    honest = rules._judge_repair
    return mock.patch.object(rules, "_judge_repair", judge)


def dropped_tombstones_are_written_again() -> AbstractContextManager[Any]:
    """A drive that has dropped a tombstone takes it once more from one that has not."""

    def judge(state: Any, request: CommitRequest, lease: Any) -> tuple[CommitStatus, bool]:
        status, accepted = honest(state, request, lease)
        if status is CommitStatus.OK and not accepted and request.held.tombstone and not state.records:
            return CommitStatus.OK, True
        return status, accepted

    honest = rules._judge_repair
    return mock.patch.object(rules, "_judge_repair", judge)


def old_stamps_are_taken() -> AbstractContextManager[Any]:
    """A plain commit need not be above what the drive holds."""

    def judge(state: Any, request: Any, lease: Any) -> tuple[CommitStatus, bool]:
        status, accept = honest(state, request, lease)
        stale = status is CommitStatus.STALE and request.mode is CommitMode.PLAIN
        return (CommitStatus.OK, True) if stale else (status, accept)

    honest = rules.judge_commit
    return mock.patch.object(rules, "judge_commit", judge)


def leases_keep_nobody_out() -> AbstractContextManager[Any]:
    """Promises are given to several at once, and commits need none."""

    def judge(state: Any, request: Any, lease: Any) -> tuple[CommitStatus, bool]:
        return honest(state, request, request.lease or None)

    def prepare(state: Any, expected: int, lease: bytes, live: Any) -> PrepareStatus:
        return PrepareStatus.MISMATCH if state.newest > expected else PrepareStatus.PROMISED

    honest = rules.judge_commit
    return both(mock.patch.object(rules, "judge_commit", judge), mock.patch.object(rules, "judge_prepare", prepare))


def a_lapsed_lease_still_commits() -> AbstractContextManager[Any]:
    """A conditional commit is accepted although its own lease is over, or was forgotten."""

    def judge(state: Any, request: Any, lease: Any) -> tuple[CommitStatus, bool]:
        if request.mode is CommitMode.CONDITIONAL and lease is None:
            return honest(state, request, request.lease)
        return honest(state, request, lease)

    honest = rules.judge_commit
    return mock.patch.object(rules, "judge_commit", judge)


def commits_are_not_synced() -> AbstractContextManager[Any]:
    """The answer goes out before the log is flushed."""
    return mock.patch.object(MemoryDrive, "commit", _lazy_commit(MemoryDrive.commit))


def _lazy_commit(honest: Any) -> Any:
    async def commit(self: MemoryDrive, request: Any) -> CommitReply:
        row = keys.row_key(request.register)
        before = self.copy_of(row)
        reply: CommitReply = await honest(self, request)
        if reply.status is CommitStatus.OK:
            self._keep_unsynced(_Unsynced(states=[(row, before)]))
        return reply

    return commit
