"""The helm binary itself: its rendering against the one that the other tests use, and both charts' lives.

Runs where `helm` is on PATH.  The API server is the stand-in's, without operator and kubelet: what is shown is what
Helm does with the charts, the Tenant API above all, which Helm would never upgrade from a chart's `crds/`.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from holdfast_local.apiserver.kubeconfig import write_kubeconfig
from holdfast_local.apiserver.server import serve
from holdfast_server.testing.commands import Result, run_command

HELM = shutil.which("helm")
KUBECTL = shutil.which("kubectl")
ROOT = Path(__file__).parents[2]
CHARTS = ROOT / "charts"
OPERATOR, TENANT = CHARTS / "holdfast-operator", CHARTS / "holdfast-tenant"
COMMAND_TIMEOUT_SECONDS = 120
KUBERNETES_VERSION = "1.36.0"
"""A helm that was built from source takes itself for one of a Kubernetes that the chart refuses."""
CRD = "tenants.holdfast.dev"

pytestmark = pytest.mark.skipif(HELM is None, reason="helm is not installed")

VALUES: dict[str, tuple[Path, dict[str, Any]]] = {
    "operator": (OPERATOR, {}),
    "operator, namespaced": (OPERATOR, {"namespaces": ["a", "b"], "crds": {"install": False}}),
    "operator, images by digest": (
        OPERATOR,
        {"image": {"digest": "sha256:" + "0" * 64}, "serverImage": {"repository": "r.example/s", "tag": ""}},
    ),
    "operator, monitored": (
        OPERATOR,
        {"metrics": {"port": 9999, "serviceMonitor": {"enabled": True}, "prometheusRule": {"enabled": True}}},
    ),
    "operator, unmonitored": (OPERATOR, {"metrics": {"enabled": False}}),
    "operator, placed": (
        OPERATOR,
        {
            "imagePullSecrets": [{"name": "pull"}],
            "nodeSelector": {"a": "b"},
            "tolerations": [{"operator": "Exists"}],
            "affinity": {"nodeAffinity": {}},
            "podLabels": {"team": "storage"},
            "podAnnotations": {"note": "x: y"},
            "priorityClassName": "high",
            "serviceAccount": {"name": "somebody", "annotations": {"role": "none"}},
        },
    ),
    "tenant": (TENANT, {}),
    "tenant, large numbers": (
        TENANT,
        {"name": "logs", "spec": {"keyOverlapSeconds": 604800, "securityContext": {"runAsUser": 1000660000}}},
    ),
}
REFUSED: list[tuple[Path, dict[str, Any], str]] = [
    (OPERATOR, {"replica": 2}, "additional properties 'replica' not allowed"),
    (OPERATOR, {"metrics": {"prot": 9}}, "at '/metrics': additional properties 'prot'"),
    (OPERATOR, {"namespaces": "loki"}, "at '/namespaces': got string, want array"),
    (TENANT, {"nam": "x"}, "additional properties 'nam' not allowed"),
    (TENANT, {"spec": {"bucket": []}}, "at '/spec': additional properties 'bucket' not allowed"),
    (TENANT, {"spec": {"users": [{"name": "a", "secret": "b"}]}}, "at '/spec/users/0': additional properties 'secret'"),
]


class Commands:
    """helm and kubectl with one kubeconfig and a home of their own."""

    def __init__(self, home: Path, kubeconfig: Path | None = None) -> None:
        self._environment = {"HOME": str(home), "PATH": os.environ["PATH"]}
        if kubeconfig is not None:
            self._environment["KUBECONFIG"] = str(kubeconfig)

    async def run(self, program: str | None, arguments: Sequence[str | Path], stdin: str = "") -> Result:
        assert program is not None
        return await run_command(
            program, arguments, self._environment, stdin=stdin, timeout_seconds=COMMAND_TIMEOUT_SECONDS
        )

    async def helm(self, *arguments: str | Path, values: dict[str, Any] | None = None) -> str:
        result = await self.run(HELM, [*arguments, *(["-f", "-"] if values else [])], json.dumps(values or {}))
        assert result.code == 0, result
        return result.out

    async def refused(self, *arguments: str | Path, values: dict[str, Any] | None = None) -> str:
        result = await self.run(HELM, [*arguments, *(["-f", "-"] if values else [])], json.dumps(values or {}))
        assert result.code != 0, result
        return result.err

    async def kubectl(self, *arguments: str | Path, stdin: str = "") -> str:
        result = await self.run(KUBECTL, arguments, stdin)
        assert result.code == 0, result
        return result.out


@pytest.fixture
def commands(tmp_path: Path) -> Commands:
    return Commands(tmp_path)


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Commands]:
    """An API server, and who may do everything on it."""
    if KUBECTL is None:
        pytest.skip("kubectl is not installed")
    server = await serve(tmp_path / "state", "127.0.0.1", 0, {"token": ("admin", ("system:masters",))})
    write_kubeconfig(tmp_path / "kubeconfig", server.url, "token", server.certificate_authority)
    yield Commands(tmp_path, tmp_path / "kubeconfig")
    await server.close()


@pytest.mark.parametrize("chart", [OPERATOR, TENANT], ids=lambda chart: chart.name)
async def test_helm_finds_no_fault_with_the_charts(commands: Commands, chart: Path) -> None:
    assert "0 chart(s) failed" in await commands.helm("lint", "--strict", chart)


@pytest.mark.parametrize(("chart", "values"), VALUES.values(), ids=list(VALUES))
async def test_helm_renders_what_the_tests_see(commands: Commands, chart: Path, values: dict[str, Any]) -> None:
    library = pytest.importorskip("helm_python")
    arguments = ("template", "hold", chart, "-n", "system", "--kube-version", KUBERNETES_VERSION)
    told = [one for one in yaml.safe_load_all(await commands.helm(*arguments, values=values)) if one]
    with library.Chart.load(str(chart)) as loaded:
        texts = loaded.render(values, name="hold", namespace="system")
    seen = [
        document
        for name, text in texts.items()
        if not name.endswith("NOTES.txt")
        for document in yaml.safe_load_all(text)
        if document
    ]
    assert sorted(told, key=_name) == sorted(seen, key=_name)


def _name(document: dict[str, Any]) -> tuple[str, str, str]:
    metadata = document["metadata"]
    return document["kind"], metadata.get("namespace", ""), metadata["name"]


@pytest.mark.parametrize(("chart", "values", "message"), REFUSED, ids=[message for _, _, message in REFUSED])
async def test_a_wrong_value_is_named(commands: Commands, chart: Path, values: dict[str, Any], message: str) -> None:
    arguments = ("template", "hold", chart, "--kube-version", KUBERNETES_VERSION)
    assert message in await commands.refused(*arguments, values=values)


def next_release(folder: Path) -> Path:
    """The operator's chart as a later version, whose Tenant API has a field more."""
    chart = folder / "next"
    shutil.copytree(OPERATOR, chart)
    for path, before, after in (
        (chart / "Chart.yaml", r"(?m)^version: .*$", "version: 9.9.9"),
        (
            chart / "files" / "tenant.yaml",
            r"( +)claimRetention:",
            r"\1laterField:\n\1  type: boolean\n\1claimRetention:",
        ),
    ):
        text, count = re.subn(before, after, path.read_text(), count=1)
        assert count == 1
        path.write_text(text)
    return chart


async def fields_of(cluster: Commands) -> set[str]:
    crd = json.loads(await cluster.kubectl("get", "crd", CRD, "-o", "json"))
    spec = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    return set(spec["properties"])


async def test_an_operator_comes_grows_goes_back_and_leaves(cluster: Commands, tmp_path: Path) -> None:
    told = await cluster.helm("install", "hold", OPERATOR, "-n", "system", "--create-namespace")
    await follow_notes(cluster, told)
    await cluster.kubectl("apply", "-f", ROOT / "examples" / "smallest.yaml")
    assert "laterField" not in await fields_of(cluster)

    await cluster.helm("upgrade", "hold", next_release(tmp_path), "-n", "system")
    assert "laterField" in await fields_of(cluster), "the Tenant API is upgraded with the chart"
    await cluster.helm("rollback", "hold", "1", "-n", "system")
    assert "laterField" not in await fields_of(cluster)

    error = await cluster.refused("upgrade", "hold", OPERATOR, "-n", "system", "--set", "namespaces={one,two}")
    assert 'namespaces "one" not found' in error, "rights are given in namespaces that exist"
    for name in ("one", "two"):
        await cluster.kubectl("create", "namespace", name)
    told = await cluster.helm("upgrade", "hold", OPERATOR, "-n", "system", "--set", "namespaces={one,two}")
    assert "the Tenants of one, two." in told
    await follow_notes(cluster, told)
    bindings = json.loads(await cluster.kubectl("get", "rolebindings", "-A", "-o", "json"))["items"]
    over_tenants = [one for one in bindings if one["roleRef"]["kind"] == "ClusterRole"]
    assert {(one["metadata"]["namespace"], one["roleRef"]["name"]) for one in over_tenants} == {
        ("one", "hold"),
        ("two", "hold"),
    }
    wide = json.loads(await cluster.kubectl("get", "clusterrolebindings", "-o", "json"))["items"]
    assert "hold" not in {one["metadata"]["name"] for one in wide}, "no rights beyond these namespaces are left"

    await cluster.helm("upgrade", "hold", OPERATOR, "-n", "system", "--set", "crds.install=false")
    assert await fields_of(cluster), "the Tenant API stays when the chart is told to leave it to others"
    await cluster.helm("uninstall", "hold", "-n", "system")
    assert "small" in await cluster.kubectl("get", "tenants", "-A"), "no Tenant goes with the operator"


async def test_a_tenant_api_that_is_there_is_left_alone_or_taken_over(cluster: Commands) -> None:
    await cluster.kubectl("apply", "-f", ROOT / "crds")
    install = ("install", "hold", OPERATOR, "-n", "system", "--create-namespace")
    error = await cluster.refused(*install)
    assert f'"{CRD}"' in error
    assert "cannot be imported into the current release" in error
    told = await cluster.helm(*install, "--set", "crds.install=false")
    assert "apply crds/tenant.yaml" in told
    await cluster.helm("uninstall", "hold", "-n", "system")

    await cluster.kubectl(
        "annotate", "crd", CRD, "meta.helm.sh/release-name=hold", "meta.helm.sh/release-namespace=system"
    )
    await cluster.kubectl("label", "crd", CRD, "app.kubernetes.io/managed-by=Helm")
    await cluster.helm(*install)
    await cluster.helm("uninstall", "hold", "-n", "system")
    # Another release after the first one has gone: by now with the shorter way, of Helm 3.17.
    other = ("install", "other", OPERATOR, "-n", "elsewhere", "--create-namespace")
    assert 'key "meta.helm.sh/release-name" must equal "other"' in await cluster.refused(*other)
    await cluster.helm(*other, "--take-ownership")


async def test_a_tenant_is_declared_changed_and_removed(cluster: Commands) -> None:
    await cluster.kubectl("apply", "-f", ROOT / "crds")
    await cluster.kubectl("wait", "--for=condition=Established", f"crd/{CRD}", "--timeout=60s")
    in_namespace = ("-n", "loki")
    told = await cluster.helm("install", "logs", TENANT, *in_namespace, "--create-namespace")
    await follow_notes(cluster, told)
    assert "logs-root  everything" in told

    async def buckets() -> list[str]:
        tenant = json.loads(await cluster.kubectl("get", "tenant", "logs", *in_namespace, "-o", "json"))
        return [bucket["name"] for bucket in tenant["spec"].get("buckets") or []]

    chunks = {"spec": {"buckets": [{"name": "chunks"}]}}
    await cluster.helm("upgrade", "logs", TENANT, *in_namespace, values=chunks)
    assert await buckets() == ["chunks"]
    await cluster.helm("rollback", "logs", "1", *in_namespace)
    assert await buckets() == []
    await cluster.helm("upgrade", "logs", TENANT, *in_namespace, values=chunks)
    pool = yaml.safe_load((TENANT / "values.yaml").read_text())["spec"]["pools"][0]
    fewer = {"spec": {"pools": [{**pool, "servers": 2}]}}
    error = await cluster.refused("upgrade", "logs", TENANT, *in_namespace, values=fewer)
    assert "servers cannot be changed: add a pool instead" in error
    assert await buckets() == ["chunks"], "what is refused changes nothing"
    # Not by a rollback: that would compare with the values that were refused, and find nothing to do.
    await cluster.helm("upgrade", "logs", TENANT, *in_namespace, "--reset-values")
    assert await buckets() == []
    await cluster.helm("uninstall", "logs", *in_namespace)
    assert "logs" not in await cluster.kubectl("get", "tenants", "-A")


async def follow_notes(cluster: Commands, told: str) -> None:
    """Types what the notes say to type: it must name what is there.  Nothing here makes a Deployment available or a
    Tenant ready, so that nothing is waited for."""
    commands = [line.strip() for line in told.splitlines() if line.startswith("  kubectl ")]
    assert commands
    for command in commands:
        arguments = shlex.split(command)[1:]
        if "rollout" in arguments:
            arguments.append("--watch=false")
        if "secret" in arguments:
            continue  # the operator's to make
        if "wait" in arguments:
            result = await cluster.run(KUBECTL, [*arguments[:-1], "--timeout=1s"])
            assert "timed out waiting for the condition on tenants/" in result.err
            continue
        await cluster.kubectl(*arguments)
