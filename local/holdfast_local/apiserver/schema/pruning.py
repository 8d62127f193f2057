"""Pruning of unknown fields and filling in of defaults, as structural schemas ask for. In place."""

import copy
from typing import Any

from holdfast_local.apiserver.definitions import Schema
from holdfast_local.apiserver.schema import shape


def prune(value: Any, schema: Schema, path: str = "") -> list[str]:
    """Removes what the schema does not know; returns the removed paths as users write them."""
    removed: list[str] = []
    if isinstance(value, dict):
        for name in list(value):
            field_path = f"{path}.{name}" if path else name
            known = shape.child(schema, name)
            if known is None:
                del value[name]
                removed.append(field_path)
            else:
                removed.extend(prune(value[name], known, field_path))
    elif isinstance(value, list):
        item_schema = shape.item(schema)
        for index, entry in enumerate(value):
            removed.extend(prune(entry, item_schema, f"{path}[{index}]"))
    return removed


def fill_defaults(value: Any, schema: Schema) -> None:
    """Sets absent fields that have a default; a null in a field that is not nullable counts as absent."""
    if isinstance(value, dict):
        for name, field_schema in (schema.get("properties") or {}).items():
            absent = name not in value or (value[name] is None and not field_schema.get("nullable"))
            if absent and "default" in field_schema:
                value[name] = copy.deepcopy(field_schema["default"])
        for name, entry in value.items():
            known = shape.child(schema, name)
            if known is not None:
                fill_defaults(entry, known)
    elif isinstance(value, list):
        for entry in value:
            fill_defaults(entry, shape.item(schema))


def drop_nulls(value: Any, schema: Schema) -> None:
    """Removes null fields, which mean "absent" in built-in kinds; nullable and free-form fields keep theirs."""
    if isinstance(value, dict):
        for name in list(value):
            known = shape.child(schema, name)
            if value[name] is None:
                if known is None or not (known.get("nullable") or shape.is_open(known)):
                    del value[name]
            elif known is not None:
                drop_nulls(value[name], known)
    elif isinstance(value, list):
        for entry in value:
            drop_nulls(entry, shape.item(schema))
