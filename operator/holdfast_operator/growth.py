"""Growing the volumes of a pool: what has to happen next.  Pure.

A StatefulSet's claim templates cannot be changed, and a volume may only grow.  So, level-triggered like everything
else, each step decided by what is there now:

1. every live claim that asks for less than the Tenant does is made to ask for more; a storage class that cannot
   grow volumes refuses that, and then nothing else of the pool is touched and the Tenant says why;
2. once all claims ask for enough, the StatefulSet whose template says something else is deleted *around its pods*
   and made again; the pods go on serving and are taken over by the new one.  Claims that are owned by the old one
   (`claimRetention: Delete`) are let go of first, so that no reading of "its owner is gone" can cost data;
3. a file system that grows only when it is mounted anew (`FileSystemResizePending` stays on the claim) needs its pod
   to be replaced, which is a disruptive step like any other and belongs to `plan`.

A claim that is larger than the Tenant asks for is left alone: there is no way back, and nothing is lost by it.  A size
that no volume was given can be taken back in the Tenant (`volume_sizes` says how far, and the Tenant API holds it to
that); then a template that says more is made again as well, or a volume that is replaced would ask for it.

Invariants: no claim is ever deleted, and none shrunk; a StatefulSet is deleted only with orphaning, and only while no
claim names it as owner.  Not here: carrying it out (`apply`), the waiting for the volumes themselves.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from fractions import Fraction
from math import ceil

from holdfast_operator import labels
from holdfast_operator.kube.port import Manifest
from holdfast_operator.observe.claims import ClaimState
from holdfast_operator.quantities import parse_quantity
from holdfast_operator.tenant.spec import PoolSpec, TenantSpec
from holdfast_server.contract.wording import count_of

RESIZE_PATIENCE = timedelta(seconds=60)
"""How long a mounted volume has for growing its file system in place before its pod is replaced."""


@dataclass(frozen=True, slots=True)
class GrowClaim:
    """Ask for more on a live claim."""

    claim: ClaimState
    storage: str


@dataclass(frozen=True, slots=True)
class ReleaseClaims:
    """Have the StatefulSet let go of its claims, before it is made again."""

    stateful_set: Manifest


@dataclass(frozen=True, slots=True)
class RemakeStatefulSet:
    """Delete the StatefulSet around its pods; the next pass makes it again."""

    stateful_set: Manifest


GrowthStep = GrowClaim | ReleaseClaims | RemakeStatefulSet


def plan_growth(
    tenant: TenantSpec, claims: Sequence[ClaimState], stateful_sets: Mapping[str, Manifest]
) -> dict[str, list[GrowthStep]]:
    """By pool: what can be done now, nothing for pools that have grown.  `stateful_sets` by pool name."""
    plans: dict[str, list[GrowthStep]] = {}
    for pool in tenant.pools:
        steps = _steps(pool, [claim for claim in claims if claim.pool == pool.name], stateful_sets.get(pool.name))
        if steps:
            plans[pool.name] = steps
    return plans


def _steps(pool: PoolSpec, claims: Sequence[ClaimState], stateful_set: Manifest | None) -> list[GrowthStep]:
    wanted = parse_quantity(pool.claim.storage)
    small = [claim for claim in claims if claim.requested < wanted]
    if small:
        # The API server lets no claim change that has no volume yet; it grows once it is bound.
        return [GrowClaim(claim, pool.claim.storage) for claim in small if claim.capacity is not None]
    # In whole bytes: the API server may round a finer size up, and what it gives back never be what was asked for.
    if stateful_set is None or ceil(template_storage(stateful_set)) == ceil(wanted):
        return []
    if stateful_set["metadata"].get("deletionTimestamp"):
        return [RemakeStatefulSet(stateful_set)]
    uid = stateful_set["metadata"]["uid"]
    if any(uid in claim.owners for claim in claims):
        return [ReleaseClaims(stateful_set)]
    return [RemakeStatefulSet(stateful_set)]


def template_storage(stateful_set: Manifest) -> Fraction:
    """What a StatefulSet's claims ask for, in bytes; they are all alike."""
    return parse_quantity(_requests(stateful_set["spec"]["volumeClaimTemplates"][0])["storage"])


def with_live_claims(manifest: Manifest, live: Manifest) -> Manifest:
    """A rendered StatefulSet with the claim sizes of the one that exists, which cannot be changed in place."""
    manifest = copy.deepcopy(manifest)
    sizes = {item["metadata"]["name"]: _requests(item)["storage"] for item in live["spec"]["volumeClaimTemplates"]}
    for template in manifest["spec"]["volumeClaimTemplates"]:
        requests = _requests(template)
        requests["storage"] = sizes.get(template["metadata"]["name"], requests["storage"])
    return manifest


def _requests(template: Manifest) -> dict[str, str]:
    requests: dict[str, str] = template["spec"]["resources"]["requests"]
    return requests


def pods_to_remount(tenant: TenantSpec, claims: Sequence[ClaimState], now: datetime) -> frozenset[str]:
    """Names of pods whose volumes grow only when they are mounted anew."""
    return frozenset(
        labels.pod_name(tenant.name, claim.pool, claim.ordinal)
        for claim in claims
        if claim.mount_pending_since is not None and now - claim.mount_pending_since >= RESIZE_PATIENCE
    )


def volume_sizes(claims: Sequence[ClaimState]) -> dict[str, str]:
    """By pool: what the largest of its volumes has of what its claim asks for; without those of which nothing is there.
    A volume larger than its claim, as one that was made by hand may be, counts for what the claim asks for."""
    largest: dict[str, str] = {}
    for claim in claims:
        known = largest.get(claim.pool)
        if claim.size and (known is None or parse_quantity(claim.size) > parse_quantity(known)):
            largest[claim.pool] = claim.size
    return largest


def growth_message(tenant: TenantSpec, claims: Sequence[ClaimState]) -> str:
    """What is still growing, for the `Progressing` condition; empty if nothing is."""
    growing = [claim for claim in claims if claim.capacity is not None and claim.capacity < claim.requested]
    if not growing:
        return ""
    first = growing[0]
    detail = f": {first.message}" if first.message else ""
    told = f"{count_of(len(growing), 'volume is', 'volumes are')} growing; claim {first.name}{detail}"
    wanted = {pool.name: parse_quantity(pool.claim.storage) for pool in tenant.pools}
    beyond = sum(claim.requested > wanted[claim.pool] for claim in growing)
    if beyond:
        told += (
            f"; {count_of(beyond, 'claim asks', 'claims ask')} for more than `storage` says, and will: where a volume "
            "cannot grow, lower its claim with `kubectl edit pvc`, to more than the volume has"
        )
    return told
