"""OpenAPI definitions of the built-in kinds, read from the package kubernetes-validate.

Two views of one file: `document()` for clients (references kept, rewritten to OpenAPI 3 form) and `resolve()` for our
own walkers, in which every `$ref` is replaced by the referenced dictionary itself. The resolved graph may be cyclic
(JSONSchemaProps); walkers follow values, which are finite, so that is safe. Resolved schemas are shared and must never
be changed.
"""

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

KUBERNETES_VERSION = "1.36.0"
"""The API that this server imitates; the definitions of that release must be in kubernetes-validate."""

Schema = dict[str, Any]

_REFERENCE_MARK = "/$defs/"
_INT_OR_STRING = "io.k8s.apimachinery.pkg.util.intstr.IntOrString"
_QUANTITY = "io.k8s.apimachinery.pkg.api.resource.Quantity"
_FREE_FORM = (
    "io.k8s.apimachinery.pkg.runtime.RawExtension",
    "io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1",
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSON",
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrArray",
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrBool",
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrStringArray",
)
OBJECT_META = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
DELETE_OPTIONS = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions"


class Definitions:
    """The definitions of one Kubernetes release."""

    def __init__(self, raw: dict[str, Schema]) -> None:
        self._documents = {name: _normalised(name, schema) for name, schema in raw.items()}
        self._resolved: dict[str, Schema] = {}
        self._names_by_kind: dict[tuple[str, str, str], str] = {}
        for name, schema in self._documents.items():
            for kind in schema.get("x-kubernetes-group-version-kind", ()):
                self._names_by_kind.setdefault((kind["group"], kind["version"], kind["kind"]), name)

    @classmethod
    def load(cls, version: str = KUBERNETES_VERSION) -> "Definitions":
        """Raises FileNotFoundError when kubernetes-validate does not carry `version`."""
        spec = importlib.util.find_spec("kubernetes_validate")
        if spec is None or spec.origin is None:
            raise FileNotFoundError("the package kubernetes-validate is not installed")
        folder = Path(spec.origin).parent / "kubernetes-json-schema" / f"v{version}-local"
        content = json.loads((folder / "_definitions.json").read_text("utf-8"))
        return cls(content.get("$defs") or content["definitions"])

    def name_of(self, group: str, version: str, kind: str) -> str | None:
        return self._names_by_kind.get((group, version, kind))

    def document(self, name: str) -> Schema:
        """The definition with `$ref: #/components/schemas/…`."""
        return self._documents[name]

    def closure(self, names: Iterator[str] | list[str]) -> dict[str, Schema]:
        """The named definitions and all that they refer to."""
        found: dict[str, Schema] = {}
        waiting = list(names)
        while waiting:
            name = waiting.pop()
            if name not in found:
                found[name] = self._documents[name]
                waiting.extend(_references(found[name]))
        return found

    def resolve(self, name: str) -> Schema:
        """The definition with references followed; shared, read-only."""
        known = self._resolved.get(name)
        if known is None:
            known = self._resolved[name] = {}
            known.update(self._follow(self._documents[name]))
        return known

    def _follow(self, node: Any) -> Any:
        if isinstance(node, list):
            return [self._follow(item) for item in node]
        if not isinstance(node, dict):
            return node
        reference = _reference_of(node)
        if reference is not None:
            return self.resolve(reference)
        return {key: self._follow(value) for key, value in node.items()}


def _normalised(name: str, node: Any) -> Any:
    """JSON Schema as published by kubernetes-validate, turned back into OpenAPI 3."""
    if name == _INT_OR_STRING:
        return {"description": node.get("description", ""), "x-kubernetes-int-or-string": True}
    if name == _QUANTITY:
        return {"description": node.get("description", ""), "x-kubernetes-int-or-string": True, "format": "quantity"}
    if name in _FREE_FORM:
        return {"description": node.get("description", ""), "x-kubernetes-preserve-unknown-fields": True}
    return _rewritten(node)


def _rewritten(node: Any) -> Any:
    if isinstance(node, list):
        return [_rewritten(item) for item in node]
    if not isinstance(node, dict):
        return node
    if isinstance(node.get("$ref"), str):
        target = node["$ref"].rpartition(_REFERENCE_MARK)[2]
        described = {"description": node["description"]} if "description" in node else {}
        return {**described, "allOf": [{"$ref": f"#/components/schemas/{target}"}]}
    rewritten = {key: _rewritten(value) for key, value in node.items()}
    kinds = rewritten.get("type")
    if isinstance(kinds, list):
        rewritten["type"] = next(kind for kind in kinds if kind != "null")
    return rewritten


def _reference_of(node: Schema) -> str | None:
    for part in node.get("allOf", ()):
        if isinstance(part, dict) and "$ref" in part:
            return str(part["$ref"]).rpartition("/")[2]
    return None


def _references(node: Any) -> Iterator[str]:
    if isinstance(node, list):
        for item in node:
            yield from _references(item)
    elif isinstance(node, dict):
        reference = _reference_of(node)
        if reference is not None:
            yield reference
        else:
            for value in node.values():
                yield from _references(value)
