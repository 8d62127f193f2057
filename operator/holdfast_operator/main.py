"""The `holdfast-operator` command: parse settings, wire the parts, run until SIGTERM or SIGINT.

`holdfast-operator convert-minio-tenant` runs nothing and talks to nobody (`migration`).
Exit code 0 after a signal, 1 if it cannot log in or a part of it breaks, 2 for wrong arguments.
"""

from __future__ import annotations

import asyncio
import logging
import os
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
from holdfast_operator.kube.client import HttpKubeClient
from holdfast_operator.kube.errors import KubeError
from holdfast_operator.kube.login import load_configuration
from holdfast_operator.logs import configure_logging
from holdfast_operator.metrics import OperatorMetrics, serve_metrics
from holdfast_operator.migration import command as convert_minio_tenant
from holdfast_operator.minting import system_mint
from holdfast_operator.observe.health import HttpHealthProbe
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
    async with HttpKubeClient(configuration) as kube, aiohttp.ClientSession() as session, AsyncExitStack() as stack:
        if settings.metrics_port is not None:
            await stack.enter_async_context(serve_metrics(metrics, None, settings.metrics_port))
        ports = Ports(
            kube=kube,
            health=HttpHealthProbe(session),
            store=lambda hosts, root, region, reach: HttpStoreClient(session, hosts, root, region, reach),
            mint=system_mint(),
            now=lambda: datetime.now(UTC),
            monotonic=time.monotonic,
            metrics=metrics,
        )
        reconciler = Reconciler(ports, settings.default_image, settings.cluster_domain, settings.own_namespace)
        controller = Controller(kube, reconciler.reconcile, settings.namespaces, metrics)
        clusterwide = not settings.namespaces
        liveness = settings.liveness_port
        logger.info("starting", extra={"fields": {"namespaces": settings.namespaces or "all"}})
        async with asyncio.TaskGroup() as group:
            passes = group.create_task(controller.run(), name="passes")
            # kopf handles the signals, stops the passes and returns; if the passes break, the group ends kopf.
            await kopf.operator(
                registry=build_registry(configuration, controller.trigger, passes.cancel),
                settings=build_settings(clusterwide),
                # Left out, kopf asks for the user's name and ends where /etc/passwd has none, as in most containers.
                identity=cast(Any, IDENTITY),
                standalone=True,
                clusterwide=clusterwide,
                namespaces=settings.namespaces,
                liveness_endpoint=f"http://0.0.0.0:{liveness}/healthz" if liveness else None,
            )
    logger.info("stopped")
