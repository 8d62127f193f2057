"""A client that writes only while it may: for an operator that has lost its Lease without having noticed.

The question is asked anew before each write, so that a process that slept through the end of its Lease writes nothing
more.  Reads are let through: they do no harm.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from holdfast_operator.kube.errors import KubeUnavailable
from holdfast_operator.kube.port import Kind, KubeClient, Manifest


class FencedKubeClient:
    """See `port.KubeClient`; every writing verb raises KubeUnavailable while `may_write()` is false."""

    def __init__(self, inner: KubeClient, may_write: Callable[[], bool]) -> None:
        self._inner, self._may_write = inner, may_write

    def _check(self) -> None:
        if not self._may_write():
            raise KubeUnavailable("not written: the operator's lease has run out")

    async def get(self, kind: Kind, namespace: str, name: str) -> Manifest | None:
        return await self._inner.get(kind, namespace, name)

    async def list_objects(
        self, kind: Kind, namespace: str | None, labels: Mapping[str, str] | None = None
    ) -> list[Manifest]:
        return await self._inner.list_objects(kind, namespace, labels)

    async def create(self, manifest: Manifest) -> Manifest:
        self._check()
        return await self._inner.create(manifest)

    async def apply(self, manifest: Manifest) -> Manifest:
        self._check()
        return await self._inner.apply(manifest)

    async def patch_status(self, kind: Kind, namespace: str, name: str, patch: Manifest) -> Manifest | None:
        self._check()
        return await self._inner.patch_status(kind, namespace, name, patch)

    async def merge(self, manifest: Manifest, patch: Manifest) -> Manifest:
        self._check()
        return await self._inner.merge(manifest, patch)

    async def delete(self, manifest: Manifest, *, orphan: bool = False) -> None:
        self._check()
        await self._inner.delete(manifest, orphan=orphan)

    async def evict(self, namespace: str, pod_name: str) -> None:
        self._check()
        await self._inner.evict(namespace, pod_name)
