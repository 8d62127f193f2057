"""What coordinators make of answers, broken: rules 1 to 4, and 6 on their side."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any
from unittest import mock

import msgspec

from holdfast_server.contract.geometry import Quorums
from holdfast_server.drives.port import CommitReply, CommitStatus, FenceReply
from holdfast_server.objects import erasure_set, quorum


def acknowledged_one_short() -> AbstractContextManager[Any]:
    def judge(quorums: Quorums, asked: Any, replies: Mapping[int, CommitReply]) -> quorum.CommitOutcome:
        accepted = sum(1 for reply in replies.values() if reply.status is CommitStatus.OK)
        if accepted >= max(1, quorums.write_quorum - 1):
            return quorum.CommitOutcome.COMMITTED
        return honest(quorums, asked, replies)

    honest = quorum.judge_commit
    return mock.patch.object(quorum, "judge_commit", judge)


def marks_prove_nothing() -> AbstractContextManager[Any]:
    return mock.patch.object(quorum, "greatest_mark", return_value=0)


def marks_do_not_speak_for_drives() -> AbstractContextManager[Any]:
    """A drive that has dropped a version for a newer, marked one counts as never having had it."""

    def lacking(full: Any, stamp: int) -> int:
        return sum(1 for reply in full if all(held.stamp != stamp for held in reply.records))

    return mock.patch.object(quorum, "_lacking", lacking)


def answered_at_the_quorum() -> AbstractContextManager[Any]:
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


def an_empty_replacement_votes() -> AbstractContextManager[Any]:
    """A healing drive's silence counts as "I have no such key"."""
    honest = quorum.decide_read

    def decide(quorums: Quorums, replies: Any, final: bool) -> quorum.Decision:
        return honest(quorums, {p: _full(reply) for p, reply in replies.items()}, final)

    return mock.patch.object(quorum, "decide_read", decide)


def _full(reply: Any) -> Any:
    return msgspec.structs.replace(reply, healing=False)


def a_replacements_fence_counts() -> AbstractContextManager[Any]:
    """A healing drive's promise never to take a version counts, though it takes repairs all the same."""

    def holds(quorums: Quorums, replies: Mapping[int, FenceReply]) -> bool:
        return sum(1 for reply in replies.values() if reply.fenced) >= quorums.read_quorum

    return mock.patch.object(quorum, "fence_holds", holds)


def one_denial_suffices() -> AbstractContextManager[Any]:
    """A version is taken for uncommitted as soon as one drive lacks it."""
    honest = quorum._lacking

    def lacking(full: Any, stamp: int) -> int:
        return 100 * honest(full, stamp)

    return mock.patch.object(quorum, "_lacking", lacking)


def undecided_is_served() -> AbstractContextManager[Any]:
    """What may have been acknowledged is served without being made committed first."""
    honest = quorum.decide_read

    def decide(quorums: Quorums, replies: Any, final: bool) -> quorum.Decision:
        decision = honest(quorums, replies, final)
        if decision.verdict is quorum.Verdict.ROLL_FORWARD:
            return quorum.Decision(quorum.Verdict.CURRENT, decision.stamp)
        return decision

    return mock.patch.object(quorum, "decide_read", decide)


def restamped_after_acceptance() -> AbstractContextManager[Any]:
    """A write that some drives took is tried again with another stamp."""
    honest = quorum.judge_commit

    def judge(quorums: Quorums, asked: Any, replies: Mapping[int, CommitReply]) -> quorum.CommitOutcome:
        outcome = honest(quorums, asked, replies)
        return quorum.CommitOutcome.RESTAMP if outcome is quorum.CommitOutcome.FAILED else outcome

    return mock.patch.object(quorum, "judge_commit", judge)


def reduced_versions_need_the_sets_copies() -> AbstractContextManager[Any]:
    """A version of reduced redundancy is committed once W drives hold it: W of the set, not its own."""
    return _of_version(lambda quorums, own: replace(own, write_quorum=quorums.write_quorum))


def reduced_versions_need_the_sets_denials() -> AbstractContextManager[Any]:
    """It is proven never to have been committed by the set's R alone, not by its own."""
    return _of_version(lambda quorums, own: replace(own, read_quorum=quorums.read_quorum))


def _of_version(change: Callable[[Quorums, Quorums], Quorums]) -> AbstractContextManager[Any]:
    honest = quorum.of_version

    def of_version(quorums: Quorums, held: Any) -> Quorums:
        own = honest(quorums, held)
        return own if own is quorums else change(quorums, own)

    return mock.patch.object(quorum, "of_version", of_version)
