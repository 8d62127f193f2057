"""Garbage collection by ownerReferences: background, foreground and orphaning, as `loop` has it done per object.

A reference is live if an object with that uid exists, in the same namespace or cluster-wide. An object whose references
are all dead is deleted; with some alive, the dead ones are dropped. An owner with the finalizer `orphan` gets its
dependents' references removed first, one with `foregroundDeletion` waits until its blocking dependents are gone.
"""

from holdfast_local.apiserver import errors
from holdfast_local.apiserver.deleting import FOREGROUND_FINALIZER, ORPHAN_FINALIZER, DeleteOptions, delete
from holdfast_local.apiserver.resources import Object
from holdfast_local.apiserver.storage.store import Address
from holdfast_local.apiserver.writing import MERGE_PATCH, WriteOptions, Writer

_OPTIONS = WriteOptions(manager="garbage-collector", field_validation="Ignore")


class GarbageCollector:
    """One object at a time; everything it needs to know is in the store."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._store = writer.store

    def collect(self, address: Address) -> None:
        """Does what the object at `address` needs as a dependent and as an owner."""
        obj = self._store.at(address)
        if obj is None:
            return
        if obj["metadata"].get("deletionTimestamp"):
            self._serve_finalizers(address, obj)
        elif obj["metadata"].get("ownerReferences"):
            self._check_owners(address, obj)

    def _check_owners(self, address: Address, obj: Object) -> None:
        references = obj["metadata"]["ownerReferences"]
        alive = [entry for entry in references if self._owner(address, entry["uid"]) is not None]
        waiting = [entry for entry in alive if self._waits_in_foreground(entry["uid"])]
        if alive and len(waiting) == len(alive):
            self._delete(address, obj, "Foreground" if self._store.dependents(obj["metadata"]["uid"]) else "Background")
        elif not alive:
            self._delete(address, obj, "Background")
        elif len(alive) < len(references):
            self._set_references(address, obj, alive)

    def _owner(self, dependent: Address, uid: str) -> Address | None:
        owner = self._store.by_uid(uid)
        return owner if owner is not None and owner.namespace in ("", dependent.namespace) else None

    def _waits_in_foreground(self, uid: str) -> bool:
        address = self._store.by_uid(uid)
        owner = self._store.at(address) if address else None
        return owner is not None and FOREGROUND_FINALIZER in (owner["metadata"].get("finalizers") or ())

    def _delete(self, address: Address, obj: Object, propagation: str) -> None:
        resource = self._writer.registry.by_storage(address.key)
        options = DeleteOptions(propagation=propagation, uid=obj["metadata"]["uid"])
        try:
            delete(self._writer, resource, address.namespace, address.name, options)
        except errors.StatusError as error:
            if error.reason != "NotFound":
                raise

    def _serve_finalizers(self, address: Address, obj: Object) -> None:
        finalizers = obj["metadata"].get("finalizers") or ()
        dependents = self._store.dependents(obj["metadata"]["uid"])
        uid = obj["metadata"]["uid"]
        if ORPHAN_FINALIZER in finalizers:
            for dependent in dependents:
                child = self._store.at(dependent)
                if child is not None:
                    references = child["metadata"].get("ownerReferences") or ()
                    self._set_references(dependent, child, [entry for entry in references if entry["uid"] != uid])
            self._drop_finalizer(address, obj, ORPHAN_FINALIZER)
        elif FOREGROUND_FINALIZER in finalizers:
            blocking = False
            for dependent in dependents:
                child = self._store.at(dependent)
                if child is None:
                    continue
                if not child["metadata"].get("deletionTimestamp"):
                    self._check_owners(dependent, child)
                still_there = self._store.at(dependent) is not None
                references = child["metadata"].get("ownerReferences") or ()
                blocks = any(entry["uid"] == uid and entry.get("blockOwnerDeletion") for entry in references)
                blocking = blocking or (still_there and blocks)
            if not blocking:
                self._drop_finalizer(address, obj, FOREGROUND_FINALIZER)

    def _set_references(self, address: Address, obj: Object, references: list[Object]) -> None:
        self._patch(address, obj, {"ownerReferences": references or None})

    def _drop_finalizer(self, address: Address, obj: Object, finalizer: str) -> None:
        kept = [entry for entry in obj["metadata"]["finalizers"] if entry != finalizer]
        self._patch(address, obj, {"finalizers": kept or None})

    def _patch(self, address: Address, obj: Object, metadata: Object) -> None:
        resource = self._writer.registry.by_storage(address.key)
        patch = {"metadata": {**metadata, "uid": obj["metadata"]["uid"]}}
        self._writer.patch(resource, address.namespace, address.name, MERGE_PATCH, patch, _OPTIONS)
