"""CustomResourceDefinitions: what makes one acceptable, and the status that announces that it is served. Pure.

A schema must be structural: every part has a type, nothing is both a map and a struct. CEL rules must compile.
"""

from collections.abc import Iterator
from typing import Any

from holdfast_local.apiserver.definitions import Schema
from holdfast_local.apiserver.errors import Cause, forbidden_field, invalid_value, required
from holdfast_local.apiserver.resources import Object
from holdfast_local.apiserver.schema.cel import compile_error

CLEANUP_FINALIZER = "customresourcecleanup.apiextensions.k8s.io"


def validate_crd(obj: Object, old: Object | None) -> Iterator[Cause]:
    """Faults beyond the schema of CustomResourceDefinition itself."""
    spec = obj.get("spec") or {}
    names = spec.get("names") or {}
    expected = f"{names.get('plural')}.{spec.get('group')}"
    if obj["metadata"].get("name") != expected:
        detail = f'must be spec.names.plural+"."+spec.group ("{expected}")'
        yield invalid_value("metadata.name", obj["metadata"].get("name"), detail)
    versions = spec.get("versions") or []
    if sum(bool(version.get("storage")) for version in versions) != 1:
        yield invalid_value("spec.versions", versions, "must have exactly one version marked as storage version")
    if old is not None:
        for name in ("group", "scope"):
            if spec.get(name) != old["spec"].get(name):
                yield invalid_value(f"spec.{name}", spec.get(name), "field is immutable")
        if names.get("kind") != old["spec"]["names"].get("kind"):
            yield invalid_value("spec.names.kind", names.get("kind"), "field is immutable")
    for index, version in enumerate(versions):
        place = f"spec.versions[{index}].schema.openAPIV3Schema"
        schema = (version.get("schema") or {}).get("openAPIV3Schema")
        if schema is None:
            yield required(place, "schemas are required")
        else:
            yield from _validate_structure(schema, place)


def _validate_structure(schema: Schema, place: str) -> Iterator[Cause]:
    free = schema.get("x-kubernetes-int-or-string") or schema.get("x-kubernetes-preserve-unknown-fields")
    if not schema.get("type") and not free:
        yield required(f"{place}.type", "must not be empty for specified object fields")
    if schema.get("properties") and schema.get("additionalProperties"):
        detail = "additionalProperties and properties are mutual exclusive"
        yield forbidden_field(f"{place}.additionalProperties", detail)
    if schema.get("type") == "array" and not isinstance(schema.get("items"), dict):
        yield required(f"{place}.items", "must be specified")
    if schema.get("uniqueItems"):
        yield forbidden_field(f"{place}.uniqueItems", "uniqueItems cannot be set to true since the runtime complexity "
                              "becomes quadratic")  # fmt: skip
    if schema.get("x-kubernetes-list-type") == "map" and not schema.get("x-kubernetes-list-map-keys"):
        yield required(f"{place}.x-kubernetes-list-map-keys", "must not be empty if x-kubernetes-list-type is map")
    for index, rule in enumerate(schema.get("x-kubernetes-validations") or ()):
        problem = compile_error(str(rule.get("rule", "")))
        if problem:
            field = f"{place}.x-kubernetes-validations[{index}].rule"
            yield invalid_value(field, rule.get("rule"), f"compilation failed: {problem}")
    for name, part in (schema.get("properties") or {}).items():
        yield from _validate_structure(part, f"{place}.properties[{name}]")
    for name in ("items", "additionalProperties"):
        if isinstance(schema.get(name), dict):
            yield from _validate_structure(schema[name], f"{place}.{name}")


def crd_status(obj: Object, now: str) -> dict[str, Any]:
    """The status of a definition that is served: it takes effect within the write that creates it."""
    spec = obj["spec"]
    conditions = [
        {
            "type": kind,
            "status": "True",
            "lastTransitionTime": now,
            "reason": reason,
            "message": message,
        }
        for kind, reason, message in (
            ("NamesAccepted", "NoConflicts", "no conflicts found"),
            ("Established", "InitialNamesAccepted", "the initial names have been accepted"),
        )
    ]
    stored = [version["name"] for version in spec["versions"] if version.get("storage")]
    return {"acceptedNames": spec["names"], "storedVersions": stored, "conditions": conditions}
