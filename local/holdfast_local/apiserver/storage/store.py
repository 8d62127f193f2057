"""All objects in memory, journalled in the database, with indices by uid and by owner.

Invariants: stored dictionaries are never changed in place, a write stores a new one; every write takes the next
revision of one counter for all kinds; the database has a write before anybody can see it; all methods are
synchronous, so that a request's reads and its write happen between two awaits. What a write *means* is not known here.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from holdfast_local.apiserver.resources import Object, StorageKey
from holdfast_local.apiserver.storage.database import Database
from holdfast_local.apiserver.storage.history import ADDED, DELETED, MODIFIED, Change, History


@dataclass(frozen=True)
class Address:
    """Where an object is stored; `namespace` is empty for cluster-wide kinds."""

    key: StorageKey
    namespace: str
    name: str


Listener = Callable[[Address, Change], None]


class _Kind:
    def __init__(self, compacted_revision: int) -> None:
        self.objects: dict[tuple[str, str], Object] = {}
        self.history = History(compacted_revision)


class Store:
    """The cluster's state."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.revision = max(1, database.counter("revision"))
        # Watches from revisions of an earlier run must list again: their history is gone.
        self._first_revision = self.revision
        self._kinds: dict[StorageKey, _Kind] = {}
        self._by_uid: dict[str, Address] = {}
        self._dependents: dict[str, set[Address]] = {}
        self._listeners: list[Listener] = []
        for key, obj in database.objects():
            metadata = obj["metadata"]
            address = Address(key, metadata.get("namespace", ""), metadata["name"])
            self._kind(key).objects[address.namespace, address.name] = obj
            self._index(address, None, obj)

    def _kind(self, key: StorageKey) -> _Kind:
        kind = self._kinds.get(key)
        if kind is None:
            kind = self._kinds[key] = _Kind(self._first_revision)
        return kind

    def get(self, key: StorageKey, namespace: str, name: str) -> Object | None:
        return self._kind(key).objects.get((namespace, name))

    def at(self, address: Address) -> Object | None:
        return self.get(address.key, address.namespace, address.name)

    def list(self, key: StorageKey, namespace: str = "") -> list[Object]:
        """Objects in order of namespace and name; all namespaces if `namespace` is empty."""
        objects = self._kind(key).objects
        wanted = sorted(place for place in objects if not namespace or place[0] == namespace)
        return [objects[place] for place in wanted]

    def addresses(self, namespace: str = "") -> Iterable[Address]:
        """Every object (of one namespace)."""
        for key, kind in self._kinds.items():
            for place in list(kind.objects):
                if not namespace or place[0] == namespace:
                    yield Address(key, *place)

    def history(self, key: StorageKey) -> History:
        return self._kind(key).history

    def by_uid(self, uid: str) -> Address | None:
        return self._by_uid.get(uid)

    def dependents(self, uid: str) -> frozenset[Address]:
        """Objects that name this uid as an owner."""
        return frozenset(self._dependents.get(uid, ()))

    def put(self, key: StorageKey, obj: Object) -> Object:
        """Stores a new version; sets and returns it with its resourceVersion. Raises OSError if it cannot."""
        metadata = obj["metadata"]
        address = Address(key, metadata.get("namespace", ""), metadata["name"])
        previous = self.at(address)
        stored = {**obj, "metadata": {**metadata, "resourceVersion": str(self.revision + 1)}}
        self._database.write(key, address.namespace, address.name, stored, self.revision + 1)
        self.revision += 1
        self._kind(key).objects[address.namespace, address.name] = stored
        self._index(address, previous, stored)
        self._announce(address, Change(self.revision, MODIFIED if previous else ADDED, stored, previous))
        return stored

    def remove(self, address: Address) -> Object:
        """Removes an object; returns its last version with the deletion's revision. KeyError if absent."""
        previous = self._kind(address.key).objects[address.namespace, address.name]
        self._database.write(address.key, address.namespace, address.name, None, self.revision + 1)
        self.revision += 1
        del self._kind(address.key).objects[address.namespace, address.name]
        self._index(address, previous, None)
        last = {**previous, "metadata": {**previous["metadata"], "resourceVersion": str(self.revision)}}
        self._announce(address, Change(self.revision, DELETED, last, previous))
        return last

    def listen(self, listener: Listener) -> None:
        """Calls `listener` after every write; it must be quick and must not write."""
        self._listeners.append(listener)

    def wake_watchers(self) -> None:
        for kind in self._kinds.values():
            kind.history.wake_all()

    def _announce(self, address: Address, change: Change) -> None:
        self._kind(address.key).history.append(change)
        for listener in self._listeners:
            listener(address, change)

    def _index(self, address: Address, previous: Object | None, current: Object | None) -> None:
        if previous is not None:
            self._by_uid.pop(previous["metadata"]["uid"], None)
            for reference in previous["metadata"].get("ownerReferences") or ():
                owned = self._dependents.get(reference["uid"], set())
                owned.discard(address)
                if not owned:
                    self._dependents.pop(reference["uid"], None)
        if current is not None:
            self._by_uid[current["metadata"]["uid"]] = address
            for reference in current["metadata"].get("ownerReferences") or ():
                self._dependents.setdefault(reference["uid"], set()).add(address)

    def close(self) -> None:
        self._database.close()
