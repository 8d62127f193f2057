"""The scale subresource: replicas of a workload, or of a custom kind that names its paths. Pure."""

import copy
from typing import Any

from holdfast_local.apiserver import errors
from holdfast_local.apiserver.http.json_path import find
from holdfast_local.apiserver.resources import Object, Resource


def read_scale(resource: Resource, obj: Object) -> Object:
    """The `Scale` of an object."""
    paths = resource.scale_paths
    wanted = find(obj, paths.get("specReplicasPath", ".spec.replicas"))
    present = find(obj, paths.get("statusReplicasPath", ".status.replicas"))
    selector = find(obj, paths["labelSelectorPath"]) if "labelSelectorPath" in paths else _selector_text(obj)
    metadata = obj["metadata"]
    kept = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {name: metadata[name] for name in kept if name in metadata},
        "spec": {"replicas": wanted or 0},
        "status": {"replicas": present or 0, **({"selector": selector} if selector else {})},
    }


def _selector_text(obj: Object) -> str:
    labels = find(obj, ".spec.selector.matchLabels") or {}
    return ",".join(f"{name}={value}" for name, value in sorted(labels.items()))


def scaled(resource: Resource, obj: Object, scale: Any) -> Object:
    """The object with the replicas of a `Scale` (or of a patch of one). Raises StatusError 400, 409 or 422."""
    replicas = ((scale.get("spec") or {}) if isinstance(scale, dict) else {}).get("replicas", 0)
    if not isinstance(replicas, int) or isinstance(replicas, bool):
        raise errors.bad_request("spec.replicas of a Scale is a number")
    if replicas < 0:
        cause = errors.invalid_value("spec.replicas", replicas, "must be greater than or equal to 0")
        raise errors.invalid(resource, obj["metadata"]["name"], [cause])
    changed = copy.deepcopy(obj)
    expected = (scale.get("metadata") or {}).get("resourceVersion")
    if expected:
        changed["metadata"]["resourceVersion"] = expected
    else:
        changed["metadata"].pop("resourceVersion", None)
    *parents, last = resource.scale_paths.get("specReplicasPath", ".spec.replicas").strip(".").split(".")
    place = changed
    for name in parents:
        place = place.setdefault(name, {})
    place[last] = replicas
    return changed
