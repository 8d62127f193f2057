"""Namespaces, definitions of custom kinds, disruption budgets and old events: what they need after a change.

- A namespace gets its `default` service account and the ConfigMap with the cluster's authority; one that is being
  deleted has its content deleted and goes when it is empty.
- A CustomResourceDefinition that is being deleted has its objects deleted and goes, with its kind, when there are none.
- Budgets follow their pods. Events are dropped after an hour.
"""

import datetime
from collections.abc import Callable

from holdfast_local.apiserver import errors
from holdfast_local.apiserver.controllers.disruption import BUDGETS, WORKLOADS, refresh_budget
from holdfast_local.apiserver.deleting import DeleteOptions, delete
from holdfast_local.apiserver.kinds.definitions_of_customs import CLEANUP_FINALIZER
from holdfast_local.apiserver.resources import CRDS, NAMESPACES, PODS, Object, Resource, custom_resources
from holdfast_local.apiserver.storage.history import DELETED, Change
from holdfast_local.apiserver.storage.store import Address
from holdfast_local.apiserver.writing import MERGE_PATCH, WriteOptions, Writer

EVENT_LIFETIME = datetime.timedelta(hours=1)
_OPTIONS = WriteOptions(manager="kube-controller-manager", field_validation="Ignore")


class Upkeep:
    """One object at a time; everything it needs to know is in the store."""

    def __init__(self, writer: Writer, authority: Callable[[], str]) -> None:
        """`authority` gives the PEM of the cluster's certificate authority."""
        self._writer = writer
        self._store = writer.store
        self._authority = authority

    def look_at(self, address: Address) -> None:
        """Does what a change of this object calls for."""
        if address.key == NAMESPACES:
            self._keep_namespace(address)
        elif address.key == CRDS:
            self._keep_definition(address)
        elif address.key == BUDGETS:
            self._refresh_budget(address)
        elif address.key == PODS or address.key in WORKLOADS:
            for budget in self._store.list(BUDGETS, address.namespace):
                self._refresh_budget(Address(BUDGETS, address.namespace, budget["metadata"]["name"]))

    def serve_definitions(self) -> None:
        """Announces every stored custom kind; at start, before the first request."""
        for crd in self._store.list(CRDS):
            self._serve(crd)

    def on_change(self, address: Address, change: Change) -> None:
        """Keeps the served kinds in step with their definitions, within the write itself."""
        if address.key != CRDS:
            return
        if change.type == DELETED:
            spec = change.object["spec"]
            self._writer.registry.remove(spec["group"], spec["names"]["plural"])
            self._store.history((spec["group"], spec["names"]["plural"])).wake_all()
        elif change.previous is None or change.previous["spec"] != change.object["spec"]:
            self._serve(change.object)

    def _serve(self, crd: Object) -> None:
        registry = self._writer.registry
        registry.remove(crd["spec"]["group"], crd["spec"]["names"]["plural"])
        for resource in custom_resources(crd, registry.definitions):
            registry.add(resource)

    def drop_old_events(self) -> None:
        """Events older than EVENT_LIFETIME go, as on a real cluster."""
        limit = self._writer.time() - EVENT_LIFETIME
        for event in self._store.list(("", "events")):
            metadata = event["metadata"]
            seen = event.get("lastTimestamp") or metadata["creationTimestamp"]
            if datetime.datetime.fromisoformat(seen) < limit:
                self._store.remove(Address(("", "events"), metadata["namespace"], metadata["name"]))

    def _resource(self, kind: str) -> Resource:
        resource = self._writer.registry.by_kind("v1", kind)
        assert resource is not None, f"{kind} is a built-in kind"
        return resource

    def _keep_namespace(self, address: Address) -> None:
        namespace = self._store.at(address)
        if namespace is None:
            return
        if namespace["metadata"].get("deletionTimestamp"):
            self._empty_namespace(address, namespace)
            return
        name = address.name
        self._ensure(self._resource("ServiceAccount"), name, {"metadata": {"name": "default"}})
        authority = {"metadata": {"name": "kube-root-ca.crt"}, "data": {"ca.crt": self._authority()}}
        self._ensure(self._resource("ConfigMap"), name, authority)

    def _ensure(self, resource: Resource, namespace: str, obj: Object) -> None:
        if self._store.get(resource.storage, namespace, obj["metadata"]["name"]) is None:
            self._writer.create(resource, namespace, obj, _OPTIONS)

    def _empty_namespace(self, address: Address, namespace: Object) -> None:
        for content in list(self._store.addresses(address.name)):
            self._delete(content)
        if any(True for _ in self._store.addresses(address.name)):
            return
        finalizers = [entry for entry in namespace["spec"].get("finalizers") or () if entry != "kubernetes"]
        patch = {"spec": {"finalizers": finalizers}, "metadata": {"uid": namespace["metadata"]["uid"]}}
        resource = self._resource("Namespace")
        self._writer.patch(resource, "", address.name, MERGE_PATCH, patch, _OPTIONS, "finalize")

    def _keep_definition(self, address: Address) -> None:
        crd = self._store.at(address)
        if crd is None or not crd["metadata"].get("deletionTimestamp"):
            return
        if CLEANUP_FINALIZER not in (crd["metadata"].get("finalizers") or ()):
            return
        key = (crd["spec"]["group"], crd["spec"]["names"]["plural"])
        for obj in self._store.list(key):
            metadata = obj["metadata"]
            self._delete(Address(key, metadata.get("namespace", ""), metadata["name"]))
        if self._store.list(key):
            return
        kept = [entry for entry in crd["metadata"]["finalizers"] if entry != CLEANUP_FINALIZER]
        patch = {"metadata": {"finalizers": kept or None, "uid": crd["metadata"]["uid"]}}
        resource = self._writer.registry.by_storage(CRDS)
        self._writer.patch(resource, "", address.name, MERGE_PATCH, patch, _OPTIONS)

    def _delete(self, address: Address) -> None:
        obj = self._store.at(address)
        if obj is None or obj["metadata"].get("deletionTimestamp"):
            return
        try:
            resource = self._writer.registry.by_storage(address.key)
            delete(self._writer, resource, address.namespace, address.name, DeleteOptions())
        except KeyError:
            # A custom kind whose definition is gone already; nobody else can remove what is left of it.
            self._store.remove(address)
        except errors.StatusError as error:
            if error.reason != "NotFound":
                raise

    def _refresh_budget(self, address: Address) -> None:
        resource = self._writer.registry.by_storage(BUDGETS)
        refresh_budget(self._writer, resource, address.namespace, address.name)
