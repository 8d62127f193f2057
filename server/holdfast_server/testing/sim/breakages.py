"""The rules of `docs/quorum.md`, each broken on purpose: what the simulation must notice.

A breakage is a patch of the production code, in force inside a `with`.  Each takes away one thing that a rule asks
for and leaves everything else as it is; where two rules cover for each other, both are taken away together, and the
single ones are listed as redundant in docs/decisions/0005-what-the-checkers-catch.md.

Not here: which runs notice them (`tests/sim/test_checkers_bite.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any
from unittest import mock

import msgspec

from holdfast_server.contract.geometry import Quorums
from holdfast_server.drives import keys, rules
from holdfast_server.drives.port import CommitMode, CommitReply, CommitStatus, PrepareStatus, TombstoneState
from holdfast_server.heal import filling, tombstones
from holdfast_server.objects import erasure_set, quorum
from holdfast_server.objects.healing import Healer
from holdfast_server.testing.memory_drive import MemoryDrive, _Unsynced

Breakage = Callable[[], AbstractContextManager[Any]]


def _acknowledged_one_short() -> AbstractContextManager[Any]:
    def judge(quorums: Quorums, asked: Any, replies: Mapping[int, CommitReply]) -> quorum.CommitOutcome:
        accepted = sum(1 for reply in replies.values() if reply.status is CommitStatus.OK)
        if accepted >= max(1, quorums.write_quorum - 1):
            return quorum.CommitOutcome.COMMITTED
        return honest(quorums, asked, replies)

    honest = quorum.judge_commit
    return mock.patch.object(quorum, "judge_commit", judge)


def _marks_prove_nothing() -> AbstractContextManager[Any]:
    return mock.patch.object(quorum, "greatest_mark", return_value=0)


def _marks_do_not_speak_for_drives() -> AbstractContextManager[Any]:
    """A drive that has dropped a version for a newer, marked one counts as never having had it."""

    def lacking(full: Any, stamp: int) -> int:
        return sum(1 for reply in full if all(held.stamp != stamp for held in reply.records))

    return mock.patch.object(quorum, "_lacking", lacking)


def _answered_at_the_quorum() -> AbstractContextManager[Any]:
    """The acknowledgement goes out when W drives have answered."""
    honest = erasure_set.ask

    async def ask(drives: Any, call: Any, enough: Any = None, *arguments: Any, **named: Any) -> Any:
        if getattr(call, "__name__", "") != "commit":
            return await honest(drives, call, enough, *arguments, **named)
        quorum_size = len(drives) // 2 + 1

        def answered(answers: Any) -> bool:
            return sum(1 for reply in answers.values() if reply.status is CommitStatus.OK) >= quorum_size

        return await honest(drives, call, answered, *arguments, **named)

    return mock.patch.object(erasure_set, "ask", ask)


def _an_empty_replacement_votes() -> AbstractContextManager[Any]:
    """A healing drive's silence counts as "I have no such key"."""
    honest = quorum.decide_read

    def decide(quorums: Quorums, replies: Any, final: bool) -> quorum.Decision:
        return honest(quorums, {p: _full(reply) for p, reply in replies.items()}, final)

    return mock.patch.object(quorum, "decide_read", decide)


def _full(reply: Any) -> Any:
    return msgspec.structs.replace(reply, healing=False)


def _one_denial_suffices() -> AbstractContextManager[Any]:
    """A version is taken for uncommitted as soon as one drive lacks it."""
    honest = quorum._lacking

    def lacking(full: Any, stamp: int) -> int:
        return 100 * honest(full, stamp)

    return mock.patch.object(quorum, "_lacking", lacking)


def _undecided_is_served() -> AbstractContextManager[Any]:
    """What may have been acknowledged is served without being made committed first."""
    honest = quorum.decide_read

    def decide(quorums: Quorums, replies: Any, final: bool) -> quorum.Decision:
        decision = honest(quorums, replies, final)
        if decision.verdict is quorum.Verdict.ROLL_FORWARD:
            return quorum.Decision(quorum.Verdict.CURRENT, decision.stamp)
        return decision

    return mock.patch.object(quorum, "decide_read", decide)


def _repairs_go_over_everything() -> AbstractContextManager[Any]:
    """Roll-forward is accepted over newer versions, fences and leases."""
    return mock.patch.object(rules, "_judge_repair", return_value=(CommitStatus.OK, True))


def _restamped_after_acceptance() -> AbstractContextManager[Any]:
    """A write that some drives took is tried again with another stamp."""
    honest = quorum.judge_commit

    def judge(quorums: Quorums, asked: Any, replies: Mapping[int, CommitReply]) -> quorum.CommitOutcome:
        outcome = honest(quorums, asked, replies)
        return quorum.CommitOutcome.RESTAMP if outcome is quorum.CommitOutcome.FAILED else outcome

    return mock.patch.object(quorum, "judge_commit", judge)


def _old_stamps_are_taken() -> AbstractContextManager[Any]:
    """A plain commit need not be above what the drive holds."""

    def judge(state: Any, request: Any, lease: Any) -> tuple[CommitStatus, bool]:
        status, accept = honest(state, request, lease)
        stale = status is CommitStatus.STALE and request.mode is CommitMode.PLAIN
        return (CommitStatus.OK, True) if stale else (status, accept)

    honest = rules.judge_commit
    return mock.patch.object(rules, "judge_commit", judge)


def _leases_keep_nobody_out() -> AbstractContextManager[Any]:
    """Promises are given to several at once, and commits need none."""

    def judge(state: Any, request: Any, lease: Any) -> tuple[CommitStatus, bool]:
        return honest(state, request, request.lease or None)

    def prepare(state: Any, expected: int, lease: bytes, live: Any) -> PrepareStatus:
        return PrepareStatus.MISMATCH if state.newest > expected else PrepareStatus.PROMISED

    honest = rules.judge_commit
    return _both(mock.patch.object(rules, "judge_commit", judge), mock.patch.object(rules, "judge_prepare", prepare))


def _a_lapsed_lease_still_commits() -> AbstractContextManager[Any]:
    """A conditional commit is accepted although its own lease is over, or was forgotten."""

    def judge(state: Any, request: Any, lease: Any) -> tuple[CommitStatus, bool]:
        if request.mode is CommitMode.CONDITIONAL and lease is None:
            return honest(state, request, request.lease)
        return honest(state, request, lease)

    honest = rules.judge_commit
    return mock.patch.object(rules, "judge_commit", judge)


def _no_fence_before_taking_back() -> AbstractContextManager[Any]:
    return mock.patch.object(quorum, "fence_holds", return_value=True)


def _no_deadline_before_taking_back() -> AbstractContextManager[Any]:
    return mock.patch.object(Healer, "may_be_in_flight", return_value=False)


def _taken_back_by_count() -> AbstractContextManager[Any]:
    """ "I counted fewer than K copies, so I delete": no fence, no deadline, no R denials."""
    honest = quorum.decide_heal

    def decide(quorums: Quorums, replies: Any, stamp: int) -> quorum.HealStep:
        step = honest(quorums, replies, stamp)
        return quorum.HealStep.TAKE_BACK if step is quorum.HealStep.STUCK else step

    return _both(
        mock.patch.object(quorum, "decide_heal", decide),
        _no_fence_before_taking_back(),
        _no_deadline_before_taking_back(),
    )


def _dropped_before_all_agree() -> AbstractContextManager[Any]:
    """A tombstone goes as soon as one drive holds nothing else."""

    def judge(found: Any, states: Any, now_ms: int, age_seconds: float) -> Any:
        return honest(found, {0: [TombstoneState.SETTLED] * len(found)}, now_ms, 0.0)

    honest = tombstones.judge
    return mock.patch.object(tombstones, "judge", judge)


def _full_although_something_is_left() -> AbstractContextManager[Any]:
    """A replacement is taken for full though its pass left registers out."""
    return mock.patch.object(filling, "_leave", return_value=None)


def _commits_are_not_synced() -> AbstractContextManager[Any]:
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


@contextmanager
def _both(*patches: AbstractContextManager[Any]) -> Any:
    with ExitStack() as stack:
        for patch in patches:
            stack.enter_context(patch)
        yield


BREAKAGES: Mapping[str, Breakage] = {
    "1 acknowledged one short of W": _acknowledged_one_short,
    "1 marks prove nothing": _marks_prove_nothing,
    "1 marks do not speak for the drive": _marks_do_not_speak_for_drives,
    "2 acknowledged before all have answered": _answered_at_the_quorum,
    "3 an empty replacement votes": _an_empty_replacement_votes,
    "4 one denial suffices": _one_denial_suffices,
    "4 undecided is served": _undecided_is_served,
    "5 repairs go over everything": _repairs_go_over_everything,
    "6 stamped anew after acceptance": _restamped_after_acceptance,
    "6 old stamps are taken": _old_stamps_are_taken,
    "7 leases keep nobody out": _leases_keep_nobody_out,
    "7 a lapsed lease still commits": _a_lapsed_lease_still_commits,
    "8 no fence before taking back": _no_fence_before_taking_back,
    "8 no deadline before taking back": _no_deadline_before_taking_back,
    "8 taken back by counting": _taken_back_by_count,
    "10 dropped before all agree": _dropped_before_all_agree,
    "11 full although something is left": _full_although_something_is_left,
    "- commits are not synced": _commits_are_not_synced,
}
