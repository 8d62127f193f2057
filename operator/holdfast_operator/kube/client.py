"""The port over HTTP: the `kubernetes` library's asyncio flavour for login, transport and TLS.

The library's dynamic client would discover every group first and wraps objects in its own types; the operator
knows its few kinds, so the URLs are built here and answers stay plain dicts.  One time limit covers each
call.  Calls are never repeated here: the reconcile that made them is level-triggered and comes back.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import aiohttp
from kubernetes.aio.client import ApiClient, Configuration
from kubernetes.aio.client.exceptions import ApiException

from holdfast_operator.kube.errors import (
    EvictionRefused,
    KubeConflict,
    KubeError,
    KubeForbidden,
    KubeRejected,
    KubeUnavailable,
)
from holdfast_operator.kube.port import FIELD_MANAGER, POD, Kind, Manifest, kind_of

CALL_TIMEOUT_SECONDS = 15.0
LIST_PAGE_COUNT = 500
"""Objects asked for per page of a list, so that no answer grows with the cluster."""

_JSON = "application/json"
_APPLY = "application/apply-patch+yaml"
_MERGE = "application/merge-patch+json"

_WRONG_TYPE_MARK = "failed to create typed patch object"
"""What server-side apply says of a field with a wrong type or name: a 500 on servers up to 1.36 at least."""


class HttpKubeClient:
    """See `port.KubeClient`.  Use as an async context manager; it owns its connection pool."""

    def __init__(self, configuration: Configuration) -> None:
        self._api = ApiClient(configuration)

    async def __aenter__(self) -> HttpKubeClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._api.close()

    async def get(self, kind: Kind, namespace: str, name: str) -> Manifest | None:
        try:
            return await self._call("GET", _path(kind, namespace, name))
        except _NotFound:
            return None

    async def list_objects(
        self, kind: Kind, namespace: str | None, labels: Mapping[str, str] | None = None
    ) -> list[Manifest]:
        query = {"limit": str(LIST_PAGE_COUNT)}
        if labels:
            query["labelSelector"] = ",".join(f"{key}={value}" for key, value in labels.items())
        items: list[Manifest] = []
        while True:
            try:
                page = await self._call("GET", _path(kind, namespace), query=query)
            except _NotFound as error:
                raise KubeRejected(f"{kind.plural} are not served: {error}") from error
            items += [{**item, "apiVersion": kind.api_version, "kind": kind.kind} for item in page.get("items") or []]
            more = (page.get("metadata") or {}).get("continue")
            if not more:
                return items
            query["continue"] = more

    async def create(self, manifest: Manifest) -> Manifest:
        kind, namespace = kind_of(manifest), manifest["metadata"]["namespace"]
        query = {"fieldManager": FIELD_MANAGER}
        try:
            return await self._call("POST", _path(kind, namespace), body=manifest, query=query)
        except _NotFound as error:
            raise KubeRejected(str(error)) from error

    async def apply(self, manifest: Manifest) -> Manifest:
        kind, metadata = kind_of(manifest), manifest["metadata"]
        query = {"fieldManager": FIELD_MANAGER, "force": "true"}
        path = _path(kind, metadata["namespace"], metadata["name"])
        try:
            return await self._call("PATCH", path, body=manifest, query=query, content_type=_APPLY)
        except _NotFound as error:
            raise KubeRejected(str(error)) from error

    async def patch_status(self, kind: Kind, namespace: str, name: str, patch: Manifest) -> None:
        path = _path(kind, namespace, name) + "/status"
        query = {"fieldManager": FIELD_MANAGER}
        try:
            await self._call("PATCH", path, body={"status": patch}, query=query, content_type=_MERGE)
        except _NotFound:
            return

    async def merge(self, manifest: Manifest, patch: Manifest) -> None:
        kind, metadata = kind_of(manifest), manifest["metadata"]
        path = _path(kind, metadata["namespace"], metadata["name"])
        query = {"fieldManager": FIELD_MANAGER}
        # The server takes a differing uid for an attempt to change it, which is a conflict.
        body = {**patch, "metadata": {**patch.get("metadata", {}), "uid": metadata["uid"]}}
        try:
            await self._call("PATCH", path, body=body, query=query, content_type=_MERGE)
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
        try:
            await self._call("POST", _path(POD, namespace, pod_name) + "/eviction", body=eviction)
        except _TooManyRequests as error:
            raise EvictionRefused(str(error)) from error
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
        try:
            async with asyncio.timeout(CALL_TIMEOUT_SECONDS):
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
        message = json.loads(body).get("message") or ""
    except (ValueError, TypeError, AttributeError):
        message = ""
    text = f"{where}: {status}" + (f": {message}" if message else "")
    if status == 404:
        return _NotFound(text)
    if status in (401, 403):
        return KubeForbidden(text)
    if status == 409:
        return KubeConflict(text)
    if status == 429:
        return _TooManyRequests(text)
    if status in (400, 405, 406, 413, 415, 422) or message.startswith(_WRONG_TYPE_MARK):
        return KubeRejected(text)
    return KubeUnavailable(text)
