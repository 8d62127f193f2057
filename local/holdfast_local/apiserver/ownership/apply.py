"""Server-side apply: merge what a manager wants into what is there, field by field.

Invariants: a field that another manager owns with a different value is a conflict unless forced; a field that the
manager applied last time and leaves out now is removed unless somebody else owns it; fields of others stay.
Source: the Kubernetes page "Server-Side Apply" and structured-merge-diff.
"""

import copy
import json
from dataclasses import dataclass
from typing import Any

from holdfast_local.apiserver.definitions import Schema
from holdfast_local.apiserver.errors import Cause, apply_conflict
from holdfast_local.apiserver.ownership.fields import Path, remove_path, written
from holdfast_local.apiserver.ownership.managers import APPLY, Manager, Owners, ownable, owners_of
from holdfast_local.apiserver.resources import Object
from holdfast_local.apiserver.schema import shape


@dataclass(frozen=True)
class Applied:
    """The merged object (managedFields untouched) and who owns what if it is stored."""

    merged: Object
    owners: Owners


def apply(live: Object, wanted: Object, schema: Schema, manager: Manager, *, force: bool) -> Applied:
    """Raises StatusError 409 naming every conflicting field, unless `force`."""
    owners = owners_of(live)
    mine = ownable(wanted, schema, manager.subresource)
    # An earlier apply through another version of the kind is still the same applier.
    previous: set[Path] = set()
    for other in [m for m in owners if _same_applier(m, manager)]:
        previous |= owners.pop(other)
    current = ownable(live, schema, manager.subresource)
    differing = {path for path, value in mine.items() if path not in current or current[path] != value}
    conflicts = {other: paths & differing for other, paths in owners.items() if paths & differing}
    if conflicts and not force:
        raise _conflict_error(conflicts)
    owners = {other: paths - differing for other, paths in owners.items() if paths - differing}
    fields = {name: part for name, part in wanted.items() if name not in ("apiVersion", "kind")}
    # A copy: removing dropped fields below works in place, and stored objects are never changed.
    merged = merge(copy.deepcopy(live), fields, schema)
    held = set(mine).union(*owners.values())
    _remove_dropped(merged, schema, previous - set(mine), held)
    owners[manager] = frozenset(mine)
    return Applied(merged, {other: paths for other, paths in owners.items() if paths})


def _same_applier(other: Manager, manager: Manager) -> bool:
    return (other.name, other.operation, other.subresource) == (manager.name, APPLY, manager.subresource)


def _remove_dropped(merged: Object, schema: Schema, dropped: set[Path], held: set[Path]) -> None:
    """Removes, in place, what the manager gave up and nobody holds, whole list items before their parts."""
    removed: set[Path] = set()
    for path in sorted(dropped, key=len):
        inside_removed = any(path[:length] in removed for length in range(1, len(path)))
        if inside_removed or _is_held(path, held) or _is_key_of_its_item(path):
            continue
        remove_path(merged, schema, path)
        removed.add(path)


def _is_held(path: Path, held: set[Path]) -> bool:
    """Somebody owns the path itself or something inside it."""
    return any(other[: len(path)] == path for other in held)


def _is_key_of_its_item(path: Path) -> bool:
    """The key fields of an item that stays are what it is found by; they go with the item only."""
    if len(path) < 2 or not path[-2].startswith("k:"):
        return False
    return path[-1].removeprefix("f:") in json.loads(path[-2][2:])


def merge(live: Any, wanted: Any, schema: Schema) -> Any:
    """`wanted` laid over `live`; maps and keyed lists are merged, everything else replaced."""
    if isinstance(wanted, dict) and isinstance(live, dict) and not shape.is_atomic_map(schema):
        merged = dict(live)
        for name, value in wanted.items():
            merged[name] = merge(live.get(name), value, shape.child(schema, name) or shape.ANYTHING)
        return merged
    if isinstance(wanted, list) and isinstance(live, list):
        if shape.list_kind(schema) == "map":
            return _merged_items(live, wanted, schema)
        if shape.list_kind(schema) == "set":
            return live + [entry for entry in wanted if entry not in live]
    return copy.deepcopy(wanted)


def _merged_items(live: list[Any], wanted: list[Any], schema: Schema) -> list[Any]:
    """In the order of `wanted`, as since Kubernetes 1.24; what only `live` has stays before what followed it there."""
    theirs = [shape.canonical(shape.item_key(schema, entry)) for entry in live]
    ours = [shape.canonical(shape.item_key(schema, entry)) for entry in wanted]
    there = dict(zip(theirs, live, strict=True))
    shared = iter([key for key in ours if key in there])
    merged: list[Any] = []
    at, next_shared = 0, next(shared, None)
    for key, entry in zip(ours, wanted, strict=True):
        while at < len(theirs) and theirs[at] != next_shared:
            if theirs[at] not in ours:
                merged.append(copy.deepcopy(live[at]))
            at += 1
        if key in there:
            merged.append(merge(there[key], entry, shape.item(schema)))
            next_shared = next(shared, None)
        else:
            merged.append(copy.deepcopy(entry))
    return merged + [
        copy.deepcopy(entry) for name, entry in zip(theirs[at:], live[at:], strict=True) if name not in ours
    ]


def _conflict_error(conflicts: dict[Manager, frozenset[Path]]) -> Exception:
    causes = []
    sentences = []
    for manager, paths in conflicts.items():
        sub = f' with subresource "{manager.subresource}"' if manager.subresource else ""
        title = f'"{manager.name}"{sub} using {manager.api_version}'
        names = sorted(written(path) for path in paths)
        causes += [Cause(name, "FieldManagerConflict", f"conflict with {title}") for name in names]
        if len(names) == 1:
            sentences.append(f"conflict with {title}: {names[0]}")
        else:
            sentences.append(f"conflicts with {title}:\n" + "\n".join(f"- {name}" for name in names))
    count = len(causes)
    plural = "conflict" if count == 1 else "conflicts"
    return apply_conflict(f"Apply failed with {count} {plural}: " + "\n".join(sentences), causes)
