"""Real kubectl against the stand-in API server: the commands that people use, and what they print.

There is no kubelet here; pods are moved along by patching their status.
"""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from holdfast_local.apiserver.kubeconfig import write_kubeconfig
from holdfast_local.apiserver.server import serve
from holdfast_server.testing.commands import Result, run_command, start_command

KUBECTL = shutil.which("kubectl")
pytestmark = pytest.mark.skipif(KUBECTL is None, reason="kubectl is not installed")

COMMAND_TIMEOUT_SECONDS = 120
ROOT = Path(__file__).parents[2]
TOKENS = {
    "admin-token": ("admin", ("system:masters",)),
    "visitor-token": ("visitor", ()),
}
WORKLOAD = """
apiVersion: v1
kind: Service
metadata: {name: web, labels: {app: web}}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: http}]}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: web, labels: {app: web}}
spec:
  serviceName: web
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: main
        image: web:1
        ports: [{name: http, containerPort: 8080}]
        env: [{name: MODE, value: first}]
---
apiVersion: v1
kind: Secret
metadata: {name: keys, labels: {app: web}}
stringData: {user: me}
"""
POD = """
apiVersion: v1
kind: Pod
metadata: {name: p, labels: {app: web}}
spec: {nodeName: n1, containers: [{name: main, image: "web:1"}]}
"""
RUNNING = {
    "status": {
        "phase": "Running",
        "podIP": "127.77.0.2",
        "conditions": [{"type": "Ready", "status": "True"}],
        "containerStatuses": [
            {
                "name": "main",
                "ready": True,
                "restartCount": 2,
                "image": "web:1",
                "imageID": "",
                "state": {"running": {}},
            }
        ],
    }
}


class Kubectl:
    """kubectl with one kubeconfig and a home of its own, so that no cache of the user plays a part."""

    def __init__(self, kubeconfig: Path, home: Path) -> None:
        self.kubeconfig = kubeconfig
        self._environment = {"KUBECONFIG": str(kubeconfig), "HOME": str(home), "PATH": "/usr/bin:/bin"}

    async def start(self, *arguments: str) -> asyncio.subprocess.Process:
        assert KUBECTL is not None
        return await start_command(KUBECTL, arguments, self._environment)

    async def run(self, *arguments: str, stdin: str = "") -> Result:
        assert KUBECTL is not None
        return await run_command(
            KUBECTL, arguments, self._environment, stdin=stdin, timeout_seconds=COMMAND_TIMEOUT_SECONDS
        )

    async def __call__(self, *arguments: str, stdin: str = "") -> str:
        result = await self.run(*arguments, stdin=stdin)
        assert result.code == 0, result
        return result.out

    async def object(self, *arguments: str) -> Any:
        return json.loads(await self("get", *arguments, "-o", "json"))


@pytest.fixture
async def kubectl(tmp_path: Path) -> AsyncIterator[Kubectl]:
    server = await serve(tmp_path / "state", "127.0.0.1", 0, TOKENS)
    for token in TOKENS:
        write_kubeconfig(tmp_path / token, server.url, token, server.certificate_authority)
    yield Kubectl(tmp_path / "admin-token", tmp_path)
    await server.close()


async def test_apply_is_idempotent_and_changes_only_what_is_written(kubectl: Kubectl) -> None:
    created = await kubectl("apply", "-f", "-", stdin=WORKLOAD)
    assert created.splitlines() == ["service/web created", "statefulset.apps/web created", "secret/keys created"]
    again = await kubectl("apply", "-f", "-", stdin=WORKLOAD)
    assert again.splitlines()[:2] == ["service/web unchanged", "statefulset.apps/web unchanged"]
    await kubectl("scale", "statefulset/web", "--replicas=5")
    changed = WORKLOAD.replace("value: first", "value: second").replace("  replicas: 2\n", "")
    await kubectl("apply", "-f", "-", stdin=changed)
    spec = (await kubectl.object("statefulset", "web"))["spec"]
    assert spec["template"]["spec"]["containers"][0]["env"] == [{"name": "MODE", "value": "second"}]


async def test_diff_shows_what_apply_would_do(kubectl: Kubectl) -> None:
    await kubectl("apply", "-f", "-", stdin=WORKLOAD)
    result = await kubectl.run("diff", "-f", "-", stdin=WORKLOAD.replace("value: first", "value: second"))
    assert result.code == 1, result
    assert "-          value: first" in result.out
    assert "+          value: second" in result.out
    assert (await kubectl.object("statefulset", "web"))["metadata"]["generation"] == 1


async def test_server_side_apply_reports_conflicts(kubectl: Kubectl) -> None:
    arguments = ("apply", "--server-side", "-f", "-")
    assert "serverside-applied" in await kubectl(*arguments, stdin=WORKLOAD)
    other = WORKLOAD.replace("value: first", "value: second")
    result = await kubectl.run(*arguments, "--field-manager=other", stdin=other)
    assert result.code != 0
    assert 'conflict with "kubectl" using apps/v1' in result.err
    await kubectl(*arguments, "--field-manager=other", "--force-conflicts", stdin=other)


async def test_unknown_fields_are_refused_before_anything_happens(kubectl: Kubectl) -> None:
    result = await kubectl.run("apply", "-f", "-", stdin=WORKLOAD.replace("replicas: 2", "replica: 2"))
    assert result.code == 1
    assert 'unknown field "spec.replica"' in result.err
    assert (await kubectl.run("get", "statefulset", "web")).code == 1


async def test_a_kind_that_nobody_serves_is_named(kubectl: Kubectl) -> None:
    result = await kubectl.run("apply", "-f", "-", stdin=WORKLOAD.replace("kind: StatefulSet", "kind: StatefulSett"))
    assert result.code == 1
    assert 'no matches for kind "StatefulSett" in version "apps/v1"' in result.err


async def test_get_prints_the_usual_columns(kubectl: Kubectl) -> None:
    await kubectl("apply", "-f", "-", stdin=WORKLOAD + "---" + POD)
    await kubectl("patch", "pod", "p", "--subresource=status", "--type=merge", "-p", json.dumps(RUNNING))
    pods = (await kubectl("get", "pods", "-o", "wide")).splitlines()
    assert pods[0].split()[:7] == ["NAME", "READY", "STATUS", "RESTARTS", "AGE", "IP", "NODE"]
    assert pods[1].split()[:4] == ["p", "1/1", "Running", "2"]
    assert pods[1].split()[5:7] == ["127.77.0.2", "n1"]
    everything = await kubectl("get", "all")
    assert "service/web" in everything
    assert "statefulset.apps/web" in everything
    assert (await kubectl("get", "sts", "-o", "name")).split() == ["statefulset.apps/web"]
    assert (await kubectl("get", "secret", "keys", "-o", "jsonpath={.data.user}")) == "bWU="
    assert "No resources found" in (await kubectl.run("get", "deployments")).err
    assert "web" in await kubectl("get", "pods,svc", "-l", "app=web", "--all-namespaces")


async def test_describe_shows_an_object_with_its_events(kubectl: Kubectl) -> None:
    await kubectl("apply", "-f", "-", stdin=POD)
    uid = (await kubectl.object("pod", "p"))["metadata"]["uid"]
    event = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": "p.1", "namespace": "default"},
        "involvedObject": {"kind": "Pod", "namespace": "default", "name": "p", "uid": uid},
        "reason": "Started",
        "message": "Started container main",
        "type": "Normal",
        "count": 1,
    }
    await kubectl("create", "-f", "-", stdin=json.dumps(event))
    described = await kubectl("describe", "pod", "p")
    assert "Started container main" in described
    assert "Image:" in described
    assert "Started container main" in await kubectl("get", "events")


async def test_changes_by_command_arrive(kubectl: Kubectl) -> None:
    await kubectl("apply", "-f", "-", stdin=WORKLOAD)
    await kubectl("scale", "statefulset/web", "--replicas=3")
    await kubectl("label", "statefulset/web", "tier=front")
    await kubectl("annotate", "statefulset/web", "note=hello")
    await kubectl("set", "image", "statefulset/web", "main=web:2")
    await kubectl("patch", "statefulset/web", "-p", '{"spec":{"template":{"metadata":{"labels":{"x":"y"}}}}}')
    found = await kubectl.object("statefulset", "web")
    assert found["spec"]["replicas"] == 3
    assert (found["metadata"]["labels"]["tier"], found["metadata"]["annotations"]["note"]) == ("front", "hello")
    assert found["spec"]["template"]["spec"]["containers"][0]["image"] == "web:2"
    assert found["spec"]["template"]["metadata"]["labels"] == {"app": "web", "x": "y"}


async def test_typed_create_commands_work(kubectl: Kubectl) -> None:
    await kubectl("create", "configmap", "c", "--from-literal=a=b")
    await kubectl("create", "secret", "generic", "s", "--from-literal=k=v")
    await kubectl("create", "namespace", "demo")
    await kubectl("create", "serviceaccount", "bot")
    await kubectl("create", "role", "reader", "--verb=get,list", "--resource=pods")
    await kubectl("create", "rolebinding", "reader", "--role=reader", "--serviceaccount=default:bot")
    await kubectl("create", "service", "clusterip", "svc", "--tcp=80:8080")
    await kubectl("create", "pdb", "guard", "--selector=app=web", "--max-unavailable=1")
    assert (await kubectl.object("configmap", "c"))["data"] == {"a": "b"}
    assert (await kubectl.object("secret", "s"))["data"] == {"k": "dg=="}
    assert (await kubectl.object("service", "svc"))["spec"]["ports"][0]["targetPort"] == 8080
    assert (await kubectl.object("pdb", "guard"))["spec"]["maxUnavailable"] == 1
    account = "--as=system:serviceaccount:default:bot"
    assert (await kubectl("auth", "can-i", "list", "pods", account)).strip() == "yes"
    assert (await kubectl.run("auth", "can-i", "delete", "pods", account)).out.strip() == "no"
    assert len(await kubectl("create", "token", "bot")) > 20


async def test_logs_are_read_tailed_and_followed(kubectl: Kubectl, tmp_path: Path) -> None:
    log = tmp_path / "p.log"
    log.write_text("".join(f"line {number}\n" for number in range(100)))
    await kubectl("apply", "-f", "-", stdin=POD)
    result = await kubectl.run("logs", "p")
    assert "waiting to start" in result.err
    await kubectl("annotate", "pod", "p", f"holdfast.dev/log-path={log}")
    assert (await kubectl("logs", "p")).splitlines()[0] == "line 0"
    assert (await kubectl("logs", "p", "--tail=2")).splitlines() == ["line 98", "line 99"]
    following = await kubectl.start("logs", "p", "-f", "--tail=1")
    assert following.stdout is not None
    async with asyncio.timeout(COMMAND_TIMEOUT_SECONDS):
        assert await following.stdout.readline() == b"line 99\n"
        with log.open("a") as file:
            file.write("line 100\n")
        assert await following.stdout.readline() == b"line 100\n"
        patch = '{"status":{"phase":"Failed"}}'
        await kubectl("patch", "pod", "p", "--subresource=status", "--type=merge", "-p", patch)
        assert await following.wait() == 0, "following ends with the pod"


async def test_wait_and_delete_follow_the_object(kubectl: Kubectl) -> None:
    await kubectl("apply", "-f", "-", stdin=POD)
    waiting = asyncio.create_task(kubectl("wait", "--for=condition=Ready", "pod/p", "--timeout=100s"))
    await kubectl("patch", "pod", "p", "--subresource=status", "--type=merge", "-p", json.dumps(RUNNING))
    assert "condition met" in await waiting
    deleting = asyncio.create_task(kubectl("delete", "pod", "p", "--timeout=100s"))
    await kubectl("wait", "--for=jsonpath={.metadata.deletionGracePeriodSeconds}=30", "pod/p", "--timeout=100s")
    assert not deleting.done()
    await kubectl("delete", "pod", "p", "--force", "--grace-period=0")
    assert '"p" deleted' in await deleting


async def test_a_namespace_goes_with_all_it_holds(kubectl: Kubectl) -> None:
    await kubectl("create", "namespace", "demo")
    await kubectl("apply", "-n", "demo", "-f", "-", stdin=WORKLOAD)
    assert 'namespace "demo" deleted' in await kubectl("delete", "namespace", "demo", "--timeout=100s")
    assert (await kubectl.run("get", "all", "-n", "demo")).out == ""


async def test_the_tenant_kind_is_explained_listed_and_checked(kubectl: Kubectl) -> None:
    await kubectl("apply", "-f", str(ROOT / "crds"))
    await kubectl("wait", "--for=condition=Established", "crd/tenants.holdfast.dev", "--timeout=100s")
    assert "pools" in await kubectl("explain", "tenant.spec")
    assert "tenants" in await kubectl("api-resources", "--api-group=holdfast.dev")
    await kubectl("apply", "-f", str(ROOT / "examples/smallest.yaml"))
    assert "READY" in await kubectl("get", "tenants", "-A")
    name, namespace = (
        await kubectl("get", "tenants", "-A", "-o", "jsonpath={.items[0].metadata['name','namespace']}")
    ).split()
    await kubectl("describe", "tenant", name, "-n", namespace)
    operation = '[{"op":"replace","path":"/spec/pools/0/servers","value":77}]'
    arguments = ("patch", "tenant", name, "-n", namespace, "--type=json", "-p", operation)
    result = await kubectl.run(*arguments)
    assert result.code == 1
    assert "spec.pools[0].servers" in result.err
    await kubectl("delete", "tenant", name, "-n", namespace, "--timeout=100s")


async def test_a_user_without_grants_is_told_so(kubectl: Kubectl, tmp_path: Path) -> None:
    visitor = Kubectl(tmp_path / "visitor-token", tmp_path)
    result = await visitor.run("get", "pods")
    assert result.code == 1
    assert 'Error from server (Forbidden): pods is forbidden: User "visitor" cannot list' in result.err
