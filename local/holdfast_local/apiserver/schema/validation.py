"""Validation of a value against an OpenAPI 3 schema, with the wording of the API server's own messages.

Covers types, int-or-string, nullable, required, enum, bounds, multipleOf, lengths, pattern, the common formats,
uniqueness of `set` and `map` lists and allOf/anyOf/oneOf/not. Every fault is reported, not only the first.
CEL rules are in `cel.py`.
"""

import base64
import binascii
import datetime
import ipaddress
import re
from collections.abc import Callable, Iterator
from typing import Any

from holdfast_local.apiserver.definitions import Schema
from holdfast_local.apiserver.errors import Cause, duplicate, invalid_value, not_supported, required, shown
from holdfast_local.apiserver.schema import shape

_QUANTITY = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei|u|n|[eE][+-]?\d+)?\Z")
_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
}


def validate(value: Any, schema: Schema, path: str = "") -> Iterator[Cause]:
    """Yields one cause per fault; `path` is the path of `value` itself."""
    if value is None and schema.get("nullable"):
        return
    if schema.get("x-kubernetes-int-or-string"):
        if isinstance(value, bool) or not isinstance(value, int | str | float):
            yield _wrong_type(path, value, "integer or string")
            return
    elif not _has_type(value, schema.get("type")):
        yield _wrong_type(path, value, str(schema["type"]))
        return
    yield from _validate_combinations(value, schema, path)
    if "enum" in schema and value not in schema["enum"]:
        yield not_supported(path, value, schema["enum"])
    if isinstance(value, dict):
        yield from _validate_object(value, schema, path)
    elif isinstance(value, list):
        yield from _validate_list(value, schema, path)
    elif isinstance(value, str):
        yield from _validate_string(value, schema, path)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield from _validate_number(value, schema, path)


def _has_type(value: Any, name: str | None) -> bool:
    if name is None or name not in _TYPES:
        return True
    if isinstance(value, bool):
        return name == "boolean"
    if name == "integer" and isinstance(value, float):
        return value.is_integer()
    return isinstance(value, _TYPES[name])


def _type_name(value: Any) -> str:
    for name in ("boolean", "object", "array", "string", "integer", "number"):
        if value is not None and _has_type(value, name):
            return name
    return "null"


def _wrong_type(path: str, value: Any, expected: str) -> Cause:
    detail = f'Invalid value: "{_type_name(value)}": {path or "body"} in body must be of type {expected}: '
    return Cause(path, "FieldValueTypeInvalid", detail + shown(_type_name(value)))


def _validate_object(value: dict[str, Any], schema: Schema, path: str) -> Iterator[Cause]:
    for name in schema.get("required") or ():
        if value.get(name) is None and not (name in value and _is_nullable(schema, name)):
            yield required(f"{path}.{name}" if path else name)
    for name, entry in value.items():
        known = shape.child(schema, name)
        if (known is not None and entry is not None) or (
            known is not None and name not in (schema.get("required") or ())
        ):
            yield from validate(entry, known, _field_path(schema, path, name))
    count = len(value)
    if count > schema.get("maxProperties", count):
        yield invalid_value(path, count, f"must have at most {schema['maxProperties']} properties")
    if count < schema.get("minProperties", 0):
        yield invalid_value(path, count, f"must have at least {schema['minProperties']} properties")


def _is_nullable(schema: Schema, name: str) -> bool:
    known = shape.child(schema, name) or {}
    return bool(known.get("nullable")) or shape.is_open(known)


def _field_path(schema: Schema, path: str, name: str) -> str:
    if not path:
        return name
    return f"{path}.{name}" if shape.is_declared(schema, name) or re.fullmatch(r"\w+", name) else f"{path}[{name}]"


def _validate_list(value: list[Any], schema: Schema, path: str) -> Iterator[Cause]:
    count = len(value)
    if count > schema.get("maxItems", count):
        yield Cause(path, "FieldValueTooMany", f"Too many: {count}: must have at most {schema['maxItems']} items")
    if count < schema.get("minItems", 0):
        least = schema["minItems"]
        yield invalid_value(path, count, f"{path} in body should have at least {least} items")
    item_schema = shape.item(schema)
    for index, entry in enumerate(value):
        yield from validate(entry, item_schema, f"{path}[{index}]")
    yield from _validate_uniqueness(value, schema, path)


def _validate_uniqueness(value: list[Any], schema: Schema, path: str) -> Iterator[Cause]:
    kind = shape.list_kind(schema)
    seen: set[str] = set()
    for index, entry in enumerate(value):
        if kind == "map":
            identity: Any = shape.item_key(schema, entry)
        elif kind == "set" or schema.get("uniqueItems"):
            identity = entry
        else:
            return
        text = shape.canonical(identity)
        if text in seen:
            yield duplicate(f"{path}[{index}]", text if isinstance(identity, dict) else identity)
        seen.add(text)


def _validate_number(value: float, schema: Schema, path: str) -> Iterator[Cause]:
    least, most = schema.get("minimum"), schema.get("maximum")
    if least is not None:
        if schema.get("exclusiveMinimum") is True and value <= least:
            yield invalid_value(path, value, f"{path} in body should be greater than {least}")
        elif value < least:
            yield invalid_value(path, value, f"{path} in body should be greater than or equal to {least}")
    if most is not None:
        if schema.get("exclusiveMaximum") is True and value >= most:
            yield invalid_value(path, value, f"{path} in body should be less than {most}")
        elif value > most:
            yield invalid_value(path, value, f"{path} in body should be less than or equal to {most}")
    step = schema.get("multipleOf")
    if step and value % step:
        yield invalid_value(path, value, f"{path} in body should be a multiple of {step}")


def _validate_string(value: str, schema: Schema, path: str) -> Iterator[Cause]:
    size = len(value)
    if size > schema.get("maxLength", size):
        detail = f"Too long: may not be more than {schema['maxLength']} bytes"
        yield Cause(path, "FieldValueTooLong", detail)
    if size < schema.get("minLength", 0):
        yield invalid_value(path, value, f"{path} in body should be at least {schema['minLength']} chars long")
    pattern = schema.get("pattern")
    if pattern is not None and not re.search(pattern, value):
        yield invalid_value(path, value, f"{path} in body should match '{pattern}'")
    check = _FORMATS.get(schema.get("format", ""))
    if check is not None and not check(value):
        yield invalid_value(path, value, f"{path} in body must be of type {schema['format']}: {shown(value)}")


def _validate_combinations(value: Any, schema: Schema, path: str) -> Iterator[Cause]:
    for part in schema.get("allOf") or ():
        yield from validate(value, part, path)
    if schema.get("x-kubernetes-int-or-string"):
        # Such schemas repeat their two types in anyOf.
        return
    options = schema.get("anyOf")
    if options and not any(_accepts(value, part) for part in options):
        yield invalid_value(path, value, f"{path} in body must validate at least one schema (anyOf)")
    exclusive = schema.get("oneOf")
    if exclusive and sum(_accepts(value, part) for part in exclusive) != 1:
        yield invalid_value(path, value, f"{path} in body must validate one and only one schema (oneOf)")
    if "not" in schema and _accepts(value, schema["not"]):
        yield invalid_value(path, value, f"{path} in body must not validate the schema (not)")


def _accepts(value: Any, schema: Schema) -> bool:
    return next(validate(value, schema), None) is None


def _parses(parse: Callable[[str], object]) -> Callable[[str], bool]:
    def check(value: str) -> bool:
        try:
            parse(value)
        except (ValueError, binascii.Error):
            return False
        return True

    return check


_FORMATS: dict[str, Callable[[str], bool]] = {
    "byte": _parses(lambda text: base64.b64decode(text, validate=True)),
    "date-time": _parses(datetime.datetime.fromisoformat),
    "date": _parses(datetime.date.fromisoformat),
    "ipv4": _parses(ipaddress.IPv4Address),
    "ipv6": _parses(ipaddress.IPv6Address),
    "cidr": _parses(ipaddress.ip_network),
    "quantity": lambda text: bool(_QUANTITY.match(text)),
    "uri": lambda text: bool(re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", text)),
}
