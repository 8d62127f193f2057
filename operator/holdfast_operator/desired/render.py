"""All manifests of a tenant, in the order in which they are applied.

The peer Secret comes first: the ledger and the keys in it must be durable before anything acts on what they say.
Before it comes its copy, which therefore never lags behind.
"""

from __future__ import annotations

from holdfast_operator.desired.config_map import render_config_map
from holdfast_operator.desired.disruption_budget import render_disruption_budgets
from holdfast_operator.desired.request import RenderRequest
from holdfast_operator.desired.secrets import (
    render_peer_copy,
    render_peer_secret,
    render_root_secret,
    render_user_secret,
)
from holdfast_operator.desired.service_account import render_service_account
from holdfast_operator.desired.services import (
    render_console_service,
    render_pods_service,
    render_s3_service,
)
from holdfast_operator.desired.stateful_set import render_stateful_set
from holdfast_operator.desired.tls import render_tls
from holdfast_operator.kube.port import Manifest
from holdfast_operator.tenant.spec import UserSpec


def render_tenant(request: RenderRequest) -> list[Manifest]:
    tenant = request.tenant
    credentials = request.credentials
    manifests = [
        render(tenant, credentials.tenant_id, credentials.book, request.ledger)
        for render in (render_peer_copy, render_peer_secret)
    ]
    if tenant.root_secret_name is None:
        manifests.append(render_root_secret(request))
    manifests += [render_user_secret(request, user.name) for user in tenant.users if _is_generated(user, request)]
    manifests += render_tls(tenant, request.tls)
    manifests += [
        *render_service_account(tenant),
        render_config_map(request),
        render_s3_service(tenant),
        render_pods_service(tenant),
        render_console_service(tenant),
        *render_disruption_budgets(request),
    ]
    # A pool that the ledger does not hold yet waits for the epoch of another to settle.
    manifests += [
        render_stateful_set(request, pool) for pool in tenant.pools if request.ledger.pool(pool.name) is not None
    ]
    return manifests


def _is_generated(user: UserSpec, request: RenderRequest) -> bool:
    """A user whose keys are refused has none to show."""
    return user.secret_name is None and user.name in request.credentials.users
