"""Which disruptive step comes next, if any.  Pure.

Rules, each there because its absence has cost somebody data or sleep:
* one pod at a time over the whole tenant, and none while another is on its way down or up; but for pods of a pool that
  no request goes to yet, which may never come up, and nobody misses;
* a pod that is down already may always be replaced, or a bad image could never be fixed, also while another should have
  ended long ago, whose node may be gone for good (then only one that answers nobody, either); one that has missed its
  probes and answers is not down: pods of a busy node miss them together, while others heal;
* a healthy pod goes only while every drive of every set is whole and nothing waits for repair, and after the pod
  itself has confirmed that the others bear its absence (asked by the caller just before,
  `/health/cluster?maintenance=true`);
* where the geometry of its pool bears no loss, a healthy pod goes only if the Tenant says `allowDisruption`, and after
  those of pools that bear one;
* a pod whose volume grows only when it is mounted anew is replaced like one with an old revision;
* a pod whose claim somebody has deleted is not replaced at all: the claim is there as long as the pod, and its end
  would be that of the data.  Who means that deletes the pod.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import MappingProxyType

from holdfast_operator import labels
from holdfast_operator.ledger import Ledger
from holdfast_operator.observe.hindrances import is_overdue
from holdfast_operator.observe.pods import PodState, StatefulSetState
from holdfast_operator.observe.redundancy import Redundancy
from holdfast_operator.tenant.spec import TenantSpec
from holdfast_server.contract.wording import count_of

READINESS_PATIENCE = timedelta(seconds=60)
"""How long a pod may be unready, and serve its drives, before it counts as down."""


@dataclass(frozen=True, slots=True)
class Nothing:
    """Every pod runs the latest revision on volumes of the size they have."""


@dataclass(frozen=True, slots=True)
class Wait:
    """A step is due but must not be taken now."""

    outdated: int
    message: str


@dataclass(frozen=True, slots=True)
class Blocked:
    """A step is due and needs a person's decision."""

    outdated: int
    message: str


@dataclass(frozen=True, slots=True)
class ReplaceDownPod:
    """Delete a pod that serves nobody."""

    pod: PodState
    outdated: int


@dataclass(frozen=True, slots=True)
class EvictPod:
    """Take a healthy pod through the Eviction API, after it confirmed that it can be spared."""

    pod: PodState
    outdated: int


@dataclass(frozen=True, slots=True)
class InterruptPod:
    """Delete a healthy pod whose absence interrupts service: the Tenant allows it."""

    pod: PodState
    outdated: int


Step = Nothing | Wait | Blocked | ReplaceDownPod | EvictPod | InterruptPod


def plan_rollout(
    tenant: TenantSpec,
    pods: Sequence[PodState],
    stateful_sets: Mapping[str, StatefulSetState],
    redundancy: Redundancy,
    to_remount: frozenset[str] = frozenset(),
    doomed: Mapping[str, str] = MappingProxyType({}),
    faltering: frozenset[str] = frozenset(),
    joining: frozenset[str] = frozenset(),
    overdue: frozenset[str] = frozenset(),
) -> Step:
    """The next step of rolling pods to the latest revision of their StatefulSet.

    `to_remount`: names of pods to be replaced for the sake of their volumes; `doomed`: of pods with whose end a claim
    goes, and that claim's; `faltering`: of pods that are not ready and not down (`faltering_pods`);
    `joining`: of pools that no request goes to yet, of whose drives `redundancy` says nothing; `overdue`: of pods whose
    nodes are silent about their end.
    """
    outdated = [pod for pod in pods if pod.name in to_remount or _is_outdated(pod, stateful_sets)]
    if not outdated:
        # Until its controller has looked at a changed template, nobody knows which pods are outdated.
        unseen = next((state.pool for state in stateful_sets.values() if not state.update_revision), None)
        if unseen is not None:
            return Wait(0, f"the StatefulSet of pool {unseen} has changed, and its controller has not answered yet")
        return Nothing()
    count = len(outdated)
    serving = [pod for pod in pods if pod.pool not in joining]
    leaving = [pod for pod in serving if pod.deleting]
    replaceable = [pod for pod in outdated if pod.name not in doomed and not pod.deleting]
    down = [pod for pod in replaceable if not pod.ready and pod.name not in faltering]
    if leaving:
        heard, stuck = redundancy.epochs or {}, overdue.issuperset(pod.name for pod in leaving)
        down = [pod for pod in down if stuck and (pod.pool, pod.ordinal) not in heard]
    if down:
        return ReplaceDownPod(down[0], count)
    if leaving:
        return Wait(count, f"{_others(count)} pod {leaving[0].told} has ended and is back")
    held = next((pod for pod in outdated if pod.name in doomed and (not pod.ready or not replaceable)), None)
    if held is not None:
        return Blocked(count, _doomed_words(held, doomed[held.name]))
    starting = next((pod for pod in serving if not pod.ready), None)
    awaited = starting.told if starting is not None else _missing(tenant, serving, joining)
    if awaited:
        return Wait(count, f"{_others(count)} pod {awaited} is ready")
    if not redundancy.whole:
        return Wait(count, f"{_others(count)} every drive is whole")
    if not replaceable:
        return Wait(count, f"{_others(count)} pod {outdated[0].told} has ended and is back")
    if redundancy.repair_queue_length:
        missed = count_of(redundancy.repair_queue_length, "missed write is", "missed writes are")
        return Wait(count, f"{_others(count)} {missed} repaired")
    bearing = _bearing_pools(tenant) | joining
    spared = next((pod for pod in replaceable if pod.pool in bearing), None)
    if spared is not None:
        return EvictPod(spared, count)
    if tenant.allow_disruption:
        return InterruptPod(replaceable[0], count)
    awaiting = count_of(count, "pod awaits", "pods await")
    return Blocked(count, f"{awaiting} the new revision, and losing any interrupts service: set spec.allowDisruption")


def faltering_pods(pods: Sequence[PodState], redundancy: Redundancy, now: datetime) -> frozenset[str]:
    """Names of pods that have become unready just now, and answer with drives that serve."""
    heard = redundancy.epochs or {}
    serving = {(one.pool, one.ordinal) for one in redundancy.drives if one.answers}
    return frozenset(
        pod.name
        for pod in pods
        if not pod.ready
        and pod.unready_since is not None
        and now - pod.unready_since < READINESS_PATIENCE
        and (pod.pool, pod.ordinal) in heard
        and (pod.pool, pod.ordinal) in serving
    )


def overdue_pods(pods: Sequence[PodState], now: datetime) -> frozenset[str]:
    """Names of pods that should be gone, and whose node does not confirm it."""
    return frozenset(pod.name for pod in pods if is_overdue(pod, now))


def _doomed_words(pod: PodState, claim: str) -> str:
    return (
        f"pod {pod.name} is to be replaced, and is not: claim {claim} is being deleted and would go with it, and the "
        f"data on it. Where that is meant, `kubectl delete pod {pod.name}`, and the volume is filled anew from the "
        f"others; one pod at a time"
    )


def _missing(tenant: TenantSpec, serving: Sequence[PodState], joining: frozenset[str]) -> str:
    """The first pod that is not there, and where to look why: the one that makes it tells nobody else of a quota, a
    priority class or a service account that keeps it from that.  Empty if all are there."""
    there = {pod.name for pod in serving}
    for pool in tenant.pools:
        names = [labels.pod_name(tenant.name, pool.name, ordinal) for ordinal in range(pool.servers)]
        gone = next((name for name in names if name not in there), None)
        if gone is not None and pool.name not in joining:
            made_by = labels.stateful_set_name(tenant.name, pool.name)
            return f"{gone} (not there yet; if it does not appear, `kubectl describe statefulset {made_by}` says why)"
    return ""


def _others(count: int) -> str:
    if count == 1:
        return "1 pod is to be replaced, and left as it is until"
    return f"{count} pods are to be replaced, and left as they are until"


def disruptable_pools(
    tenant: TenantSpec, ledger: Ledger, redundancy: Redundancy, disruptable_so_far: Collection[str]
) -> frozenset[str]:
    """Names of the pools of which a node drain may take one pod now.

    One that had lost a pod must first have been brought what that missed: the node that is drained next would take
    further shards of the same objects.  A write that is missed in passing takes no such leave away."""
    found = set()
    for record in ledger.serving_pools:
        own = redundancy.of_pools([record])
        caught_up = record.name in disruptable_so_far or not any(view.to_repair for view in own.sets)
        if own.whole and caught_up:
            found.add(record.name)
    return frozenset(found & _bearing_pools(tenant))


def _bearing_pools(tenant: TenantSpec) -> frozenset[str]:
    """Names of the pools that take writes on with one of their servers away."""
    return frozenset(pool.name for pool in tenant.pools if pool.tolerated_servers > 0)


def _is_outdated(pod: PodState, stateful_sets: Mapping[str, StatefulSetState]) -> bool:
    state = stateful_sets.get(pod.pool)
    return bool(state and state.update_revision and pod.revision and pod.revision != state.update_revision)
