"""What a pass does about TLS: gather, say how pods are reached, advance the stage, tell the outcome.

One `TlsSteps` per operator; it keeps connections' contexts, what pods showed a moment ago and what cert-manager need
not be asked again, nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from holdfast_operator import labels
from holdfast_operator.cert_manager import CertificateRequests
from holdfast_operator.certificates import CertificatePorts, TlsFault, as_served, gather_tls
from holdfast_operator.desired.monitoring import ScrapeTls
from holdfast_operator.kube.port import SECRET, SERVICE, KubeClient, Manifest
from holdfast_operator.ledger import Ledger
from holdfast_operator.observe.cluster import LiveObjects
from holdfast_operator.observe.health import PodView
from holdfast_operator.observe.trust import PLAIN, Reach, Reaches
from holdfast_operator.status.conditions import Finding
from holdfast_operator.tenant.spec import TenantSpec
from holdfast_operator.tls.condition import derive_tls, keeps_from_serving
from holdfast_operator.tls.reading import read_certificate
from holdfast_operator.tls.stages import advance_tls, speaks_tls
from holdfast_operator.tls.values import CertificateMint, TenantTls, joined

LAG = timedelta(minutes=5)
"""After a change of the pods' certificate, how long some may still show the one before: kubelets take a minute or two
to bring changed Secrets to them."""


@dataclass(frozen=True, slots=True)
class TlsStep:
    """Of one pass."""

    tenant: TenantSpec
    known: Ledger
    """What the pods were told last."""
    tls: TenantTls | None
    trouble: tuple[str, str] | None
    reach: Reach
    """How pods are asked in this pass."""
    cluster_domain: str
    now: datetime
    spared: tuple[Manifest, ...] = ()
    """What is not rendered in this pass and must stay all the same."""

    def advance(self, ledger: Ledger, views: Sequence[PodView]) -> Ledger:
        usable = self.tls is not None and self.tls.clients is not None
        wanted = self.tenant.tls.mode != "Disabled"
        return advance_tls(self.known, ledger, wanted=wanted, usable=usable, reports=_reports(views))

    def finding(self, ledger: Ledger, views: Sequence[PodView]) -> Finding:
        # A pod that lags behind the Secret by a moment is no news; what it says is told once it should know better.
        messages = [f"{labels.pod_name(self.tenant.name, view.pool, view.ordinal)}: {view.health.tls.message}"
                    for view in views if view.health.tls.message]  # fmt: skip
        return derive_tls(self.tenant, ledger, self.tls, self.trouble, _reports(views), messages)

    def keeps_from_serving(self, finding: Finding) -> bool:
        # Pods that have not begun to use TLS serve without, whatever keeps them from it.
        plain = self.known.pools and self.known.tls_stage == "Off"
        return not plain and keeps_from_serving(finding, self.tls, self.now)

    def ends(self) -> dict[str, datetime]:
        """When each certificate ends, for metrics."""
        tls = self.tls
        if tls is None:
            return {}
        ends = {"peers": tls.peers}
        if tls.authority is not None:
            ends["authority"] = tls.authority.signing
        if tls.clients is not None:
            ends["clients"] = tls.clients
        return {name: read_certificate(pair.certificate).expires for name, pair in ends.items()}

    def scraped(self, ledger: Ledger) -> ScrapeTls | None:
        """How Prometheus reaches the pods with TLS; None where it is to go without."""
        if self.tls is None or self.tls.clients is None or not speaks_tls(ledger):
            return None
        name = labels.service_host(self.tenant.name, self.tenant.namespace, self.cluster_domain)
        return ScrapeTls(name, has_authority=bool(self.tls.clients_authority))


@dataclass(frozen=True, slots=True)
class _Shown:
    """What pods are given to show, and what they were given before."""

    chain: str
    since: datetime
    former: str = ""


class TlsSteps:
    """See the module."""

    def __init__(
        self, kube: KubeClient, mint: CertificateMint, now: Callable[[], datetime], cluster_domain: str
    ) -> None:
        self._kube, self._mint, self._now, self._cluster_domain = kube, mint, now, cluster_domain
        self._requests = CertificateRequests(kube, cluster_domain)
        self._reaches = Reaches()
        self._shown: dict[tuple[str, str], _Shown] = {}
        """By the Tenant's namespace and name."""

    async def begin(self, tenant: TenantSpec, ledger: Ledger, live: LiveObjects) -> TlsStep:
        """Raises KubeError if the API server cannot be asked."""
        request_trouble = await self._requests.settle(tenant)
        ports = CertificatePorts(self._kube, self._mint, self._now(), self._cluster_domain)
        service = live.by_key.get((SERVICE.kind, labels.service_name(tenant.name)))
        try:
            tls = await gather_tls(ports, tenant, ledger, service)
        except TlsFault as fault:
            mounted = live.by_key.get((SECRET.kind, labels.tls_secret_name(tenant.name)))
            spared = () if mounted is None else (mounted,)
            trouble = (fault.reason, str(fault))
            served = as_served(mounted, trouble, self._now())
            reach = self._reach(tenant, ledger, served)
            return TlsStep(tenant, ledger, served, trouble, reach, self._cluster_domain, self._now(), spared)
        return TlsStep(
            tenant, ledger, tls, request_trouble, self._reach(tenant, ledger, tls), self._cluster_domain, self._now()
        )

    def forget(self, namespace: str, name: str) -> None:
        """The Tenant is gone."""
        self._requests.forget(namespace, name)
        self._shown.pop((namespace, name), None)

    def _reach(self, tenant: TenantSpec, ledger: Ledger, tls: TenantTls | None) -> Reach:
        """Without a certificate that holds only probes are answered, without TLS."""
        if tls is None or tls.clients is None or tls.ended(self._now()) or not speaks_tls(ledger):
            return PLAIN
        name = labels.service_host(tenant.name, tenant.namespace, self._cluster_domain)
        try:
            return self._reaches.with_tls(tls.clients_authority, self._chains(tenant, tls.clients.certificate), name)
        except (OSError, ValueError):
            # Of a `<t>-tls` that somebody edited, while there is nothing better to put into it.
            return PLAIN

    def _chains(self, tenant: TenantSpec, chain: str) -> str:
        """All that pods may show now."""
        key, now = (tenant.namespace, tenant.name), self._now()
        shown = self._shown.get(key)
        if shown is None or shown.chain != chain:
            shown = self._shown[key] = _Shown(chain, now, shown.chain if shown is not None else "")
        return joined([chain, shown.former if now - shown.since < LAG else ""])


def _reports(views: Sequence[PodView]) -> dict[tuple[str, int], str]:
    return {(view.pool, view.ordinal): view.health.tls.stage for view in views}
