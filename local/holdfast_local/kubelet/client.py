"""HTTP to the Kubernetes API: one request method, typed errors, and a watch as an asynchronous iterator.

Invariants: every call has a deadline; library exceptions never leave this module (they become `ApiError` or
`ApiUnavailable`).  Not done here: retries, caching (see `informer`).
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import NamedTuple

import aiohttp

from holdfast_local.kubelet.manifests import Manifest

CALL_TIMEOUT_SECONDS = 30.0
WATCH_PERIOD_SECONDS = 240
WATCH_LINE_LIMIT_BYTES = 16 * 1024 * 1024
"""One event is one line; a Secret or ConfigMap is at most 1 MiB, base64 and managedFields add to it."""

JSON = "application/json"
MERGE_PATCH = "application/merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"


class ClientError(Exception):
    """Root of what this module raises."""


class ApiUnavailable(ClientError):
    """No answer: refused, reset or timed out.  Try again later."""


class ApiError(ClientError):
    """The server refused; `status` is the HTTP code, `reason` the API's word for it (`NotFound`, …)."""

    def __init__(self, status: int, reason: str, message: str, details: Manifest | None = None) -> None:
        super().__init__(message)
        self.status, self.reason, self.message, self.details = status, reason, message, details or {}


class Resource(NamedTuple):
    """A kind as it stands in URLs."""

    group_version: str
    plural: str
    namespaced: bool = True

    def path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        """URL path of the collection (of all namespaces where `namespace` is empty) or of one object."""
        root = "/apis/" if "/" in self.group_version else "/api/"
        path = root + self.group_version
        if self.namespaced and namespace:
            path += f"/namespaces/{namespace}"
        path += f"/{self.plural}"
        return path + (f"/{name}" if name else "") + (f"/{subresource}" if subresource else "")


PODS = Resource("v1", "pods")
SERVICES = Resource("v1", "services")
CLAIMS = Resource("v1", "persistentvolumeclaims")
SECRETS = Resource("v1", "secrets")
CONFIG_MAPS = Resource("v1", "configmaps")
EVENTS = Resource("v1", "events")
ENDPOINTS = Resource("v1", "endpoints")
ENDPOINT_SLICES = Resource("discovery.k8s.io/v1", "endpointslices")
NODES = Resource("v1", "nodes", namespaced=False)
STORAGE_CLASSES = Resource("storage.k8s.io/v1", "storageclasses", namespaced=False)
NAMESPACES = Resource("v1", "namespaces", namespaced=False)
STATEFUL_SETS = Resource("apps/v1", "statefulsets")


class WatchEvent(NamedTuple):
    type: str
    object: Manifest


class ApiClient:
    """One authenticated client; open it with `connect`."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def request(
        self,
        method: str,
        path: str,
        body: object = None,
        content_type: str = JSON,
        parameters: Mapping[str, str] | None = None,
    ) -> Manifest:
        """One call; raises ApiError on 4xx/5xx and ApiUnavailable without an answer."""
        payload = None if body is None else json.dumps(body)
        headers = {"Content-Type": content_type} if payload is not None else {}
        try:
            async with self._session.request(
                method, path, data=payload, headers=headers, params=parameters
            ) as response:
                text = await response.text()
                status = response.status
        except (aiohttp.ClientError, TimeoutError, ConnectionError) as error:
            raise ApiUnavailable(f"{method} {path}: {str(error) or type(error).__name__}") from error
        answer = _parse(text)
        if status >= 400:
            raise ApiError(
                status,
                str(answer.get("reason", "")),
                str(answer.get("message") or text[:500]),
                answer.get("details"),
            )
        return answer

    async def get(self, resource: Resource, namespace: str, name: str) -> Manifest | None:
        """The object, or None where there is none."""
        try:
            return await self.request("GET", resource.path(namespace, name))
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    async def create(self, resource: Resource, manifest: Manifest) -> Manifest:
        namespace = manifest["metadata"].get("namespace", "")
        return await self.request("POST", resource.path(namespace), manifest)

    async def apply(self, resource: Resource, manifest: Manifest, field_manager: str) -> Manifest:
        """Server-side apply with force: create or update, idempotent; an unknown field is refused (400)."""
        metadata = manifest["metadata"]
        path = resource.path(metadata.get("namespace", ""), metadata["name"])
        parameters = {"fieldManager": field_manager, "force": "true", "fieldValidation": "Strict"}
        return await self.request("PATCH", path, manifest, APPLY_PATCH, parameters)

    async def merge(
        self, resource: Resource, namespace: str, name: str, patch: Manifest, subresource: str = ""
    ) -> Manifest:
        """JSON merge patch of the object or of its `status`."""
        return await self.request("PATCH", resource.path(namespace, name, subresource), patch, MERGE_PATCH)

    async def delete(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        uid: str | None = None,
        grace_period_seconds: int | None = None,
    ) -> None:
        """Delete; absence, or another object under the name (`uid` differs), is no error."""
        options: Manifest = {"apiVersion": "v1", "kind": "DeleteOptions"}
        if grace_period_seconds is not None:
            options["gracePeriodSeconds"] = grace_period_seconds
        if uid is not None:
            options["preconditions"] = {"uid": uid}
        try:
            await self.request("DELETE", resource.path(namespace, name), options)
        except ApiError as error:
            if error.status not in (404, 409):
                raise

    async def watch(self, path: str, resource_version: str) -> AsyncIterator[WatchEvent]:
        """Events after `resource_version` until the server ends the stream.

        An ERROR event raises ApiError (410: list again); a broken connection raises ApiUnavailable.
        """
        parameters = {
            "watch": "true",
            "resourceVersion": resource_version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(WATCH_PERIOD_SECONDS),
        }
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=WATCH_PERIOD_SECONDS + 30)
        try:
            async with self._session.get(path, params=parameters, timeout=timeout) as response:
                if response.status >= 400:
                    answer = _parse(await response.text())
                    raise ApiError(response.status, str(answer.get("reason", "")), str(answer.get("message")))
                async for line in response.content:
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        status = event["object"]
                        raise ApiError(status.get("code", 500), status.get("reason", ""), status.get("message", ""))
                    yield WatchEvent(event["type"], event["object"])
        except (aiohttp.ClientError, TimeoutError, ConnectionError, ValueError) as error:
            raise ApiUnavailable(f"watch {path}: {str(error) or type(error).__name__}") from error


@asynccontextmanager
async def connect(url: str, token: str, authority_pem: str | None = None) -> AsyncIterator[ApiClient]:
    """A client for as long as the context lasts; `authority_pem` is the only authority it trusts, if given."""
    context = ssl.create_default_context(cadata=authority_pem) if authority_pem else True
    session = aiohttp.ClientSession(
        url,
        headers={"Authorization": f"Bearer {token}", "User-Agent": "holdfast-local"},
        timeout=aiohttp.ClientTimeout(total=CALL_TIMEOUT_SECONDS),
        connector=aiohttp.TCPConnector(limit=0, ssl=context),  # watches hold connections; callers are few and our own
        read_bufsize=WATCH_LINE_LIMIT_BYTES // 2,  # aiohttp refuses lines longer than twice the buffer
    )
    async with session:
        yield ApiClient(session)
        await asyncio.sleep(0)  # lets the transports close before the loop does


def _parse(text: str) -> Manifest:
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
