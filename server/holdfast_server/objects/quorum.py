"""Decisions by counting: what a set's answers mean.  Pure; asks nobody and waits for nothing.

One register, one erasure set of N drives: K data shards, P = N - K, write quorum W (K, or K + 1 when K = P),
read quorum R = N - W + 1.  `docs/quorum.md` gives the thirteen rules and the scenario behind each; the rule
numbers below are its.  The words: a version is *committed* when W drives hold it or one holds it marked; a
*full* drive is one that is not healing; a *healing* drive's silence proves nothing, what it holds counts.

A version may have been coded with less parity than its set has (REDUCED_REDUNDANCY): K' data shards, P' = N - K'.  How
stands in its record, which is the same on every drive, so everybody judges it by the same numbers, whatever they are
configured with now: W' = K' >= W copies commit it, R' = N - W' + 1 <= R full drives deny it, K' serve it.  What is
asked of a *set* stays the set's own R: any R drives meet every W, and so every W'.  `of_version` has the numbers of one
version; docs/decisions/0014-reduced-redundancy.md has the argument.

The invariant all functions share: a version that may have been acknowledged, or may have been read, is never
judged absent, and a version that may still be superseded by something acknowledged is never judged current.
Whatever cannot be decided stays undecided; the caller answers 503, not a guess.

Not here: asking (`asking`), acting on a decision (`erasure_set`, `healing`), what versions mean.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum, auto

from holdfast_server.contract import geometry
from holdfast_server.contract.geometry import Quorums
from holdfast_server.drives.port import (
    CommitReply,
    CommitStatus,
    FenceReply,
    Held,
    PrepareReply,
    PrepareStatus,
    QueryReply,
)
from holdfast_server.objects import record

Replies = Mapping[int, QueryReply]
"""Answers by position in the set."""


class Verdict(Enum):
    WAIT = auto()
    """More answers may decide it."""
    CURRENT = auto()
    """`stamp` is committed and nothing newer is."""
    ABSENT = auto()
    """No version is committed."""
    ROLL_FORWARD = auto()
    """`stamp` may have been acknowledged: make it committed, then it is current."""
    UNDECIDED = auto()
    """The answers that came cannot decide it."""


@dataclass(frozen=True, slots=True)
class Decision:
    verdict: Verdict
    stamp: int = 0


_WAIT = Decision(Verdict.WAIT)
_ABSENT = Decision(Verdict.ABSENT)
_UNDECIDED = Decision(Verdict.UNDECIDED)


def of_version(quorums: Quorums, held: Held) -> Quorums:
    """The numbers of one version in a set with these; the set's own, unless it was coded with less parity."""
    if held.shard_index < 0:
        return quorums
    cut = record.geometry_of(held.record)
    if cut is None or not 0 < cut.parity_shards < quorums.parity_shards:
        return quorums
    return geometry.quorums(quorums.set_size, cut.parity_shards)


def copies_needed(quorums: Quorums, held: Held) -> int:
    """Copies without which a version cannot be served: K (of that version) where it is coded, one where it is not."""
    return of_version(quorums, held).data_shards if held.shard_index >= 0 else 1


def _may_serve(numbers: Quorums, held: Held, have: int) -> bool:
    return have >= (numbers.data_shards if held.shard_index >= 0 else 1)


def versions(replies: Replies) -> dict[int, Held]:
    """Every version anybody holds, by stamp; any holder's copy stands for it."""
    return {held.stamp: held for reply in replies.values() for held in reply.records}


def holders(replies: Replies, stamp: int) -> dict[int, Held]:
    """Who holds a version, by position."""
    return {position: held for position, reply in replies.items() for held in reply.records if held.stamp == stamp}


def greatest_mark(replies: Replies) -> int:
    return max((reply.mark for reply in replies.values()), default=0)


def full_replies(replies: Replies) -> list[QueryReply]:
    """Of drives whose silence about a version counts (rule 3)."""
    return [reply for reply in replies.values() if not reply.healing]


def greatest_seen(replies: Replies) -> int:
    """The stamp a new write must be above."""
    return max((reply.highest for reply in replies.values()), default=0)


def decide_read(quorums: Quorums, replies: Replies, final: bool) -> Decision:
    """Rule 4: which version is current, from the answers so far.

    `final`: no more answers will come; WAIT is then never returned.
    """
    pending = _UNDECIDED if final else _WAIT
    full = full_replies(replies)
    enough_full = len(full) >= quorums.read_quorum
    if not (final or enough_full):
        return _WAIT  # nothing can be proven to be the newest
    mark = greatest_mark(replies)
    found = versions(replies)
    for stamp in sorted((s for s in found if s >= mark), reverse=True):
        have = len(holders(replies, stamp))
        numbers = of_version(quorums, found[stamp])
        servable = _may_serve(numbers, found[stamp], have)
        if have >= numbers.write_quorum or (stamp == mark and servable):
            # Committed.  It is also the newest: R full answers without anything newer, or W holders, prove it.
            if enough_full or (final and have >= numbers.write_quorum and len(replies) >= quorums.read_quorum):
                return Decision(Verdict.CURRENT, stamp)
            return pending
        if stamp > mark and _lacking(full, stamp) >= numbers.read_quorum:
            continue  # provably not committed
        if not final:
            return _WAIT
        if servable and enough_full:
            return Decision(Verdict.ROLL_FORWARD, stamp)
        return _UNDECIDED
    if not enough_full:
        return pending
    if mark:
        return pending  # something committed exists that no answer so far holds
    return _ABSENT


def _lacking(full: Iterable[QueryReply], stamp: int) -> int:
    """Full drives that prove they never took this version: they lack it and have dropped nothing at it."""
    return sum(1 for reply in full if reply.mark <= stamp and all(held.stamp != stamp for held in reply.records))


class CommitOutcome(Enum):
    COMMITTED = auto()
    RESTAMP = auto()
    """Every drive that was asked refused it as old: a greater stamp may be tried, once."""
    LEASED = auto()
    """Nobody took it, because a conditional write is under way."""
    FAILED = auto()
    """Undecided: some may hold it, too few for certain."""


def judge_commit(quorums: Quorums, asked: Collection[int], replies: Mapping[int, CommitReply]) -> CommitOutcome:
    """Rules 1, 2 and 6.  `quorums`: of the version; `asked`: the positions a commit was sent to; the caller has waited
    for all of them."""
    accepted = sum(1 for reply in replies.values() if reply.status is CommitStatus.OK)
    if accepted >= quorums.write_quorum:
        return CommitOutcome.COMMITTED
    # Only if nobody can have taken it may it be tried again with another stamp: a put that happens twice
    # would show X, then Y, then X again.
    if accepted or len(replies) < len(asked) or not replies:
        return CommitOutcome.FAILED
    statuses = {reply.status for reply in replies.values()}
    if statuses == {CommitStatus.STALE}:
        return CommitOutcome.RESTAMP
    if statuses <= {CommitStatus.STALE, CommitStatus.LEASED}:
        return CommitOutcome.LEASED
    return CommitOutcome.FAILED


class PrepareOutcome(Enum):
    PROMISED = auto()
    LEASED = auto()
    MISMATCH = auto()
    FAILED = auto()


def judge_prepare(quorums: Quorums, replies: Mapping[int, PrepareReply]) -> tuple[PrepareOutcome, list[int]]:
    """Rule 7: W promises of full drives, and which positions gave one."""
    promised = [
        position for position, reply in replies.items() if reply.status is PrepareStatus.PROMISED and not reply.healing
    ]
    if len(promised) >= quorums.write_quorum:
        return PrepareOutcome.PROMISED, promised
    statuses = {reply.status for reply in replies.values()}
    if PrepareStatus.MISMATCH in statuses:
        return PrepareOutcome.MISMATCH, promised
    if PrepareStatus.LEASED in statuses:
        return PrepareOutcome.LEASED, promised
    return PrepareOutcome.FAILED, promised


class HealStep(Enum):
    COPY = auto()
    """Committed: bring it to those who lack it."""
    TAKE_BACK = auto()
    """Provably not committed: fence it, then remove it."""
    ROLL_FORWARD = auto()
    """Might have been acknowledged and can be rebuilt: make it committed."""
    STUCK = auto()
    """Cannot be decided, or not rebuilt, with the drives that answered."""


def decide_heal(quorums: Quorums, replies: Replies, stamp: int) -> HealStep:
    """Rules 5, 8 and 11 for one version at or above every mark, newest first.

    K - 1 copies and a replaced drive is STUCK: an acknowledged write that was lost and a write that failed
    look the same, and only a person may decide.
    """
    held = versions(replies)[stamp]
    have = len(holders(replies, stamp))
    numbers = of_version(quorums, held)
    servable = _may_serve(numbers, held, have)
    if have >= numbers.write_quorum or stamp == greatest_mark(replies):
        return HealStep.COPY if servable else HealStep.STUCK
    full = full_replies(replies)
    if _lacking(full, stamp) >= numbers.read_quorum:
        return HealStep.TAKE_BACK
    return HealStep.ROLL_FORWARD if servable else HealStep.STUCK


def fence_holds(quorums: Quorums, replies: Mapping[int, FenceReply]) -> bool:
    """Rule 8: R full drives promised never to take it.  `quorums`: of the version."""
    fenced = sum(1 for reply in replies.values() if reply.fenced and not reply.healing)
    return fenced >= quorums.read_quorum
