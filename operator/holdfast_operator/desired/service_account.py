"""The identity the pods run under.  It has no rights, and no token is mounted."""

from __future__ import annotations

from holdfast_operator.desired.metadata import render_metadata
from holdfast_operator.kube.port import Manifest
from holdfast_operator.tenant.spec import TenantSpec


def render_service_account(tenant: TenantSpec) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": render_metadata(tenant, tenant.name),
        "automountServiceAccountToken": False,
    }
