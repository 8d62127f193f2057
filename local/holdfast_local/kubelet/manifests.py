"""Reading Kubernetes objects as plain dictionaries: identity, ownership, readiness, selectors, timestamps.

Objects come from the API server, which has checked their shape, so absent optional parts are the only
surprise handled here.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any

Manifest = dict[str, Any]
Key = tuple[str, str]
"""(namespace, name); the namespace is empty for cluster-wide objects."""

NODE_NAME = "local"
LOG_PATH_ANNOTATION = "holdfast.dev/log-path"
"""Absolute path of the log of the pod's first container; `…/log-path.<container>` for every container."""


def key_of(manifest: Mapping[str, Any]) -> Key:
    metadata = manifest["metadata"]
    return metadata.get("namespace", ""), metadata["name"]


def uid_of(manifest: Mapping[str, Any]) -> str:
    return str(manifest["metadata"]["uid"])


def timestamp(moment: datetime.datetime) -> str:
    """RFC 3339 with whole seconds in UTC, as `metadata.creationTimestamp` is written."""
    return moment.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def timestamp_now() -> str:
    return timestamp(datetime.datetime.now(datetime.UTC))


def is_terminating(manifest: Mapping[str, Any]) -> bool:
    return bool(manifest["metadata"].get("deletionTimestamp"))


def is_ready(pod: Mapping[str, Any]) -> bool:
    """True while the pod's Ready condition is True, whether or not it is being deleted."""
    conditions = (pod.get("status") or {}).get("conditions") or []
    return any(c.get("type") == "Ready" and c.get("status") == "True" for c in conditions)


def is_owned_by(manifest: Mapping[str, Any], owner_uid: str) -> bool:
    references = manifest["metadata"].get("ownerReferences") or []
    return any(reference.get("uid") == owner_uid for reference in references)


def owner_reference(owner: Mapping[str, Any], api_version: str, kind: str) -> Manifest:
    """A controller reference to `owner`; list items of the API carry no apiVersion and kind of their own."""
    return {
        "apiVersion": api_version,
        "kind": kind,
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def labels_match(selector: Mapping[str, str] | None, manifest: Mapping[str, Any]) -> bool:
    """Equality selector of a Service; an empty selector matches nothing, as for Services."""
    labels = manifest["metadata"].get("labels") or {}
    return bool(selector) and all(labels.get(name) == value for name, value in (selector or {}).items())
