"""Field paths and sets of them, in the notation of FieldsV1.

A path is a tuple of elements: `f:<field>`, `k:<json of the keys of a list item>`, `v:<json of a set member>`.
`leaves` flattens a value into the paths that a manager can own: scalars, atomic lists and maps, empty containers,
keys of maps, and list items themselves (whose value is `ITEM`, so that only their presence is compared).
"""

import json
from collections.abc import Iterable
from typing import Any

from holdfast_local.apiserver.definitions import Schema
from holdfast_local.apiserver.schema import shape

Path = tuple[str, ...]
Leaves = dict[Path, Any]

ITEM = object()
"""Stands for the presence of a list item or a map key whose inside is flattened separately."""


def leaves(value: Any, schema: Schema, path: Path = ()) -> Leaves:
    """All ownable paths of a value with their values."""
    found: Leaves = {}
    _collect(value, schema, path, found)
    return found


def _collect(value: Any, schema: Schema, path: Path, found: Leaves) -> None:
    if isinstance(value, dict) and value and not shape.is_atomic_map(schema):
        for name, entry in value.items():
            inner = (*path, f"f:{name}")
            child_schema = shape.child(schema, name) or shape.ANYTHING
            if not shape.is_declared(schema, name) and isinstance(entry, dict | list):
                found[inner] = ITEM
            _collect(entry, child_schema, inner, found)
    elif isinstance(value, list) and value and shape.list_kind(schema) == "map":
        for entry in value:
            inner = (*path, "k:" + shape.canonical(shape.item_key(schema, entry)))
            found[inner] = ITEM
            _collect(entry, shape.item(schema), inner, found)
    elif isinstance(value, list) and value and shape.list_kind(schema) == "set":
        for entry in value:
            found[(*path, "v:" + shape.canonical(entry))] = entry
    elif path not in found or not isinstance(value, dict | list) or value:
        found[path] = value


def to_fields_v1(paths: Iterable[Path]) -> dict[str, Any]:
    """The trie that managedFields carries; `.` marks a path that is owned and has owned children."""
    root: dict[str, Any] = {}
    members = set(paths)
    for path in sorted(members):
        node = root
        for element in path:
            node = node.setdefault(element, {})
    for path in members:
        node = root
        for element in path:
            node = node[element]
        if node:
            node["."] = {}
    return root


def from_fields_v1(fields: dict[str, Any], path: Path = ()) -> set[Path]:
    """The inverse of `to_fields_v1`; key order inside `k:` elements does not matter."""
    found: set[Path] = set()
    for element, inner in fields.items():
        if element == ".":
            found.add(path)
            continue
        if element.startswith(("k:", "v:")):
            element = element[:2] + shape.canonical(json.loads(element[2:]))
        here = (*path, element)
        if inner:
            found |= from_fields_v1(inner, here)
        else:
            found.add(here)
    return found


def remove_path(value: Any, schema: Schema, path: Path) -> None:
    """Removes what the path names, in place, and containers that become empty by it."""
    element, rest = path[0], path[1:]
    kind, text = element[:2], element[2:]
    if kind == "f:":
        if not isinstance(value, dict) or text not in value:
            return
        if rest:
            remove_path(value[text], shape.child(schema, text) or shape.ANYTHING, rest)
            if value[text] in ({}, []):
                del value[text]
        else:
            del value[text]
    elif isinstance(value, list):
        index = _index_of(value, schema, kind, json.loads(text))
        if index is None:
            return
        if rest:
            remove_path(value[index], shape.item(schema), rest)
        else:
            del value[index]


def _index_of(value: list[Any], schema: Schema, kind: str, wanted: Any) -> int | None:
    for index, entry in enumerate(value):
        if (shape.item_key(schema, entry) if kind == "k:" else entry) == wanted:
            return index
    return None


def written(path: Path) -> str:
    """A path as people read it: `.spec.containers[name="web"].image`."""
    text = ""
    for element in path:
        kind, rest = element[:2], element[2:]
        if kind == "f:":
            text += f".{rest}"
        elif kind == "k:":
            keys = json.loads(rest)
            text += "[" + ",".join(f"{name}={json.dumps(value)}" for name, value in keys.items()) + "]"
        else:
            text += f"[={rest}]"
    return text
