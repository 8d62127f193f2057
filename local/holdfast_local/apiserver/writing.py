"""What a write means: create, update, patch and apply, down to the stored object.

One path for all of them, `_commit`: decode strictly, prune, keep what the client may not set, fill defaults, validate,
book field ownership, then store. Invariants: a refused write changes nothing; the main resource never touches the
status and the status subresource nothing else; a write without effect stores nothing and keeps the resourceVersion;
an object whose last finalizer goes while it is being deleted disappears in the same write. All methods are synchronous,
so a read-modify-write inside cannot interleave with another.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from holdfast_local.apiserver import errors
from holdfast_local.apiserver.errors import Cause, invalid_value
from holdfast_local.apiserver.kinds.defaults import fill_builtin_defaults, first_status
from holdfast_local.apiserver.kinds.definitions_of_customs import CLEANUP_FINALIZER, crd_status, validate_crd
from holdfast_local.apiserver.kinds.quantities import parse_quantity
from holdfast_local.apiserver.kinds.rules import IMMUTABLE, validate_builtin, validate_metadata
from holdfast_local.apiserver.kinds.versions import from_storage, to_storage
from holdfast_local.apiserver.ownership.apply import apply
from holdfast_local.apiserver.ownership.managers import (
    APPLY,
    UPDATE,
    Manager,
    Owners,
    after_update,
    ownable,
    owners_of,
    to_managed_fields,
)
from holdfast_local.apiserver.patches.merge import json_patch, merge_patch
from holdfast_local.apiserver.patches.strategic import strategic_merge
from holdfast_local.apiserver.resources import CRDS, NAMESPACES, Object, Registry, Resource, StorageKey
from holdfast_local.apiserver.schema.cel import validate_rules
from holdfast_local.apiserver.schema.pruning import drop_nulls, fill_defaults, prune
from holdfast_local.apiserver.schema.validation import validate
from holdfast_local.apiserver.storage.store import Address, Store

CLAIMS: StorageKey = ("", "persistentvolumeclaims")
STORAGE_CLASSES: StorageKey = ("storage.k8s.io", "storageclasses")
JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"

_SYSTEM_METADATA = (
    "uid",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "generation",
    "resourceVersion",
    "name",
    "namespace",
    "generateName",
)
_MAX_CAUSES = 50


@dataclass(frozen=True)
class WriteOptions:
    """How a write was asked for."""

    manager: str = "unknown"
    dry_run: bool = False
    field_validation: str = "Warn"
    """Strict refuses unknown fields, Warn reports them in `warnings`, Ignore drops them silently."""
    force: bool = False
    warnings: list[str] = field(default_factory=list, compare=False)


def timestamp(moment: datetime) -> str:
    """RFC 3339 in whole seconds, as metadata carries it."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Writer:
    """Writes to the store on behalf of requests and controllers."""

    def __init__(
        self,
        store: Store,
        registry: Registry,
        clock: Callable[[], datetime],
        new_uid: Callable[[], str],
        name_suffix: Callable[[], str],
    ) -> None:
        """`clock` gives aware times, `new_uid` UUIDs, `name_suffix` the random end of a generated name."""
        self.store = store
        self.registry = registry
        self._clock = clock
        self._new_uid = new_uid
        self._name_suffix = name_suffix

    def now(self) -> str:
        return timestamp(self._clock())

    def time(self) -> datetime:
        return self._clock()

    def get(self, resource: Resource, namespace: str, name: str) -> Object:
        """The object in the resource's version; StatusError 404 if there is none."""
        stored = self.store.get(resource.storage, namespace, name)
        if stored is None:
            raise errors.not_found(resource, name)
        return from_storage(resource, stored)

    def create(self, resource: Resource, namespace: str, body: Object, options: WriteOptions) -> Object:
        """Raises StatusError 400, 403, 404 (namespace), 409 (exists) or 422."""
        obj = _decoded(resource, body)
        metadata = obj["metadata"]
        if not metadata.get("name") and metadata.get("generateName"):
            metadata["name"] = metadata["generateName"] + self._name_suffix()
        _place(resource, obj, namespace, str(metadata.get("name") or ""))
        manager = Manager(options.manager, UPDATE, resource.api_version)
        return self._create(resource, obj, manager, None, options)

    def update(
        self, resource: Resource, namespace: str, name: str, body: Object, options: WriteOptions, subresource: str = ""
    ) -> Object:
        """Replaces an object (PUT). Raises StatusError 400, 404, 409 (stale) or 422."""
        obj = _decoded(resource, body)
        _place(resource, obj, namespace, name)
        old = self.get(resource, namespace, name)
        return self._change(resource, old, obj, subresource, options)

    def patch(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        media_type: str,
        patch: Any,
        options: WriteOptions,
        subresource: str = "",
    ) -> Object:
        """Applies a JSON, merge or strategic merge patch. Raises StatusError 400, 404, 409, 415 or 422."""
        old = self.get(resource, namespace, name)
        if media_type == JSON_PATCH:
            obj = json_patch(copy.deepcopy(old), patch)
        elif not isinstance(patch, dict):
            raise errors.bad_request("error decoding patch: the patch is not an object")
        elif media_type == MERGE_PATCH:
            obj = merge_patch(old, patch)
        elif media_type == STRATEGIC_PATCH and not resource.custom:
            obj = strategic_merge(old, patch, resource.schema)
        else:
            accepted = (JSON_PATCH, MERGE_PATCH, APPLY_PATCH)
            raise errors.unsupported_media_type(accepted if resource.custom else (*accepted, STRATEGIC_PATCH))
        obj = copy.deepcopy(obj)
        if not isinstance(obj, dict) or not isinstance(obj.get("metadata"), dict):
            raise errors.bad_request("the patch leaves no object with metadata")
        _check_type(resource, obj)
        if obj["metadata"].get("name") != name:
            raise errors.bad_request(_misnamed(obj["metadata"].get("name"), name))
        if obj["metadata"].get("uid") not in (None, "", old["metadata"]["uid"]):
            raise errors.invalid(resource, name, [invalid_value("metadata.uid", obj["metadata"]["uid"], IMMUTABLE)])
        return self._change(resource, old, obj, subresource, options)

    def apply(
        self, resource: Resource, namespace: str, name: str, body: Object, options: WriteOptions, subresource: str = ""
    ) -> tuple[Object, bool]:
        """Server-side apply; returns the object and whether it was created.

        Raises StatusError 409, which lists conflicts, and 500 for fields that the schema does not have so.
        """
        if not body.get("apiVersion") or not body.get("kind"):
            raise errors.bad_request("the applied object must have apiVersion and kind")
        wanted = _decoded(resource, body)
        if wanted["metadata"].get("managedFields"):
            raise errors.bad_request("metadata.managedFields must be nil")
        _place(resource, wanted, namespace, name)
        drop_nulls(wanted, resource.schema)
        _check_appliable(resource, wanted)
        manager = Manager(options.manager, APPLY, resource.api_version, subresource)
        stored = self.store.get(resource.storage, namespace, name)
        if stored is None:
            if subresource or wanted["metadata"].get("resourceVersion"):
                raise errors.not_found(resource, name)
            owners: Owners = {manager: frozenset(ownable(wanted, resource.schema))}
            return self._create(resource, wanted, manager, owners, options), True
        old = from_storage(resource, stored)
        revision = wanted["metadata"].pop("resourceVersion", None)
        if revision and revision != old["metadata"]["resourceVersion"]:
            raise errors.conflict(resource, name, errors.STALE)
        applied = apply(old, wanted, resource.schema, manager, force=options.force)
        obj = copy.deepcopy(applied.merged)
        obj["metadata"].pop("resourceVersion", None)
        return self._commit(resource, old, obj, subresource, manager, applied.owners, options), False

    def _create(
        self, resource: Resource, obj: Object, manager: Manager, owners: Owners | None, options: WriteOptions
    ) -> Object:
        metadata = obj["metadata"]
        name, namespace = str(metadata.get("name") or ""), metadata.get("namespace", "")
        if metadata.get("resourceVersion"):
            raise errors.bad_request("resourceVersion should not be set on objects to be created")
        if resource.namespaced:
            self._check_namespace(resource, namespace, name)
        if self.store.get(resource.storage, namespace, name) is not None:
            raise errors.already_exists(resource, name)
        return self._commit(resource, None, obj, "", manager, owners, options)

    def _check_namespace(self, resource: Resource, namespace: str, name: str) -> None:
        found = self.store.get(NAMESPACES, "", namespace)
        if found is None:
            raise errors.not_found(self.registry.by_storage(NAMESPACES), namespace)
        if found["metadata"].get("deletionTimestamp") and resource.kind != "Event":
            message = (
                f'{resource.qualified_plural} "{name}" is forbidden: unable to create new content in namespace '
                f"{namespace} because it is being terminated"
            )
            raise errors.forbidden(message, {"name": name, "kind": resource.plural})

    def _check_resizing(self, resource: Resource, old: Object, obj: Object) -> None:
        """A claim whose class there is not is a folder like those without a class, and may grow as they may."""
        wanted, before = (parse_quantity(one["spec"]["resources"]["requests"]["storage"]) for one in (obj, old))
        found = self.store.get(STORAGE_CLASSES, "", str(obj["spec"].get("storageClassName") or ""))
        if wanted > before and found is not None and not found.get("allowVolumeExpansion"):
            name = obj["metadata"]["name"]
            message = (
                f'{resource.qualified_plural} "{name}" is forbidden: only dynamically provisioned pvc can be resized '
                "and the storageclass that provisions the pvc must support resize"
            )
            raise errors.forbidden(message, {"name": name, "kind": resource.plural})

    def _change(self, resource: Resource, old: Object, obj: Object, subresource: str, options: WriteOptions) -> Object:
        metadata, before = obj["metadata"], old["metadata"]
        if metadata.get("resourceVersion") and metadata["resourceVersion"] != before["resourceVersion"]:
            raise errors.conflict(resource, before["name"], errors.STALE)
        if metadata.get("uid") and metadata["uid"] != before["uid"]:
            detail = f"Precondition failed: UID in precondition: {metadata['uid']}, UID in object meta: {before['uid']}"
            raise errors.conflict(resource, before["name"], detail)
        manager = Manager(options.manager, UPDATE, resource.api_version, subresource)
        return self._commit(resource, old, obj, subresource, manager, None, options)

    def _commit(
        self,
        resource: Resource,
        old: Object | None,
        obj: Object,
        subresource: str,
        manager: Manager,
        owners: Owners | None,
        options: WriteOptions,
    ) -> Object:
        claimed = obj["metadata"].pop("managedFields", None)
        self._prune(resource, obj, options)
        drop_nulls(obj, resource.schema)
        _check_types(resource, obj)
        obj = self._protected(resource, old, obj, subresource)
        fill_builtin_defaults(resource, obj)
        if resource.custom:
            fill_defaults(obj, resource.schema)
        self._count_generation(resource, old, obj)
        self._validate(resource, old, obj, subresource)
        if resource.storage == CLAIMS and old is not None and not subresource:
            self._check_resizing(resource, old, obj)
        if resource.storage == CRDS:
            self._serve_definition(obj)
        if owners is None:
            owners = _booked(resource, old, obj, claimed, manager, subresource)
        obj["metadata"]["managedFields"] = to_managed_fields(owners, old, self.now())
        if options.dry_run:
            if old is not None:
                obj["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"]
            return obj
        return self._store(resource, old, obj)

    def _prune(self, resource: Resource, obj: Object, options: WriteOptions) -> None:
        if not resource.schema:
            return
        unknown = prune(obj, resource.schema)
        if not unknown or options.field_validation == "Ignore":
            return
        sentences = [f'unknown field "{path}"' for path in unknown]
        if options.field_validation == "Strict":
            raise errors.bad_request(
                f'{resource.kind} in version "{resource.version}" cannot be handled as a {resource.kind}: '
                "strict decoding error: " + ", ".join(sentences)
            )
        options.warnings.extend(sentence for sentence in sentences if sentence not in options.warnings)

    def _protected(self, resource: Resource, old: Object | None, obj: Object, subresource: str) -> Object:
        """The object with everything restored that this kind of write may not change."""
        metadata = obj["metadata"]
        if old is None:
            for name in ("deletionTimestamp", "deletionGracePeriodSeconds", "generation", "selfLink"):
                metadata.pop(name, None)
            metadata["uid"] = self._new_uid()
            metadata["creationTimestamp"] = self.now()
            if resource.kind == "Namespace":
                obj.setdefault("spec", {})["finalizers"] = ["kubernetes"]
                metadata["labels"] = {**(metadata.get("labels") or {}), "kubernetes.io/metadata.name": metadata["name"]}
            if resource.has_status:
                status = first_status(resource, obj)
                obj.pop("status", None)
                if status is not None:
                    obj["status"] = copy.deepcopy(status)
            return obj
        if subresource == "status":
            changed = copy.deepcopy(old)
            changed.pop("status", None)
            if obj.get("status") is not None:
                changed["status"] = obj["status"]
            return changed
        for name in _SYSTEM_METADATA:
            metadata.pop(name, None)
            if name in old["metadata"]:
                metadata[name] = old["metadata"][name]
        if resource.has_status:
            obj.pop("status", None)
            if "status" in old:
                obj["status"] = copy.deepcopy(old["status"])
        if resource.kind == "Namespace" and subresource != "finalize":
            obj.setdefault("spec", {})["finalizers"] = (old.get("spec") or {}).get("finalizers") or []
        return obj

    def _count_generation(self, resource: Resource, old: Object | None, obj: Object) -> None:
        if not resource.has_generation:
            return
        if old is None:
            obj["metadata"]["generation"] = 1
        elif _content(old) != _content(obj):
            obj["metadata"]["generation"] = int(old["metadata"].get("generation", 1)) + 1

    def _validate(self, resource: Resource, old: Object | None, obj: Object, subresource: str) -> None:
        causes: list[Cause] = list(validate_metadata(resource, obj)) if old is None or not subresource else []
        if not resource.custom or old is None or not subresource:
            causes += validate(obj, resource.schema)
        else:
            causes += validate(obj.get("status"), (resource.schema.get("properties") or {}).get("status", {}), "status")
        if resource.custom and not causes:
            causes += validate_rules(obj, old, resource.schema)
        if not subresource and not any(cause.reason == "FieldValueInvalid" for cause in causes):
            # Rules may rely on values having the form that the schema asks for.
            causes += validate_builtin(resource, obj, old)
            if resource.storage == CRDS and not causes:
                causes += validate_crd(obj, old)
        if causes:
            # Unset required parts are often found twice, by the schema and by a rule.
            unique = list({(cause.field, cause.reason): cause for cause in causes}.values())
            raise errors.invalid(resource, str(obj["metadata"].get("name", "")), unique[:_MAX_CAUSES])

    def _serve_definition(self, obj: Object) -> None:
        """A definition is served from the moment it is stored; its finalizer lets its objects go first."""
        metadata = obj["metadata"]
        if not obj.get("status"):
            obj["status"] = crd_status(obj, self.now())
            metadata["finalizers"] = [*(metadata.get("finalizers") or ()), CLEANUP_FINALIZER]
        else:
            obj["status"]["acceptedNames"] = obj["spec"]["names"]

    def _store(self, resource: Resource, old: Object | None, obj: Object) -> Object:
        stored_form = to_storage(resource, obj)
        if old is not None:
            if _is_finished(resource, obj):
                metadata = obj["metadata"]
                last = self.store.remove(Address(resource.storage, metadata.get("namespace", ""), metadata["name"]))
                return {**from_storage(resource, last), "metadata": {**metadata, **_revision(last)}}
            if _without_times(obj) == _without_times(old):
                return old
        return from_storage(resource, self.store.put(resource.storage, stored_form))


def _revision(obj: Object) -> dict[str, str]:
    return {"resourceVersion": obj["metadata"]["resourceVersion"]}


def _decoded(resource: Resource, body: Any) -> Object:
    if not isinstance(body, dict):
        raise errors.bad_request("the request's body is not an object")
    obj = copy.deepcopy(body)
    obj.setdefault("apiVersion", resource.api_version)
    obj.setdefault("kind", resource.kind)
    if not isinstance(obj.get("metadata"), dict):
        if obj.get("metadata") is not None:
            raise errors.bad_request("metadata is not an object")
        obj["metadata"] = {}
    for name in ("name", "generateName", "namespace"):
        if not isinstance(obj["metadata"].get(name) or "", str):
            raise errors.bad_request(f"metadata.{name} is not a string")
    _check_type(resource, obj)
    return obj


def _check_type(resource: Resource, obj: Object) -> None:
    if obj.get("apiVersion") != resource.api_version:
        message = (
            f"the API version in the data ({obj.get('apiVersion')}) does not match the expected API version "
            f"({resource.api_version})"
        )
        raise errors.bad_request(message)
    if obj.get("kind") != resource.kind:
        raise errors.bad_request(
            f"the kind in the data ({obj.get('kind')}) does not match the expected kind ({resource.kind})"
        )


def _check_types(resource: Resource, obj: Object) -> None:
    """Everything after it may rely on the types that the schema promises."""
    wrong = [cause for cause in validate(obj, resource.schema) if cause.reason == "FieldValueTypeInvalid"]
    if wrong:
        raise errors.invalid(resource, str(obj["metadata"].get("name", "")), wrong[:_MAX_CAUSES])


def _check_appliable(resource: Resource, obj: Object) -> None:
    """What is applied has to fit the schema before anything is merged; whoever does not is told 500, as by a real one.

    Cuts nothing off: an unknown field is refused here whatever `fieldValidation` says.
    """
    metadata = obj["metadata"]
    where = f"{metadata.get('namespace', '')}/{metadata['name']}; {resource.api_version}, Kind={resource.kind}"
    unknown = prune(copy.deepcopy(obj), resource.schema) if resource.schema else []
    if unknown:
        raise errors.unreadable(
            f"failed to create typed patch object ({where}): .{unknown[0]}: field not declared in schema"
        )
    for cause in validate(obj, resource.schema):
        if cause.reason in ("FieldValueTypeInvalid", "FieldValueDuplicate"):
            raise errors.unreadable(f"failed to create typed patch object ({where}): .{cause.sentence()}")
        if not resource.custom and cause.message.rpartition(": ")[0].endswith("must be of type quantity"):
            raise errors.unreadable(
                f"failed to convert new object ({where}) to proper version: unable to convert unstructured object to "
                f"{resource.api_version}, Kind={resource.kind}: quantities must match the regular expression "
                "'^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
            )


def _misnamed(said: object, name: str) -> str:
    return f"the name of the object ({said}) does not match the name on the URL ({name})"


def _place(resource: Resource, obj: Object, namespace: str, name: str) -> None:
    """Name and namespace of the path win; a body that says otherwise is refused."""
    metadata = obj["metadata"]
    if resource.namespaced:
        if metadata.get("namespace") not in (None, "", namespace):
            raise errors.bad_request(
                "the namespace of the provided object does not match the namespace sent on the request"
            )
        metadata["namespace"] = namespace
    else:
        metadata.pop("namespace", None)
    if name and metadata.get("name") not in (None, "", name):
        raise errors.bad_request(_misnamed(metadata.get("name"), name))
    if name:
        metadata["name"] = name


def _content(obj: Object) -> Object:
    """What counts for the generation: everything but metadata and status."""
    return {name: part for name, part in obj.items() if name not in ("metadata", "status")}


def _without_times(obj: Object) -> Object:
    """For comparing two versions: no resourceVersion, and managedFields without their times."""
    metadata = {name: part for name, part in obj["metadata"].items() if name != "resourceVersion"}
    entries = metadata.get("managedFields") or ()
    metadata["managedFields"] = [{k: v for k, v in entry.items() if k != "time"} for entry in entries]
    return {**obj, "metadata": metadata}


def _is_finished(resource: Resource, obj: Object) -> bool:
    """Being deleted, and nothing holds it any more."""
    metadata = obj["metadata"]
    if not metadata.get("deletionTimestamp") or metadata.get("finalizers"):
        return False
    if metadata.get("deletionGracePeriodSeconds"):
        return False
    return not (resource.kind == "Namespace" and (obj.get("spec") or {}).get("finalizers"))


def _booked(
    resource: Resource, old: Object | None, obj: Object, claimed: Any, manager: Manager, subresource: str
) -> Owners:
    """Owners after an ordinary write; managedFields that the client edited are the starting point."""
    owners = owners_of(old) if old else {}
    if old is not None and isinstance(claimed, list) and claimed and claimed != old["metadata"].get("managedFields"):
        try:
            owners = owners_of({"metadata": {"managedFields": [entry for entry in claimed if entry]}})
        except (ValueError, TypeError, AttributeError) as error:
            raise errors.bad_request(f"metadata.managedFields cannot be read: {error}") from error
    before = ownable(old, resource.schema, subresource) if old else {}
    return after_update(owners, before, ownable(obj, resource.schema, subresource), manager)
