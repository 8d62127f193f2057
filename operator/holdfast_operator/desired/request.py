"""Everything a renderer may know, gathered into one value."""

from __future__ import annotations

from dataclasses import dataclass

from holdfast_operator.ledger import Ledger
from holdfast_operator.tenant.spec import TenantSpec
from holdfast_operator.tenant_keys import TenantCredentials
from holdfast_operator.tls.values import TenantTls


@dataclass(frozen=True, slots=True)
class RenderRequest:
    tenant: TenantSpec
    credentials: TenantCredentials
    ledger: Ledger
    """The ledger of this pass, which may be ahead of the one in `credentials`."""
    default_image: str
    cluster_domain: str
    disruptable_pools: frozenset[str]
    """Of which one pod may be taken away voluntarily now: nothing of them is degraded and the geometry bears it."""
    tls: TenantTls | None = None
    """None for a tenant that has nothing to do with TLS."""
