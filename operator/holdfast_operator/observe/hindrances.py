"""Why pods are not ready, as completely as the cluster's objects tell: where each is, and what its volumes wait for.

A kubelet tells what hinders a container (`pods`), but not what hinders it itself: a node that is gone says nothing, a
pod that cannot be placed for want of its volumes does not name them.  What only events say is pointed at with the
command that shows it; the operator has no right to read events.

Messages hold nothing that changes by itself (counts of restarts, seconds to the next attempt): each change of a message
is a write of the status, and news to everybody who watches.  Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from holdfast_operator.observe.claims import BOUND, LOST, ClaimState
from holdfast_operator.observe.pods import PodState
from holdfast_server.contract.wording import first_of

END_PATIENCE = timedelta(seconds=30)
"""How long after its time to end a pod may be there still before its node counts as silent."""

CLAIMS_NAMED = 4
"""Of a pod, in its message; all are of one class."""
_OF_VOLUMES = ("volume", "storage", "pvc")
"""Where the scheduler speaks of none of these, claims wait for the pod to be placed, and nothing ails them: most
classes make a volume only then."""

CREATION_PATIENCE = timedelta(seconds=60)
"""How long a node may take for a container before one is to look why: a large image, a volume that another node has."""


def explain_pods(pods: Sequence[PodState], claims: Sequence[ClaimState], now: datetime) -> tuple[PodState, ...]:
    """The same pods; the message of each that is not ready is complete."""
    return tuple(pod if pod.in_service else _explained(pod, claims, now) for pod in pods)


def is_overdue(pod: PodState, now: datetime) -> bool:
    """Whether it should be gone, and its node does not confirm it."""
    return pod.ends_at is not None and now - pod.ends_at > END_PATIENCE


def _explained(pod: PodState, claims: Sequence[ClaimState], now: datetime) -> PodState:
    parts = [pod.message] if pod.message else []
    if not pod.node:
        own = [claim for claim in claims if (claim.pool, claim.ordinal) == (pod.pool, pod.ordinal)]
        parts += _claims_words([claim for claim in own if claim.phase not in (BOUND, "")], pod.message)
    elif is_overdue(pod, now):
        parts.append(
            f"was to end at {pod.ends_at:%H:%M:%S} UTC, which node {pod.node} has not confirmed; if that node is gone "
            f"for good, `kubectl delete node {pod.node}`"
        )
    elif not pod.deleting and pod.creating_since is not None and now - pod.creating_since > CREATION_PATIENCE:
        parts.append(
            f"on node {pod.node}, which has not created its container yet: `kubectl describe pod {pod.name}` says why"
        )
    elif pod.deleting:
        parts.append(f"ending on node {pod.node}")
    else:
        # Where nothing else is known, a node alone would not say what ails the pod.
        parts.append(f"on node {pod.node}" if parts else f"not ready yet, on node {pod.node}")
    return replace(pod, message="; ".join(parts))


def _claims_words(claims: Sequence[ClaimState], scheduler_says: str) -> list[str]:
    words = [f"claim {_named(claim)} has lost its volume" for claim in claims if claim.phase == LOST]
    waiting = [claim for claim in claims if claim.phase != LOST]
    told = scheduler_says.lower()
    if not waiting or (told and not any(mark in told for mark in _OF_VOLUMES)):
        return words
    first = waiting[0]
    if len(waiting) == 1:
        words.append(f"claim {_named(first)} is not bound to a volume, `kubectl describe pvc {first.name}` says why")
        return words
    named = first_of([claim.name for claim in waiting], CLAIMS_NAMED)
    kind = f" of storage class {first.storage_class}" if first.storage_class else ""
    words.append(f"claims {named}{kind} are not bound to volumes, `kubectl describe pvc {first.name}` says why")
    return words


def _named(claim: ClaimState) -> str:
    return f"{claim.name} of storage class {claim.storage_class}" if claim.storage_class else claim.name
