"""JSON merge patch (RFC 7386) and JSON patch (RFC 6902). Both return a new value and leave their input alone."""

import copy
from typing import Any

import jsonpatch

from holdfast_local.apiserver.errors import StatusError, bad_request
from holdfast_local.apiserver.resources import Object


def merge_patch(target: Any, patch: Any) -> Any:
    """The target with the patch merged in; null removes."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    merged = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = merge_patch(merged.get(name), value)
    return merged


def json_patch(target: Object, operations: Any) -> Object:
    """Raises StatusError 400 for a malformed patch, 422 for one that does not apply (a failed `test`, a bad path)."""
    if not isinstance(operations, list):
        raise bad_request("error decoding patch: a JSON patch is a list of operations")
    try:
        patched: Object = jsonpatch.apply_patch(target, operations)
    except jsonpatch.InvalidJsonPatch as error:
        raise bad_request(f"error decoding patch: {error}") from error
    except (jsonpatch.JsonPatchException, jsonpatch.JsonPointerException) as error:
        message = f"the server rejected our request due to an error in our request: {error}"
        raise StatusError(422, "Invalid", message) from error
    return patched
