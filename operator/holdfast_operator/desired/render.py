"""All manifests of a tenant, in the order in which they are applied.

The peer Secret comes first: the ledger in it must be durable before anything acts on what it says.
"""

from __future__ import annotations

from holdfast_operator.desired.config_map import render_config_map
from holdfast_operator.desired.disruption_budget import render_disruption_budget
from holdfast_operator.desired.request import RenderRequest
from holdfast_operator.desired.secrets import render_peer_secret, render_root_secret, render_user_secret
from holdfast_operator.desired.service_account import render_service_account
from holdfast_operator.desired.services import (
    render_console_service,
    render_pods_service,
    render_s3_service,
)
from holdfast_operator.desired.stateful_set import render_stateful_set
from holdfast_operator.kube.port import Manifest


def render_tenant(request: RenderRequest) -> list[Manifest]:
    tenant = request.tenant
    manifests = [render_peer_secret(tenant, request.credentials.peer, request.ledger)]
    if tenant.root_secret_name is None:
        manifests.append(render_root_secret(request))
    manifests += [render_user_secret(request, user.name) for user in tenant.users if user.secret_name is None]
    manifests += [
        render_service_account(tenant),
        render_config_map(request),
        render_s3_service(tenant),
        render_pods_service(tenant),
        render_console_service(tenant),
        render_disruption_budget(tenant, request.disruption_allowed),
    ]
    # A pool that the ledger does not hold yet waits for the epoch of another to settle.
    manifests += [
        render_stateful_set(request, pool) for pool in tenant.pools if request.ledger.pool(pool.name) is not None
    ]
    return manifests
