"""CEL rules (`x-kubernetes-validations`) of custom kinds.

Checked: every rule at its place in the schema, with `self`, `oldSelf` (transition rules run on updates only, unless
`optionalOldSelf`), message, messageExpression, reason and fieldPath; the standard library, the quantity functions and
most of the Kubernetes string and list functions. A rule that fails on a value that the update leaves alone is
forgiven, as on a real server.
Not checked: types at compile time (only syntax), cost limits, `.?` optional fields, the ip, cidr, url and format
libraries; a rule that uses them fails with an evaluation error instead of being ignored.
Source: the Kubernetes page "Common Expression Language in Kubernetes".
"""

import datetime
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import cel

from holdfast_local.apiserver.definitions import Schema
from holdfast_local.apiserver.errors import Cause, shown
from holdfast_local.apiserver.schema import shape
from holdfast_local.apiserver.schema.cel_functions import FUNCTIONS

PROGRAM_CACHE_LENGTH = 1024
_ESCAPES = {"__": "__underscores__", ".": "__dot__", "-": "__dash__", "/": "__slash__"}
_KEYWORDS = frozenset(
    {"true", "false", "null", "in", "as", "break", "const", "continue", "else", "for", "function", "if", "import"}
    | {"let", "loop", "package", "namespace", "return"}
)
_REASONS = ("FieldValueInvalid", "FieldValueForbidden", "FieldValueRequired", "FieldValueDuplicate")
ABSENT = object()
NO_FIELD = "<nil>"
"""How a real server calls the object as a whole."""


@lru_cache(PROGRAM_CACHE_LENGTH)
def _compile(rule: str) -> cel.Program:
    return cel.compile(rule)


def compile_error(rule: str) -> str:
    """Why a rule is not CEL; '' if it is."""
    try:
        _compile(rule)
    except ValueError as error:
        return str(error)
    return ""


def validate_rules(obj: Any, old: Any, schema: Schema) -> list[Cause]:
    """Causes of all rules that do not hold; `old` is None on creation."""
    return list(_walk(obj, ABSENT if old is None else old, schema, "", root=True))


def _walk(value: Any, old: Any, schema: Schema, path: str, *, root: bool = False) -> Iterator[Cause]:
    for rule in schema.get("x-kubernetes-validations") or ():
        yield from _check(rule, value, old, schema, path, root=root)
    if isinstance(value, dict):
        for name, entry in value.items():
            known = shape.child(schema, name)
            if known is None or entry is None or (root and name == "metadata"):
                continue
            before = old.get(name, ABSENT) if isinstance(old, dict) else ABSENT
            inner = f"{path}.{name}" if shape.is_declared(schema, name) else f"{path}[{name}]"
            yield from _walk(entry, before, known, inner.lstrip("."))
    elif isinstance(value, list):
        previous = _by_key(old, schema)
        for index, entry in enumerate(value):
            key = shape.canonical(shape.item_key(schema, entry))
            yield from _walk(entry, previous.get(key, ABSENT), shape.item(schema), f"{path}[{index}]")


def _by_key(old: Any, schema: Schema) -> dict[str, Any]:
    """Old items by their key; items of other lists have no identity and so no old self."""
    if not isinstance(old, list) or shape.list_kind(schema) != "map":
        return {}
    return {shape.canonical(shape.item_key(schema, entry)): entry for entry in old}


def _check(rule: Schema, value: Any, old: Any, schema: Schema, path: str, *, root: bool) -> Iterator[Cause]:
    program = _compile(rule["rule"])
    variables = {"self": _typed(_visible(value, root), schema)}
    if "oldSelf" in program.variables():
        optional = bool(rule.get("optionalOldSelf"))
        if old is ABSENT and not optional:
            return
        before = None if old is ABSENT else _typed(_visible(old, root), schema)
        if optional:
            before = cel.OptionalValue.none() if old is ABSENT else cel.OptionalValue.of(before)
        variables["oldSelf"] = before
    elif old is not ABSENT and old == value:
        return
    try:
        holds = program.execute(_context(variables))
    except (RuntimeError, ValueError, TypeError, KeyError, IndexError) as error:
        detail = f"rule evaluation error: {error} evaluating rule: {rule.get('message') or rule['rule']}"
        yield Cause(path, "FieldValueInvalid", f"Invalid value: {shown(value)}: {detail}")
        return
    if holds is not True:
        yield _cause(rule, value, variables, path)


def _cause(rule: Schema, value: Any, variables: dict[str, Any], path: str) -> Cause:
    message = rule.get("message") or f"failed rule: {' '.join(rule['rule'].split())}"
    if rule.get("messageExpression"):
        try:
            made = _compile(rule["messageExpression"]).execute(_context(variables))
        except (RuntimeError, ValueError, TypeError, KeyError, IndexError):
            made = None
        if isinstance(made, str) and made.strip():
            message = made
    reason = rule.get("reason") if rule.get("reason") in _REASONS else "FieldValueInvalid"
    field = (path + rule.get("fieldPath", "")).lstrip(".") or NO_FIELD
    heading = {
        "FieldValueForbidden": "Forbidden",
        "FieldValueRequired": "Required value",
        "FieldValueDuplicate": f"Duplicate value: {shown(value)}",
    }.get(str(reason))
    told = "" if isinstance(value, dict | list) else f"{shown(value)}: "
    sentence = f"{heading}: {message}" if heading else f"Invalid value: {told}{message}"
    return Cause(field, str(reason), sentence)


def _context(variables: dict[str, Any]) -> cel.Context:
    return cel.Context(variables, FUNCTIONS)


def _visible(value: Any, root: bool) -> Any:
    """At the root, rules see of the metadata only name and generateName."""
    if not root:
        return value
    metadata = value.get("metadata") or {}
    kept = {name: metadata[name] for name in ("name", "generateName") if name in metadata}
    return {**value, "metadata": kept}


def _typed(value: Any, schema: Schema) -> Any:
    """The value with CEL's types: escaped field names, doubles for `number`, timestamps for `date-time`."""
    if isinstance(value, dict):
        return {
            _escaped(name) if shape.is_declared(schema, name) else name: _typed(
                entry, shape.child(schema, name) or shape.ANYTHING
            )
            for name, entry in value.items()
            if entry is not None
        }
    if isinstance(value, list):
        return [_typed(entry, shape.item(schema)) for entry in value]
    if schema.get("type") == "number" and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, str) and schema.get("format") == "date-time":
        return datetime.datetime.fromisoformat(value)
    return value


def _escaped(name: str) -> str:
    if name in _KEYWORDS:
        return f"__{name}__"
    for text, escape in _ESCAPES.items():
        name = name.replace(text, escape)
    return name
