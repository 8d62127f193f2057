"""Strategic merge patch: a merge patch that merges lists by key, driven by `x-kubernetes-patch-*` of the schema.

kubectl sends it for built-in kinds only. Directives: `$patch` (replace, delete, merge), `$retainKeys`,
`$deleteFromPrimitiveList/<field>`, `$setElementOrder/<field>`.
Source: the Kubernetes contributors' page "Strategic Merge Patch".
"""

import copy
from typing import Any

from holdfast_local.apiserver.definitions import Schema
from holdfast_local.apiserver.schema import shape

_ORDER = "$setElementOrder/"
_DELETE = "$deleteFromPrimitiveList/"


def strategic_merge(target: dict[str, Any], patch: dict[str, Any], schema: Schema) -> dict[str, Any]:
    """The target with the patch merged in; both are left alone."""
    if patch.get("$patch") == "replace":
        return copy.deepcopy({name: value for name, value in patch.items() if name != "$patch"})
    if patch.get("$patch") == "delete":
        return {}
    merged = dict(target)
    if "$retainKeys" in patch:
        merged = {name: value for name, value in merged.items() if name in patch["$retainKeys"]}
    for name, value in patch.items():
        if name.startswith(_DELETE):
            field = name.removeprefix(_DELETE)
            merged[field] = [entry for entry in merged.get(field) or () if entry not in value]
        elif name.startswith("$"):
            continue
        elif value is None:
            merged.pop(name, None)
        else:
            merged[name] = _merged_field(merged.get(name), value, shape.child(schema, name) or shape.ANYTHING)
    for name, value in patch.items():
        if name.startswith(_ORDER):
            field = name.removeprefix(_ORDER)
            if isinstance(merged.get(field), list):
                merge_key = (shape.child(schema, field) or {}).get("x-kubernetes-patch-merge-key")
                merged[field] = _ordered(merged[field], value, merge_key)
    return merged


def _merged_field(current: Any, value: Any, schema: Schema) -> Any:
    if isinstance(value, dict):
        return strategic_merge(current if isinstance(current, dict) else {}, value, schema)
    if isinstance(value, list) and "merge" in str(schema.get("x-kubernetes-patch-strategy", "")).split(","):
        merge_key = schema.get("x-kubernetes-patch-merge-key")
        existing = list(current) if isinstance(current, list) else []
        if merge_key is None:
            return existing + [entry for entry in value if entry not in existing]
        return _merged_list(existing, value, merge_key, shape.item(schema))
    return copy.deepcopy(value)


def _merged_list(existing: list[Any], patch: list[Any], merge_key: str, schema: Schema) -> list[Any]:
    if any(isinstance(entry, dict) and entry.get("$patch") == "replace" for entry in patch):
        return [entry for entry in copy.deepcopy(patch) if entry.get("$patch") != "replace"]
    merged = list(existing)
    for entry in patch:
        key = entry.get(merge_key)
        index = next((i for i, old in enumerate(merged) if old.get(merge_key) == key), None)
        if entry.get("$patch") == "delete":
            merged = [old for old in merged if old.get(merge_key) != key]
        elif index is None:
            merged.append(strategic_merge({}, entry, schema))
        else:
            merged[index] = strategic_merge(merged[index], entry, schema)
    return merged


def _ordered(items: list[Any], order: list[Any], merge_key: str | None) -> list[Any]:
    """Items named by `order` take its sequence; the others keep theirs, behind."""

    def identity(entry: Any) -> Any:
        return entry.get(merge_key) if merge_key and isinstance(entry, dict) else entry

    wanted = [identity(entry) for entry in order]
    named = sorted((e for e in items if identity(e) in wanted), key=lambda e: wanted.index(identity(e)))
    return named + [entry for entry in items if identity(entry) not in wanted]
