"""What kopf does here: it logs in, watches Tenants, answers for the process's life and handles its signals.

Every event leads to the same trigger; no logic lives here.  Only a raw event handler is registered: it needs no
finalizer and leaves no annotation on the Tenant, which timers, daemons and change handlers all would.  What belongs to
a Tenant is watched by the mirrors that passes read from (`kube.cache`), which kopf has no equivalent of: its indices
keep what was deleted while a watch was broken.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import kopf
from kubernetes.aio.client import Configuration

from holdfast_operator.kube.login import connection_for_kopf
from holdfast_operator.kube.port import TENANT

SERVER_TIMEOUT_SECONDS = 300
"""The API server ends each watch after that; then it is begun anew."""
CLIENT_TIMEOUT_SECONDS = 330
"""We end a watch that the server forgot to end."""
CONNECT_TIMEOUT_SECONDS = 10

RETRY_SECONDS = (1, 1, 2, 3, 5, 8, 13)
"""Between attempts of kopf's at what is refused or not answered; the last one for ever."""


class _Patience(Iterable[float]):
    """kopf gives up once this is at its end, and the process with it: after a minute in which the API server answers
    5xx, or, of one of several namespaces, 403, because it was deleted and the right to it with it."""

    def __iter__(self) -> Iterator[float]:
        return itertools.chain(RETRY_SECONDS, itertools.repeat(RETRY_SECONDS[-1]))


Trigger = Callable[[str, str, str], None]
"""Called with namespace, name and resourceVersion."""


def build_registry(
    configuration: Configuration, trigger: Trigger, on_stop: Callable[[], object]
) -> kopf.OperatorRegistry:
    """A handler bound to `trigger`; `on_stop` is called when kopf begins to end."""
    registry = kopf.OperatorRegistry()

    @kopf.on.login(registry=registry)
    async def login(**_: Any) -> kopf.ConnectionInfo:
        return await connection_for_kopf(configuration)

    @kopf.on.event("holdfast.dev", "v1", TENANT.plural, registry=registry)
    async def on_tenant(namespace: str | None, name: str | None, meta: Any, **_: Any) -> None:
        if namespace and name:
            trigger(namespace, name, str(meta.get("resourceVersion") or ""))

    @kopf.on.cleanup(registry=registry)
    async def cleanup(**_: Any) -> None:
        # kopf takes every task begun after it for its own and waits seconds for those that still run.
        on_stop()

    return registry


def build_settings(clusterwide: bool) -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.networking.error_backoffs = _Patience()
    settings.watching.server_timeout = SERVER_TIMEOUT_SECONDS
    settings.watching.client_timeout = CLIENT_TIMEOUT_SECONDS
    settings.watching.connect_timeout = CONNECT_TIMEOUT_SECONDS
    # Watching CRDs and namespaces needs cluster-wide rights, which a namespaced installation does not have.
    settings.scanning.disabled = not clusterwide
    return settings
