"""Submitting manifests as `kubectl apply --server-side` does: find the resource, apply, report refusals.

Tells a refusal (the file is wrong: RunFailed with document and field) from a server that does not yet know the
kind because its CRD was applied a moment ago (waited for).
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence

from holdfast_local.kubelet.client import NAMESPACES, ApiClient, ApiError, ApiUnavailable, Resource
from holdfast_local.kubelet.manifests import Manifest
from holdfast_local.run.failure import RunFailed
from holdfast_local.run.manifest_file import Document

FIELD_MANAGER = "kubectl"
"""kubectl's own name: a later `kubectl apply --server-side` of the same file then meets no conflicts."""
LAST_APPLIED_ANNOTATION = "kubectl.kubernetes.io/last-applied-configuration"
KIND_TIMEOUT_SECONDS = 10.0
KIND_POLL_SECONDS = 0.1
DEFAULT_NAMESPACE = "default"


class Submitter:
    """Applies documents; remembers which kinds are served."""

    def __init__(self, client: ApiClient) -> None:
        self._client = client
        self._served: dict[tuple[str, str], Resource] = {}

    async def apply(self, document: Document) -> Manifest:
        """Create or update one object; raises RunFailed with the server's message if it is refused."""
        manifest = document.manifest
        resource = await self._resource(document)
        metadata = {**manifest["metadata"]}
        if resource.namespaced:
            metadata.setdefault("namespace", DEFAULT_NAMESPACE)
        # What a plain `kubectl apply` leaves behind, so that the next one compares with it instead of warning.
        last_applied = {LAST_APPLIED_ANNOTATION: json.dumps(manifest, separators=(",", ":")) + "\n"}
        metadata["annotations"] = {**(metadata.get("annotations") or {}), **last_applied}
        manifest = {**manifest, "metadata": metadata}
        try:
            return await self._client.apply(resource, manifest, FIELD_MANAGER)
        except ApiError as error:
            raise RunFailed(refusal(document, error)) from error
        except ApiUnavailable as error:
            raise RunFailed(f"{document.source}: {document.title}: {error}") from error

    async def ensure_namespaces(self, documents: Sequence[Document]) -> list[str]:
        """Create the namespaces that documents name but do not contain; returns the new ones."""
        contained = {d.manifest["metadata"]["name"] for d in documents if d.manifest["kind"] == "Namespace"}
        wanted = {d.manifest["metadata"].get("namespace", DEFAULT_NAMESPACE) for d in documents} - contained
        created = []
        for name in sorted(wanted):
            if await self._client.get(NAMESPACES, "", name) is None:
                manifest = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
                try:
                    await self._client.create(NAMESPACES, manifest)
                except ApiError as error:
                    raise RunFailed(f"namespace {name}: {error.message}") from error
                created.append(name)
        return created

    async def resource_of(self, api_version: str, kind: str) -> Resource | None:
        """The resource of a kind, or None while the server does not serve it."""
        known = self._served.get((api_version, kind))
        if known is None:
            path = f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"
            try:
                answer = await self._client.request("GET", path)
            except ApiError as error:
                if error.status == 404:
                    return None
                raise
            for entry in answer.get("resources") or []:
                if "/" not in entry["name"]:
                    resource = Resource(api_version, entry["name"], entry["namespaced"])
                    self._served[(api_version, entry["kind"])] = resource
            known = self._served.get((api_version, kind))
        return known

    async def _resource(self, document: Document) -> Resource:
        api_version, kind = document.manifest["apiVersion"], document.manifest["kind"]
        deadline = time.monotonic() + KIND_TIMEOUT_SECONDS
        while True:
            resource = await self.resource_of(api_version, kind)
            if resource is not None:
                return resource
            if time.monotonic() > deadline:
                raise RunFailed(f"{document.source}: the cluster knows no kind {kind} of {api_version}")
            await asyncio.sleep(KIND_POLL_SECONDS)


def refusal(document: Document, error: ApiError) -> str:
    """The server's message with the place in the file, one cause per line."""
    lines = [f"{document.source}: {document.title}: {error.message}"]
    for cause in error.details.get("causes") or []:
        field, message = cause.get("field", ""), cause.get("message", "")
        if message and not (message in error.message and field in error.message):
            lines.append(f"  {field}: {message}")
    return "\n".join(lines)
