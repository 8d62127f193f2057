"""What a delete means: preconditions, grace, finalizers and propagation.

An object without finalizers and grace is removed at once. Otherwise it gets a deletionTimestamp and goes with its last
finalizer (see `writing`) or, for pods on a node, when the kubelet deletes it with a grace period of zero. Orphaning and
foreground deletion are finalizers that the garbage collector serves.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from holdfast_local.apiserver import errors
from holdfast_local.apiserver.kinds.versions import from_storage, to_storage
from holdfast_local.apiserver.resources import Object, Resource
from holdfast_local.apiserver.storage.store import Address
from holdfast_local.apiserver.writing import Writer, timestamp

ORPHAN_FINALIZER = "orphan"
FOREGROUND_FINALIZER = "foregroundDeletion"
DEFAULT_GRACE_SECONDS = 30


@dataclass(frozen=True)
class DeleteOptions:
    """`DeleteOptions` of the API, from body and query."""

    grace_seconds: int | None = None
    propagation: str = "Background"
    uid: str | None = None
    resource_version: str | None = None
    dry_run: bool = False

    @classmethod
    def parse(cls, body: Any, query: dict[str, str]) -> "DeleteOptions":
        """Raises StatusError 400 for values of the wrong type."""
        fields = body if isinstance(body, dict) else {}
        grace: Any = query.get("gracePeriodSeconds", fields.get("gracePeriodSeconds"))
        try:
            grace_seconds = None if grace is None else max(0, int(grace))
        except (TypeError, ValueError):
            raise errors.bad_request(f"gracePeriodSeconds is not a number: {grace}") from None
        propagation = query.get("propagationPolicy") or fields.get("propagationPolicy") or ""
        if not propagation:
            orphan = str(query.get("orphanDependents", fields.get("orphanDependents", ""))).lower() == "true"
            propagation = "Orphan" if orphan else "Background"
        if propagation not in ("Background", "Foreground", "Orphan"):
            raise errors.bad_request(f'unknown propagationPolicy "{propagation}"')
        conditions = fields.get("preconditions") or {}
        return cls(
            grace_seconds=grace_seconds,
            propagation=propagation,
            uid=conditions.get("uid"),
            resource_version=conditions.get("resourceVersion"),
            dry_run=bool(query.get("dryRun") or fields.get("dryRun")),
        )


def delete(
    writer: Writer, resource: Resource, namespace: str, name: str, options: DeleteOptions
) -> tuple[Object, bool]:
    """Returns the object as it is now and whether it is gone. StatusError 404, or 409 for failed preconditions."""
    obj = writer.get(resource, namespace, name)
    _check_preconditions(resource, obj, options)
    if resource.kind == "Namespace" and name in ("default", "kube-system"):
        raise errors.forbidden(f'namespaces "{name}" is forbidden: this namespace may not be deleted')
    if options.dry_run:
        return obj, True
    finalizers = _finalizers(resource, obj, options)
    grace_seconds = _grace_seconds(resource, obj, options)
    held = bool(finalizers) or bool((obj.get("spec") or {}).get("finalizers") and resource.kind == "Namespace")
    if not held and grace_seconds == 0:
        last = writer.store.remove(Address(resource.storage, namespace, name))
        return from_storage(resource, last), True
    marked = _marked(writer, resource, obj, finalizers, grace_seconds)
    if marked == obj:
        return obj, False
    return from_storage(resource, writer.store.put(resource.storage, to_storage(resource, marked))), False


def _check_preconditions(resource: Resource, obj: Object, options: DeleteOptions) -> None:
    metadata = obj["metadata"]
    name = metadata["name"]
    if options.uid is not None and options.uid != metadata["uid"]:
        detail = f"Precondition failed: UID in precondition: {options.uid}, UID in object meta: {metadata['uid']}"
        raise errors.conflict(resource, name, detail)
    version = options.resource_version
    if version is not None and version != metadata["resourceVersion"]:
        detail = (
            f"Precondition failed: ResourceVersion in precondition: {version}, "
            f"ResourceVersion in object meta: {metadata['resourceVersion']}"
        )
        raise errors.conflict(resource, name, detail)


def _finalizers(resource: Resource, obj: Object, options: DeleteOptions) -> list[str]:
    finalizers = [
        entry
        for entry in obj["metadata"].get("finalizers") or ()
        if entry not in (ORPHAN_FINALIZER, FOREGROUND_FINALIZER) or obj["metadata"].get("deletionTimestamp")
    ]
    wanted = {"Orphan": ORPHAN_FINALIZER, "Foreground": FOREGROUND_FINALIZER}.get(options.propagation)
    if wanted and wanted not in finalizers:
        finalizers.append(wanted)
    return finalizers


def _grace_seconds(resource: Resource, obj: Object, options: DeleteOptions) -> int:
    """Only pods that a kubelet runs are given time."""
    if resource.kind != "Pod" or resource.custom:
        return 0
    spec = obj.get("spec") or {}
    if not spec.get("nodeName") or (obj.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
        return 0
    if options.grace_seconds is not None:
        grace_seconds = options.grace_seconds
    else:
        grace_seconds = int(spec.get("terminationGracePeriodSeconds", DEFAULT_GRACE_SECONDS))
    pending = obj["metadata"].get("deletionGracePeriodSeconds")
    # A second delete may shorten the time left, never prolong it.
    return grace_seconds if pending is None else min(grace_seconds, int(pending))


def _marked(writer: Writer, resource: Resource, obj: Object, finalizers: list[str], grace_seconds: int) -> Object:
    metadata = dict(obj["metadata"])
    if finalizers:
        metadata["finalizers"] = finalizers
    else:
        metadata.pop("finalizers", None)
    if not metadata.get("deletionTimestamp"):
        metadata["deletionTimestamp"] = timestamp(writer.time() + timedelta(seconds=grace_seconds))
        metadata["deletionGracePeriodSeconds"] = grace_seconds
        if "generation" in metadata:
            metadata["generation"] = int(metadata["generation"]) + 1
    elif grace_seconds < int(metadata.get("deletionGracePeriodSeconds") or 0):
        metadata["deletionTimestamp"] = timestamp(writer.time() + timedelta(seconds=grace_seconds))
        metadata["deletionGracePeriodSeconds"] = grace_seconds
    marked = {**obj, "metadata": metadata}
    if resource.kind == "Namespace":
        marked["status"] = {**(obj.get("status") or {}), "phase": "Terminating"}
    return marked
