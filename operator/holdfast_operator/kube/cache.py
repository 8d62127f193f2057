"""Reads from memory: mirrors of what the operator looks at in every pass, fed by one watch per kind.

Without them a tenant at rest costs ten lists every ten seconds, and each of those makes the API server go through all
objects of its namespace.  With them it costs nothing but the watches.

Invariants:
* what is read may be old, by the delay of a watch, or by `client.WATCH_SILENCE_SECONDS` where a connection died without
  a word.  Therefore whatever must not be decided on an old view is not: keys, ledger and configuration are written
  against the version that was read (`apply`), and pods, growth and the first keys are decided on direct reads
  (`Ports.direct`);
* the operator reads what it wrote: the answer to a write is noted at once, an older event never replaces it;
* an absence is believed only of a kind that is mirrored whole; else the API server is asked;
* a mirror whose watch has been broken for `STALE_SECONDS`, or is not there yet, is not asked at all: reads then go to
  the API server, and fail with it;
* every change is announced (`changed`), except those by the operator's own hand, which say nothing new to it.

Objects are kept as JSON: a tenth of the memory of dicts, and nobody can change what others read.

Not here: what a change means (`controller`).
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from holdfast_operator import labels as naming
from holdfast_operator.kube.errors import KubeError, KubeUnavailable, WatchExpired
from holdfast_operator.kube.port import (
    CLAIM,
    CONFIG_MAP,
    DISRUPTION_BUDGET,
    POD,
    SECRET,
    SERVICE,
    SERVICE_ACCOUNT,
    STATEFUL_SET,
    TENANT,
    Kind,
    KubeClient,
    KubeWatcher,
    Manifest,
    kind_of,
)

FIRST_RETRY_SECONDS = 0.5
LAST_RETRY_SECONDS = 8.0
"""Between attempts to reach the API server: also how late the operator notices that it is back."""
BRIEF_SECONDS = 1.0
"""A watch that ended sooner, with an error or without, is not begun anew at once: what ended it may end the next."""
STALE_SECONDS = 15.0
REMEMBERED_DELETIONS = 4096
"""Of each kind: so that the late answer to a write does not bring back what is gone."""

logger = logging.getLogger(__name__)

Place = tuple[str, str]
"""(namespace, name)"""
Changed = Callable[[str, str], None]
"""Called with the namespace and the name of the Tenant that something has changed of.  Must not block."""


@dataclass(frozen=True, slots=True)
class Scope:
    """What is mirrored of a kind: the objects that carry these labels, with any value where it is None."""

    kind: Kind
    labels: Mapping[str, str | None] = field(default_factory=dict)

    @property
    def selector(self) -> str:
        return ",".join(key if value is None else f"{key}={value}" for key, value in self.labels.items())

    def covers(self, wanted: Mapping[str, str]) -> bool:
        """Whether all objects that carry `wanted` are within."""
        return all(key in wanted and value in (None, wanted[key]) for key, value in self.labels.items())

    def has(self, manifest: Manifest) -> bool:
        return self.covers(naming.labels_of(manifest))


_OWN: Mapping[str, str | None] = {naming.MANAGED_BY_LABEL: naming.tenant_labels("")[naming.MANAGED_BY_LABEL],
                                  naming.TENANT_LABEL: None}  # fmt: skip
_PODS_OWN: Mapping[str, str | None] = {**naming.pod_labels(""), naming.TENANT_LABEL: None}

SCOPES = (
    Scope(TENANT),
    Scope(POD, _OWN),
    Scope(CLAIM, _PODS_OWN),
    *(Scope(kind, _OWN) for kind in (SECRET, SERVICE_ACCOUNT, CONFIG_MAP, SERVICE, DISRUPTION_BUDGET, STATEFUL_SET)),
)
"""What every pass reads."""


@dataclass(frozen=True, slots=True)
class _Entry:
    version: int
    labels: Mapping[str, str]
    body: bytes


class Mirror:
    """One kind in one namespace, or in all of them."""

    def __init__(
        self,
        scope: Scope,
        namespace: str | None,
        source: KubeWatcher,
        changed: Changed,
        monotonic: Callable[[], float],
    ) -> None:
        self.scope, self.namespace = scope, namespace
        self._source, self._changed, self._monotonic = source, changed, monotonic
        self._entries: dict[Place, _Entry] = {}
        self._of_tenant: dict[Place, set[str]] = {}
        """Namespace and tenant → names."""
        self._gone: OrderedDict[Place, int] = OrderedDict()
        self._is_listed = False
        self._broken_since: float | None = None

    @property
    def is_fresh(self) -> bool:
        """Whether it may be read."""
        broken = self._broken_since
        return self._is_listed and (broken is None or self._monotonic() - broken < STALE_SECONDS)

    async def run(self) -> None:
        """Until cancelled."""
        delay_seconds, version = FIRST_RETRY_SECONDS, ""
        while True:
            began: float | None = None
            try:
                if not version:
                    version = await self._list()
                began = self._monotonic()
                async for event in self._source.watch(self.scope.kind, self.namespace, self.scope.selector, version):
                    version = event.manifest["metadata"]["resourceVersion"]
                    delay_seconds = FIRST_RETRY_SECONDS
                    self._mend()
                    if event.type != "BOOKMARK":
                        self._observe(event.type, event.manifest)
            except WatchExpired as error:
                logger.debug("%s", error)
                version = ""
            except KubeError as error:
                if self._broken_since is None:
                    self._broken_since = self._monotonic()
                    logger.warning("%s are not watched: %s", self.scope.kind.plural, error)
                await asyncio.sleep(delay_seconds)
                delay_seconds = min(2 * delay_seconds, LAST_RETRY_SECONDS)
                continue
            if began is None or self._monotonic() - began < BRIEF_SECONDS:
                await asyncio.sleep(FIRST_RETRY_SECONDS)

    # --- what the API server tells
    async def _list(self) -> str:
        found, version = await self._source.list_for_watch(self.scope.kind, self.namespace, self.scope.selector)
        present = {_place(item) for item in found}
        for place in [place for place in self._entries if place not in present]:
            self._announce(place, self._remove(place).labels)
        for item in found:
            self._observe("ADDED", item)
        self._is_listed = True
        self._mend()
        return version

    def _mend(self) -> None:
        """The API server answers.  After a time of failures every tenant is looked at, whatever it waits for."""
        was_stale = self._broken_since is not None and not self.is_fresh
        self._broken_since = None
        if was_stale:
            for place, entry in self._entries.items():
                self._announce(place, entry.labels)

    def _observe(self, event: str, manifest: Manifest) -> None:
        place, version = _place(manifest), _version(manifest)
        known = self._entries.get(place)
        if event == "DELETED":
            if known is not None and known.version <= version:
                self._remove(place)
            self._bury(place, version)
        elif known is None or known.version < version:
            self._put(place, version, manifest)
        elif known.version == version:
            return
        # What is older than what was read back from a write of ours may still be news: between the two somebody
        # else may have written.
        self._announce(place, naming.labels_of(manifest))

    def _announce(self, place: Place, own: Mapping[str, str]) -> None:
        tenant = place[1] if self.scope.kind == TENANT else own.get(naming.TENANT_LABEL, "")
        if tenant:
            self._changed(place[0], tenant)

    # --- what the operator itself has done
    def note(self, manifest: Manifest) -> None:
        """The answer to a write, or to a read that went past the mirror."""
        place = _place(manifest)
        if not self._is_listed or self.namespace not in (None, place[0]) or not self.scope.has(manifest):
            return
        version = _version(manifest)
        known = self._entries.get(place)
        if (known is None or known.version < version) and version > self._gone.get(place, -1):
            self._put(place, version, manifest)

    def knows(self, place: Place, version: str) -> bool:
        """Whether the object is known to be exactly this version."""
        known = self._entries.get(place)
        return known is not None and str(known.version) == version

    # --- reading
    def get(self, place: Place) -> Manifest | None:
        known = self._entries.get(place)
        return None if known is None else _decoded(known)

    def select(self, namespace: str, tenant: str, wanted: Mapping[str, str]) -> list[Manifest]:
        """In order of their names."""
        found = (self._entries[namespace, name] for name in sorted(self._of_tenant.get((namespace, tenant), ())))
        return [_decoded(entry) for entry in found if all(entry.labels.get(key) == wanted[key] for key in wanted)]

    # --- keeping
    def _put(self, place: Place, version: int, manifest: Manifest) -> None:
        self._remove(place)
        metadata = {key: value for key, value in manifest["metadata"].items() if key != "managedFields"}
        own = metadata.get("labels") or {}
        whole = {**manifest, "apiVersion": self.scope.kind.api_version, "kind": self.scope.kind.kind}
        self._entries[place] = _Entry(version, own, msgspec.json.encode({**whole, "metadata": metadata}))
        self._of_tenant.setdefault((place[0], own.get(naming.TENANT_LABEL, "")), set()).add(place[1])

    def _remove(self, place: Place) -> _Entry:
        known = self._entries.pop(place, None)
        if known is None:
            return _Entry(0, {}, b"")
        tenant = (place[0], known.labels.get(naming.TENANT_LABEL, ""))
        names = self._of_tenant[tenant]
        names.discard(place[1])
        if not names:
            del self._of_tenant[tenant]
        return known

    def _bury(self, place: Place, version: int) -> None:
        self._gone[place] = version
        self._gone.move_to_end(place)
        while len(self._gone) > REMEMBERED_DELETIONS:
            self._gone.popitem(last=False)


class MirroredKubeClient:
    """See `port.KubeClient`.  `writer` is asked for all that is not mirrored, and does the writing."""

    def __init__(
        self,
        reader: KubeClient,
        writer: KubeClient,
        source: KubeWatcher,
        namespaces: Sequence[str],
        changed: Changed,
        monotonic: Callable[[], float],
    ) -> None:
        """`namespaces`: empty for all of them, with one watch per kind."""
        self._reader, self._writer = reader, writer
        self._mirrors = {
            (scope.kind, namespace): Mirror(scope, namespace, source, changed, monotonic)
            for scope in SCOPES
            for namespace in (namespaces or (None,))
        }

    async def run(self) -> None:
        """Until cancelled: keeps the mirrors in step."""
        async with asyncio.TaskGroup() as group:
            for mirror in self._mirrors.values():
                group.create_task(mirror.run())

    def knows(self, kind: Kind, namespace: str, name: str, version: str) -> bool:
        """Whether exactly this version of the object has been read, or was written by us."""
        mirror = self._mirror(kind, namespace)
        return mirror is not None and mirror.is_fresh and mirror.knows((namespace, name), version)

    async def get(self, kind: Kind, namespace: str, name: str) -> Manifest | None:
        mirror = self._mirror(kind, namespace)
        if mirror is not None and mirror.is_fresh:
            known = mirror.get((namespace, name))
            if known is not None or not mirror.scope.labels:
                return known
        return await self._reader.get(kind, namespace, name)

    async def list_objects(
        self, kind: Kind, namespace: str | None, labels: Mapping[str, str] | None = None
    ) -> list[Manifest]:
        mirror = self._mirror(kind, namespace)
        tenant = (labels or {}).get(naming.TENANT_LABEL)
        if mirror is not None and mirror.is_fresh and namespace and tenant and mirror.scope.covers(labels or {}):
            return mirror.select(namespace, tenant, labels or {})
        found = await self._reader.list_objects(kind, namespace, labels)
        self._note(found)
        return found

    async def create(self, manifest: Manifest) -> Manifest:
        return self._noted(await self._writer.create(manifest))

    async def apply(self, manifest: Manifest) -> Manifest:
        return self._noted(await self._writer.apply(manifest))

    async def patch_status(self, kind: Kind, namespace: str, name: str, patch: Manifest) -> Manifest | None:
        written = await self._writer.patch_status(kind, namespace, name, patch)
        return None if written is None else self._noted(written)

    async def merge(self, manifest: Manifest, patch: Manifest) -> Manifest:
        return self._noted(await self._writer.merge(manifest, patch))

    async def delete(self, manifest: Manifest, *, orphan: bool = False) -> None:
        await self._writer.delete(manifest, orphan=orphan)

    async def evict(self, namespace: str, pod_name: str) -> None:
        await self._writer.evict(namespace, pod_name)

    def _mirror(self, kind: Kind, namespace: str | None) -> Mirror | None:
        return self._mirrors.get((kind, None)) or self._mirrors.get((kind, namespace))

    def _noted(self, manifest: Manifest) -> Manifest:
        self._note([manifest])
        return manifest

    def _note(self, manifests: Iterable[Manifest]) -> None:
        for manifest in manifests:
            mirror = self._mirror(kind_of(manifest), manifest["metadata"].get("namespace"))
            if mirror is not None:
                mirror.note(manifest)


def _decoded(entry: _Entry) -> Manifest:
    manifest: Manifest = msgspec.json.decode(entry.body)
    return manifest


def _place(manifest: Manifest) -> Place:
    metadata = manifest["metadata"]
    return metadata.get("namespace", ""), metadata["name"]


def _version(manifest: Manifest) -> int:
    """Versions of one kind can be compared as numbers; where they are none, nothing is mirrored (KubeUnavailable)."""
    text = manifest["metadata"].get("resourceVersion")
    try:
        return int(text or 0)
    except ValueError:
        raise KubeUnavailable(f"the API server's resourceVersions are no numbers: {text!r}") from None
