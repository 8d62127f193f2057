"""One stored form per kind, shown in the version that a client asks for; pure.

Versions of a custom kind differ in `apiVersion` only (conversion strategy None). Events are stored as core/v1 and
renamed field by field for events.k8s.io/v1, as the real server does.
"""

from holdfast_local.apiserver.resources import Object, Resource

_EVENTS_GROUP = "events.k8s.io"
_RENAMED = {
    "regarding": "involvedObject",
    "note": "message",
    "deprecatedSource": "source",
    "deprecatedFirstTimestamp": "firstTimestamp",
    "deprecatedLastTimestamp": "lastTimestamp",
    "deprecatedCount": "count",
    "reportingController": "reportingComponent",
}
_RENAMED_BACK = {core: name for name, core in _RENAMED.items()}


def from_storage(resource: Resource, stored: Object) -> Object:
    """The stored object as `resource` shows it; a new outer dictionary, the parts are shared."""
    shown = dict(stored)
    if resource.group == _EVENTS_GROUP:
        shown = {_RENAMED_BACK.get(name, name): part for name, part in shown.items()}
    shown["apiVersion"] = resource.api_version
    shown["kind"] = resource.kind
    return shown


def to_storage(resource: Resource, obj: Object) -> Object:
    """The inverse of `from_storage`."""
    if resource.group != _EVENTS_GROUP:
        return obj
    stored = {_RENAMED.get(name, name): part for name, part in obj.items()}
    stored["apiVersion"] = "v1"
    return stored
