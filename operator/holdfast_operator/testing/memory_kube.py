"""`KubeClient` in memory: uids, generations, label selection, server-side apply, merge patch, owner references.

Simplified against a real API server: there are no other field managers, so that apply only has to drop what an
earlier apply had set; lists are replaced whole; nothing is defaulted or validated.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Mapping
from typing import Any

from holdfast_operator.kube.errors import EvictionRefused, KubeConflict, KubeError
from holdfast_operator.kube.port import POD, TENANT, Kind, Manifest, kind_of

Key = tuple[str, str, str]
"""(kind, namespace, name)"""


class MemoryKubeClient:
    """See `port.KubeClient`.  `calls` records what was written; `fail_on` makes calls fail."""

    def __init__(self) -> None:
        self.objects: dict[Key, Manifest] = {}
        self.calls: list[tuple[str, str, str]] = []
        """(verb, kind, name) of every write."""
        self.fail_on: Callable[[str, str, str], KubeError | None] = lambda verb, kind, name: None
        self.evictions_refused = False
        self.admission: Callable[[Manifest], None] = lambda manifest: None
        """A webhook that changes what is applied."""
        self._applied: dict[Key, Manifest] = {}
        self._uids = itertools.count(1)
        self._versions = itertools.count(1)

    async def get(self, kind: Kind, namespace: str, name: str) -> Manifest | None:
        self._maybe_fail("get", kind.kind, name)
        return copy.deepcopy(self.objects.get((kind.kind, namespace, name)))

    async def list_objects(
        self, kind: Kind, namespace: str | None, labels: Mapping[str, str] | None = None
    ) -> list[Manifest]:
        self._maybe_fail("list", kind.kind, "")
        return [
            copy.deepcopy(value)
            for (object_kind, object_namespace, _), value in sorted(self.objects.items())
            if object_kind == kind.kind and namespace in (None, object_namespace) and _carries(value, labels or {})
        ]

    async def create(self, manifest: Manifest) -> Manifest:
        key = self._note("create", manifest)
        if key in self.objects:
            raise KubeConflict(f"{key[0]} {key[2]} exists")
        return self._store(key, copy.deepcopy(manifest))

    async def apply(self, manifest: Manifest) -> Manifest:
        key = self._note("apply", manifest)
        wanted = copy.deepcopy(manifest)
        existing = self.objects.get(key)
        expected = wanted["metadata"].pop("resourceVersion", None)
        if expected is not None and (existing is None or existing["metadata"]["resourceVersion"] != expected):
            raise KubeConflict(f"{key[0]} {key[2]} has changed")
        if existing is not None:
            wanted = _overlaid(_without(existing, self._applied.get(key, {}), wanted), wanted)
        wanted = copy.deepcopy(wanted)
        self.admission(wanted)
        self._applied[key] = copy.deepcopy(manifest)
        if existing is not None and wanted == existing:
            return wanted  # nothing changes, and no version is made
        return self._store(key, wanted)

    async def patch_status(self, kind: Kind, namespace: str, name: str, patch: Manifest) -> Manifest | None:
        self._maybe_fail("status", kind.kind, name)
        self.calls.append(("status", kind.kind, name))
        stored = self.objects.get((kind.kind, namespace, name))
        if stored is not None:
            stored["status"] = _merge_patched(stored.get("status") or {}, copy.deepcopy(patch))
            self._count(stored)
        return copy.deepcopy(stored)

    async def merge(self, manifest: Manifest, patch: Manifest) -> Manifest:
        key = self._note("merge", manifest)
        stored = self.objects.get(key)
        if stored is None or stored["metadata"]["uid"] != manifest["metadata"]["uid"]:
            raise KubeConflict(f"{key[0]} {key[2]} is another one now")
        expected = patch.get("metadata", {}).get("resourceVersion")
        if expected is not None and expected != stored["metadata"]["resourceVersion"]:
            raise KubeConflict(f"{key[0]} {key[2]} has changed")
        return self._store(key, _merge_patched(copy.deepcopy(stored), copy.deepcopy(patch)))

    async def delete(self, manifest: Manifest, *, orphan: bool = False) -> None:
        key = self._note("orphan" if orphan else "delete", manifest)
        stored = self.objects.get(key)
        if stored is not None and stored["metadata"]["uid"] == manifest["metadata"]["uid"]:
            if orphan:
                self._disown(stored["metadata"]["uid"])
            self.remove(key)

    async def evict(self, namespace: str, pod_name: str) -> None:
        self._maybe_fail("evict", "Pod", pod_name)
        self.calls.append(("evict", "Pod", pod_name))
        if self.evictions_refused:
            raise EvictionRefused("Cannot evict pod as it would violate the pod's disruption budget.")
        self.objects.pop((POD.kind, namespace, pod_name), None)

    # What a person or a controller does, outside the port.

    def put(self, manifest: Manifest) -> Manifest:
        """Store an object as `kubectl apply` by somebody else would; a changed spec raises the generation."""
        return self._store(_key(manifest), copy.deepcopy(manifest))

    def remove(self, key: Key) -> None:
        """Delete an object and, as the garbage collector does, what it owns."""
        gone = self.objects.pop(key)
        self._applied.pop(key, None)
        uid = gone["metadata"]["uid"]
        for other, value in list(self.objects.items()):
            owners = value["metadata"].get("ownerReferences") or []
            if other in self.objects and any(owner["uid"] == uid for owner in owners):
                self.remove(other)

    def _disown(self, uid: str) -> None:
        for value in self.objects.values():
            owners = value["metadata"].get("ownerReferences") or []
            if any(owner["uid"] == uid for owner in owners):
                value["metadata"]["ownerReferences"] = [owner for owner in owners if owner["uid"] != uid]

    def object(self, kind: Kind, name: str, namespace: str = "loki") -> Manifest:
        """The stored object itself; KeyError where there is none."""
        return self.objects[kind.kind, namespace, name]

    def names(self, kind: Kind) -> list[str]:
        return sorted(name for (object_kind, _, name) in self.objects if object_kind == kind.kind)

    def tenant_status(self, name: str = "logs", namespace: str = "loki") -> dict[str, Any]:
        return dict(self.object(TENANT, name, namespace).get("status") or {})

    def _note(self, verb: str, manifest: Manifest) -> Key:
        key = _key(manifest)
        self._maybe_fail(verb, key[0], key[2])
        self.calls.append((verb, key[0], key[2]))
        return key

    def _maybe_fail(self, verb: str, kind: str, name: str) -> None:
        error = self.fail_on(verb, kind, name)
        if error is not None:
            raise error

    def _store(self, key: Key, value: Manifest) -> Manifest:
        existing = self.objects.get(key)
        metadata = value["metadata"]
        if existing is None:
            metadata.setdefault("uid", f"uid-{next(self._uids)}")
            metadata["generation"] = 1
        else:
            metadata["uid"] = existing["metadata"]["uid"]
            changed = existing.get("spec") != value.get("spec")
            metadata["generation"] = existing["metadata"]["generation"] + int(changed)
            if "status" in existing:
                value.setdefault("status", existing["status"])
        self.objects[key] = value
        kind_of(value)
        self._count(value)
        return copy.deepcopy(value)

    def _count(self, value: Manifest) -> None:
        value["metadata"]["resourceVersion"] = str(next(self._versions))


def _key(manifest: Manifest) -> Key:
    return manifest["kind"], manifest["metadata"]["namespace"], manifest["metadata"]["name"]


def _carries(manifest: Manifest, labels: Mapping[str, str]) -> bool:
    own = manifest["metadata"].get("labels") or {}
    return all(own.get(key) == value for key, value in labels.items())


def _without(existing: Any, before: Any, wanted: Any) -> Any:
    """`existing` less what `before` had set and `wanted` no longer does."""
    if not (isinstance(existing, dict) and isinstance(before, dict) and isinstance(wanted, dict)):
        return existing
    return {
        key: _without(value, before.get(key), wanted.get(key))
        for key, value in existing.items()
        if key in wanted or key not in before
    }


def _overlaid(existing: Any, wanted: Any) -> Any:
    if not (isinstance(existing, dict) and isinstance(wanted, dict)):
        return wanted
    return {**existing, **{key: _overlaid(existing.get(key), value) for key, value in wanted.items()}}


def _merge_patched(value: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    result = dict(value)
    for key, change in patch.items():
        if change is None:
            result.pop(key, None)
        elif isinstance(change, dict) and isinstance(result.get(key), dict):
            result[key] = _merge_patched(result[key], change)
        else:
            result[key] = change
    return result
