"""How many pods a node drain may take: of each pool one while it is whole and lacks no write, none otherwise.

A budget per pool, since an erasure set lies in one pool: what is lost of one takes nothing from what another bears.  A
pool that bears no loss, or is degraded, or has pods that do not come up, keeps nobody from draining the others.  A pool
that no request goes to yet has none: nobody misses its pods.

The first pool's has the tenant's name, as the one of all pools had before: two that select the same pod, be it for a
moment or for as long as something else cannot be applied, and the API server evicts that pod no more.

A pod that is down anyway may always be evicted (`AlwaysAllow`), or a drain would hang on it for ever.
"""

from __future__ import annotations

from collections.abc import Iterable

from holdfast_operator import labels
from holdfast_operator.desired.metadata import render_metadata
from holdfast_operator.desired.request import RenderRequest
from holdfast_operator.kube.port import Manifest
from holdfast_operator.ledger import Ledger, PoolRecord
from holdfast_operator.tenant.spec import TenantSpec


def render_disruption_budgets(request: RenderRequest) -> list[Manifest]:
    """Empty where the Tenant wants none: then drains are as careful as who drains."""
    tenant, ledger = request.tenant, request.ledger
    if not tenant.has_disruption_budget:
        return []
    return [
        {
            "apiVersion": "policy/v1",
            "kind": "PodDisruptionBudget",
            "metadata": render_metadata(tenant, _name(tenant, ledger, pool)),
            "spec": {
                "maxUnavailable": 1 if pool.name in request.disruptable_pools else 0,
                "unhealthyPodEvictionPolicy": "AlwaysAllow",
                "selector": {"matchLabels": labels.pool_labels(tenant.name, pool.name)},
            },
        }
        for pool in ledger.serving_pools
    ]


def pools_open_to_drains(tenant: TenantSpec, ledger: Ledger, budgets: Iterable[Manifest]) -> frozenset[str]:
    """Names of the pools of which one pod may be drained by the budgets there are."""
    open_budgets = {budget["metadata"]["name"] for budget in budgets if budget["spec"].get("maxUnavailable")}
    return frozenset(pool.name for pool in ledger.serving_pools if _name(tenant, ledger, pool) in open_budgets)


def _name(tenant: TenantSpec, ledger: Ledger, pool: PoolRecord) -> str:
    is_first = pool.name == ledger.pools[0].name
    return tenant.name if is_first else labels.stateful_set_name(tenant.name, pool.name)
