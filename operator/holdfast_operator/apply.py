"""Brings the rendered manifests to the API server and removes what is no longer rendered.

Server-side apply, forced: the operator is right about every field it renders, and about no other.  An object is
applied only if it is ours (labels, and no owner but this very Tenant; or that owner, where labels were taken off); one
that is not is refused, and nothing after it in the list is applied but disruption budgets, so that a tenant never comes
up in halves.  An object whose manifest has not changed and that still says everything the manifest says is left alone:
an idle tenant costs no writes.

Secrets and the pods' configuration are changed only in the very version that was read.  A pass that was held up (by a
slow API server, a stopped process, another operator) must never put back keys, a ledger or an epoch that have moved on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from holdfast_operator import labels
from holdfast_operator.growth import GrowClaim, GrowthStep, ReleaseClaims, RemakeStatefulSet, with_live_claims
from holdfast_operator.kube.errors import REFUSALS
from holdfast_operator.kube.port import CONFIG_MAP, POD, SECRET, STATEFUL_SET, Kind, KubeClient, Manifest, kind_of
from holdfast_operator.observe.cluster import LiveObjects
from holdfast_operator.sameness import covers
from holdfast_operator.tenant.spec import TenantSpec


class ApplyRefused(Exception):
    """An object of the same name belongs to somebody else; the message names it."""


async def apply_manifests(
    kube: KubeClient, tenant: TenantSpec, manifests: Sequence[Manifest], live: LiveObjects
) -> list[Manifest]:
    """Apply in order; returns the manifests that changed something, and `live` has what became of them.

    What is sent may change nothing: a webhook that puts another registry into every image makes a difference that
    applying cannot take away.

    Raises ApplyRefused or KubeError; KubeConflict where the world has moved on since `live` was read."""
    changed = []
    for manifest in manifests:
        key = (manifest["kind"], manifest["metadata"]["name"])
        existing = live.by_key.get(key)
        if existing is None:
            # Not among those that carry our labels; it may still exist without them.
            existing = await kube.get(kind_of(manifest), tenant.namespace, key[1])
        if existing is not None:
            check_ownership(existing, tenant)
        marked = with_manifest_hash(manifest)
        if existing is None or not covers(existing, marked):
            live.by_key[key] = made = await kube.apply(at_version_of(marked, existing))
            if existing is None or _version(made) != _version(existing):
                changed.append(manifest)
    return changed


def _version(manifest: Manifest) -> str:
    return str(manifest["metadata"]["resourceVersion"])


def at_version_of(manifest: Manifest, existing: Manifest | None) -> Manifest:
    """The manifest, fit to change no other version than `existing` where that matters."""
    if existing is None or manifest["kind"] not in (SECRET.kind, CONFIG_MAP.kind):
        return manifest
    return {**manifest, "metadata": {**manifest["metadata"], "resourceVersion": _version(existing)}}


@dataclass(frozen=True, slots=True)
class Growth:
    """What became of the steps of one pass."""

    remade: frozenset[str] = frozenset()
    """Pools whose StatefulSet is on its way out: it must not be applied in this pass."""
    refused: str = ""
    """What the API server said of a claim that it does not let grow."""


async def apply_growth(kube: KubeClient, plans: Mapping[str, Sequence[GrowthStep]]) -> Growth:
    """Carry out what `growth` planned; a refusal ends the pool's steps, not the others'.  Raises KubeError."""
    remade, refused = set(), []
    for pool, steps in plans.items():
        try:
            for step in steps:
                await _apply_step(kube, step)
        except REFUSALS as error:
            refused.append(str(error))
        if not isinstance(steps[0], GrowClaim):
            remade.add(pool)
    return Growth(frozenset(remade), "; ".join(refused))


async def _apply_step(kube: KubeClient, step: GrowthStep) -> None:
    if isinstance(step, GrowClaim):
        assert step.claim.manifest is not None
        await kube.merge(step.claim.manifest, {"spec": {"resources": {"requests": {"storage": step.storage}}}})
    elif isinstance(step, ReleaseClaims):
        patch = {"spec": {"persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Retain"}}}
        await kube.merge(step.stateful_set, patch)
    elif isinstance(step, RemakeStatefulSet) and not step.stateful_set["metadata"].get("deletionTimestamp"):
        await kube.delete(step.stateful_set, orphan=True)


def fit_to_live(manifests: Sequence[Manifest], live: LiveObjects, growth: Growth) -> list[Manifest]:
    """The manifests that can be applied now: claim templates as they are, StatefulSets that are remade left out."""
    fitting = []
    for manifest in manifests:
        if manifest["kind"] == STATEFUL_SET.kind:
            if labels.labels_of(manifest).get(labels.POOL_LABEL) in growth.remade:
                continue
            existing = live.by_key.get((STATEFUL_SET.kind, manifest["metadata"]["name"]))
            if existing is not None:
                manifest = with_live_claims(manifest, existing)
        fitting.append(manifest)
    return fitting


def check_ownership(existing: Manifest, tenant: TenantSpec) -> None:
    """Raises ApplyRefused unless the object is this tenant's."""
    name = f"{existing['kind']} {existing['metadata']['name']}"
    if not labels.is_labelled_for(existing, tenant.name) and not _has_lost_labels(existing, tenant):
        raise ApplyRefused(f"{name} exists but does not belong to tenant {tenant.name}; it is left alone")
    owner = labels.other_controller(existing, tenant.uid)
    if owner:
        raise ApplyRefused(f"{name} still belongs to {owner}")
    if existing["metadata"].get("deletionTimestamp"):
        raise ApplyRefused(f"{name} is being deleted; it is made again once it is gone")


def _has_lost_labels(existing: Manifest, tenant: TenantSpec) -> bool:
    """Whether somebody has taken labels off an object that is this very Tenant's; applied, it has them again."""
    own = labels.labels_of(existing)
    strange = any(own.get(key) not in (None, value) for key, value in labels.tenant_labels(tenant.name).items())
    return is_owned_by(existing, tenant.uid) and not strange


async def prune(
    kube: KubeClient, tenant: TenantSpec, manifests: Iterable[Manifest], live: LiveObjects
) -> list[Manifest]:
    """Delete objects of this Tenant that are no longer rendered; returns them.

    Never StatefulSets (they hold the way to data; `remove_pools` does that), and never Secrets that outlive the Tenant
    or that it names: what was generated once may have been made somebody's own by a `secretRef`.
    """
    wanted = {(manifest["kind"], manifest["metadata"]["name"]) for manifest in manifests}
    pruned = []
    for key, existing in live.by_key.items():
        if key in wanted or key[0] in (STATEFUL_SET.kind, POD.kind):
            continue
        if labels.labels_of(existing).get(labels.COMPONENT_LABEL) == labels.COMPONENT_KEPT:
            continue
        if key[0] == SECRET.kind and key[1] in tenant.named_secrets:
            continue
        if not is_owned_by(existing, tenant.uid):
            continue
        await kube.delete(existing)
        pruned.append(existing)
    return pruned


async def remove_pools(kube: KubeClient, tenant: TenantSpec, names: Collection[str], live: LiveObjects) -> None:
    """Delete the StatefulSets of pools that were taken out before any request went to them.  Their claims stay, unless
    the Tenant has claims go with their StatefulSet."""
    for existing in live.of_kind(STATEFUL_SET):
        gone = "deletionTimestamp" in existing["metadata"]
        if (
            labels.labels_of(existing).get(labels.POOL_LABEL) in names
            and is_owned_by(existing, tenant.uid)
            and not gone
        ):
            await kube.delete(existing)


async def settle_kind(kube: KubeClient, tenant: TenantSpec, kind: Kind, manifests: Sequence[Manifest]) -> None:
    """Of a kind that is not watched: look what there is of this Tenant's, and bring it to these.  Raises as
    `apply_manifests` does."""
    found = await kube.list_objects(kind, tenant.namespace, labels.tenant_labels(tenant.name))
    live = LiveObjects({(kind.kind, one["metadata"]["name"]): one for one in found}, ())
    await apply_manifests(kube, tenant, manifests, live)
    await prune(kube, tenant, manifests, live)


async def unlabel_kept(kube: KubeClient, live: LiveObjects) -> None:
    """Take the label that nothing without an owner may have from Secrets that an earlier operator gave it, or that were
    owned before."""
    for key, existing in live.by_key.items():
        own = labels.labels_of(existing)
        is_kept = key[0] == SECRET.kind and own.get(labels.COMPONENT_LABEL) == labels.COMPONENT_KEPT
        if is_kept and labels.INSTANCE_LABEL in own and not existing["metadata"].get("ownerReferences"):
            live.by_key[key] = await kube.merge(existing, {"metadata": {"labels": {labels.INSTANCE_LABEL: None}}})


def with_manifest_hash(manifest: Manifest) -> Manifest:
    """The manifest with a hash of itself in an annotation, which tells an unchanged one from a changed one."""
    digest = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()[:16]
    metadata = manifest["metadata"]
    annotations = {**metadata.get("annotations", {}), labels.MANIFEST_ANNOTATION: digest}
    return {**manifest, "metadata": {**metadata, "annotations": annotations}}


def is_owned_by(existing: Manifest, uid: str) -> bool:
    """Whether the object goes when that owner goes."""
    return any(owner.get("uid") == uid for owner in existing["metadata"].get("ownerReferences") or [])
