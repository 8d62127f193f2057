"""One pass over one Tenant: parse, gather, observe, advance, render, apply, plan, provision, derive, write.

While a spec is refused, the same is done for the last one that was accepted, but no pod is replaced.

Level-triggered: a pass looks at what is, never at what happened, and running it twice changes nothing the
second time.  It keeps nothing between passes but what only spares calls (`provisioner`): after a restart of the
operator everything is looked at anew.  A pass returns when it wants to be run again.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, Protocol

from holdfast_operator import labels
from holdfast_operator.accepted_spec import choose_spec, render_accepted_spec
from holdfast_operator.announce import Announcer
from holdfast_operator.apply import (
    ApplyRefused,
    Growth,
    apply_growth,
    apply_manifests,
    at_version_of,
    fit_to_live,
    is_owned_by,
    prune,
    remove_pools,
    unlabel_kept,
)
from holdfast_operator.credentials import KeyPair
from holdfast_operator.desired.disruption_budget import pools_open_to_drains
from holdfast_operator.desired.monitoring import render_monitoring
from holdfast_operator.desired.network import render_network
from holdfast_operator.desired.render import render_tenant
from holdfast_operator.desired.request import RenderRequest
from holdfast_operator.desired.secrets import render_peer_copy, render_peer_secret
from holdfast_operator.encryption_step import settle_encryption, settle_owner
from holdfast_operator.gather import Gathered, KeyMint, gather_credentials
from holdfast_operator.growth import growth_message, plan_growth, pods_to_remount, volume_sizes
from holdfast_operator.key_rotation import (
    KeysSeen,
    describe_changes,
    is_on_record,
    pods_behind,
    rotate_keys,
)
from holdfast_operator.kube.errors import REFUSALS, EvictionRefused
from holdfast_operator.kube.port import DISRUPTION_BUDGET, SECRET, STATEFUL_SET, TENANT, KubeClient, Manifest
from holdfast_operator.ledger import Ledger, advance_pools, left_out, never_began, take_out, without_pools
from holdfast_operator.metrics import OperatorMetrics
from holdfast_operator.observe.claims import ClaimState, doomed_pods, read_claims
from holdfast_operator.observe.cluster import LiveObjects, list_live_objects
from holdfast_operator.observe.health import HealthProbe
from holdfast_operator.observe.hindrances import explain_pods
from holdfast_operator.observe.pods import PodState, StatefulSetState, read_pods, read_stateful_sets
from holdfast_operator.observe.redundancy import Redundancy, formatted_pools, merge_views, reported_epochs
from holdfast_operator.observe.trust import Reach
from holdfast_operator.optional_objects import MONITORING, NETWORK, OptionalObjects
from holdfast_operator.plan import (
    EvictPod,
    InterruptPod,
    Nothing,
    ReplaceDownPod,
    Step,
    Wait,
    disruptable_pools,
    faltering_pods,
    overdue_pods,
    plan_rollout,
)
from holdfast_operator.provision.client import StoreClient
from holdfast_operator.provision.plan import note_intentions
from holdfast_operator.provisioner import Provisioner
from holdfast_operator.sameness import covers
from holdfast_operator.status.conditions import Finding
from holdfast_operator.status.derive import (
    PassFindings,
    Trouble,
    derive_failing_status,
    derive_refused_status,
    derive_silent_status,
    derive_status,
    derive_stopped_status,
)
from holdfast_operator.status.events import TenantEvent, condition_events
from holdfast_operator.status.patch import merge_patch
from holdfast_operator.status.progress import PROGRESS_SECONDS, only_progress
from holdfast_operator.tenant.spec import TenantSpec
from holdfast_operator.tenant_keys import CredentialsFault, TenantCredentials
from holdfast_operator.tls.condition import SWITCHING
from holdfast_operator.tls.minting import system_certificates
from holdfast_operator.tls.stages import speaks_tls
from holdfast_operator.tls.values import CertificateMint
from holdfast_operator.tls_step import TlsSteps
from holdfast_server.contract import names
from holdfast_server.contract.wording import first_of

SETTLED_SECONDS = 10.0
"""Between passes over a tenant at rest: drives can fail without any event in the cluster."""
MOVING_SECONDS = 1.0
"""Between passes while something is under way that no event announces (a drive heals, a set forms)."""
PATIENT_SECONDS = 5.0
"""The same for a tenant that has not moved for long: what its pods do is an event and leads to a pass at once."""
PATIENT_AFTER_PASSES = 60
"""Passes without news, one a second, before `MOVING_SECONDS` grows."""
SILENCE_SECONDS = 30.0
"""How long pods that are ready may leave the operator without an answer before that counts as an outage."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TenantKey:
    namespace: str
    name: str


class StoreFactory(Protocol):
    """Makes a client for a tenant's pods."""

    def __call__(self, hosts: Sequence[str], root: KeyPair, region: str, reach: Reach) -> StoreClient: ...


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
    certificates: CertificateMint = field(default_factory=system_certificates)
    fresh_kube: KubeClient | None = None
    """The API server itself, where `kube` reads from memory."""

    @property
    def direct(self) -> KubeClient:
        """For what must not be decided on an old view."""
        return self.fresh_kube or self.kube


class Reconciler:
    """Runs passes; a tenant's passes never overlap (the controller's part)."""

    def __init__(self, ports: Ports, default_image: str, cluster_domain: str, operator_namespace: str = "") -> None:
        self._ports = ports
        self._operator_namespace = operator_namespace
        self._default_image = default_image
        self._cluster_domain = cluster_domain
        self._provisioners: dict[TenantKey, Provisioner] = {}
        self._silent_since: dict[TenantKey, float] = {}
        self._written: dict[TenantKey, float] = {}
        self._unchanged: dict[TenantKey, int] = {}
        """Passes without news since the last that had some."""
        self._monitoring = OptionalObjects(ports.kube, MONITORING)
        self._network = OptionalObjects(ports.kube, NETWORK)
        self._tls = TlsSteps(ports.kube, ports.certificates, ports.now, cluster_domain)
        self._announcer = Announcer(ports.kube, ports.now, ports.monotonic)

    async def reconcile(self, key: TenantKey) -> float | None:
        """One pass.  Returns the seconds until the next is wanted, None if the Tenant is gone; raises KubeError
        when the API server could not be used, and the pass is to be repeated."""
        body = await self._ports.kube.get(TENANT, key.namespace, key.name)
        if body is None or body["metadata"].get("deletionTimestamp"):
            # What is to go with it goes by owner reference; the rest is meant to stay.
            self._forget(key)
            return None
        previous = body.get("status") or {}
        status, delay = await self._pass(key, body, previous)
        self._ports.metrics.tenant_seen(key, status.get("conditions") or [])
        same = only_progress(previous, status)
        self._unchanged[key] = self._unchanged.get(key, 0) + 1 if same else 0
        patch = merge_patch(previous, status)
        if patch and not self._can_wait(key, previous, status):
            await self._ports.kube.patch_status(TENANT, key.namespace, key.name, patch)
            self._written[key] = self._ports.monotonic()
            _log_transitions(key, previous, status)
            news = condition_events(previous.get("conditions") or [], status.get("conditions") or [])
            await self._announcer.post(body, news)
        return patient(delay, self._unchanged[key])

    def _forget(self, key: TenantKey) -> None:
        self._provisioners.pop(key, None)
        self._silent_since.pop(key, None)
        self._written.pop(key, None)
        self._unchanged.pop(key, None)
        self._ports.metrics.tenant_gone(key)
        for memory in (self._monitoring, self._network, self._tls):
            memory.forget(key.namespace, key.name)

    def forget_all(self) -> None:
        """Another operator works from now on.  What is known here grows old, and what goes then is never heard of: its
        conditions would be told, and alerted on, for ever."""
        for key in {*self._provisioners, *self._silent_since, *self._written, *self._unchanged}:
            self._forget(key)
        self._ports.metrics.tenants_unknown()

    async def tell_failing(self, key: TenantKey, why: str) -> None:
        """Have the Tenant say that no pass over it comes to its end, so that nobody takes what it says for news.

        Raises KubeError."""
        body = await self._ports.kube.get(TENANT, key.namespace, key.name)
        if body is None or body["metadata"].get("deletionTimestamp"):
            return
        previous = body.get("status") or {}
        status = derive_failing_status(why, previous, _timestamp(self._ports.now()))
        patch = merge_patch(previous, status)
        if patch:
            await self._ports.kube.patch_status(TENANT, key.namespace, key.name, patch)
            await self._announcer.post(body, condition_events(previous.get("conditions") or [], status["conditions"]))

    def _can_wait(self, key: TenantKey, previous: dict[str, Any], status: dict[str, Any]) -> bool:
        """Whether the status was written a moment ago and tells nothing new but progress."""
        written = self._written.get(key)
        young = written is not None and self._ports.monotonic() - written < PROGRESS_SECONDS
        return young and only_progress(previous, status)

    async def _pass(self, key: TenantKey, body: Manifest, previous: dict[str, Any]) -> tuple[dict[str, Any], float]:
        generation = body["metadata"].get("generation", 0)
        now = _timestamp(self._ports.now())
        # Before the record of keys is read, see `list_live_objects`.
        live = await list_live_objects(self._ports.kube, key.namespace, key.name)
        choice = await choose_spec(self._ports.kube, body, partial(self._gather, live))
        status: dict[str, Any] | None = None
        delay = SETTLED_SECONDS
        if choice.trouble is not None:
            finding = Finding("CredentialsReady", False, choice.trouble.reason, str(choice.trouble))
            status = derive_stopped_status(finding, generation, previous, now)
        elif choice.tenant is not None and choice.gathered is not None:
            accepted = render_accepted_spec(choice.tenant, body["spec"]) if not choice.faults else None
            status, delay = await self._care(key, body, choice.tenant, choice.gathered, live, accepted)
        if choice.faults:
            status = derive_refused_status(choice.faults, status, generation, previous, now)
        assert status is not None  # without a tenant there are faults
        return status, delay

    async def _gather(self, live: LiveObjects, tenant: TenantSpec) -> Gathered:
        gathered = await gather_credentials(self._ports.kube, tenant, self._ports.mint, self._ports.direct)
        if never_began(gathered.ledger) and not _has_stood(live):
            live = await list_live_objects(self._ports.direct, tenant.namespace, tenant.name)
            if not _has_stood(live):
                # Deleted with its claims, for a typo in it perhaps, and declared anew.
                return replace(gathered, ledger=without_pools(gathered.ledger))
        return gathered

    async def _care(
        self,
        key: TenantKey,
        body: Manifest,
        tenant: TenantSpec,
        gathered: Gathered,
        live: LiveObjects,
        accepted: Manifest | None,
    ) -> tuple[dict[str, Any], float]:
        """Everything for a spec that can be honoured.  `accepted` is the record of it to be written; None while it
        stands in for one that is refused."""
        previous, now = body.get("status") or {}, _timestamp(self._ports.now())
        live.by_key.update({(SECRET.kind, name): secret for name, secret in gathered.secrets.items()})
        findings = await self._run_stages(key, tenant, gathered, live, accepted)
        taken_out = _pools_taken_out(tenant, gathered.ledger, findings.ledger)
        await self._announcer.post(body, [*self._unasked_news(key, gathered, live), *taken_out])
        ready = sum(pod.in_service for pod in findings.pods)
        if ready and self._keeps_silent(key, findings) and previous.get("conditions"):
            return derive_silent_status(ready, tenant.generation, previous, now), MOVING_SECONDS
        status = derive_status(findings, previous, now)
        return status, _next_delay(status)

    def _keeps_silent(self, key: TenantKey, findings: PassFindings) -> bool:
        """Whether no pod has answered, and not for so long that it must be told."""
        if findings.redundancy.answering or findings.apply_trouble is not None:
            self._silent_since.pop(key, None)
            return False
        at = self._ports.monotonic()
        return at - self._silent_since.setdefault(key, at) < SILENCE_SECONDS

    async def _run_stages(
        self,
        key: TenantKey,
        tenant: TenantSpec,
        gathered: Gathered,
        live: LiveObjects,
        accepted: Manifest | None,
    ) -> PassFindings:
        claims = _claims(live, tenant)
        pods = explain_pods(_pods(live, tenant), claims, self._ports.now())
        tls = await self._tls.begin(tenant, gathered.ledger, live)
        self._ports.metrics.certificates_seen(key, tls.ends())
        views = await self._ports.health.ask_all(pods, tls.reach)
        redundancy = merge_views(gathered.ledger.pools, views, {(pod.pool, pod.ordinal): pod.node for pod in pods})
        encryption = await settle_encryption(
            self._ports.kube, self._ports.direct, tenant, gathered.ledger, self._ports.mint.encryption_key
        )
        heard = {(view.pool, view.ordinal) for view in views}
        # Those that have just answered first: one that cannot be reached from here may well be ready.
        asked = sorted(pods, key=lambda pod: (pod.pool, pod.ordinal) not in heard)
        store = self._store(gathered, tenant, asked, tls.reach)
        credentials = await self._keys(key, tenant, gathered, redundancy, store)
        serving = redundancy.of_pools(credentials.ledger.serving_pools)
        lingering = _lingering_pools(live, credentials.ledger)
        known = take_out(credentials.ledger, await self._left_out(key, tenant, credentials.ledger, accepted))
        ledger = advance_pools(
            known,
            tenant.pools,
            reported_epochs(known.pools, redundancy),
            formatted_pools(known.pools, redundancy),
            lingering,
        )
        ledger = note_intentions(encryption.advance(tls.advance(ledger, views)), tenant, credentials)
        drained_from = pools_open_to_drains(tenant, credentials.ledger, live.of_kind(DISRUPTION_BUDGET))
        request = RenderRequest(
            tenant=tenant,
            credentials=credentials,
            ledger=ledger,
            default_image=self._default_image,
            cluster_domain=self._cluster_domain,
            # Pods that run may be the last to have keys that are lost.
            disruptable_pools=frozenset()
            if encryption.spares_pods
            else disruptable_pools(tenant, credentials.ledger, redundancy, drained_from),
            tls=tls.tls,
        )
        # The record comes first: what is acted on is accepted.
        rendered = [*([accepted] if accepted is not None else []), *render_tenant(request)]
        sets = _own_sets(live, tenant)
        if plan_growth(tenant, claims, sets):
            direct = await list_live_objects(self._ports.direct, tenant.namespace, tenant.name)
            claims, sets = _claims(direct, tenant), _own_sets(direct, tenant)
        trouble, growth, sent = None, Growth(), list[Manifest]()
        owner_trouble = None
        try:
            # Before claims are kept, or what they hold could not be decrypted once the Tenant is gone.
            await settle_owner(self._ports.kube, encryption)
        except REFUSALS as error:
            owner_trouble = _apply_trouble(error)
        try:
            growth = await apply_growth(self._ports.kube, plan_growth(tenant, claims, sets))
            manifests = without_refused(fit_to_live(rendered, live, growth), credentials)
            sent = await apply_manifests(self._ports.kube, tenant, manifests, live)
            if sent:
                applied = [f"{manifest['kind']}/{manifest['metadata']['name']}" for manifest in sent]
                _log(key, "applied", objects=applied)
            await prune(self._ports.kube, tenant, [*rendered, *tls.spared, *_record(live, tenant)], live)
            await remove_pools(self._ports.kube, tenant, ledger.taken_out, live)
            await unlabel_kept(self._ports.kube, live)
        except (ApplyRefused, *REFUSALS) as error:
            trouble = _apply_trouble(error)
            await self._keep_budgets(tenant, rendered, live)
        trouble = trouble or owner_trouble
        monitoring = await self._monitoring.settle(tenant, render_monitoring(tenant, tls.scraped(ledger)))
        network = await self._network.settle(tenant, render_network(tenant, self._operator_namespace))
        to_remount = pods_to_remount(tenant, claims, self._ports.now())
        stateful_sets = read_stateful_sets(_own_sets(live, tenant).values(), sent)
        step: Step = Nothing()
        if accepted is not None:
            held = encryption.trouble[1] if encryption.spares_pods and encryption.trouble is not None else ""
            served = redundancy.of_pools(ledger.serving_pools)
            joining = tenant.pool_names - {record.name for record in ledger.serving_pools}
            step = await self._roll(
                key, tenant, pods, claims, stateful_sets, served, to_remount, joining, tls.reach, held
            )

        async def write(fresh: Ledger) -> bool:
            # The rest of the Secrets was applied moments ago; only the ledger within them has changed.
            try:
                for render in (render_peer_copy, render_peer_secret):
                    manifest = render(tenant, credentials.tenant_id, credentials.book, fresh)
                    place = (SECRET.kind, manifest["metadata"]["name"])
                    live.by_key[place] = await self._ports.kube.apply(at_version_of(manifest, live.by_key.get(place)))
            except REFUSALS as error:
                logger.warning("%s: what is gone from the store stays on record: %s", key, error)
                return False
            return True

        provisioner = self._provisioners[key]
        recorded = _is_recorded(live, render_peer_secret(tenant, credentials.tenant_id, credentials.book, ledger))
        provisioned = await provisioner.run(
            tenant, credentials, ledger, store, write, writable=serving.writable, recorded=recorded
        )
        secured = tls.finding(ledger, views)
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
            endpoint=_endpoint(tenant, ledger, self._cluster_domain),
            apply_trouble=trouble,
            lingering_pools=lingering,
            doomed_claims=tuple(claim.name for claim in claims if claim.deleting),
            growing=growth_message(tenant, claims),
            growth_refused=growth.refused,
            volume_sizes=volume_sizes(claims),
            key_troubles=tuple(Trouble(fault.reason, str(fault)) for fault in credentials.faults),
            key_changes=describe_changes(
                credentials.book, _pods_behind(tenant, gathered, redundancy), tenant.key_overlap_seconds
            ),
            user_faults=credentials.user_faults,
            monitoring=monitoring,
            network=network,
            tls=secured,
            tls_keeps_from_serving=tls.keeps_from_serving(secured),
            encryption=encryption.finding(ledger, views),
            encryption_lost=encryption.lost,
        )

    async def _keep_budgets(self, tenant: TenantSpec, rendered: Sequence[Manifest], live: LiveObjects) -> None:
        """A drain must not take a pod that cannot be spared because a Service before the budgets was refused."""
        for manifest in rendered:
            if manifest["kind"] == DISRUPTION_BUDGET.kind:
                with contextlib.suppress(ApplyRefused, *REFUSALS):
                    await apply_manifests(self._ports.kube, tenant, [manifest], live)

    async def _left_out(
        self, key: TenantKey, tenant: TenantSpec, ledger: Ledger, accepted: Manifest | None
    ) -> tuple[str, ...]:
        """Pools to take out: not by the spec of before while another is refused, nor by an old view of the Tenant."""
        names = left_out(ledger, tenant.pool_names) if accepted is not None else ()
        if not names:
            return ()
        body = await self._ports.direct.get(TENANT, key.namespace, key.name)
        if body is None or body["metadata"]["uid"] != tenant.uid:
            return ()
        declared = {pool.get("name") for pool in body["spec"].get("pools") or []}
        return tuple(name for name in names if name not in declared)

    def _store(self, gathered: Gathered, tenant: TenantSpec, pods: Sequence[PodState], reach: Reach) -> StoreClient:
        hosts = [pod.ip for pod in pods if pod.in_service and pod.ip]
        return self._ports.store(hosts, gathered.book.root.in_force, tenant.region, reach)

    async def _keys(
        self, key: TenantKey, tenant: TenantSpec, gathered: Gathered, redundancy: Redundancy, store: StoreClient
    ) -> TenantCredentials:
        """The keys of this pass; wishes for new ones are withdrawn once they are on record."""
        provisioner = self._provisioners.setdefault(key, Provisioner(self._ports.monotonic))
        book = gathered.book
        taken = not pods_behind(book, gathered.ledger, redundancy.key_revisions or {})
        now = int(self._ports.now().timestamp())
        try:
            for secret in gathered.wishes:
                if is_on_record(book, tenant, secret["metadata"]["name"]):
                    withdrawn = {"metadata": {"annotations": {labels.NEW_KEYS_ANNOTATION: None}}}
                    await self._ports.kube.merge(secret, withdrawn)
        except REFUSALS as error:
            # Keys stay as far as they are: a wish that stands would be granted again and again.
            nothing = KeysSeen(taken_everywhere=False, established=frozenset(), resealed=False, now=now)
            return rotate_keys(gathered, tenant, nothing, self._ports.mint).with_fault(
                CredentialsFault("ApplyFailed", f"annotation {labels.NEW_KEYS_ANNOTATION} cannot be taken off: {error}")
            )
        resealing = book.peer.stage == "Taken" and taken and redundancy.writable
        seen = KeysSeen(
            taken_everywhere=taken,
            established=provisioner.established,
            resealed=resealing and await provisioner.reseal(store),
            now=now,
        )
        return rotate_keys(gathered, tenant, seen, self._ports.mint)

    def _unasked_news(self, key: TenantKey, gathered: Gathered, live: LiveObjects) -> list[TenantEvent]:
        """What others have done to the tenant, and the operator has put right: `live`, as the pass has left it."""
        news = [
            TenantEvent(
                "Warning", "CredentialsReady", "SecretRestored", f"Secret {name} was {how}, and is written again"
            )
            for name, how in _restorations(gathered, live)
        ]
        drift = self._provisioners[key].drift
        if drift:
            message = f"made again as declared: {first_of(drift, 8, '; ')}"
            news.append(TenantEvent("Warning", "Ready", "DriftCorrected", message))
        for event in news:
            _log(key, "put right", reason=event.reason, detail=event.message)
        return news

    async def _roll(
        self,
        key: TenantKey,
        tenant: TenantSpec,
        pods: Sequence[PodState],
        claims: Sequence[ClaimState],
        stateful_sets: Mapping[str, StatefulSetState],
        redundancy: Redundancy,
        to_remount: frozenset[str],
        joining: frozenset[str],
        reach: Reach,
        held: str,
    ) -> Step:
        """Take the next disruptive step, at most one.  `held`: why no pod that runs may be replaced.

        A step that the API server refuses is waited for like any other: the rest of the pass does not depend on it."""
        doomed = doomed_pods(claims, tenant.name)
        faltering = faltering_pods(pods, redundancy, self._ports.now())
        overdue = overdue_pods(pods, self._ports.now())
        step = plan_rollout(tenant, pods, stateful_sets, redundancy, to_remount, doomed, faltering, joining, overdue)
        if held and isinstance(step, EvictPod | InterruptPod):
            return Wait(step.outdated, held)
        if isinstance(step, EvictPod | ReplaceDownPod | InterruptPod):
            # The view may be old, and a pod be gone, or new, that was to be replaced.
            live = await list_live_objects(self._ports.direct, tenant.namespace, tenant.name)
            pods, sets = _pods(live, tenant), read_stateful_sets(_own_sets(live, tenant).values())
            doomed = doomed_pods(_claims(live, tenant), tenant.name)
            faltering = faltering_pods(pods, redundancy, self._ports.now())
            overdue = overdue_pods(pods, self._ports.now())
            step = plan_rollout(tenant, pods, sets, redundancy, to_remount, doomed, faltering, joining, overdue)
        if not isinstance(step, EvictPod | ReplaceDownPod | InterruptPod):
            return step
        if held and isinstance(step, EvictPod | InterruptPod):
            return Wait(step.outdated, held)  # it has become ready meanwhile
        if isinstance(step, EvictPod) and not await self._ports.health.bears_absence(step.pod, reach):
            return Wait(step.outdated, f"pod {step.pod.name} cannot be spared now")
        try:
            if isinstance(step, EvictPod):
                await self._ports.kube.evict(tenant.namespace, step.pod.name)
            elif step.pod.manifest is not None:
                await self._ports.kube.delete(step.pod.manifest)
        except (EvictionRefused, *REFUSALS) as error:
            return Wait(step.outdated, f"pod {step.pod.name} is to be replaced: {error}")
        _log(key, "replacing pod", pod=step.pod.name, outdated=step.outdated, step=type(step).__name__)
        return step


def _apply_trouble(error: Exception) -> Trouble:
    return Trouble("NameTaken" if isinstance(error, ApplyRefused) else "ApplyFailed", str(error))


def _pools_taken_out(tenant: TenantSpec, before: Ledger, after: Ledger) -> list[TenantEvent]:
    return [
        TenantEvent(
            "Normal",
            "Progressing",
            "PoolTakenOut",
            f"pool {name} is taken out: no request went to it; its pods are removed, and claims it has are left: "
            f"kubectl delete pvc -l {labels.TENANT_LABEL}={tenant.name},{labels.POOL_LABEL}={name}",
        )
        for name in after.taken_out
        if name not in before.taken_out
    ]


def _restorations(gathered: Gathered, live: LiveObjects) -> list[tuple[str, str]]:
    """Secrets that have been written again, with what had become of them; not those that the API server refuses."""
    found = []
    for name in gathered.restored:
        before, after = gathered.secrets.get(name), live.by_key.get((SECRET.kind, name))
        if after is not None and (before is None or _version(before) != _version(after)):
            found.append((name, "spoilt" if before is not None else "gone"))
    return found


def _version(manifest: Manifest) -> str:
    return str(manifest["metadata"].get("resourceVersion", ""))


def without_refused(manifests: Sequence[Manifest], credentials: TenantCredentials) -> list[Manifest]:
    """Less the Secrets whose content is refused."""
    return [
        manifest
        for manifest in manifests
        if manifest["kind"] != SECRET.kind or manifest["metadata"]["name"] not in credentials.left_alone
    ]


def _pods_behind(tenant: TenantSpec, gathered: Gathered, redundancy: Redundancy) -> tuple[str, ...]:
    """Names of the pods that do not work with the keys on record yet."""
    behind = pods_behind(gathered.book, gathered.ledger, redundancy.key_revisions or {})
    return tuple(labels.pod_name(tenant.name, pool, ordinal) for pool, ordinal in behind)


def _pods(live: LiveObjects, tenant: TenantSpec) -> tuple[PodState, ...]:
    """Of the pools that are declared: another was taken out, and its pods are on their way out."""
    declared = tenant.pool_names
    return tuple(pod for pod in read_pods(live.pods, tenant.name) if pod.pool in declared)


def _claims(live: LiveObjects, tenant: TenantSpec) -> tuple[ClaimState, ...]:
    """Likewise."""
    declared = tenant.pool_names
    return tuple(claim for claim in read_claims(live.claims, tenant.name) if claim.pool in declared)


def _has_stood(live: LiveObjects) -> bool:
    """Whether anything is left that has, or may make, data."""
    return bool(live.claims or live.pods or live.of_kind(STATEFUL_SET))


def _lingering_pools(live: LiveObjects, ledger: Ledger) -> tuple[str, ...]:
    """Those that were taken out and are not gone yet."""
    there = {labels.labels_of(one).get(labels.POOL_LABEL) for one in (*live.pods, *live.of_kind(STATEFUL_SET))}
    return tuple(name for name in ledger.taken_out if name in there)


def _own_sets(live: LiveObjects, tenant: TenantSpec) -> dict[str, Manifest]:
    """The StatefulSets of the declared pools, by pool; one of somebody else's is never touched."""
    declared = tenant.pool_names
    found = {labels.labels_of(one).get(labels.POOL_LABEL, ""): one for one in live.of_kind(STATEFUL_SET)}
    return {pool: one for pool, one in found.items() if pool in declared and is_owned_by(one, tenant.uid)}


def _is_recorded(live: LiveObjects, record: Manifest) -> bool:
    """Whether the Secret holds what the record says; where applying was refused it may not."""
    found = live.by_key.get((SECRET.kind, record["metadata"]["name"]))
    return found is not None and covers(found.get("data"), record["data"])


def _record(live: LiveObjects, tenant: TenantSpec) -> list[Manifest]:
    """That of the accepted spec, as it is."""
    found = live.by_key.get((SECRET.kind, labels.accepted_spec_name(tenant.name)))
    return [] if found is None else [found]


def _endpoint(tenant: TenantSpec, ledger: Ledger, cluster_domain: str) -> str:
    host = labels.service_host(tenant.name, tenant.namespace, cluster_domain)
    return f"{'https' if speaks_tls(ledger) else 'http'}://{host}:{names.S3_PORT}"


def patient(delay_seconds: float, unchanged: int) -> float:
    """The delay for a tenant that had no news in so many passes; a second more for every twenty, up to a bound."""
    if delay_seconds >= PATIENT_SECONDS or unchanged < PATIENT_AFTER_PASSES:
        return delay_seconds
    return min(PATIENT_SECONDS, delay_seconds + (unchanged - PATIENT_AFTER_PASSES) // 20)


def _next_delay(status: dict[str, Any]) -> float:
    conditions = {condition["type"]: condition for condition in status["conditions"]}
    moving = (
        conditions["Ready"]["status"] != "True"
        or conditions["Degraded"]["status"] != "False"
        or (conditions["Progressing"]["status"] == "True")
        or conditions.get("TLSReady", {}).get("reason") == SWITCHING
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
