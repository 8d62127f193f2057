"""What a schema says about the parts of a value: which schema a field or an item has, how a list is merged.

The one place that reads `x-kubernetes-*` list and map hints; pruning, ownership and patches all ask here.
"""

import json
from typing import Any

from holdfast_local.apiserver.definitions import Schema

ANYTHING: Schema = {"x-kubernetes-preserve-unknown-fields": True}


def child(schema: Schema, name: str) -> Schema | None:
    """The schema of field `name`; None if the schema does not know such a field."""
    properties = schema.get("properties") or {}
    if name in properties:
        found: Schema = properties[name]
        return found
    additional = schema.get("additionalProperties")
    if isinstance(additional, dict):
        return additional
    if additional is True or is_open(schema):
        return ANYTHING
    return None


def is_open(schema: Schema) -> bool:
    """Unknown fields are kept: asked for, or nothing is known about the value at all."""
    if schema.get("x-kubernetes-preserve-unknown-fields"):
        return True
    known = ("properties", "additionalProperties", "items", "type", "x-kubernetes-int-or-string")
    return not any(key in schema for key in known)


def is_declared(schema: Schema, name: str) -> bool:
    """A field of a struct, as opposed to a key of a map."""
    return name in (schema.get("properties") or {})


def item(schema: Schema) -> Schema:
    found = schema.get("items")
    return found if isinstance(found, dict) else ANYTHING


def list_kind(schema: Schema) -> str:
    """`map`, `set` or `atomic`: how lists merge in server-side apply."""
    return str(schema.get("x-kubernetes-list-type") or "atomic")


def is_atomic_map(schema: Schema) -> bool:
    return schema.get("x-kubernetes-map-type") == "atomic"


def list_keys(schema: Schema) -> tuple[str, ...]:
    return tuple(schema.get("x-kubernetes-list-map-keys") or ())


def item_key(schema: Schema, value: Any) -> dict[str, Any] | None:
    """The identifying fields of an item of a `map` list, defaults filled in; None if the item is not a map."""
    if not isinstance(value, dict):
        return None
    key: dict[str, Any] = {}
    for name in list_keys(schema):
        if name in value:
            key[name] = value[name]
        else:
            default = (item(schema).get("properties") or {}).get(name, {}).get("default")
            if default is None and name == "protocol":
                # The published definitions carry no defaults, but ports are keyed by a protocol few people write.
                default = "TCP"
            if default is not None:
                key[name] = default
    return key


def canonical(value: Any) -> str:
    """Compact JSON with sorted keys, as used inside field paths."""
    return json.dumps(value, separators=(",", ":"), sort_keys=True, ensure_ascii=False)
