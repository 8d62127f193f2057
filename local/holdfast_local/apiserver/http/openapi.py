"""OpenAPI documents: version 3 per group (kubectl apply, explain, diff) and version 2 in JSON for older clients.

Built-in kinds come from the published definitions, custom kinds from their CustomResourceDefinitions. Paths carry only
what clients look for: which operations exist, on which kind, and which query parameters and patch types they take.
"""

import copy
import json
from typing import Any

from holdfast_local.apiserver.definitions import DELETE_OPTIONS, KUBERNETES_VERSION, OBJECT_META
from holdfast_local.apiserver.resources import CRDS, Object, Registry, Resource
from holdfast_local.apiserver.storage.store import Store
from holdfast_local.apiserver.writing import APPLY_PATCH, JSON_PATCH, MERGE_PATCH, STRATEGIC_PATCH

PROTOBUF_V2 = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
"""As Kubernetes answers it: clients ask with an @, which their own parsers do not take in an answer."""
PROTOBUF_V2_FORMS = (PROTOBUF_V2, "application/com.github.proto-openapi.spec.v2@v1.0+protobuf")
_REFERENCE = "#/components/schemas/"
_QUERY = ("dryRun", "fieldManager", "fieldValidation", "force")


def index(registry: Registry) -> Object:
    """/openapi/v3: where the document of each group and version is; the hash changes when kinds do."""
    paths = {}
    for group, versions in registry.groups().items():
        for version in versions:
            path = f"apis/{group}/{version}" if group else f"api/{version}"
            paths[path] = {"serverRelativeURL": f"/openapi/v3/{path}?hash={registry.generation}"}
    return {"paths": paths}


def document(registry: Registry, store: Store, group: str, version: str) -> Object | None:
    """The version 3 document of one group and version; None if it is not served."""
    resources = registry.groups().get(group, {}).get(version)
    if resources is None:
        return None
    definitions = registry.definitions
    schemas = definitions.closure([r.definition_name for r in resources if r.definition_name] + [DELETE_OPTIONS])
    paths: dict[str, Any] = {}
    for resource in resources:
        name = schema_name(resource)
        if resource.custom:
            schemas |= {name: _custom_schema(resource, store), **definitions.closure([OBJECT_META])}
        paths |= _paths(resource, name)
    return {
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": f"v{KUBERNETES_VERSION}"},
        "paths": paths,
        "components": {"schemas": schemas},
    }


def document_v2(registry: Registry, store: Store) -> Object:
    """The version 2 document of everything; references are rewritten."""
    definitions: dict[str, Any] = {}
    for group, versions in registry.groups().items():
        for version in versions:
            found = document(registry, store, group, version)
            definitions |= found["components"]["schemas"] if found else {}
    text = json.dumps(definitions).replace(_REFERENCE, "#/definitions/")
    info = {"title": "Kubernetes", "version": f"v{KUBERNETES_VERSION}"}
    return {"swagger": "2.0", "info": info, "paths": {}, "definitions": _flattened(json.loads(text))}


def document_v2_in_protobuf() -> bytes:
    """A version 2 document that knows no kind: `swagger`, and `info` with `title` and `version`.

    kubectl asks for it where version 3 does not have a kind, which is a typing error: it lets unknown kinds pass here,
    and then says which kind is not served.  JSON in its place ended in words about protobuf's wire format.
    """
    info = _protobuf_text(1, b"Kubernetes") + _protobuf_text(2, f"v{KUBERNETES_VERSION}".encode())
    return _protobuf_text(1, b"2.0") + _protobuf_text(2, info)


def _protobuf_text(field: int, value: bytes) -> bytes:
    """One field; no value here is longer than the 127 bytes whose length is one byte."""
    return bytes([field << 3 | 2, len(value)]) + value


def _flattened(node: Any) -> Any:
    """Version 2 has no allOf around a reference."""
    if isinstance(node, list):
        return [_flattened(entry) for entry in node]
    if not isinstance(node, dict):
        return node
    parts = node.get("allOf")
    if isinstance(parts, list) and len(parts) == 1 and "$ref" in parts[0]:
        return {**{name: part for name, part in node.items() if name != "allOf"}, **parts[0]}
    return {name: _flattened(part) for name, part in node.items()}


def schema_name(resource: Resource) -> str:
    if resource.definition_name:
        return resource.definition_name
    reversed_group = ".".join(reversed(resource.group.split(".")))
    return f"{reversed_group}.{resource.version}.{resource.kind}"


def _custom_schema(resource: Resource, store: Store) -> Object:
    crd = store.get(CRDS, "", f"{resource.plural}.{resource.group}")
    versions = crd["spec"]["versions"] if crd else ()
    found: Object = {}
    for version in versions:
        if version["name"] == resource.version:
            found = copy.deepcopy((version.get("schema") or {}).get("openAPIV3Schema") or {})
    properties = {
        "apiVersion": {"type": "string"},
        "kind": {"type": "string"},
        **(found.get("properties") or {}),
        "metadata": {"allOf": [{"$ref": _REFERENCE + OBJECT_META}]},
    }
    return {**found, "type": "object", "properties": properties, "x-kubernetes-group-version-kind": [_kind(resource)]}


def _kind(resource: Resource) -> Object:
    return {"group": resource.group, "version": resource.version, "kind": resource.kind}


def _paths(resource: Resource, name: str) -> Object:
    root = f"/apis/{resource.group}/{resource.version}" if resource.group else f"/api/{resource.version}"
    if resource.namespaced:
        root += "/namespaces/{namespace}"
    collection = f"{root}/{resource.plural}"
    patch_types = [JSON_PATCH, MERGE_PATCH, APPLY_PATCH] + ([] if resource.custom else [STRATEGIC_PATCH])

    def operation(action: str, bodies: list[str]) -> Object:
        found: Object = {
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": _kind(resource),
            "parameters": [{"name": query, "in": "query", "schema": {"type": "string"}} for query in _QUERY],
            "responses": {"200": {"description": "OK"}},
        }
        if bodies:
            schema = {"$ref": _REFERENCE + name}
            found["requestBody"] = {"content": {body: {"schema": schema} for body in bodies}}
        return found

    if "get" not in resource.verbs:
        return {collection: {"post": operation("post", ["*/*"])}}
    return {
        collection: {"get": operation("list", []), "post": operation("post", ["*/*"])},
        collection + "/{name}": {
            "get": operation("get", []),
            "put": operation("put", ["*/*"]),
            "patch": operation("patch", patch_types),
            "delete": operation("delete", []),
        },
    }
