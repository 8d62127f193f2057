"""The port over HTTP, against a server that answers as told: what is sent, and how answers are understood."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web

from holdfast_operator.kube.client import CALLS_AT_A_TIME, HttpKubeClient
from holdfast_operator.kube.errors import (
    EvictionRefused,
    KubeConflict,
    KubeError,
    KubeForbidden,
    KubeRejected,
    KubeUnavailable,
    NamespaceEnding,
    WebhookAway,
)
from holdfast_operator.kube.login import LoginFailed, connection_for_kopf, load_configuration
from holdfast_operator.kube.port import LEASE, SECRET, STATEFUL_SET, TENANT

SECRET_MANIFEST = {
    "apiVersion": "v1",
    "kind": "Secret",
    "metadata": {"name": "logs-root", "namespace": "loki", "uid": "u1"},
}


class ApiServer:
    def __init__(self) -> None:
        self.requests: list[web.Request] = []
        self.bodies: list[Any] = []
        self.answer: Callable[[web.Request], tuple[int, Any]] = lambda request: (200, {})
        self.answers = asyncio.Event()
        """While it is not set, only Leases are answered."""
        self.answers.set()

    async def handle(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.requests.append(request)
        self.bodies.append(json.loads(body) if body else None)
        if "/leases/" not in request.path:
            await self.answers.wait()
        status, value = self.answer(request)
        return web.Response(status=status, text=value if isinstance(value, str) else json.dumps(value))


@pytest.fixture
async def api() -> AsyncIterator[tuple[ApiServer, str]]:
    server = ApiServer()
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", server.handle)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield server, f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


def write_kubeconfig(path: Path, url: str) -> str:
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": url}}],
        "users": [{"name": "u", "user": {"token": "t0ken"}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    path.write_text(yaml.safe_dump(document))
    return str(path)


@pytest.fixture
async def kube(api: tuple[ApiServer, str], tmp_path: Path) -> AsyncIterator[HttpKubeClient]:
    configuration = await load_configuration(write_kubeconfig(tmp_path / "config", api[1]))
    async with HttpKubeClient(configuration) as client:
        yield client


async def test_the_kubeconfigs_token_is_sent(api: Any, kube: HttpKubeClient) -> None:
    assert await kube.get(TENANT, "loki", "logs") == {}
    (request,) = api[0].requests
    assert request.path == "/apis/holdfast.dev/v1/namespaces/loki/tenants/logs"
    assert request.headers["Authorization"] == "Bearer t0ken"


async def test_kopf_gets_the_same_login(api: Any, tmp_path: Path) -> None:
    configuration = await load_configuration(write_kubeconfig(tmp_path / "config", api[1]))
    connection = await connection_for_kopf(configuration)
    assert connection.server == api[1]
    assert connection.as_http_headers() == {"Authorization": "Bearer t0ken"}


async def test_a_kubeconfig_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(LoginFailed, match="absent"):
        await load_configuration(str(tmp_path / "absent"))


async def test_apply_is_server_side_forced_and_ours(api: Any, kube: HttpKubeClient) -> None:
    await kube.apply(SECRET_MANIFEST)
    (request,) = api[0].requests
    assert (request.method, request.path) == ("PATCH", "/api/v1/namespaces/loki/secrets/logs-root")
    assert request.headers["Content-Type"] == "application/apply-patch+yaml"
    assert dict(request.query) == {"fieldManager": "holdfast-operator", "force": "true"}
    assert api[0].bodies[0]["metadata"]["name"] == "logs-root"


async def test_status_is_merge_patched_below_its_subresource(api: Any, kube: HttpKubeClient) -> None:
    await kube.patch_status(TENANT, "loki", "logs", {"health": "Healthy", "endpoint": None})
    (request,) = api[0].requests
    assert request.path.endswith("/tenants/logs/status")
    assert request.headers["Content-Type"] == "application/merge-patch+json"
    assert api[0].bodies == [{"status": {"health": "Healthy", "endpoint": None}}]


async def test_a_list_is_read_page_by_page(api: Any, kube: HttpKubeClient) -> None:
    def answer(request: web.Request) -> tuple[int, Any]:
        if "continue" in request.query:
            return 200, {"items": [{"metadata": {"name": "b"}}], "metadata": {}}
        return 200, {"items": [{"metadata": {"name": "a"}}], "metadata": {"continue": "to/k=n"}}

    api[0].answer = answer
    found = await kube.list_objects(STATEFUL_SET, None, {"holdfast.dev/tenant": "logs", "x": "y"})
    assert [(item["kind"], item["metadata"]["name"]) for item in found] == [("StatefulSet", "a"), ("StatefulSet", "b")]
    first, second = api[0].requests
    assert first.path == "/apis/apps/v1/statefulsets"
    assert first.query["labelSelector"] == "holdfast.dev/tenant=logs,x=y"
    assert second.query["continue"] == "to/k=n"


@pytest.mark.parametrize(
    "details", [{}, {"causes": [{"reason": "NamespaceTerminating", "field": "metadata.namespace"}]}]
)
async def test_a_namespace_that_is_being_deleted_is_no_want_of_rights(
    api: Any, kube: HttpKubeClient, details: dict[str, Any]
) -> None:
    message = 'secrets "logs-root" is forbidden: unable to create new content in namespace loki'
    message += "" if details else " because it is being terminated"
    api[0].answer = lambda request: (403, {"reason": "Forbidden", "message": message, "details": details})
    for call in (kube.create, kube.apply):
        with pytest.raises(NamespaceEnding, match="logs-root"):
            await call(SECRET_MANIFEST)


async def test_a_webhook_that_is_away_is_told_from_an_api_server_that_is(api: Any, kube: HttpKubeClient) -> None:
    message = (
        'Internal error occurred: failed calling webhook "validate.kyverno.svc-fail": failed to call webhook: Post'
    )
    api[0].answer = lambda request: (500, {"reason": "InternalError", "message": message})
    with pytest.raises(WebhookAway, match=r"validate\.kyverno\.svc-fail"):
        await kube.apply(SECRET_MANIFEST)
    with pytest.raises(WebhookAway):
        await kube.evict("loki", "logs-pool-main-0")
    assert issubclass(WebhookAway, KubeUnavailable), "whoever asks later does so here, too"
    # One that answers with a 5xx of its own: the API server passes code and words on.
    message = 'admission webhook "validation.gatekeeper.sh" denied the request: context deadline exceeded'
    api[0].answer = lambda request: (500, {"reason": "InternalError", "message": message})
    with pytest.raises(WebhookAway, match=r"validation\.gatekeeper\.sh"):
        await kube.apply(SECRET_MANIFEST)
    api[0].answer = lambda request: (409, {"reason": "Conflict", "message": message})
    with pytest.raises(KubeRejected, match=r"validation\.gatekeeper\.sh"):
        await kube.apply(SECRET_MANIFEST)
    api[0].answer = lambda request: (500, {"message": "etcdserver: request timed out"})
    with pytest.raises(KubeUnavailable) as raised:
        await kube.apply(SECRET_MANIFEST)
    assert not isinstance(raised.value, WebhookAway)


async def test_only_the_very_object_is_deleted(api: Any, kube: HttpKubeClient) -> None:
    await kube.delete(SECRET_MANIFEST)
    assert api[0].bodies[0]["preconditions"] == {"uid": "u1"}
    api[0].answer = lambda request: (409, {"message": "the UID in the precondition does not match"})
    await kube.delete(SECRET_MANIFEST)
    api[0].answer = lambda request: (404, {})
    await kube.delete(SECRET_MANIFEST)


async def test_a_patch_for_an_object_made_anew_is_a_conflict(api: Any, kube: HttpKubeClient) -> None:
    """As Kubernetes 1.36 answers it."""
    message = 'Secret "logs-root" is invalid: metadata.uid: Invalid value: "u1": field is immutable'
    causes = [{"reason": "FieldValueInvalid", "message": "field is immutable", "field": "metadata.uid"}]
    api[0].answer = lambda request: (422, {"message": message, "reason": "Invalid", "details": {"causes": causes}})
    with pytest.raises(KubeConflict):
        await kube.merge(SECRET_MANIFEST, {"metadata": {"annotations": {"a": None}}})
    assert api[0].bodies[0]["metadata"]["uid"] == "u1"


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, KubeRejected),
        (401, KubeForbidden),
        (403, KubeForbidden),
        (404, KubeRejected),
        (409, KubeConflict),
        (422, KubeRejected),
        (429, KubeUnavailable),
        (500, KubeUnavailable),
        (503, KubeUnavailable),
    ],
)
async def test_refusals_are_sorted_by_what_can_be_done(
    api: Any, kube: HttpKubeClient, status: int, error: type[KubeError]
) -> None:
    api[0].answer = lambda request: (status, {"kind": "Status", "message": "because of this"})
    with pytest.raises(error, match=f"{status}.*because of this"):
        await kube.create(SECRET_MANIFEST)


async def test_absence_is_an_answer(api: Any, kube: HttpKubeClient) -> None:
    api[0].answer = lambda request: (404, {"message": "not found"})
    assert await kube.get(SECRET, "loki", "logs-root") is None
    await kube.patch_status(TENANT, "loki", "logs", {})
    await kube.evict("loki", "logs-pool-main-0")


async def test_an_eviction_refused_by_a_budget_is_told_apart(api: Any, kube: HttpKubeClient) -> None:
    api[0].answer = lambda request: (429, {"message": "would violate the pod's disruption budget"})
    with pytest.raises(EvictionRefused, match="disruption budget"):
        await kube.evict("loki", "logs-pool-main-0")
    assert api[0].requests[0].path == "/api/v1/namespaces/loki/pods/logs-pool-main-0/eviction"
    several = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."
    api[0].answer = lambda request: (500, {"message": several})
    with pytest.raises(EvictionRefused, match="more than one"):
        await kube.evict("loki", "logs-pool-main-0")
    api[0].answer = lambda request: (500, {"message": "etcdserver: request timed out"})
    with pytest.raises(KubeUnavailable):
        await kube.evict("loki", "logs-pool-main-0")


@pytest.mark.parametrize(
    "said",
    [
        "failed to create typed patch object (odd/t-pool-main; apps/v1, Kind=StatefulSet): "
        '.spec.template.spec.containers[name="holdfast"].env[name="A"].value: expected string, got &3',
        "failed to convert new object (odd/t-pool-main; apps/v1, Kind=StatefulSet) to proper version: unable to "
        "convert unstructured object to apps/v1, Kind=StatefulSet: quantities must match the regular expression …",
    ],
)
async def test_a_field_of_the_wrong_type_is_a_refusal_though_the_server_says_500(
    api: Any, kube: HttpKubeClient, said: str
) -> None:
    api[0].answer = lambda request: (500, {"kind": "Status", "status": "Failure", "message": said, "code": 500})
    with pytest.raises(KubeRejected, match="Kind=StatefulSet"):
        await kube.apply(SECRET_MANIFEST)


@pytest.mark.parametrize("answer", ["<html>", "[]", ""])
async def test_an_answer_that_is_no_object_is_unavailability(api: Any, kube: HttpKubeClient, answer: str) -> None:
    api[0].answer = lambda request: (200, answer)
    with pytest.raises(KubeUnavailable):
        await kube.get(SECRET, "loki", "logs-root")


async def test_a_server_that_is_not_there_is_unavailability(tmp_path: Path) -> None:
    configuration = await load_configuration(write_kubeconfig(tmp_path / "config", "http://127.0.0.1:9"))
    async with HttpKubeClient(configuration) as client:
        with pytest.raises(KubeUnavailable):
            await client.get(SECRET, "loki", "logs-root")


async def test_a_slow_api_server_gets_a_few_calls_at_a_time_and_the_lease_waits_for_none(
    api: tuple[ApiServer, str], kube: HttpKubeClient
) -> None:
    server = api[0]
    server.answers.clear()
    async with asyncio.TaskGroup() as group:
        calls = [group.create_task(kube.get(SECRET, "loki", f"s{number}")) for number in range(40)]
        async with asyncio.timeout(60):
            while len(server.requests) < CALLS_AT_A_TIME:
                await asyncio.sleep(0.01)
        assert await kube.get(LEASE, "system", "operator") == {}
        assert len(server.requests) == CALLS_AT_A_TIME + 1
        server.answers.set()
    assert [await call for call in calls] == [{}] * 40
