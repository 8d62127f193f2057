"""managedFields: who owns which field. The list in the object's metadata is the only record of it.

`after_update` books an ordinary write: the writer gains what it changed, everybody loses what changed or vanished.
Server-side apply is in `apply.py`. Times change only when a manager's set does, so that a write without effect
leaves the object as it was.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from holdfast_local.apiserver.definitions import Schema
from holdfast_local.apiserver.ownership.fields import ITEM, Leaves, Path, from_fields_v1, leaves, to_fields_v1
from holdfast_local.apiserver.resources import Object

APPLY = "Apply"
UPDATE = "Update"
_OWNABLE_METADATA = ("labels", "annotations", "finalizers", "ownerReferences")


@dataclass(frozen=True)
class Manager:
    """One entry's identity."""

    name: str
    operation: str
    api_version: str
    subresource: str = ""


Owners = dict[Manager, frozenset[Path]]


def ownable(obj: Object, schema: Schema, subresource: str = "") -> Leaves:
    """The fields of an object that can be owned through the main resource or through `subresource`."""
    if subresource == "status":
        parts = {"status": obj["status"]} if "status" in obj else {}
    else:
        parts = {name: part for name, part in obj.items() if name not in ("apiVersion", "kind", "metadata")}
        metadata = obj.get("metadata") or {}
        kept = {name: metadata[name] for name in _OWNABLE_METADATA if metadata.get(name)}
        if kept:
            parts["metadata"] = kept
    return leaves(parts, schema) if parts else {}


def owners_of(obj: Object) -> Owners:
    """Parsed managedFields; entries that are not FieldsV1 are ignored."""
    owners: Owners = {}
    for entry in (obj.get("metadata") or {}).get("managedFields") or ():
        manager = Manager(
            entry.get("manager", ""),
            entry.get("operation", UPDATE),
            entry.get("apiVersion", ""),
            entry.get("subresource", ""),
        )
        owners[manager] = frozenset(from_fields_v1(entry.get("fieldsV1") or {}))
    return owners


def differences(old: Leaves, new: Leaves) -> tuple[set[Path], set[Path]]:
    """(added or changed, removed)."""
    changed = {path for path, value in new.items() if path not in old or not _same(old[path], value)}
    return changed, set(old) - set(new)


def _same(left: Any, right: Any) -> bool:
    return left is right if ITEM in (left, right) else bool(left == right)


def after_update(
    owners: Owners, old: Leaves, new: Leaves, manager: Manager, *, except_manager: Manager | None = None
) -> Owners:
    """The owners after `manager` wrote `new` over `old`."""
    changed, removed = differences(old, new)
    lost = changed | removed
    result: Owners = {}
    for other, paths in owners.items():
        kept = paths if other == except_manager else paths - lost
        if kept:
            result[other] = kept
    gained = result.get(manager, frozenset()) | changed
    if gained and manager != except_manager:
        result[manager] = frozenset(gained)
    return result


def to_managed_fields(owners: Owners, previous: Object | None, now: str) -> list[dict[str, Any]]:
    """managedFields for `owners`; entries whose set is unchanged keep their time."""
    times: Mapping[Manager, tuple[frozenset[Path], str]] = {}
    if previous is not None:
        entries = (previous.get("metadata") or {}).get("managedFields") or ()
        known = owners_of(previous)
        times = {
            manager: (known[manager], entry.get("time", now)) for manager, entry in zip(known, entries, strict=False)
        }
    fields = []
    for manager, paths in owners.items():
        before, time = times.get(manager, (frozenset(), now))
        entry: dict[str, Any] = {
            "manager": manager.name,
            "operation": manager.operation,
            "apiVersion": manager.api_version,
            "time": time if before == paths else now,
            "fieldsType": "FieldsV1",
            "fieldsV1": to_fields_v1(paths),
        }
        if manager.subresource:
            entry["subresource"] = manager.subresource
        fields.append(entry)
    return fields
