"""`python -m bench.operator_load`: what the operator costs with many Tenants, in CPU, memory and requests.

Real: the operator's process, and the stand-in's API server in a process of its own.  The node is hollow
(`holdfast_operator.testing.hollow_node`): pods, volumes and the answers of pods are played by this process.  CPU and
memory are the operator's from /proc, requests its own count (`holdfast_operator_kube_requests_total`), writes the
API server's revision.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp

from holdfast_operator.kube.client import HttpKubeClient
from holdfast_operator.kube.errors import KubeError, KubeUnavailable
from holdfast_operator.kube.login import load_configuration
from holdfast_operator.kube.port import SECRET, STATEFUL_SET, TENANT
from holdfast_operator.testing.hollow_node import HollowNode
from holdfast_operator.testing.processes import ApiProcess, LocalProcess, OperatorProcesses, free_port

WAIT_SECONDS = 1800.0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.operator_load", description=__doc__)
    parser.add_argument("--tenants", type=int, default=200)
    parser.add_argument("--namespaces", type=int, default=20)
    parser.add_argument("--servers", type=int, default=4)
    parser.add_argument("--idle", type=float, default=60.0, metavar="SECONDS")
    parser.add_argument("--cycles", type=int, default=1, help="of create, change, delete")
    parser.add_argument("--unready", action="store_true", help="pods never become ready")
    return parser.parse_args()


def tenant(number: int, namespaces: int, servers: int, **changes: Any) -> dict[str, Any]:
    claim = {"spec": {"resources": {"requests": {"storage": "1Gi"}}}}
    pool = {"name": "main", "servers": servers, "volumesPerServer": 1, "volumeClaimTemplate": claim}
    return {
        "apiVersion": "holdfast.dev/v1",
        "kind": "Tenant",
        "metadata": {"name": f"t{number:03d}", "namespace": f"load-{number % namespaces:02d}"},
        "spec": {
            "pools": [pool],
            "buckets": [{"name": "first"}],
            "users": [{"name": "app", "buckets": [{"name": "first", "access": "ReadWrite"}]}],
            **changes,
        },
    }


class Load:
    def __init__(self, options: argparse.Namespace, api: ApiProcess, kube: HttpKubeClient, node: HollowNode,
                 operator: LocalProcess, metrics_port: int, session: aiohttp.ClientSession) -> None:  # fmt: skip
        self._options, self._api, self._kube, self._node = options, api, kube, node
        self._operator, self._port, self._session = operator, metrics_port, session
        self._unsettled: set[str] = set()

    async def phase(self, name: str, work: Callable[[], Any]) -> dict[str, Any]:
        before, began = await self._look(), time.monotonic()
        await work()
        seconds, after = time.monotonic() - began, await self._look()
        requests = after["requests"] - before["requests"]
        row = {
            "phase": name,
            "seconds": round(seconds, 1),
            "cpu_seconds": round(after["cpu"] - before["cpu"], 2),
            "resident_mb": round(after["resident"] / 1e6, 1),
            "passes": int(after["passes"] - before["passes"]),
            "failed": int(after["failed"] - before["failed"]),
            "requests": sum(requests.values()),
            "revisions": after["revision"] - before["revision"],
            "health_questions": after["health"] - before["health"],
            "api_cpu_seconds": round(after["api_cpu"] - before["api_cpu"], 1),
            "by_verb": dict(requests.most_common(30)),
        }
        print(json.dumps(row), flush=True)
        return row

    async def _look(self) -> dict[str, Any]:
        usage = self._operator.usage()
        async with self._session.get(f"http://127.0.0.1:{self._port}/metrics") as answer:
            lines = (await answer.text()).splitlines()
        requests: Counter[str] = Counter()
        passes = failed = 0.0
        for line in lines:
            if line.startswith("holdfast_operator_kube_requests_total"):
                labels, _, value = line.partition("} ")
                requests[labels.partition("{")[2].replace('"', "")] = int(float(value))
            elif line.startswith("holdfast_operator_passes_total"):
                value = float(line.rpartition(" ")[2])
                passes += value
                failed += value if "done" not in line else 0
        _, revision = await self._kube.list_for_watch(STATEFUL_SET, "absent", "")
        return {
            "cpu": usage.cpu_seconds, "resident": usage.resident_bytes, "requests": requests, "passes": passes,
            "failed": failed, "revision": int(revision), "health": self._node.served["/health/cluster"],
            "api_cpu": self._api.usage().cpu_seconds,
        }  # fmt: skip

    def _bodies(self, **changes: Any) -> list[dict[str, Any]]:
        options = self._options
        return [tenant(n, options.namespaces, options.servers, **changes) for n in range(options.tenants)]

    async def apply(self, **changes: Any) -> None:
        slots = asyncio.Semaphore(8)

        async def one(body: dict[str, Any]) -> None:
            async with slots:
                await self._patiently(lambda: self._kube.apply(body))

        async with asyncio.TaskGroup() as group:
            for body in self._bodies(**changes):
                group.create_task(one(body))
        self._unsettled = {body["metadata"]["namespace"] for body in self._bodies()}
        await self._until(self._all_settled)

    async def delete(self) -> None:
        for body in await self._kube.list_objects(TENANT, None):
            await self._patiently(lambda body=body: self._kube.delete(body))
        await self._until(self._nothing_left)

    async def idle(self) -> None:
        await asyncio.sleep(self._options.idle)

    async def _patiently(self, call: Callable[[], Any]) -> None:
        while True:
            try:
                return await call()
            except KubeUnavailable:
                await asyncio.sleep(1.0)

    async def _all_settled(self) -> bool:
        """Asked by namespace, and no namespace again that has settled: on a busy machine the API server, which is
        measured, would have more to do for this question than for the operator."""
        for namespace in sorted(self._unsettled):
            tenants = await self._kube.list_objects(TENANT, namespace)
            if not all(self._is_settled(body) for body in tenants):
                return False
            self._unsettled.discard(namespace)
        return True

    def _is_settled(self, body: dict[str, Any]) -> bool:
        status = body.get("status") or {}
        conditions = {one["type"]: one for one in status.get("conditions") or []}
        if status.get("observedGeneration") != body["metadata"]["generation"]:
            return False
        if self._options.unready:
            return "Ready" in conditions
        wanted = {"Ready": "True", "Progressing": "False"}
        return all(conditions.get(kind, {}).get("status") == value for kind, value in wanted.items())

    async def _nothing_left(self) -> bool:
        return not self._node.cluster.names(STATEFUL_SET) and not await self._kube.list_objects(TENANT, None)

    async def _until(self, check: Any) -> None:
        async with asyncio.timeout(WAIT_SECONDS):
            while True:
                with contextlib.suppress(KubeError):
                    if await check():
                        return
                await asyncio.sleep(2.0)


async def run(options: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with AsyncExitStack() as stack:
            api = ApiProcess(Path(folder) / "state")
            await api.start()
            stack.push_async_callback(api.end)
            configuration = await load_configuration(str(api.kubeconfig))
            kube = await stack.enter_async_context(HttpKubeClient(configuration))
            node = await stack.enter_async_context(HollowNode.running(api.kubeconfig))
            for number in range(options.namespaces):
                await node.make_namespace(f"load-{number:02d}")
            node.pods_are_ready = not options.unready
            operators = await stack.enter_async_context(OperatorProcesses(api.operator_kubeconfig, Path(folder)))
            port = free_port()
            operator = await operators.start(f"--metrics={port}")
            session = await stack.enter_async_context(aiohttp.ClientSession())
            await until_served(session, port)
            load = Load(options, api, kube, node, operator, port, session)
            try:
                await load.phase("at rest, no Tenant", load.idle)
                for _ in range(options.cycles):
                    await load.phase("create", load.apply)
                    await load.phase("at rest", load.idle)
                    await load.phase("change", lambda: load.apply(buckets=[{"name": "first"}, {"name": "second"}]))
                    await load.phase("at rest", load.idle)
                    await load.phase("delete", load.delete)
                await load.phase("at rest, none left", load.idle)
                left = await kube.list_objects(SECRET, None)
                print(json.dumps({"secrets_kept": len(left), "refused": len(node.refused_keys)}), flush=True)
            finally:
                log = operator.log.read_text().splitlines()
                print(
                    f"operator's log: {len(log)} lines; warnings:",
                    Counter(
                        line.split(" ", 2)[-1][:80] for line in log if "WARN" in line or "ERROR" in line
                    ).most_common(8),
                )


async def until_served(session: aiohttp.ClientSession, port: int) -> None:
    while True:
        with contextlib.suppress(aiohttp.ClientError):
            async with session.get(f"http://127.0.0.1:{port}/metrics"):
                return
        await asyncio.sleep(0.2)


if __name__ == "__main__":
    asyncio.run(run(parse()))
