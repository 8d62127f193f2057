"""What a request is about: its path and method, taken apart the way RBAC and the handlers need it. Pure."""

from dataclasses import dataclass

_NAMESPACE_SUBRESOURCES = ("status", "finalize")


@dataclass(frozen=True)
class Target:
    """A request for objects of a kind."""

    group: str
    version: str
    plural: str
    namespace: str
    name: str
    subresource: str
    verb: str
    """As in RBAC rules: get, list, watch, create, update, patch, delete, deletecollection."""


def parse_target(path: str, method: str, watching: bool) -> Target | None:
    """None for a path that does not name objects: discovery, health, OpenAPI."""
    parts = [part for part in path.split("/") if part]
    if len(parts) >= 3 and parts[0] == "api":
        group, version, rest = "", parts[1], parts[2:]
    elif len(parts) >= 4 and parts[0] == "apis":
        group, version, rest = parts[1], parts[2], parts[3:]
    else:
        return None
    if rest[0] == "watch":
        # The deprecated /watch/ prefix, which old clients still use.
        rest, watching = rest[1:], True
    namespace = ""
    if len(rest) > 2 and rest[0] == "namespaces" and rest[2] not in _NAMESPACE_SUBRESOURCES:
        namespace, rest = rest[1], rest[2:]
    if not rest or len(rest) > 3:
        return None
    name = rest[1] if len(rest) > 1 else ""
    subresource = rest[2] if len(rest) > 2 else ""
    if rest[0] == "namespaces" and not group and name:
        # RBAC sees a namespace as living in itself.
        namespace = ""
    return Target(group, version, rest[0], namespace, name, subresource, _verb(method, name, watching))


def _verb(method: str, name: str, watching: bool) -> str:
    if method in ("GET", "HEAD"):
        if watching:
            return "watch"
        return "get" if name else "list"
    if method == "DELETE":
        return "delete" if name else "deletecollection"
    return {"POST": "create", "PUT": "update", "PATCH": "patch"}.get(method, method.lower())
