"""The identity the pods run under.  It has no rights, and no token is mounted."""

from __future__ import annotations

from holdfast_operator.desired.metadata import add_metadata, render_metadata
from holdfast_operator.kube.port import Manifest
from holdfast_operator.tenant.spec import TenantSpec


def service_account_name(tenant: TenantSpec) -> str:
    """Of the pods: the one that the Tenant names, else the one that is made."""
    return tenant.service_account.name or tenant.name


def render_service_account(tenant: TenantSpec) -> list[Manifest]:
    """Empty where the Tenant names one, which is somebody else's."""
    if tenant.service_account.name is not None:
        return []
    account = {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": render_metadata(tenant, tenant.name),
        "automountServiceAccountToken": False,
    }
    add_metadata(account, {}, tenant.service_account.annotations)
    return [account]
