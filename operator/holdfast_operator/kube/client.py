"""The port over HTTP: the `kubernetes` library's asyncio flavour for login, transport and TLS.

The library's dynamic client would discover every group first and wraps objects in its own types; the operator
knows its few kinds, so the URLs are built here and answers stay plain dicts.  One time limit covers each
call.  Calls are never repeated here: the reconcile that made them is level-triggered and comes back.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any
from urllib.parse import quote

import aiohttp
import msgspec
from kubernetes.aio.client import ApiClient, Configuration
from kubernetes.aio.client.exceptions import ApiException

from holdfast_operator.kube.errors import (
    EvictionRefused,
    KubeConflict,
    KubeError,
    KubeForbidden,
    KubeRejected,
    KubeUnavailable,
    NamespaceEnding,
    WatchExpired,
    WebhookAway,
)
from holdfast_operator.kube.port import FIELD_MANAGER, LEASE, POD, Kind, Manifest, WatchEvent, kind_of

CALL_TIMEOUT_SECONDS = 15.0
CALLS_AT_A_TIME = 8
"""An API server that is slow is slower with each further request, until every answer comes too late and everything is
asked again.  The Lease is exempt: who waits behind others would lose it."""
LIST_PAGE_COUNT = 500
"""Objects asked for per page of a list, so that no answer grows with the cluster."""

WATCH_PERIOD_SECONDS = 300
"""The API server ends each watch after that; then it goes on from where it was."""
WATCH_SILENCE_SECONDS = 90.0
"""A watch on which nothing came for that long is begun anew: API servers send a bookmark about once a minute, and a
connection that was cut without a word looks just like a quiet cluster."""
MAX_WATCH_LINE_SIZE_BYTES = 16 * 1024 * 1024
"""One event is one line; a Secret or ConfigMap is at most 1 MiB, base64 and managedFields add to it."""

_JSON = "application/json"
_APPLY = "application/apply-patch+yaml"
_MERGE = "application/merge-patch+json"

_WRONG_TYPE_MARKS = ("failed to create typed patch object", "failed to convert new object")
"""What server-side apply says of a field with a wrong type or name: a 500 on servers up to 1.36 at least."""
_SEVERAL_BUDGETS = "more than one PodDisruptionBudget"
"""What an eviction of a pod that several budgets select is answered, with 500, for as long as they do."""
_ENDING_CAUSE, _ENDING_WORDS = "NamespaceTerminating", "because it is being terminated"
"""How a namespace that is being deleted refuses what would be new in it."""
_WEBHOOK_AWAY, _WEBHOOK_DENIES = "failed calling webhook", 'admission webhook "'
"""How the API server begins of a webhook that does not answer, and of one that refuses, with a code of its own choice:
Gatekeeper's is 500 where it cannot judge."""
_UID_FIELD = "metadata.uid"
"""The field that is named where a patch is for an object that somebody has since made anew."""


def ignore_call(verb: str, kind: Kind) -> None:
    """Nobody counts."""


class HttpKubeClient:
    """See `port.KubeClient` and `port.KubeWatcher`.  Use as an async context manager; it owns its connection pool.

    `on_call(verb, kind)` is told of every request before it is made."""

    def __init__(self, configuration: Configuration, on_call: Callable[[str, Kind], None] = ignore_call) -> None:
        self._api = ApiClient(configuration)
        self._on_call = on_call
        self._turns = asyncio.Semaphore(CALLS_AT_A_TIME)

    async def __aenter__(self) -> HttpKubeClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._api.close()

    async def get(self, kind: Kind, namespace: str, name: str) -> Manifest | None:
        try:
            self._on_call("get", kind)
            return await self._call("GET", _path(kind, namespace, name))
        except _NotFound:
            return None

    async def list_objects(
        self, kind: Kind, namespace: str | None, labels: Mapping[str, str] | None = None
    ) -> list[Manifest]:
        selector = ",".join(f"{key}={value}" for key, value in (labels or {}).items())
        return (await self.list_for_watch(kind, namespace, selector))[0]

    async def list_for_watch(self, kind: Kind, namespace: str | None, selector: str) -> tuple[list[Manifest], str]:
        query = {"limit": str(LIST_PAGE_COUNT)}
        if selector:
            query["labelSelector"] = selector
        items: list[Manifest] = []
        while True:
            self._on_call("list", kind)
            try:
                page = await self._call("GET", _path(kind, namespace), query=query)
            except _NotFound as error:
                raise KubeRejected(f"{kind.plural} are not served: {error}") from error
            items += [{**item, "apiVersion": kind.api_version, "kind": kind.kind} for item in page.get("items") or []]
            metadata = page.get("metadata") or {}
            if not metadata.get("continue"):
                return items, str(metadata.get("resourceVersion") or "")
            query["continue"] = metadata["continue"]

    async def watch(
        self, kind: Kind, namespace: str | None, selector: str, resource_version: str
    ) -> AsyncIterator[WatchEvent]:
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": resource_version,
            "timeoutSeconds": str(WATCH_PERIOD_SECONDS),
        }
        if selector:
            query["labelSelector"] = selector
        where = f"watch {_path(kind, namespace)}"
        self._on_call("watch", kind)
        try:
            request = await self._api.param_serialize(
                "GET",
                _path(kind, namespace),
                query_params=list(query.items()),
                header_params={"Accept": _JSON},
                auth_settings=["BearerToken"],
            )
            limits = aiohttp.ClientTimeout(
                total=WATCH_PERIOD_SECONDS + CALL_TIMEOUT_SECONDS,
                sock_connect=CALL_TIMEOUT_SECONDS,
                sock_read=WATCH_SILENCE_SECONDS,
            )
            answer = await self._api.call_api(*request, _request_timeout=limits)
            async with answer.response as response:
                if response.status >= 300:
                    raise _translated(response.status, await response.read(), where)
                yield WatchEvent("BOOKMARK", {"metadata": {"resourceVersion": resource_version}})
                async for line in _lines(response.content, where):
                    yield _event(line, where)
        except _NotFound as error:
            raise KubeRejected(f"{kind.plural} are not served: {error}") from error
        except ApiException as error:
            raise _translated(error.status, error.body, where) from error
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise KubeUnavailable(f"{where}: {type(error).__name__}: {error}") from error

    async def create(self, manifest: Manifest) -> Manifest:
        kind, namespace = kind_of(manifest), manifest["metadata"]["namespace"]
        query = {"fieldManager": FIELD_MANAGER}
        self._on_call("create", kind)
        try:
            return await self._call("POST", _path(kind, namespace), body=manifest, query=query)
        except _NotFound as error:
            raise KubeRejected(str(error)) from error

    async def apply(self, manifest: Manifest) -> Manifest:
        kind, metadata = kind_of(manifest), manifest["metadata"]
        query = {"fieldManager": FIELD_MANAGER, "force": "true"}
        path = _path(kind, metadata["namespace"], metadata["name"])
        self._on_call("apply", kind)
        try:
            return await self._call("PATCH", path, body=manifest, query=query, content_type=_APPLY)
        except _NotFound as error:
            if metadata.get("resourceVersion"):
                raise KubeConflict(str(error)) from error
            raise KubeRejected(str(error)) from error

    async def patch_status(self, kind: Kind, namespace: str, name: str, patch: Manifest) -> Manifest | None:
        path = _path(kind, namespace, name) + "/status"
        query = {"fieldManager": FIELD_MANAGER}
        self._on_call("patch_status", kind)
        try:
            return await self._call("PATCH", path, body={"status": patch}, query=query, content_type=_MERGE)
        except _NotFound:
            return None

    async def merge(self, manifest: Manifest, patch: Manifest) -> Manifest:
        kind, metadata = kind_of(manifest), manifest["metadata"]
        path = _path(kind, metadata["namespace"], metadata["name"])
        query = {"fieldManager": FIELD_MANAGER}
        # The server takes a differing uid for an attempt to change it, and refuses.
        body = {**patch, "metadata": {**patch.get("metadata", {}), "uid": metadata["uid"]}}
        self._on_call("merge", kind)
        try:
            return await self._call("PATCH", path, body=body, query=query, content_type=_MERGE)
        except _NotFound as error:
            raise KubeConflict(str(error)) from error

    async def delete(self, manifest: Manifest, *, orphan: bool = False) -> None:
        kind, metadata = kind_of(manifest), manifest["metadata"]
        options = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "preconditions": {"uid": metadata["uid"]},
            "propagationPolicy": "Orphan" if orphan else "Background",
        }
        self._on_call("delete", kind)
        try:
            await self._call("DELETE", _path(kind, metadata["namespace"], metadata["name"]), body=options)
        except (_NotFound, KubeConflict):
            return

    async def evict(self, namespace: str, pod_name: str) -> None:
        eviction = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": pod_name, "namespace": namespace},
        }
        self._on_call("evict", POD)
        try:
            await self._call("POST", _path(POD, namespace, pod_name) + "/eviction", body=eviction)
        except _TooManyRequests as error:
            raise EvictionRefused(str(error)) from error
        except KubeUnavailable as error:
            if _SEVERAL_BUDGETS in str(error):
                raise EvictionRefused(str(error)) from error
            raise
        except _NotFound:
            return

    async def _call(
        self,
        method: str,
        path: str,
        *,
        body: Manifest | None = None,
        query: Mapping[str, str] | None = None,
        content_type: str = _JSON,
    ) -> Manifest:
        headers = {"Accept": _JSON, "Content-Type": content_type}
        turn = contextlib.nullcontext() if path.startswith(LEASE.root) else self._turns
        try:
            async with turn, asyncio.timeout(CALL_TIMEOUT_SECONDS):
                request = await self._api.param_serialize(
                    method,
                    path,
                    query_params=list((query or {}).items()),
                    header_params=headers,
                    body=body,
                    auth_settings=["BearerToken"],
                )
                response = await self._api.call_api(*request, _request_timeout=CALL_TIMEOUT_SECONDS)
                payload = await response.read()
        except ApiException as error:
            raise _translated(error.status, error.body, f"{method} {path}") from error
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise KubeUnavailable(f"{method} {path}: {type(error).__name__}: {error}") from error
        if response.status >= 300:
            raise _translated(response.status, payload, f"{method} {path}")
        return _decoded(payload, f"{method} {path}")


class _NotFound(KubeError):
    """404; each verb says what that means."""


class _TooManyRequests(KubeUnavailable):
    """429; only an eviction tells it from other unavailability."""


def _path(kind: Kind, namespace: str | None, name: str | None = None) -> str:
    path = kind.root
    if namespace is not None:
        path += f"/namespaces/{quote(namespace, safe='')}"
    path += f"/{kind.plural}"
    return path if name is None else f"{path}/{quote(name, safe='')}"


async def _lines(content: aiohttp.StreamReader, where: str) -> AsyncIterator[bytes]:
    """The stream's lines; aiohttp's own reader refuses those beyond its buffer."""
    rest = b""
    async for piece in content.iter_any():
        *whole, rest = (rest + piece).split(b"\n")
        for line in whole:
            if line:
                yield line
        if len(rest) > MAX_WATCH_LINE_SIZE_BYTES:
            raise KubeUnavailable(f"{where}: a line is longer than {MAX_WATCH_LINE_SIZE_BYTES} bytes")


def _event(line: bytes, where: str) -> WatchEvent:
    try:
        event = msgspec.json.decode(line)
        kind, manifest = str(event["type"]), event["object"]
    except (msgspec.MsgspecError, KeyError, TypeError) as error:
        raise KubeUnavailable(f"{where}: an event cannot be read: {error}") from error
    if kind == "ERROR":
        raise WatchExpired(f"{where}: {manifest.get('code')} {manifest.get('message')}")
    return WatchEvent(kind, manifest)


def _decoded(payload: bytes, where: str) -> Manifest:
    try:
        value = json.loads(payload)
    except ValueError as error:
        raise KubeUnavailable(f"{where}: the answer is not JSON") from error
    if not isinstance(value, dict):
        raise KubeUnavailable(f"{where}: the answer is not an object")
    return value


def _translated(status: int | None, body: Any, where: str) -> KubeError:
    """A status code as one of our errors, with the server's own message."""
    try:
        said = json.loads(body)
        message = said.get("message") or ""
        causes = (said.get("details") or {}).get("causes") or ()
        fields = [cause.get("field") for cause in causes]
        reasons = [cause.get("reason") for cause in causes]
    except (ValueError, TypeError, AttributeError):
        message, fields, reasons = "", [], []
    text = f"{where}: {status}" + (f": {message}" if message else "")
    if message.startswith(_WEBHOOK_DENIES) and status in (404, 409, 410, 429):
        # They say nothing of the object.
        return KubeRejected(text)
    if status == 404:
        return _NotFound(text)
    if status == 403 and (_ENDING_CAUSE in reasons or message.endswith(_ENDING_WORDS)):
        return NamespaceEnding(text)
    if status in (401, 403):
        return KubeForbidden(text)
    if status == 409 or (status == 422 and _UID_FIELD in fields):
        return KubeConflict(text)
    if status == 410:
        return WatchExpired(text)
    if status == 429:
        return _TooManyRequests(text)
    if status in (400, 405, 406, 413, 415, 422) or message.startswith(_WRONG_TYPE_MARKS):
        return KubeRejected(text)
    if status is not None and status >= 500 and (_WEBHOOK_AWAY in message or message.startswith(_WEBHOOK_DENIES)):
        return WebhookAway(text)
    return KubeUnavailable(text)
