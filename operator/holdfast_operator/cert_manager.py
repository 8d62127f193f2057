"""Brings the request for a certificate to cert-manager, if the cluster has it.

What goes wrong here is told by the condition TLSReady; pods serve on with what they have.  A cluster without
cert-manager is asked for Tenants that want it only; for others, a request of a former spec is looked for once per
generation.
"""

from __future__ import annotations

from holdfast_operator.apply import ApplyRefused, settle_kind
from holdfast_operator.desired.tls import render_certificate
from holdfast_operator.kube.errors import KubeForbidden, KubeRejected, KubeUnavailable
from holdfast_operator.kube.port import CERTIFICATE, KubeClient
from holdfast_operator.tenant.spec import TenantSpec


class CertificateRequests:
    """One per operator; remembers of which Tenants nothing is left to be removed."""

    def __init__(self, kube: KubeClient, cluster_domain: str) -> None:
        self._kube, self._cluster_domain = kube, cluster_domain
        self._bare: dict[tuple[str, str], tuple[str, int]] = {}
        """A Tenant's namespace and name → its uid, and the generation that has no request."""

    async def settle(self, tenant: TenantSpec) -> tuple[str, str] | None:
        """Why it cannot be asked for, as reason and message; None where it could, or need not.  Raises
        KubeConflict only."""
        wanted = render_certificate(tenant, self._cluster_domain)
        name, state = (tenant.namespace, tenant.name), (tenant.uid, tenant.generation)
        if not wanted and self._bare.get(name) == state:
            return None
        looked = True
        try:
            await settle_kind(self._kube, tenant, CERTIFICATE, wanted)
        except (KubeRejected, KubeForbidden, KubeUnavailable, ApplyRefused) as error:
            if wanted:
                return "CertificateNotApplied", f"{error}; it takes cert-manager, and the operator's right to its kind"
            looked = not isinstance(error, KubeUnavailable)
        if not wanted and looked:
            self._bare[name] = state
        return None

    def forget(self, namespace: str, name: str) -> None:
        """The Tenant is gone."""
        self._bare.pop((namespace, name), None)
