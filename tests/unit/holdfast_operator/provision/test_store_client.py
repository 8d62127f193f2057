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
from holdfast_server.contract.admin import UserInfo, UserSpec

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


async def test_a_pod_that_cannot_be_reached_is_waited_for_once(
    session: Any, pods: tuple[Pod, Pod], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network that lost one node: its pod is ready by its kubelet's word, and each call would wait for it."""
    tried: list[str] = []

    class Counting(HttpStoreClient):
        async def _send(self, host: str, method: str, path: str, body: bytes) -> tuple[int, bytes]:
            tried.append(host)
            if host == "127.0.0.9":
                raise TimeoutError
            return await super()._send(host, method, path, body)

    store = Counting(session, ["127.0.0.9", "127.0.0.1"], KeyPair("ROOT", "root-secret"), "eu-west-1")
    for name in ("b", "c", "d"):
        await store.create_bucket(name)
    assert tried == ["127.0.0.9", "127.0.0.1", "127.0.0.1", "127.0.0.1"]


async def test_what_has_to_wait_for_every_pod_is_refused_and_not_silence(session: Any, pods: tuple[Pod, Pod]) -> None:
    pods[0].answers["/b?versioning"] = (
        503,
        "<Error><Code>ServiceUnavailable</Code><Message>not every pod is there</Message></Error>",
    )
    with pytest.raises(StoreRefused, match="ServiceUnavailable: not every pod is there"):
        await client_of(session, "127.0.0.1").put_bucket_setting("b", "versioning", b"<x/>")


async def test_the_list_of_buckets_is_read_page_by_page(session: Any, pods: tuple[Pod, Pod]) -> None:
    def page(name: str, token: str) -> tuple[int, str]:
        bucket = f"<Buckets><Bucket><Name>{name}</Name></Bucket></Buckets>"
        return 200, f"<ListAllMyBucketsResult>{bucket}{token}</ListAllMyBucketsResult>"

    pods[0].answers["/?max-buckets=1000"] = page("a", "<ContinuationToken>token</ContinuationToken>")
    pods[0].answers["/?continuation-token=token&max-buckets=1000"] = page("b", "")
    assert await client_of(session, "127.0.0.1").bucket_names() == {"a", "b"}


async def test_as_many_users_as_a_store_may_have_are_read(session: Any, pods: tuple[Pod, Pod]) -> None:
    known = [UserInfo(access_key=f"{number:020d}", name=f"user-{number}", policies=["readonly"] * 4)
             for number in range(20_000)]  # fmt: skip
    pods[0].answers["/holdfast/admin/v1/users"] = (200, msgspec.json.encode(known).decode())
    assert len(await client_of(session, "127.0.0.1").list_users()) == 20_000
    pods[0].answers["/holdfast/admin/v1/users"] = (200, " " * (store_client.MAX_ANSWER_SIZE_BYTES + 1))
    with pytest.raises(StoreUnavailable, match="longer than"):
        await client_of(session, "127.0.0.1").list_users()
