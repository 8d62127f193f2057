"""From what a pass has found to the whole status.

`Ready` means that clients are served: everything declared exists and every set takes writes.  The loss of a pod
within what the geometry bears leaves `Ready` true and makes `Degraded` true, at once and until every drive is
whole again.  While a spec is refused, what is said is said of the last one that was accepted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from holdfast_operator import labels
from holdfast_operator.ledger import Ledger
from holdfast_operator.observe.pods import PodState
from holdfast_operator.observe.redundancy import Redundancy
from holdfast_operator.plan import Blocked, Nothing, Step, Wait
from holdfast_operator.provision.execute import ItemStatus, Provisioned
from holdfast_operator.quantities import parse_quantity
from holdfast_operator.status.capacity import derive_capacity
from holdfast_operator.status.conditions import ConditionType, Finding, derive_conditions
from holdfast_operator.status.healing import (
    TROUBLES_NAMED,
    doomed_words,
    drive_prospects,
    drive_troubles,
    full_words,
    service,
    stuck_words,
    summary,
    waiting_words,
)
from holdfast_operator.status.pools import derive_pool
from holdfast_operator.tenant.fields import Fault
from holdfast_operator.tenant.spec import TenantSpec
from holdfast_server.contract.accounts import account_id, canonical_id
from holdfast_server.contract.names import S3_PORT
from holdfast_server.contract.wording import count_of, first_of

PASS_FAILS = "PassFails"
UNKNOWN = "Unknown"


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why a stage could not be finished, as reason and message of a condition."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class PassFindings:
    """Everything one pass learned of a tenant whose spec is valid."""

    tenant: TenantSpec
    ledger: Ledger
    pods: Sequence[PodState]
    redundancy: Redundancy
    step: Step
    provisioned: Provisioned
    user_secrets: Mapping[str, str]
    """Declared user → name of the Secret that holds its keys."""
    endpoint: str
    apply_trouble: Trouble | None = None
    lingering_pools: tuple[str, ...] = ()
    """Taken out, and their pods are not gone yet."""
    doomed_claims: Sequence[str] = ()
    """Claims that somebody has deleted, and that go with their pods."""
    growing: str = ""
    """Which volumes have not reached the size that was asked for."""
    growth_refused: str = ""
    """Why a claim was not allowed to grow."""
    volume_sizes: Mapping[str, str] = field(default_factory=dict)
    """By pool: to what its volumes' size may go back."""
    key_troubles: Sequence[Trouble] = ()
    """Secrets that are missing or faulty, and access keys that two would have."""
    key_changes: str = ""
    """What keys are changing."""
    user_faults: Mapping[str, str] = field(default_factory=dict)
    """User → what is wrong with its keys."""
    tls: Finding | None = None
    tls_keeps_from_serving: bool = False
    encryption: Finding | None = None
    encryption_lost: bool = False
    """Keys are gone that objects may be encrypted under."""
    monitoring: Finding | None = None
    """What became of `spec.metrics`; None where it asks for nothing."""
    network: Finding | None = None
    """The same of `spec.ingress` and `spec.networkPolicy`."""

    @property
    def serving(self) -> Redundancy:
        """The pools that requests go to; one that is joining says nothing about the service."""
        return self.redundancy.of_pools(self.ledger.serving_pools)


def derive_status(findings: PassFindings, previous: Mapping[str, Any], now: str) -> dict[str, Any]:
    """The status after a pass that went through."""
    tenant, redundancy = findings.tenant, findings.redundancy
    parts = [
        Finding("SpecValid", True, "Valid", "every field can be honoured"),
        _credentials_ready(findings),
        _pools_ready(findings),
        _items_ready("BucketsReady", findings.provisioned.buckets, "every declared bucket exists"),
        _items_ready(
            "UsersReady",
            (*_users(findings), *findings.provisioned.accounts, *findings.provisioned.policies),
            _rights_told(_undeclared_buckets(tenant)),
        ),
    ]
    degraded = _degraded(findings, previous)
    return {
        "observedGeneration": tenant.generation,
        "endpoint": findings.endpoint,
        "health": _health(findings, degraded),
        "capacity": derive_capacity(findings.ledger.pools, redundancy),
        "conditions": derive_conditions(
            [
                _ready([*_keeping_from_serving(findings), *parts]),
                _progressing(findings),
                degraded,
                *parts,
                *(
                    finding
                    for finding in (findings.tls, findings.encryption, findings.network, findings.monitoring)
                    if finding is not None
                ),
            ],
            previous.get("conditions") or [],
            tenant.generation,
            now,
        ),
        "pools": [
            derive_pool(pool, findings.ledger, findings.pods, redundancy, findings.volume_sizes.get(pool.name))
            for pool in tenant.pools
        ],
        "buckets": [_item(status) for status in findings.provisioned.buckets],
        "accounts": [
            {**_item(status), "id": account_id(status.name), "canonicalId": canonical_id(status.name)}
            for status in findings.provisioned.accounts
        ],
        "users": [{**_item(status), "secret": findings.user_secrets[status.name]} for status in _users(findings)],
    }


def _keeping_from_serving(findings: PassFindings) -> list[Finding]:
    """What applies only to some tenants, and keeps clients from being served."""
    keeping = []
    if findings.tls is not None and findings.tls_keeps_from_serving:
        keeping.append(findings.tls)
    if findings.encryption is not None and findings.encryption_lost:
        keeping.append(findings.encryption)
    return keeping


def derive_refused_status(
    faults: Sequence[Fault], told: Mapping[str, Any] | None, generation: int, previous: Mapping[str, Any], now: str
) -> dict[str, Any]:
    """The status while the spec is refused: `told`, what a pass over the last accepted one found, or what was said
    before where there was none (None); with `SpecValid` and `Ready` false.

    The generation counts as observed: it was read and judged.
    """
    message = "; ".join(str(fault) for fault in faults)
    care = "kept as the last accepted spec has it" if told is not None else "left as it is, and not looked after"
    replaced = [
        Finding("SpecValid", False, "Invalid", message),
        Finding("Ready", False, "SpecInvalid", f"the spec is refused; what runs is {care}"),
        Finding("Progressing", False, "SpecInvalid", "nothing is changed before the spec is put right"),
    ]
    return _with_conditions(replaced, generation, previous, now, told)


def derive_stopped_status(condition: Finding, generation: int, previous: Mapping[str, Any], now: str) -> dict[str, Any]:
    """The status when the keys that pods are asked with are in trouble.  What was said of drives and pods before is
    nothing that anybody may rely on now."""
    replaced = [
        Finding("SpecValid", True, "Valid", "every field can be honoured"),
        condition,
        Finding("Ready", False, condition.reason, condition.message),
        Finding("Progressing", True, condition.reason, condition.message),
    ]
    told = {one.get("type") for one in previous.get("conditions") or []}
    unknown: tuple[ConditionType, ...] = ("Degraded", "PoolsReady")
    not_looked_at = "nobody looks at pods and drives before CredentialsReady is true again"
    replaced += [Finding(kind, None, condition.reason, not_looked_at) for kind in unknown if kind in told]
    status = _with_conditions(replaced, generation, previous, now)
    return {**status, "health": UNKNOWN} if "health" in previous else status


def derive_silent_status(ready_pods: int, generation: int, previous: Mapping[str, Any], now: str) -> dict[str, Any]:
    """The status while the kubelet finds pods ready and none answers the operator: what is known stands for now.

    Busy pods, or a hiccup between operator and pods, must not make the tenant's conditions flap.
    """
    message = f"{ready_pods} pods are ready, but none answers the operator's question for its health"
    replaced = [
        Finding("SpecValid", True, "Valid", "every field can be honoured"),
        Finding("Progressing", True, "PodsSilent", message),
    ]
    return _with_conditions(replaced, generation, previous, now)


def derive_failing_status(why: str, previous: Mapping[str, Any], now: str) -> dict[str, Any]:
    """The status while no pass comes to its end: what was said before stands, as old as it is, and of a Tenant of which
    nothing was said yet it is not ready.  No generation counts as observed by it."""
    told = {condition.get("type"): condition for condition in previous.get("conditions") or []}
    message = f"the operator does not come to the end of a pass over this tenant, and tries again: {why}"
    replaced = [Finding("Progressing", True, PASS_FAILS, message)]
    if told.get("Ready", {}).get("status") is None or told["Ready"].get("reason") == PASS_FAILS:
        replaced.insert(0, Finding("Ready", False, PASS_FAILS, message))
    generation = previous.get("observedGeneration") or 0
    return _with_conditions(replaced, generation, previous, now)


def _with_conditions(
    replaced: Sequence[Finding],
    generation: int,
    previous: Mapping[str, Any],
    now: str,
    told: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """`told`, or what was said before, with some conditions replaced."""
    base = previous if told is None else told
    changed = derive_conditions(replaced, previous.get("conditions") or [], generation, now)
    names = {condition["type"] for condition in changed}
    kept = [condition for condition in base.get("conditions") or [] if condition.get("type") not in names]
    return {**base, "observedGeneration": generation, "conditions": [*changed, *kept]}


def _ready(parts: Sequence[Finding]) -> Finding:
    for part in parts:
        if part.value is not True:
            return Finding("Ready", False, part.reason, part.message)
    return Finding("Ready", True, "Serving", "every erasure set takes writes")


def _pools_ready(findings: PassFindings) -> Finding:
    if findings.apply_trouble is not None:
        return Finding("PoolsReady", False, findings.apply_trouble.reason, findings.apply_trouble.message)
    serving = findings.serving
    if serving.writable and not _reachable(findings):
        message = "pods take writes, but the kubelets find none of them ready: the Service leads to none of them"
        return Finding("PoolsReady", False, "NoPodReady", message)
    if serving.writable:
        return Finding("PoolsReady", True, "Writable", "every erasure set has its write quorum")
    pods = [pod for pod in findings.pods if pod.message and not pod.ready]
    troubles = _pod_troubles(pods)
    if not serving.answering:
        return Finding("PoolsReady", False, "NoPodAnswers", _silence(findings) or troubles or "no pod answers yet")
    shortfall = _shortfall(findings)
    drives = drive_troubles(serving, findings.tenant.name, {(pod.pool, pod.ordinal) for pod in pods})
    parts = (_SHORTFALLS[shortfall], troubles, drives)
    return Finding("PoolsReady", False, shortfall, "; ".join(part for part in parts if part))


def _silence(findings: PassFindings) -> str:
    """Of pods that their kubelets find ready; empty where there are none."""
    ready = sum(pod.in_service for pod in findings.pods)
    if not ready:
        return ""
    return (
        f"{ready} pods are ready, and serve clients perhaps, but none answers the operator on port {S3_PORT}: a "
        "NetworkPolicy or a firewall between them?"
    )


def _reachable(findings: PassFindings) -> bool:
    """Whether clients find a pod behind the Service, which knows what the kubelets' probes say: the operator asks the
    pods themselves, and hears of one that serves before that."""
    return any(pod.in_service for pod in findings.pods)


_SHORTFALLS = {
    "Starting": "drives are being prepared",
    "ReadOnly": "reads are served, writes are refused until more drives are back",
    "QuorumLost": "neither reads nor writes are served until more drives are back",
}


def _shortfall(findings: PassFindings) -> str:
    """Why writes are not taken, in one word."""
    if not all(record.formatted for record in findings.ledger.serving_pools):
        return "Starting"
    return "ReadOnly" if findings.serving.readable else "QuorumLost"


def _degraded(findings: PassFindings, previous: Mapping[str, Any]) -> Finding:
    redundancy = findings.serving
    if not redundancy.answering:
        return Finding("Degraded", None, "NoPodAnswers", "no pod answers")
    waiting, stuck = redundancy.waiting, redundancy.stuck
    full = full_words(redundancy, findings.tenant.name)
    going = doomed_words(findings.doomed_claims)
    if not redundancy.whole and not all(record.formatted for record in findings.ledger.serving_pools):
        return Finding("Degraded", None, "Starting", "drives are being prepared")
    if not redundancy.whole:
        healing_only = all(drive.answers for drive in redundancy.drives)
        reason = "DrivesHealing" if healing_only else "DrivesMissing"
        parts = [summary(redundancy), service(redundancy), drive_troubles(redundancy, findings.tenant.name)]
        parts += [drive_prospects(redundancy), waiting_words(waiting, redundancy) if waiting else ""]
        parts += [stuck_words(stuck) if stuck else "", full, going]
        return Finding("Degraded", True, reason, "; ".join(part for part in parts if part))
    if going:
        return Finding("Degraded", True, "ClaimsDeleted", f"every drive is there; {going}")
    if stuck:
        return Finding("Degraded", True, "VersionsStuck", f"every drive is there; {stuck_words(stuck)}")
    if full:
        return Finding("Degraded", True, "DrivesFull", f"every drive is there; {full}")
    # A write that one drive missed is repaired within seconds and no news; but what is degraded stays so until
    # the writes missed meanwhile have been made up for.
    if waiting and _was_true(previous, "Degraded"):
        return Finding("Degraded", True, "CatchingUp", f"every drive is back; {waiting_words(waiting, redundancy)}")
    return Finding("Degraded", False, "Whole", "every drive is whole")


def _was_true(previous: Mapping[str, Any], kind: str) -> bool:
    return any(
        condition.get("type") == kind and condition.get("status") == "True"
        for condition in previous.get("conditions") or []
    )


def _progressing(findings: PassFindings) -> Finding:
    if findings.apply_trouble is not None:
        return Finding("Progressing", True, findings.apply_trouble.reason, findings.apply_trouble.message)
    moving = _pods_moving(findings)
    refused = findings.growth_refused
    if moving is not None:
        # Whoever waits for a roll must not be told that nothing moves because volumes do not.
        return moving if not refused else replace(moving, message=f"{moving.message}; volumes cannot grow: {refused}")
    if refused:
        return Finding("Progressing", False, "VolumesCannotGrow", f"{refused}{_way_back(findings)}")
    if findings.growing:
        return Finding("Progressing", True, "VolumesGrowing", findings.growing)
    joining = [record.name for record in findings.ledger.joining_pools]
    joining += [pool.name for pool in findings.tenant.pools if findings.ledger.pool(pool.name) is None]
    if joining:
        names = ", ".join(joining)
        message = f"takes writes once every pod knows it: {names}"
        if findings.lingering_pools:
            message += f"; first the pods of {', '.join(findings.lingering_pools)}, which was taken out, must be gone"
        return Finding("Progressing", True, "PoolJoining", message)
    return Finding("Progressing", False, "Settled", "nothing is left to do")


def _way_back(findings: PassFindings) -> str:
    """From a size that the volumes were not given; empty where there is none."""
    sizes = [
        f"{findings.volume_sizes[pool.name]} in pool {pool.name}"
        for pool in findings.tenant.pools
        if pool.name in findings.volume_sizes
        and parse_quantity(findings.volume_sizes[pool.name]) < parse_quantity(pool.claim.storage)
    ]
    return f"; if that is to stay so, `storage` may go back to {', '.join(sizes)}" if sizes else ""


def _pods_moving(findings: PassFindings) -> Finding | None:
    """Of pods that are replaced, are to be, or are not there; None where each is as it should be."""
    step = findings.step
    if isinstance(step, Blocked):
        return Finding("Progressing", False, "RollBlocked", step.message)
    if isinstance(step, Wait):
        return Finding("Progressing", True, "RollWaiting", step.message)
    if not isinstance(step, Nothing):
        outdated = count_of(step.outdated, "is", "are")
        return Finding("Progressing", True, "Rolling", f"replacing pod {step.pod.name}, {outdated} outdated")
    missing = _pods_not_ready(findings)
    if missing:
        expected = sum(pool.servers for pool in findings.tenant.pools)
        awaited = first_of(missing, TROUBLES_NAMED)
        message = f"{expected - len(missing)} of {expected} pods are ready; waiting for {awaited}"
        if len(findings.pods) < expected:
            message += "; if pods do not appear, `kubectl describe statefulset` says why"
        return Finding("Progressing", True, "PodsStarting", message)
    return None


def _credentials_ready(findings: PassFindings) -> Finding:
    if findings.key_troubles:
        message = "; ".join(trouble.message for trouble in findings.key_troubles[:8])
        return Finding("CredentialsReady", False, findings.key_troubles[0].reason, message)
    if findings.key_changes:
        return Finding("CredentialsReady", True, "KeysChanging", findings.key_changes)
    return Finding("CredentialsReady", True, "Present", "the root and user keys are in their Secrets")


def _users(findings: PassFindings) -> list[ItemStatus]:
    """Those whose keys are faulty have failed, whatever became of the keys they had."""
    faults = findings.user_faults
    hints = _undeclared_buckets(findings.tenant)
    made = [
        replace(status, message=hints[status.name]) if not status.message and status.name in hints else status
        for status in findings.provisioned.users
        if status.name not in faults
    ]
    return [*made, *(ItemStatus(name, "Failed", message) for name, message in faults.items())]


def _undeclared_buckets(tenant: TenantSpec) -> dict[str, str]:
    """Of users with rights to buckets that the Tenant does not declare: clients may have made them, or it is a slip."""
    declared = {bucket.name for bucket in tenant.buckets}
    hints = {}
    for user in tenant.users:
        others = [grant.name for grant in user.buckets if grant.name not in declared]
        if others:
            named = first_of(others, TROUBLES_NAMED)
            hints[user.name] = f"has rights to what spec.buckets does not declare: {named}"
    return hints


def _rights_told(hints: Mapping[str, str]) -> str:
    """Where all is done, with what may be a slip: who reads conditions alone would look for it in the store."""
    slips = first_of([f"{name} {hint}" for name, hint in hints.items()], TROUBLES_NAMED, "; ")
    told = "every declared user exists and has its rights"
    return f"{told}; {slips}" if slips else told


def _items_ready(kind: Any, items: Sequence[ItemStatus], done: str) -> Finding:
    # A bucket that is declared no more and not empty is worth a word in its list, not an alarm.
    open_items = [item for item in items if item.state in ("Pending", "Failed")]
    if not open_items:
        return Finding(kind, True, "Provisioned", done)
    failed = any(item.state == "Failed" for item in open_items)
    message = "; ".join(f"{item.name}: {item.message or item.state}" for item in open_items[:8])
    return Finding(kind, False, "Failed" if failed else "Pending", message)


def _item(status: ItemStatus) -> dict[str, Any]:
    item: dict[str, Any] = {"name": status.name, "state": status.state}
    if status.message:
        item["message"] = status.message
    return item


def _health(findings: PassFindings, degraded: Finding) -> str:
    """One word for the printer column."""
    if findings.serving.writable and not _reachable(findings):
        return "Starting"
    if findings.serving.writable:
        return "Healthy" if degraded.value is False else "Degraded"
    shortfall = _shortfall(findings)
    return "Unavailable" if shortfall == "QuorumLost" else shortfall


def _pods_not_ready(findings: PassFindings) -> list[str]:
    """The pods the spec asks for that are not ready, each with the reason where there is one."""
    found = {pod.name: pod for pod in findings.pods}
    missing, causes = [], dict[str, str]()
    for pool in findings.tenant.pools:
        for ordinal in range(pool.servers):
            name = labels.pod_name(findings.tenant.name, pool.name, ordinal)
            pod = found.get(name)
            if pod is None:
                missing.append(f"{name} (not there yet)")
            elif not pod.in_service:
                told = _once(pod, causes)
                missing.append(f"{name} ({told})" if told else name)
    return missing


def _pod_troubles(pods: Sequence[PodState]) -> str:
    causes = dict[str, str]()
    return first_of([f"{pod.name}: {_once(pod, causes)}" for pod in pods], TROUBLES_NAMED, "; ")


def _once(pod: PodState, causes: dict[str, str]) -> str:
    """Its message; what was told of another pod, but for that one's name in it, is not told again, nor is its cause.
    `causes`: by whom, so far."""
    alike = causes.setdefault(pod.message.replace(pod.name, ""), pod.name)
    if alike != pod.name:
        return f"as {alike}"
    first = causes.setdefault(pod.cause, pod.name) if pod.cause else pod.name
    return pod.message if first == pod.name else f"as {first}{pod.message.removeprefix(pod.cause)}"
