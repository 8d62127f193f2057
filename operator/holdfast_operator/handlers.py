"""What kopf does here: it logs in and watches.  Every event leads to the same trigger; no logic lives here.

Only raw event handlers are registered.  They need no finalizer and leave no annotation on the Tenant, which
timers, daemons and change handlers all would.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import kopf
from kubernetes.aio.client import Configuration

from holdfast_operator import labels
from holdfast_operator.kube.login import connection_for_kopf
from holdfast_operator.kube.port import POD, TENANT

SERVER_TIMEOUT_SECONDS = 300
"""The API server ends each watch after that; then it is begun anew."""
CLIENT_TIMEOUT_SECONDS = 330
"""We end a watch that the server forgot to end."""
CONNECT_TIMEOUT_SECONDS = 10

Trigger = Callable[[str, str], None]


def build_registry(
    configuration: Configuration, trigger: Trigger, on_stop: Callable[[], object]
) -> kopf.OperatorRegistry:
    """Handlers bound to `trigger(namespace, tenant_name)`; `on_stop` is called when kopf begins to end."""
    registry = kopf.OperatorRegistry()

    @kopf.on.login(registry=registry)
    async def login(**_: Any) -> kopf.ConnectionInfo:
        return await connection_for_kopf(configuration)

    @kopf.on.event("holdfast.dev", "v1", TENANT.plural, registry=registry)
    async def on_tenant(namespace: str | None, name: str | None, **_: Any) -> None:
        if namespace and name:
            trigger(namespace, name)

    @kopf.on.event("", "v1", POD.plural, labels={labels.TENANT_LABEL: kopf.PRESENT}, registry=registry)
    async def on_pod(namespace: str | None, meta: Any, **_: Any) -> None:
        tenant_name = meta["labels"].get(labels.TENANT_LABEL)
        if namespace and tenant_name:
            trigger(namespace, tenant_name)

    @kopf.on.cleanup(registry=registry)
    async def cleanup(**_: Any) -> None:
        # kopf takes every task begun after it for its own and waits seconds for those that still run.
        on_stop()

    return registry


def build_settings(clusterwide: bool) -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.watching.server_timeout = SERVER_TIMEOUT_SECONDS
    settings.watching.client_timeout = CLIENT_TIMEOUT_SECONDS
    settings.watching.connect_timeout = CONNECT_TIMEOUT_SECONDS
    # Watching CRDs and namespaces needs cluster-wide rights, which a namespaced installation does not have.
    settings.scanning.disabled = not clusterwide
    return settings
