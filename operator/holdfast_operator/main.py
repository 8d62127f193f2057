"""The `holdfast-operator` command: parse settings, wire the parts, run until SIGTERM or SIGINT.

`holdfast-operator convert-minio-tenant` runs nothing and talks to nobody (`migration`).
Exit code 0 after a signal, 1 if it cannot log in or a part of it breaks, 2 for wrong arguments.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import socket
import sys
import time
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any, cast

import aiohttp
import kopf

from holdfast_operator.controller import Controller
from holdfast_operator.handlers import build_registry, build_settings
from holdfast_operator.kube.cache import MirroredKubeClient
from holdfast_operator.kube.client import HttpKubeClient
from holdfast_operator.kube.errors import KubeError
from holdfast_operator.kube.fence import FencedKubeClient
from holdfast_operator.kube.login import load_configuration
from holdfast_operator.kube.port import TENANT
from holdfast_operator.lease import Lease
from holdfast_operator.logs import configure_logging
from holdfast_operator.metrics import OperatorMetrics, serve_metrics
from holdfast_operator.migration import command as convert_minio_tenant
from holdfast_operator.minting import system_mint
from holdfast_operator.observe.health import HttpHealthProbe
from holdfast_operator.parts import Parts
from holdfast_operator.provision.client import HttpStoreClient
from holdfast_operator.reconcile import Ports, Reconciler
from holdfast_operator.settings import OperatorSettings, parse_settings

IDENTITY = "holdfast-operator"
"""What kopf would call us among its peers; there are none."""

logger = logging.getLogger(__name__)


def main() -> None:
    if sys.argv[1:2] == [convert_minio_tenant.NAME]:
        sys.exit(convert_minio_tenant.run(sys.argv[2:], sys.stdin, sys.stdout, sys.stderr))
    settings = parse_settings(sys.argv[1:], os.environ)
    configure_logging(settings.log_format, settings.verbose)
    try:
        asyncio.run(run(settings))
    except KeyboardInterrupt:
        pass
    except (KubeError, OSError) as error:
        logger.error("%s", error)
        sys.exit(1)
    except ExceptionGroup as failures:
        if failures.subgroup(kopf.LoginError) is None:
            raise
        logger.error("the API server refuses the operator's credentials")
        sys.exit(1)


async def run(settings: OperatorSettings) -> None:
    """Until a signal; raises LoginFailed if there is no way to the API server."""
    configuration = await load_configuration(settings.kubeconfig)
    metrics = OperatorMetrics(version("holdfast"))
    api = HttpKubeClient(configuration, lambda verb, kind: metrics.kube_called(verb, kind.plural))
    async with api, aiohttp.ClientSession() as session, AsyncExitStack() as stack:
        if settings.metrics_port is not None:
            await stack.enter_async_context(serve_metrics(metrics, None, settings.metrics_port))
        lease = _lease(settings, api)
        may_write = (lambda: lease.held) if lease is not None else (lambda: True)
        metrics.working = may_write
        writer = FencedKubeClient(api, may_write)
        kube = MirroredKubeClient(
            reader=api,
            writer=writer,
            source=api,
            namespaces=settings.namespaces,
            changed=lambda namespace, name: controller.trigger_soon(namespace, name),
            monotonic=time.monotonic,
        )
        ports = Ports(
            kube=kube,
            health=HttpHealthProbe(session),
            store=lambda hosts, root, region, reach: HttpStoreClient(session, hosts, root, region, reach, may_write),
            mint=system_mint(),
            now=lambda: datetime.now(UTC),
            monotonic=time.monotonic,
            metrics=metrics,
            fresh_kube=writer,
        )
        reconciler = Reconciler(ports, settings.default_image, settings.cluster_domain, settings.own_namespace)
        controller = Controller(
            kube,
            reconciler.reconcile,
            settings.namespaces,
            metrics,
            reconciler.tell_failing,
            stood_down=reconciler.forget_all,
        )

        def on_tenant(namespace: str, name: str, version: str) -> None:
            if not kube.knows(TENANT, namespace, name, version):
                controller.trigger(namespace, name)

        clusterwide = not settings.namespaces
        liveness = settings.liveness_port
        logger.info("starting", extra={"fields": {"namespaces": settings.namespaces or "all"}})
        async with asyncio.TaskGroup() as group:
            work = controller.run() if lease is None else lease.work_while_held(controller.run)
            parts = Parts(group, passes=work, mirrors=kube.run())
            # kopf handles the signals, stops the parts and returns; if one of them breaks, the group ends kopf.
            try:
                await kopf.operator(
                    registry=build_registry(configuration, on_tenant, parts.stop),
                    settings=build_settings(clusterwide),
                    # Left out, kopf asks for the user's name and ends where /etc/passwd has none, as in most
                    # containers.
                    identity=cast(Any, IDENTITY),
                    standalone=True,
                    clusterwide=clusterwide,
                    namespaces=settings.namespaces,
                    liveness_endpoint=f"http://0.0.0.0:{liveness}/healthz" if liveness else None,
                )
            finally:
                parts.stop()
    logger.info("stopped")


def _lease(settings: OperatorSettings, api: HttpKubeClient) -> Lease | None:
    if settings.lease is None:
        return None
    # A container that is started again in its pod is another one: the former may have calls under way.
    identity = f"{socket.gethostname()}_{secrets.token_hex(4)}"
    return Lease(api, *settings.lease, identity, lambda: datetime.now(UTC), time.monotonic)
