"""The whole node against the real API server, with small Python servers as pods: real processes on loopback."""

from __future__ import annotations

import asyncio
import os
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from holdfast_local.apiserver import server
from holdfast_local.kubelet.addresses import Slot
from holdfast_local.kubelet.agent import Kubelet
from holdfast_local.kubelet.client import (
    CLAIMS,
    CONFIG_MAPS,
    NODES,
    PODS,
    SECRETS,
    SERVICES,
    STATEFUL_SETS,
    STORAGE_CLASSES,
    ApiClient,
    connect,
)
from holdfast_local.kubelet.isolation import Isolation, choose_isolation
from holdfast_local.kubelet.node import node_names
from holdfast_local.kubelet.scheduling import POWER_ANNOTATION

Manifest = dict[str, Any]
NAMESPACE = "default"
TIMEOUT_SECONDS = 90.0

PROGRAM = textwrap.dedent(
    """
    import http.server, os
    root = os.environ.get("HOLDFAST_ROOT_PREFIX", "")
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            if self.path == "/pid":
                body = str(os.getpid())
            elif self.path == "/config":
                body = open(root + "/etc/demo/config").read() + open(root + "/etc/demo-secret/key").read()
            elif self.path == "/hosts":
                body = open(os.environ.get("HOLDFAST_HOSTS_FILE", "/etc/hosts")).read()
            else:
                body = os.environ["POD_NAME"]
            self.send_response(503 if os.path.exists(root + "/data/unready") else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())
    open(root + "/data/starts", "a").write("x")
    print("listening", flush=True)
    http.server.ThreadingHTTPServer((os.environ["POD_IP"], 9000), Handler).serve_forever()
    """
)


def demo_set(replicas: int) -> Manifest:
    field = {"valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}
    address = {"valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}
    container = {
        "name": "demo",
        "image": "demo:1",
        "command": [sys.executable, "-S", "-c", PROGRAM],
        "env": [{"name": "POD_NAME", **field}, {"name": "POD_IP", **address}],
        "ports": [{"name": "http", "containerPort": 9000}],
        "volumeMounts": [
            {"name": "config", "mountPath": "/etc/demo", "readOnly": True},
            {"name": "secret", "mountPath": "/etc/demo-secret", "readOnly": True},
            {"name": "data", "mountPath": "/data"},
        ],
        # It answers 503 when it is not ready; that a busy machine keeps it from answering for a while is no reason.
        "readinessProbe": {
            "httpGet": {"path": "/", "port": "http"},
            "periodSeconds": 1,
            "failureThreshold": 1,
            "timeoutSeconds": 30,
        },
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": "demo", "namespace": NAMESPACE},
        "spec": {
            "replicas": replicas,
            "serviceName": "demo-pods",
            "podManagementPolicy": "Parallel",
            "selector": {"matchLabels": {"app": "demo"}},
            "template": {
                "metadata": {"labels": {"app": "demo"}},
                "spec": {
                    "terminationGracePeriodSeconds": 2,
                    "containers": [container],
                    "volumes": [
                        {"name": "config", "configMap": {"name": "demo"}},
                        {"name": "secret", "secret": {"secretName": "demo"}},
                    ],
                },
            },
            "volumeClaimTemplates": [
                {
                    "metadata": {"name": "data"},
                    "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
                }
            ],
        },
    }


def service(name: str, **spec: Any) -> Manifest:
    ports = [{"name": "http", "port": 9000, "targetPort": "http"}]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"selector": {"app": "demo"}, "ports": ports, **spec},
    }


@dataclass
class Demo:
    """A running node with the demo StatefulSet's surroundings."""

    client: ApiClient
    kubelet: Kubelet
    state: Path

    async def until(self, condition: Callable[[], Any]) -> Any:
        """The first true result of an asynchronous condition."""
        async with asyncio.timeout(TIMEOUT_SECONDS):
            while not (result := await condition()):
                await asyncio.sleep(0.05)
        return result

    async def ready_pods(self) -> int:
        statefulset = await self.client.get(STATEFUL_SETS, NAMESPACE, "demo")
        return int(((statefulset or {}).get("status") or {}).get("readyReplicas", 0))

    async def start(self, replicas: int) -> str:
        """Create everything and wait until it is ready; the Service's URL."""
        data = {"apiVersion": "v1", "metadata": {"name": "demo", "namespace": NAMESPACE}}
        await self.client.create(CONFIG_MAPS, {**data, "kind": "ConfigMap", "data": {"config": "one"}})
        await self.client.create(SECRETS, {**data, "kind": "Secret", "stringData": {"key": "!"}})
        await self.client.create(SERVICES, service("demo"))
        await self.client.create(SERVICES, service("demo-pods", clusterIP="None", publishNotReadyAddresses=True))
        await self.client.create(STATEFUL_SETS, demo_set(replicas))

        async def ready() -> bool:
            return await self.ready_pods() == replicas

        await self.until(ready)
        found = await self.client.get(SERVICES, NAMESPACE, "demo")
        assert found is not None
        return f"http://{found['spec']['clusterIP']}:9000"

    async def told(self, ordinal: int, find: Callable[[Manifest], str]) -> str:
        """What the pod's status says, once it says something."""

        async def look() -> str:
            return find((await self.pod(ordinal) or {}).get("status") or {})

        return str(await self.until(look))

    async def pod(self, ordinal: int) -> Manifest | None:
        return await self.client.get(PODS, NAMESPACE, f"demo-{ordinal}")


@asynccontextmanager
async def node(state: Path, wanted: str, count: int = 1, refresh_seconds: float = 0.0) -> AsyncIterator[Demo]:
    state.mkdir(exist_ok=True)
    running = await server.serve(state / "api", "127.0.0.1", 0, {"token": ("admin", ("system:masters",))})
    isolation, sentence = await choose_isolation(state, "auto" if wanted == "namespaces" else wanted)
    slot = Slot.claim(state)
    try:
        if isolation.value != wanted:
            pytest.skip(sentence)
        authority = running.certificate_authority.decode()
        connector = aiohttp.TCPConnector(force_close=True)
        async with (
            connect(running.url, "token", authority) as client,
            aiohttp.ClientSession(connector=connector) as http,
        ):
            environment = {"PATH": os.environ["PATH"]}
            kubelet = Kubelet(
                client, http, state, state / "volumes", slot.number, isolation, environment, count, refresh_seconds
            )
            ready = asyncio.Event()
            task = asyncio.create_task(kubelet.run(ready))
            try:
                await asyncio.wait_for(ready.wait(), TIMEOUT_SECONDS)
                yield Demo(client, kubelet, state)
                await kubelet.stop_pods(5)
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
    finally:
        slot.close()
        await running.close()


async def fetch(url: str) -> str:
    connector = aiohttp.TCPConnector(force_close=True)
    timeout = aiohttp.ClientTimeout(total=60)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session, session.get(url) as response:
        return await response.text()


@pytest.mark.parametrize("wanted", [mode.value for mode in Isolation])
async def test_a_statefulset_runs_as_processes_behind_its_service(tmp_path: Path, wanted: str) -> None:
    async with node(tmp_path / "state", wanted) as demo:
        url = await demo.start(replicas=2)
        assert {await fetch(url) for _ in range(4)} == {"demo-0", "demo-1"}
        assert await fetch(f"{url}/config") == "one!"
        hosts = await fetch(f"{url}/hosts")
        assert "demo-1.demo-pods.default.svc.cluster.local" in hosts
        assert "demo.default.svc.cluster.local" in hosts
        assert not Path("/etc/demo").exists()

        await demo.client.merge(CONFIG_MAPS, NAMESPACE, "demo", {"data": {"config": "two"}})

        async def refreshed() -> bool:
            return await fetch(f"{url}/config") == "two!"

        await demo.until(refreshed)
        first = await demo.pod(0)
        assert first is not None
        log = Path(first["metadata"]["annotations"]["holdfast.dev/log-path"])
        assert "listening" in log.read_text()


async def test_a_change_reaches_pods_late_where_that_was_asked_for_and_new_pods_at_once(tmp_path: Path) -> None:
    async with node(tmp_path / "state", "prefix", refresh_seconds=3600.0) as demo:
        await demo.start(replicas=2)
        await demo.client.merge(CONFIG_MAPS, NAMESPACE, "demo", {"data": {"config": "two"}})
        seen = demo.kubelet._informers[CONFIG_MAPS].items

        async def noticed() -> bool:
            return bool(seen[NAMESPACE, "demo"]["data"]["config"] == "two")

        await demo.until(noticed)
        pods = [pod for pod in [await demo.pod(0), await demo.pod(1)] if pod is not None]
        last = max(pods, key=lambda pod: str(pod["metadata"]["uid"]))
        assert await fetch(f"http://{last['status']['podIP']}:9000/config") == "one!"
        before = last["metadata"]
        await demo.client.delete(PODS, NAMESPACE, before["name"], before["uid"], grace_period_seconds=0)

        async def replaced() -> bool:
            found = await demo.pod(int(before["name"][-1]))
            return found is not None and found["metadata"]["uid"] != before["uid"] and await demo.ready_pods() == 2

        await demo.until(replaced)
        fresh = await demo.pod(int(before["name"][-1]))
        assert fresh is not None
        assert await fetch(f"http://{fresh['status']['podIP']}:9000/config") == "two!"


async def test_a_killed_pod_is_restarted_and_no_client_notices(tmp_path: Path) -> None:
    async with node(tmp_path / "state", "prefix") as demo:
        url = await demo.start(replicas=2)
        os.kill(int(await fetch(f"{url}/pid")), 9)
        deadline = time.monotonic() + 1.5
        while time.monotonic() < deadline:
            assert (await fetch(url)).startswith("demo-")

        async def restarted() -> bool:
            pods = [await demo.pod(ordinal) for ordinal in range(2)]
            statuses = [pod["status"]["containerStatuses"][0] for pod in pods if pod]
            ended = [status["lastState"]["terminated"] for status in statuses if status["restartCount"] == 1]
            return bool(ended) and ended[0]["signal"] == 9 and await demo.ready_pods() == 2

        await demo.until(restarted)


async def test_an_unready_pod_leaves_the_service_but_keeps_running(tmp_path: Path) -> None:
    async with node(tmp_path / "state", "prefix") as demo:
        url = await demo.start(replicas=2)
        (demo.state / "volumes" / NAMESPACE / "data-demo-0" / "unready").touch()

        async def left() -> bool:
            return await demo.ready_pods() == 1

        await demo.until(left)
        assert {await fetch(url) for _ in range(4)} == {"demo-1"}
        pod = await demo.pod(0)
        assert pod is not None
        assert pod["status"]["containerStatuses"][0]["restartCount"] == 0


async def test_scaling_down_ends_pods_and_keeps_claims_until_they_are_deleted(tmp_path: Path) -> None:
    async with node(tmp_path / "state", "prefix") as demo:
        await demo.start(replicas=2)
        folder = demo.state / "volumes" / NAMESPACE / "data-demo-1"
        await demo.client.delete(CLAIMS, NAMESPACE, "data-demo-1")
        await asyncio.sleep(0.3)
        assert (folder / "starts").exists(), "a claim in use is protected"
        await demo.client.merge(STATEFUL_SETS, NAMESPACE, "demo", {"spec": {"replicas": 1}})

        async def gone() -> bool:
            claim = await demo.client.get(CLAIMS, NAMESPACE, "data-demo-1")
            return await demo.pod(1) is None and claim is None

        await demo.until(gone)
        assert not folder.exists()
        assert (demo.state / "volumes" / NAMESPACE / "data-demo-0" / "starts").read_text() == "x"


async def test_a_missing_secret_is_waited_for_and_named(tmp_path: Path) -> None:
    async with node(tmp_path / "state", "prefix") as demo:
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "lonely", "namespace": NAMESPACE},
            "spec": {
                "restartPolicy": "Never",
                "containers": [
                    {
                        "name": "c",
                        "image": "x",
                        "command": ["sh", "-c", 'test "$KEY" = value'],
                        "env": [{"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "late", "key": "k"}}}],
                    }
                ],
            },
        }
        await demo.client.create(PODS, pod)

        async def status() -> Manifest:
            return ((await demo.client.get(PODS, NAMESPACE, "lonely")) or {}).get("status") or {}

        async def waiting() -> bool:
            return 'secret "late" not found' in str((await status()).get("containerStatuses"))

        await demo.until(waiting)
        metadata = {"name": "late", "namespace": NAMESPACE}
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": {"k": "value"}}
        await demo.client.create(SECRETS, secret)

        async def succeeded() -> bool:
            return (await status()).get("phase") == "Succeeded"

        await demo.until(succeeded)


async def test_pods_that_ignore_sigterm_are_killed_after_their_grace(tmp_path: Path) -> None:
    async with node(tmp_path / "state", "prefix") as demo:
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "stubborn", "namespace": NAMESPACE},
            "spec": {
                "terminationGracePeriodSeconds": 1,
                "containers": [
                    {
                        "name": "c",
                        "image": "x",
                        "command": ["sh", "-c", "trap '' TERM; echo deaf; while :; do sleep 0.2; done"],
                    }
                ],
            },
        }
        await demo.client.create(PODS, pod)

        async def running() -> bool:
            return any("deaf" in log.read_text() for log in demo.state.glob("pods/*stubborn*/logs/c.log"))

        await demo.until(running)
        began = time.monotonic()
        await demo.client.delete(PODS, NAMESPACE, "stubborn")

        async def gone() -> bool:
            return await demo.client.get(PODS, NAMESPACE, "stubborn") is None

        await demo.until(gone)
        assert 0.9 <= time.monotonic() - began < 25, "long before the 30 seconds that are usual"


async def test_a_node_whose_plug_is_pulled_takes_its_pods_along_and_brings_them_back(tmp_path: Path) -> None:
    async with node(tmp_path / "state", "prefix", count=3) as demo:
        await demo.start(3)
        pods = [await demo.pod(ordinal) for ordinal in range(3)]
        places = [pod["spec"]["nodeName"] for pod in pods if pod]
        assert sorted(places) == ["local-0", "local-1", "local-2"]
        lost = places[1]

        async def plug(state: str | None) -> None:
            patch = {"metadata": {"annotations": {POWER_ANNOTATION: state}}}
            await demo.client.merge(NODES, "", lost, patch)

        async def node_is(status: str) -> bool:
            found = await demo.client.get(NODES, "", lost)
            return bool(found) and found["status"]["conditions"][0]["status"] == status

        async def ready_are(count: int) -> bool:
            return await demo.ready_pods() == count

        await plug("off")
        await demo.until(lambda: node_is("Unknown"))
        await demo.until(lambda: ready_are(2))
        await asyncio.sleep(1)
        gone = await demo.pod(1)
        assert gone is not None, "nobody but the node may say that its pod has ended"
        assert gone["spec"]["nodeName"] == lost
        await plug(None)
        await demo.until(lambda: node_is("True"))
        await demo.until(lambda: ready_are(3))
        again = await demo.pod(1)
        assert again is not None
        assert again["metadata"]["uid"] == gone["metadata"]["uid"]


async def test_a_pod_waits_for_the_node_its_volume_is_on(tmp_path: Path) -> None:
    async with node(tmp_path / "state", "prefix", count=2) as demo:
        await demo.start(1)
        pod = await demo.pod(0)
        assert pod is not None
        home = pod["spec"]["nodeName"]
        await demo.client.merge(NODES, "", home, {"spec": {"unschedulable": True}})
        await demo.client.delete(PODS, NAMESPACE, "demo-0", pod["metadata"]["uid"])

        async def refused() -> bool:
            found = await demo.pod(0)
            conditions = ((found or {}).get("status") or {}).get("conditions") or []
            return any(
                c.get("reason") == "Unschedulable" and "PersistentVolume's node affinity" in c["message"]
                for c in conditions
            )

        await demo.until(refused)
        await demo.client.merge(NODES, "", home, {"spec": {"unschedulable": None}})

        async def back() -> bool:
            return await demo.ready_pods() == 1

        await demo.until(back)
        pod = await demo.pod(0)
        assert pod is not None
        assert pod["spec"]["nodeName"] == home


@pytest.mark.parametrize(("before", "after"), [(1, 3), (3, 1)])
async def test_what_a_start_with_another_number_of_nodes_left_goes_on_where_its_volumes_are(
    tmp_path: Path, before: int, after: int
) -> None:
    async with node(tmp_path / "state", "prefix", count=before) as demo:
        await demo.start(2)
        homes = [(await demo.pod(ordinal) or {})["spec"]["nodeName"] for ordinal in range(2)]
    async with node(tmp_path / "state", "prefix", count=after) as demo:

        async def pods_are_ready_at_home() -> bool:
            pods = [await demo.pod(ordinal) or {"spec": {}, "status": {}} for ordinal in range(2)]
            ready = [
                condition["status"]
                for pod in pods
                for condition in pod["status"].get("conditions") or []
                if condition["type"] == "Ready"
            ]
            return ready == ["True"] * 2 and [pod["spec"].get("nodeName") for pod in pods] == homes

        await demo.until(pods_are_ready_at_home)
        former = await demo.pod(0)
        assert former is not None
        await demo.client.delete(PODS, NAMESPACE, "demo-0", former["metadata"]["uid"])

        async def is_made_anew() -> bool:
            return ((await demo.pod(0) or former)["metadata"]["uid"]) != former["metadata"]["uid"]

        await demo.until(is_made_anew)
        await demo.until(pods_are_ready_at_home)
        await demo.client.merge(STATEFUL_SETS, NAMESPACE, "demo", {"spec": {"replicas": 3}})

        async def third() -> str:
            return str(((await demo.pod(2) or {}).get("spec") or {}).get("nodeName", ""))

        assert await demo.until(third) in node_names(after), "what is new goes to the nodes that were asked for"


def waiting_reason(status: Manifest) -> str:
    containers = status.get("containerStatuses") or [{}]
    state = (containers[0].get("state") or {}).get("waiting") or {}
    return "" if state.get("reason") in (None, "ContainerCreating") else f"{state['reason']}: {state.get('message')}"


async def test_an_image_of_nowhere_cannot_be_pulled_until_it_is_put_right(tmp_path: Path) -> None:
    async with node(tmp_path / "s", Isolation.PREFIX.value) as demo:
        await demo.start(1)
        for image, ready in (("r.invalid/demo:2", 0), ("r.example/demo:2", 1)):
            template = {
                "spec": {"containers": [{**demo_set(1)["spec"]["template"]["spec"]["containers"][0], "image": image}]}
            }
            await demo.client.merge(STATEFUL_SETS, NAMESPACE, "demo", {"spec": {"template": template}})
            await demo.client.delete(PODS, NAMESPACE, "demo-0")
            if not ready:
                told = await demo.told(0, waiting_reason)
                assert told.startswith('ErrImagePull: failed to pull and unpack image "r.invalid/demo:2"')
                continue

            async def is_ready() -> bool:
                pod = await demo.pod(0) or {"spec": {"containers": [{}]}}
                return pod["spec"]["containers"][0].get("image") == image and await demo.ready_pods() == 1  # noqa: B023

            await demo.until(is_ready)


def unschedulable(status: Manifest) -> str:
    conditions = {condition["type"]: condition for condition in status.get("conditions") or []}
    scheduled = conditions.get("PodScheduled") or {}
    return str(scheduled.get("message")) if scheduled.get("status") == "False" else ""


async def test_a_claim_of_a_class_that_provisions_nothing_keeps_its_pod_from_a_node(tmp_path: Path) -> None:
    async with node(tmp_path / "s", Isolation.PREFIX.value) as demo:
        manual = {"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "manual"}}
        await demo.client.create(STORAGE_CLASSES, {**manual, "provisioner": "kubernetes.io/no-provisioner"})
        waiting = demo_set(1)
        waiting["spec"]["volumeClaimTemplates"][0]["spec"]["storageClassName"] = "manual"
        await demo.client.create(STATEFUL_SETS, waiting)
        told = await demo.told(0, unschedulable)
        assert told == "0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims."
        claim = await demo.client.get(CLAIMS, NAMESPACE, "data-demo-0")
        assert claim is not None
        assert (claim.get("status") or {}).get("phase") != "Bound"


async def test_a_pod_that_is_made_anew_leaves_a_claim_that_goes_and_gets_another(tmp_path: Path) -> None:
    async with node(tmp_path / "s", Isolation.PREFIX.value) as demo:
        await demo.start(1)
        before = await demo.client.get(CLAIMS, NAMESPACE, "data-demo-0")
        assert before is not None
        starts = demo.state / "volumes" / NAMESPACE / "data-demo-0" / "starts"
        assert starts.exists()
        assert before["spec"]["volumeName"] == f"pvc-{before['metadata']['uid']}"
        await demo.client.delete(CLAIMS, NAMESPACE, "data-demo-0")
        await demo.client.delete(PODS, NAMESPACE, "demo-0")

        async def has_another() -> bool:
            claim, pod = await demo.client.get(CLAIMS, NAMESPACE, "data-demo-0"), await demo.pod(0)
            fresh = claim is not None and claim["metadata"]["uid"] != before["metadata"]["uid"]
            return fresh and pod is not None and await demo.ready_pods() == 1

        await demo.until(has_another)
        assert starts.read_text() == "x", "an empty volume, which has seen one start"
