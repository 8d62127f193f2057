"""Signed calls against a real HTTP server that checks what it is sent."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import msgspec
import pytest
from aiohttp import web

from holdfast_operator.credentials import KeyPair
from holdfast_operator.provision import client as store_client
from holdfast_operator.provision.client import HttpStoreClient, StoreRefused, StoreUnavailable
from holdfast_server.contract.admin import UserSpec

NOT_OURS = "<Error><Code>BucketAlreadyExists</Code><Message>taken</Message></Error>"


class Pod:
    """Answers by path and keeps the requests."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str, bytes, dict[str, str]]] = []
        self.answers: dict[str, tuple[int, str]] = {}

    async def handle(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.requests.append((request.method, request.raw_path, body, dict(request.headers)))
        status, text = self.answers.get(request.raw_path, (200, ""))
        return web.Response(status=status, text=text)


@pytest.fixture
async def pods(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Pod, Pod]]:
    """Two pods on addresses of their own, at one port; only the port differs from a cluster's."""
    pair = (Pod(), Pod())
    runners = []
    port = 0
    for number, pod in enumerate(pair):
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", pod.handle)
        runner = web.AppRunner(application)
        await runner.setup()
        site = web.TCPSite(runner, f"127.0.0.{number + 1}", port)
        await site.start()
        port = runner.addresses[0][1]
        runners.append(runner)
    monkeypatch.setattr(store_client.names, "S3_PORT", port)
    yield pair
    for runner in runners:
        await runner.cleanup()


def client_of(session: aiohttp.ClientSession, *hosts: str) -> HttpStoreClient:
    return HttpStoreClient(session, hosts, KeyPair("ROOT", "root-secret"), "eu-west-1")


async def test_calls_are_signed_with_the_root_keys(session: Any, pods: tuple[Pod, Pod]) -> None:
    await client_of(session, "127.0.0.1").create_bucket("loki-chunks")
    ((method, path, body, headers),) = pods[0].requests
    assert (method, path, body) == ("PUT", "/loki-chunks", b"")
    assert headers["Authorization"].startswith("AWS4-HMAC-SHA256 Credential=ROOT/")
    assert "/eu-west-1/s3/aws4_request" in headers["Authorization"]
    assert "root-secret" not in str(headers)


async def test_users_and_policies_go_to_the_admin_api(session: Any, pods: tuple[Pod, Pod]) -> None:
    store = client_of(session, "127.0.0.1")
    await store.put_user("KEY/1", UserSpec(secret_key="s3cret-key", name="loki", policies=["p"]))
    await store.put_policy("p", {"Version": "2012-10-17"})
    await store.delete_user("KEY/1")
    await store.put_account("main", "The main one")
    await store.delete_account("main")
    paths = [(method, path) for method, path, _, _ in pods[0].requests]
    assert paths == [
        ("PUT", "/holdfast/admin/v1/users/KEY%2F1"),
        ("PUT", "/holdfast/admin/v1/policies/p"),
        ("DELETE", "/holdfast/admin/v1/users/KEY%2F1"),
        ("PUT", "/holdfast/admin/v1/accounts/main"),
        ("DELETE", "/holdfast/admin/v1/accounts/main"),
    ]
    user = msgspec.json.decode(pods[0].requests[0][2])
    expected = {"secretKey": "s3cret-key", "name": "loki", "policies": ["p"], "enabled": True, "formerSecretKeys": []}
    assert user == {**expected, "account": "", "accountRoot": False, "expiresMs": 0, "policy": None}


async def test_a_pod_that_is_gone_or_fails_passes_the_call_on(session: Any, pods: tuple[Pod, Pod]) -> None:
    pods[0].answers["/b"] = (503, "<Error><Code>SlowDown</Code></Error>")
    await client_of(session, "127.0.0.9", "127.0.0.1", "127.0.0.2").create_bucket("b")
    assert len(pods[0].requests) == len(pods[1].requests) == 1


async def test_no_pod_that_answers_is_unavailable(session: Any, pods: tuple[Pod, Pod]) -> None:
    pods[0].answers["/b"] = (503, "<Error><Code>SlowDown</Code><Message>no quorum</Message></Error>")
    with pytest.raises(StoreUnavailable, match="503 SlowDown no quorum"):
        await client_of(session, "127.0.0.1").create_bucket("b")
    with pytest.raises(StoreUnavailable, match="no pod is ready"):
        await client_of(session).create_bucket("b")


async def test_a_bucket_that_is_ours_already_is_fine_and_another_is_not(session: Any, pods: tuple[Pod, Pod]) -> None:
    pods[0].answers["/mine"] = (409, "<Error><Code>BucketAlreadyOwnedByYou</Code></Error>")
    pods[0].answers["/theirs"] = (409, NOT_OURS)
    store = client_of(session, "127.0.0.1")
    await store.create_bucket("mine")
    with pytest.raises(StoreRefused, match="BucketAlreadyExists: taken"):
        await store.create_bucket("theirs")


async def test_deleting_what_is_absent_is_fine(session: Any, pods: tuple[Pod, Pod]) -> None:
    pods[0].answers["/gone"] = (404, "<Error><Code>NoSuchBucket</Code></Error>")
    pods[0].answers["/full"] = (409, "<Error><Code>BucketNotEmpty</Code></Error>")
    store = client_of(session, "127.0.0.1")
    await store.delete_bucket("gone")
    with pytest.raises(StoreRefused) as refused:
        await store.delete_bucket("full")
    assert refused.value.code == "BucketNotEmpty"


async def test_errors_of_the_admin_api_and_of_strangers_are_understood(session: Any, pods: tuple[Pod, Pod]) -> None:
    path = "/holdfast/admin/v1/policies/p"
    pods[0].answers[path] = (400, '{"code": "MalformedPolicy", "message": "Statement is missing"}')
    store = client_of(session, "127.0.0.1")
    with pytest.raises(StoreRefused, match="MalformedPolicy: Statement is missing"):
        await store.put_policy("p", {})
    pods[0].answers[path] = (404, "not a word of XML <")
    with pytest.raises(StoreRefused, match="HTTP404"):
        await store.put_policy("p", {})
