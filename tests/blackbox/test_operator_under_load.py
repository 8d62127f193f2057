"""The operator with many Tenants, a bad API server, a cut line, and a rival.

Real: the operator's process with its chart's rights, and the stand-in's API server, a process too.  The node is hollow
(`holdfast_operator.testing.hollow_node`): pods are objects that answer health questions and provisioning, and bytes
are kept by nobody.

In `make test` with a handful of Tenants; in `make soak` with HOLDFAST_LOAD_TENANTS=200, 60 seconds without an API
server, a hundred rounds of `kill -9`, and an operator that is frozen (the rest of that: `test_lease`, in virtual time).
"""

from __future__ import annotations

import asyncio
import base64
import os
import random
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from holdfast_operator import labels
from holdfast_operator.kube.client import HttpKubeClient
from holdfast_operator.kube.errors import KubeError, KubeUnavailable
from holdfast_operator.kube.login import load_configuration
from holdfast_operator.kube.port import LEASE, POD, SECRET, STATEFUL_SET, TENANT, Manifest
from holdfast_operator.testing.cut_line import CutLine
from holdfast_operator.testing.hollow_node import HollowNode
from holdfast_operator.testing.processes import ApiProcess, LocalProcess, OperatorProcesses, free_port

TENANTS = int(os.environ.get("HOLDFAST_LOAD_TENANTS", "5"))
OUTAGE_SECONDS = float(os.environ.get("HOLDFAST_LOAD_OUTAGE_SECONDS", "3"))
KILLS = int(os.environ.get("HOLDFAST_LOAD_KILLS", "3"))
FREEZE = "HOLDFAST_LOAD_FREEZE" in os.environ
"""The lease of a frozen operator runs out in its own time, some twenty seconds."""
SEED = int(os.environ.get("HOLDFAST_LOAD_SEED", "1"))
NAMESPACES = 2
WAIT_SECONDS = 300.0 + 5 * TENANTS
POLL_SECONDS = 0.25 + TENANTS / 40
"""Between two questions: each is a list of all Tenants, for which a busy API server has other things to do."""
LEASE_ARGUMENT = "--lease=holdfast-system/holdfast-operator"

pytestmark = pytest.mark.timeout(3 * WAIT_SECONDS)


def tenant(number: int) -> Manifest:
    claim = {"spec": {"resources": {"requests": {"storage": "1Gi"}}}}
    pool = {"name": "main", "servers": 4, "volumesPerServer": 1, "volumeClaimTemplate": claim}
    return {
        "apiVersion": "holdfast.dev/v1",
        "kind": "Tenant",
        "metadata": {"name": f"t{number:03d}", "namespace": f"load-{number % NAMESPACES}"},
        "spec": {"pools": [pool], "buckets": [{"name": "first"}], "users": [{"name": "app"}]},
    }


class PatientKube:
    """The test's own client: an API server that is too busy to answer in time is asked again.  All its calls here can
    be made twice."""

    def __init__(self, kube: HttpKubeClient) -> None:
        self._kube = kube

    def __getattr__(self, verb: str) -> Callable[..., Any]:
        call = getattr(self._kube, verb)

        async def again(*arguments: Any) -> Any:
            async with asyncio.timeout(WAIT_SECONDS):
                while True:
                    try:
                        return await call(*arguments)
                    except KubeUnavailable:
                        await asyncio.sleep(1)

        return again


@dataclass
class Scene:
    api: ApiProcess
    line: CutLine
    kube: PatientKube
    node: HollowNode
    operators: OperatorProcesses
    session: aiohttp.ClientSession
    ports: dict[int, int] = field(default_factory=dict)
    """Process id of an operator → its metrics port."""

    async def start_operator(self) -> LocalProcess:
        port = free_port()
        process = await self.operators.start(f"--metrics={port}", LEASE_ARGUMENT)
        self.ports[process.pid] = port
        return process

    async def metric(self, process: LocalProcess, name: str, **wanted: str) -> float:
        """The sum over all samples of that name with these labels; -1 while it does not answer."""
        try:
            async with self.session.get(f"http://127.0.0.1:{self.ports[process.pid]}/metrics") as answer:
                lines = (await answer.text()).splitlines()
        except (aiohttp.ClientError, TimeoutError):
            return -1.0
        tags = [f'{key}="{value}"' for key, value in wanted.items()]
        return sum(
            float(line.rpartition(" ")[2])
            for line in lines
            if line.split("{")[0].split(" ")[0] == name and all(tag in line for tag in tags)
        )

    async def something_cut(self) -> bool:
        return self.line.cut() > 0

    async def until(self, what: str, check: Callable[[], Any]) -> None:
        """`check`: a coroutine function; an API server that does not answer is asked again."""
        told: object = None
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                while True:
                    try:
                        if await check():
                            return
                    except KubeError as error:
                        told = error
                    await asyncio.sleep(POLL_SECONDS)
        except TimeoutError:
            logs = [process.log.read_text()[-1500:] for process in self.operators.started]
            raise AssertionError(f"waited for {what}: {told}\n" + "\n---\n".join(logs)) from None

    # --- Tenants
    async def change_all(self, patch: Manifest) -> None:
        for body in await self.kube.list_objects(TENANT, None):
            await self.kube.merge(body, patch)

    async def all_at_rest(self) -> bool:
        return all(at_rest(body) for body in await self.kube.list_objects(TENANT, None))

    async def secrets(self) -> dict[tuple[str, str], dict[str, str]]:
        found = await self.kube.list_objects(SECRET, None, {labels.MANAGED_BY_LABEL: "holdfast-operator"})
        return {
            (item["metadata"]["namespace"], item["metadata"]["name"]): {
                key: base64.b64decode(value).decode() for key, value in (item.get("data") or {}).items()
            }
            for item in found
        }

    async def identities(self) -> dict[tuple[str, str], tuple[str, ...]]:
        """Of every Secret that has keys: those that must never be made twice."""
        parts = ("tenantId", "accessKey", "secretKey", "peerKey")
        return {place: tuple(data.get(part, "") for part in parts) for place, data in (await self.secrets()).items()}

    async def pod_uids(self) -> set[str]:
        return {pod["metadata"]["uid"] for pod in await self.kube.list_objects(POD, None)}

    async def revision(self) -> int:
        """Of the API server: it counts every write of anybody."""
        return int((await self.kube.list_for_watch(STATEFUL_SET, None, ""))[1])


def at_rest(body: Manifest) -> bool:
    status = body.get("status") or {}
    conditions = {one["type"]: one["status"] for one in status.get("conditions") or []}
    current = status.get("observedGeneration") == body["metadata"]["generation"]
    return bool(current and conditions.get("Ready") == "True" and conditions.get("Progressing") == "False")


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    async with AsyncExitStack() as stack:
        api = ApiProcess(tmp_path / "state")
        await api.start()
        stack.push_async_callback(api.end, signal.SIGKILL)
        line = await stack.enter_async_context(CutLine.running(api.port))
        through = api.operator_kubeconfig.read_text().replace(f":{api.port}", f":{line.port}")
        kubeconfig = tmp_path / "operator-kubeconfig"
        kubeconfig.write_text(through)
        kube = await stack.enter_async_context(HttpKubeClient(await load_configuration(str(api.kubeconfig))))
        node = await stack.enter_async_context(HollowNode.running(api.kubeconfig))
        operators = await stack.enter_async_context(OperatorProcesses(kubeconfig, tmp_path))
        session = await stack.enter_async_context(aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)))
        for number in range(NAMESPACES):
            await node.make_namespace(f"load-{number}")
        yield Scene(api, line, PatientKube(kube), node, operators, session)


async def make_tenants(scene: Scene, count: int) -> None:
    for number in range(count):
        await scene.kube.apply(tenant(number))
    await scene.until("all Tenants to be at rest", scene.all_at_rest)


async def test_many_tenants_cost_nothing_at_rest_and_survive_a_bad_api_server(scene: Scene) -> None:
    operator = await scene.start_operator()
    await make_tenants(scene, TENANTS)
    pods, identities = await scene.pod_uids(), await scene.identities()
    assert len(pods) == 4 * TENANTS
    await nothing_is_asked_at_rest(scene, operator)

    # The API server is gone for a while.
    await scene.api.end(signal.SIGKILL)
    await asyncio.sleep(OUTAGE_SECONDS)
    assert operator.returncode is None
    await scene.api.start()
    await scene.change_all({"spec": {"buckets": [{"name": "first"}, {"name": "second"}]}})
    await scene.until("the change after the outage", scene.all_at_rest)
    assert all("second" in store.buckets for store in scene.node.stores.values())

    # The watches are cut, again and again, while things change.
    for turn in range(5):
        await scene.until("a watch to cut", scene.something_cut)  # after the last cut they are taken up by and by
        await scene.change_all({"spec": {"buckets": [{"name": "first"}, {"name": f"turn-{turn}"}]}})
        scene.line.cut()
    await scene.until("the changes between the cuts", scene.all_at_rest)
    assert all("turn-4" in store.buckets for store in scene.node.stores.values())

    assert operator.returncode is None
    assert await scene.pod_uids() == pods, "a pod was replaced"
    assert await scene.identities() == identities, "keys were made anew"
    assert scene.node.refused_keys == []
    assert await scene.metric(operator, "holdfast_operator_passes_total", outcome="broken") == 0

    for body in await scene.kube.list_objects(TENANT, None):
        await scene.kube.delete(body)

    async def nothing_left() -> bool:
        gone = not await scene.kube.list_objects(STATEFUL_SET, None)
        return gone and await scene.metric(operator, "holdfast_operator_tenants") == 0

    await scene.until("everything to be gone", nothing_left)


async def nothing_is_asked_at_rest(scene: Scene, operator: LocalProcess) -> None:
    """Every Tenant is looked at once more, and the API server is asked for the list of Tenants alone, now and then."""

    async def counts() -> tuple[float, float, float, int]:
        passes = await scene.metric(operator, "holdfast_operator_passes_total")
        asked = await scene.metric(operator, "holdfast_operator_kube_requests_total")
        aside = 0.0
        for verb, kind in (("list", TENANT), ("watch", None), ("get", LEASE), ("merge", LEASE)):
            wanted = {"verb": verb} | ({"kind": kind.plural} if kind else {})
            aside += await scene.metric(operator, "holdfast_operator_kube_requests_total", **wanted)
        renewals = await scene.metric(operator, "holdfast_operator_kube_requests_total", verb="merge", kind="leases")
        return passes, asked - aside, renewals, await scene.revision()

    async def quiet() -> bool:
        before = await counts()
        async with asyncio.timeout(WAIT_SECONDS):
            while (await counts())[0] < before[0] + TENANTS + 1:
                await asyncio.sleep(0.5)
        after = await counts()
        return after[1] == before[1] and after[3] - before[3] <= after[2] - before[2] + 1

    # At first the last answers of the beginning may still be on their way.
    await scene.until("passes that ask for nothing", quiet)


async def test_one_of_two_works_and_the_other_takes_over(scene: Scene) -> None:
    first = await scene.start_operator()
    await make_tenants(scene, 2)
    identities = await scene.identities()
    second = await scene.start_operator()
    await scene.until("the second to stand by", lambda: stands_by(scene, second))
    assert await scene.metric(first, "holdfast_operator_working") == 1

    if FREEZE:
        first.send(signal.SIGSTOP)
        await scene.change_all({"spec": {"buckets": [{"name": "first"}, {"name": "second"}]}})
        await scene.until("the second to do it", scene.all_at_rest)
        assert await scene.metric(second, "holdfast_operator_working") == 1
        first.send(signal.SIGCONT)
        await scene.until("the first to stand by", lambda: stands_by(scene, first))
        first, second = second, first

    await first.end()  # told to end, it gives the lease back
    await scene.change_all({"spec": {"buckets": [{"name": "first"}, {"name": "third"}]}})
    await scene.until("the other to do it", scene.all_at_rest)
    assert await scene.metric(second, "holdfast_operator_working") == 1
    assert all("third" in store.buckets for store in scene.node.stores.values())
    assert await scene.identities() == identities
    assert scene.node.refused_keys == []


async def stands_by(scene: Scene, process: LocalProcess) -> bool:
    return await scene.metric(process, "holdfast_operator_working") == 0


async def test_killed_at_any_moment_it_goes_on_and_makes_nothing_twice(scene: Scene) -> None:
    """Without a lease, whose waiting would be most of the test: the next one begins at once."""
    chance = random.Random(SEED)
    first_seen: dict[tuple[str, str], tuple[str, str]] = {}
    for number in range(3):
        await scene.kube.apply(tenant(number))
    for turn in range(KILLS):
        operator = await scene.operators.start()
        began = await scene.revision()
        writes = chance.randint(1, 60)
        patient = asyncio.get_running_loop().time() + 5
        while await scene.revision() < began + writes and asyncio.get_running_loop().time() < patient:
            await asyncio.sleep(0.01)
        await operator.end(signal.SIGKILL)
        for place, data in (await scene.secrets()).items():
            if "tenantId" in data:
                known = first_seen.setdefault(place, (data["tenantId"], data["peerKey"]))
                assert known == (data["tenantId"], data["peerKey"]), f"turn {turn}: made twice"
        if turn % 4 == 3:
            await ask_for_new_root_keys(scene)
            await scene.change_all({"spec": {"buckets": [{"name": "first"}, {"name": f"turn-{turn}"}]}})
    await scene.operators.start()
    await scene.until("all Tenants to be at rest", scene.all_at_rest)
    assert scene.node.refused_keys == []
    secrets = await scene.secrets()
    for (namespace, name), data in secrets.items():
        if name.endswith("-root"):
            accepted = scene.node.accepted_root_keys(namespace, name.removesuffix("-root"))
            assert data["accessKey"] in accepted, f"{namespace}/{name} announces a key that nobody accepts"


async def ask_for_new_root_keys(scene: Scene) -> None:
    for item in await scene.kube.list_objects(SECRET, None, {labels.MANAGED_BY_LABEL: "holdfast-operator"}):
        if item["metadata"]["name"].endswith("-root"):
            await scene.kube.merge(item, {"metadata": {"annotations": {labels.NEW_KEYS_ANNOTATION: "1"}}})
