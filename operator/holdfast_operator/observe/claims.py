"""The tenant's claims as the cluster shows them, reduced to what growing them, and telling of them, needs.  Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction
from typing import Any

from holdfast_operator import labels
from holdfast_operator.kube.port import Manifest
from holdfast_operator.quantities import parse_quantity

BOUND, LOST = "Bound", "Lost"
_MOUNT_PENDING = "FileSystemResizePending"
_TROUBLES = ("ControllerResizeError", "NodeResizeError", _MOUNT_PENDING, "Resizing")


@dataclass(frozen=True, slots=True)
class ClaimState:
    name: str
    pool: str
    ordinal: int
    requested: Fraction
    """Bytes."""
    capacity: Fraction | None
    """Bytes that the volume has; None while it is not bound."""
    size: str = ""
    """What it has of what it asks for, and what it asks for while it is not bound, as Kubernetes writes it."""
    mount_pending_since: datetime | None = None
    """Since when the file system waits to be mounted anew."""
    owners: frozenset[str] = frozenset()
    """Uids of what it would be deleted with."""
    message: str = ""
    """Why it has not grown yet, in the cluster's words."""
    manifest: Manifest | None = None
    phase: str = ""
    """As Kubernetes has it: `Pending`, `Bound` or `Lost`; empty for a claim that nobody has looked at yet."""
    storage_class: str = ""
    """Empty where the claim names none."""
    deleting: bool = False
    """Somebody has deleted it: it goes, and mostly its volume with it, when the pod that uses it ends."""


def read_claims(manifests: Iterable[Manifest], tenant_name: str) -> tuple[ClaimState, ...]:
    """The claims of the tenant's pods; others that carry its labels, or say no size, are left out."""
    claims = []
    for manifest in manifests:
        pool = labels.labels_of(manifest).get(labels.POOL_LABEL, "")
        _, found, ordinal = manifest["metadata"]["name"].partition(f"-{labels.pod_name_prefix(tenant_name, pool)}")
        requested = _size(manifest.get("spec", {}).get("resources", {}).get("requests"))
        if found and ordinal.isdecimal() and requested is not None:
            claims.append(_state(manifest, pool, int(ordinal), requested))
    return tuple(sorted(claims, key=lambda claim: (claim.pool, claim.ordinal, claim.name)))


def doomed_pods(claims: Iterable[ClaimState], tenant_name: str) -> dict[str, str]:
    """Pods that would take a claim with them if they ended, each with the claim's name."""
    return {labels.pod_name(tenant_name, claim.pool, claim.ordinal): claim.name for claim in claims if claim.deleting}


def _state(manifest: Manifest, pool: str, ordinal: int, requested: Fraction) -> ClaimState:
    metadata, status = manifest["metadata"], manifest.get("status") or {}
    capacity = _size(status.get("capacity"))
    asked = manifest["spec"]["resources"]["requests"]
    conditions = {entry.get("type"): entry for entry in status.get("conditions") or [] if entry.get("status") == "True"}
    pending = conditions.get(_MOUNT_PENDING)
    return ClaimState(
        name=metadata["name"],
        pool=pool,
        ordinal=ordinal,
        requested=requested,
        capacity=capacity,
        size=str((status["capacity"] if capacity is not None and capacity < requested else asked)["storage"]),
        mount_pending_since=_moment(pending.get("lastTransitionTime")) if pending else None,
        owners=frozenset(owner["uid"] for owner in metadata.get("ownerReferences") or []),
        message=next((_sentence(conditions[kind]) for kind in _TROUBLES if kind in conditions), ""),
        manifest=manifest,
        phase=status.get("phase") or "",
        storage_class=manifest["spec"].get("storageClassName") or "",
        deleting="deletionTimestamp" in metadata,
    )


def _size(amounts: Mapping[str, Any] | None) -> Fraction | None:
    try:
        return parse_quantity(str((amounts or {})["storage"]))
    except (KeyError, ValueError):
        return None


def _moment(text: str | None) -> datetime | None:
    try:
        return datetime.fromisoformat(text) if text else None
    except ValueError:
        return None


def _sentence(condition: Mapping[str, Any]) -> str:
    return str(condition.get("message") or condition.get("reason") or condition.get("type"))
