"""How many pods a node drain may take: one while everything is whole, none otherwise.

A pod that is down anyway may always be evicted (`AlwaysAllow`), or a drain would hang on it for ever.
"""

from __future__ import annotations

from holdfast_operator import labels
from holdfast_operator.desired.metadata import render_metadata
from holdfast_operator.kube.port import Manifest
from holdfast_operator.tenant.spec import TenantSpec


def render_disruption_budget(tenant: TenantSpec, disruption_allowed: bool) -> list[Manifest]:
    """Empty where the Tenant wants none: then drains are as careful as who drains."""
    if not tenant.has_disruption_budget:
        return []
    budget = {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": render_metadata(tenant, tenant.name),
        "spec": {
            "maxUnavailable": 1 if disruption_allowed else 0,
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": {"matchLabels": labels.pod_labels(tenant.name)},
        },
    }
    return [budget]
