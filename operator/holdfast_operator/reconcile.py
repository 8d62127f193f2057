"""One pass over one Tenant: parse, gather, observe, advance, render, apply, plan, provision, derive, write.

Level-triggered: a pass looks at what is, never at what happened, and running it twice changes nothing the
second time.  It keeps nothing between passes but the outcome of the last provisioning, which only spares calls:
after a restart of the operator everything is looked at anew.  A pass returns when it wants to be run again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from holdfast_operator import labels
from holdfast_operator.announce import Announcer
from holdfast_operator.apply import ApplyRefused, Growth, apply_growth, apply_manifests, fit_to_live, is_owned_by, prune
from holdfast_operator.credentials import KeyPair, TenantCredentials
from holdfast_operator.desired.render import render_tenant
from holdfast_operator.desired.request import RenderRequest
from holdfast_operator.desired.secrets import render_peer_secret
from holdfast_operator.gather import CredentialsFault, KeyMint, gather_credentials
from holdfast_operator.growth import growth_message, plan_growth, pods_to_remount
from holdfast_operator.kube.errors import EvictionRefused, KubeForbidden, KubeRejected
from holdfast_operator.kube.port import STATEFUL_SET, TENANT, KubeClient, Manifest
from holdfast_operator.ledger import Ledger, advance_pools, check_against_ledger
from holdfast_operator.metrics import OperatorMetrics
from holdfast_operator.monitoring import Monitoring
from holdfast_operator.observe.claims import read_claims
from holdfast_operator.observe.cluster import LiveObjects, list_live_objects
from holdfast_operator.observe.health import HealthProbe
from holdfast_operator.observe.pods import PodState, read_pods, read_stateful_sets
from holdfast_operator.observe.redundancy import Redundancy, formatted_pools, merge_views
from holdfast_operator.plan import (
    EvictPod,
    InterruptPod,
    ReplaceDownPod,
    Step,
    Wait,
    disruption_allowed,
    plan_rollout,
)
from holdfast_operator.provision.client import StoreClient
from holdfast_operator.provision.execute import Provisioned, execute, pending
from holdfast_operator.provision.plan import ProvisionPlan, forget, note_intentions, plan_provisioning
from holdfast_operator.status.conditions import Finding
from holdfast_operator.status.derive import (
    PassFindings,
    Trouble,
    derive_invalid_status,
    derive_silent_status,
    derive_status,
    derive_stopped_status,
)
from holdfast_operator.status.events import condition_events
from holdfast_operator.status.patch import merge_patch
from holdfast_operator.status.progress import PROGRESS_SECONDS, only_progress
from holdfast_operator.tenant.parse import parse_tenant
from holdfast_operator.tenant.spec import TenantSpec
from holdfast_server.contract import names

SETTLED_SECONDS = 10.0
"""Between passes over a tenant at rest: drives can fail without any event in the cluster."""
MOVING_SECONDS = 1.0
"""Between passes while something is under way that no event announces (a drive heals, a set forms)."""
SILENCE_SECONDS = 30.0
"""How long pods that are ready may leave the operator without an answer before that counts as an outage."""
REPEAT_PROVISIONING_SECONDS = 600.0
"""After that, buckets and users are made again, in case somebody removed them behind our back."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TenantKey:
    namespace: str
    name: str


class StoreFactory(Protocol):
    """Makes a client for a tenant's pods."""

    def __call__(self, hosts: Sequence[str], root: KeyPair, region: str) -> StoreClient: ...


@dataclass(frozen=True, slots=True)
class Ports:
    """Everything a pass reaches out through, and its sources of time and randomness."""

    kube: KubeClient
    health: HealthProbe
    store: StoreFactory
    mint: KeyMint
    now: Callable[[], datetime]
    monotonic: Callable[[], float]
    metrics: OperatorMetrics


@dataclass(frozen=True, slots=True)
class _Remembered:
    """The last complete provisioning of a tenant."""

    fingerprint: str
    outcome: Provisioned
    at: float


class Reconciler:
    """Runs passes; a tenant's passes never overlap (the controller's part)."""

    def __init__(self, ports: Ports, default_image: str, cluster_domain: str) -> None:
        self._ports = ports
        self._default_image = default_image
        self._cluster_domain = cluster_domain
        self._provisioned: dict[TenantKey, _Remembered] = {}
        self._silent_since: dict[TenantKey, float] = {}
        self._written: dict[TenantKey, float] = {}
        self._monitoring = Monitoring(ports.kube)
        self._announcer = Announcer(ports.kube, ports.now, ports.monotonic)

    async def reconcile(self, key: TenantKey) -> float | None:
        """One pass.  Returns the seconds until the next is wanted, None if the Tenant is gone; raises KubeError
        when the API server could not be used, and the pass is to be repeated."""
        body = await self._ports.kube.get(TENANT, key.namespace, key.name)
        if body is None or body["metadata"].get("deletionTimestamp"):
            # What is to go with it goes by owner reference; the rest is meant to stay.
            self._provisioned.pop(key, None)
            self._silent_since.pop(key, None)
            self._written.pop(key, None)
            self._ports.metrics.tenant_gone(key)
            return None
        previous = body.get("status") or {}
        status, delay = await self._pass(key, body, previous)
        self._ports.metrics.tenant_seen(key, status.get("conditions") or [])
        patch = merge_patch(previous, status)
        if patch and not self._can_wait(key, previous, status):
            await self._ports.kube.patch_status(TENANT, key.namespace, key.name, patch)
            self._written[key] = self._ports.monotonic()
            _log_transitions(key, previous, status)
            news = condition_events(previous.get("conditions") or [], status.get("conditions") or [])
            await self._announcer.post(body, news)
        return delay

    def _can_wait(self, key: TenantKey, previous: dict[str, Any], status: dict[str, Any]) -> bool:
        """Whether the status was written a moment ago and tells nothing new but progress."""
        written = self._written.get(key)
        young = written is not None and self._ports.monotonic() - written < PROGRESS_SECONDS
        return young and only_progress(previous, status)

    async def _pass(self, key: TenantKey, body: Manifest, previous: dict[str, Any]) -> tuple[dict[str, Any], float]:
        generation = body["metadata"].get("generation", 0)
        now = _timestamp(self._ports.now())
        parsed = parse_tenant(body)
        if parsed.spec is None:
            return derive_invalid_status(parsed.faults, generation, previous, now), SETTLED_SECONDS
        tenant = parsed.spec
        try:
            credentials = await gather_credentials(self._ports.kube, tenant, self._ports.mint)
        except CredentialsFault as fault:
            finding = Finding("CredentialsReady", False, fault.reason, str(fault))
            return derive_stopped_status(finding, generation, previous, now), SETTLED_SECONDS
        contradictions = check_against_ledger(tenant, credentials.ledger)
        if contradictions:
            return derive_invalid_status(contradictions, generation, previous, now), SETTLED_SECONDS
        findings = await self._run_stages(key, tenant, credentials)
        ready = sum(pod.ready and not pod.deleting for pod in findings.pods)
        if ready and self._keeps_silent(key, findings) and previous.get("conditions"):
            return derive_silent_status(ready, generation, previous, now), MOVING_SECONDS
        status = derive_status(findings, previous, now)
        return status, _next_delay(status)

    def _keeps_silent(self, key: TenantKey, findings: PassFindings) -> bool:
        """Whether no pod has answered, and not for so long that it must be told."""
        if findings.redundancy.answering or findings.apply_trouble is not None:
            self._silent_since.pop(key, None)
            return False
        at = self._ports.monotonic()
        return at - self._silent_since.setdefault(key, at) < SILENCE_SECONDS

    async def _run_stages(self, key: TenantKey, tenant: TenantSpec, credentials: TenantCredentials) -> PassFindings:
        live = await list_live_objects(self._ports.kube, tenant.namespace, tenant.name)
        pods = read_pods(live.pods, tenant.name)
        views = await self._ports.health.ask_all(pods)
        redundancy = merge_views(credentials.ledger.pools, views)
        serving = redundancy.of_pools(credentials.ledger.serving_pools)
        ledger = advance_pools(
            credentials.ledger,
            tenant.pools,
            redundancy.epochs or {},
            formatted_pools(credentials.ledger.pools, redundancy),
        )
        ledger = note_intentions(ledger, tenant, credentials)
        request = RenderRequest(
            tenant=tenant,
            credentials=credentials,
            ledger=ledger,
            default_image=self._default_image,
            cluster_domain=self._cluster_domain,
            disruption_allowed=disruption_allowed(tenant, serving),
        )
        rendered = render_tenant(request)
        claims = read_claims(live.claims, tenant.name)
        trouble, growth = None, Growth()
        try:
            growth = await apply_growth(self._ports.kube, plan_growth(tenant, claims, _own_sets(live, tenant)))
            manifests = fit_to_live(rendered, live, growth)
            sent = await apply_manifests(self._ports.kube, tenant, manifests, live)
            if sent:
                applied = [f"{manifest['kind']}/{manifest['metadata']['name']}" for manifest in sent]
                _log(key, "applied", objects=applied)
            await prune(self._ports.kube, tenant, rendered, live)
        except ApplyRefused as error:
            trouble = Trouble("NameTaken", str(error))
        except (KubeRejected, KubeForbidden) as error:
            trouble = Trouble("ApplyFailed", str(error))
        monitoring = await self._monitoring.settle(tenant)
        to_remount = pods_to_remount(tenant, claims, self._ports.now())
        step = await self._roll(key, tenant, pods, live.of_kind(STATEFUL_SET), redundancy, to_remount)
        plan = plan_provisioning(tenant, credentials, ledger)
        provisioned = await self._provision(key, tenant, credentials, ledger, plan, pods, serving)
        return PassFindings(
            tenant=tenant,
            ledger=ledger,
            pods=pods,
            redundancy=redundancy,
            step=step,
            provisioned=provisioned,
            user_secrets={
                user.name: user.secret_name or labels.user_secret_name(tenant.name, user.name) for user in tenant.users
            },
            endpoint=_endpoint(tenant, self._cluster_domain),
            apply_trouble=trouble,
            growing=growth_message(claims),
            growth_refused=growth.refused,
            monitoring=monitoring,
        )

    async def _roll(
        self,
        key: TenantKey,
        tenant: TenantSpec,
        pods: Sequence[PodState],
        stateful_sets: Sequence[Manifest],
        redundancy: Redundancy,
        to_remount: frozenset[str],
    ) -> Step:
        """Take the next disruptive step, at most one."""
        step = plan_rollout(tenant, pods, read_stateful_sets(stateful_sets), redundancy, to_remount)
        if isinstance(step, EvictPod):
            if not await self._ports.health.bears_absence(step.pod):
                return Wait(step.outdated, f"pod {step.pod.name} cannot be spared now")
            try:
                await self._ports.kube.evict(tenant.namespace, step.pod.name)
            except EvictionRefused as error:
                return Wait(step.outdated, str(error))
        elif isinstance(step, ReplaceDownPod | InterruptPod) and step.pod.manifest is not None:
            await self._ports.kube.delete(step.pod.manifest)
        if isinstance(step, EvictPod | ReplaceDownPod | InterruptPod):
            _log(key, "replacing pod", pod=step.pod.name, outdated=step.outdated, step=type(step).__name__)
        return step

    async def _provision(
        self,
        key: TenantKey,
        tenant: TenantSpec,
        credentials: TenantCredentials,
        ledger: Ledger,
        plan: ProvisionPlan,
        pods: Sequence[PodState],
        redundancy: Redundancy,
    ) -> Provisioned:
        fingerprint = f"{credentials.peer.tenant_id}:{tenant.uid}:{plan.fingerprint()}"
        known = self._provisioned.get(key)
        at = self._ports.monotonic()
        if known and known.fingerprint == fingerprint and at - known.at < REPEAT_PROVISIONING_SECONDS:
            return known.outcome
        if not redundancy.writable:
            if known and known.fingerprint == fingerprint:
                return known.outcome
            return pending(plan, "waiting for the write quorum")
        hosts = [pod.ip for pod in pods if pod.ready and pod.ip and not pod.deleting]
        store = self._ports.store(hosts, credentials.root, tenant.region)
        outcome = await execute(plan, store)
        remaining = forget(ledger, outcome.removed)
        if remaining != ledger:
            # The rest of the Secret was applied moments ago; only the ledger within it has changed.
            await self._ports.kube.apply(render_peer_secret(tenant, credentials.peer, remaining))
        if outcome.complete:
            settled = plan_provisioning(tenant, credentials, remaining)
            print_of = f"{credentials.peer.tenant_id}:{tenant.uid}:{settled.fingerprint()}"
            self._provisioned[key] = _Remembered(print_of, outcome, at)
        return outcome


def _own_sets(live: LiveObjects, tenant: TenantSpec) -> dict[str, Manifest]:
    """The tenant's StatefulSets by pool; one of somebody else's is never touched."""
    return {
        labels.labels_of(manifest).get(labels.POOL_LABEL, ""): manifest
        for manifest in live.of_kind(STATEFUL_SET)
        if is_owned_by(manifest, tenant.uid)
    }


def _endpoint(tenant: TenantSpec, cluster_domain: str) -> str:
    host = labels.service_host(tenant.name, tenant.namespace, cluster_domain)
    return f"http://{host}:{names.S3_PORT}"


def _next_delay(status: dict[str, Any]) -> float:
    conditions = {condition["type"]: condition for condition in status["conditions"]}
    moving = (
        conditions["Ready"]["status"] != "True"
        or conditions["Degraded"]["status"] != "False"
        or (conditions["Progressing"]["status"] == "True")
    )
    return MOVING_SECONDS if moving else SETTLED_SECONDS


def _timestamp(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _log(key: TenantKey, message: str, **fields: Any) -> None:
    logger.info(message, extra={"fields": {"namespace": key.namespace, "tenant": key.name, **fields}})


def _log_transitions(key: TenantKey, before: dict[str, Any], after: dict[str, Any]) -> None:
    known = {item.get("type"): item.get("status") for item in before.get("conditions") or []}
    for condition in after.get("conditions") or []:
        if known.get(condition["type"]) != condition["status"]:
            _log(
                key,
                "condition changed",
                condition=condition["type"],
                status=condition["status"],
                reason=condition["reason"],
                detail=condition["message"],
            )
