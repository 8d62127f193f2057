"""What a StatefulSet needs next.  Pure: the set, its pods and claims in; objects to create or delete out.

Follows the real controller: stable names, claims before pods, OrderedReady one at a time (up in order, down
in reverse), Parallel all at once, RollingUpdate from the highest ordinal with one pod away at a time, and
OnDelete never deleting for an update.  Failed and finished pods are replaced.  Pods of its name and selector that
nobody controls are adopted, and its claims are owned by it exactly while they are to be deleted with it.

Differs: no ControllerRevision objects, so a pod created during a partitioned roll always gets the newest
template; `maxUnavailable` and `whenScaled: Delete` are not honoured.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from holdfast_local.kubelet.manifests import Manifest, is_ready, is_terminating, labels_match, owner_reference

POD_NAME_LABEL = "statefulset.kubernetes.io/pod-name"
POD_INDEX_LABEL = "apps.kubernetes.io/pod-index"
REVISION_LABEL = "controller-revision-hash"


@dataclass
class Plan:
    """One pass: owners first, then claims, then pods, then deletions, then the status."""

    own_claims: list[tuple[Manifest, list[Manifest]]] = field(default_factory=list)
    """Claims, each with the ownerReferences it is to have."""
    create_claims: list[Manifest] = field(default_factory=list)
    create_pods: list[Manifest] = field(default_factory=list)
    delete_pods: list[Manifest] = field(default_factory=list)
    status: Manifest = field(default_factory=dict)


def revision_name(statefulset: Mapping[str, Any]) -> str:
    """`<set>-<hash of the template>`: equal templates have equal names."""
    template = json.dumps(statefulset["spec"]["template"], sort_keys=True, separators=(",", ":"))
    return f"{statefulset['metadata']['name']}-{hashlib.sha256(template.encode()).hexdigest()[:10]}"


def pod_ordinal(statefulset: Mapping[str, Any], pod_name: str) -> int | None:
    """The ordinal of one of the set's pods; None for a name that is not of its form."""
    prefix, _, number = pod_name.rpartition("-")
    return int(number) if prefix == statefulset["metadata"]["name"] and number.isdigit() else None


def claim_name(template: Mapping[str, Any], pod_name: str) -> str:
    return f"{template['metadata']['name']}-{pod_name}"


def plan_statefulset(
    statefulset: Mapping[str, Any], pods: Sequence[Manifest], existing_claims: Mapping[str, Manifest]
) -> Plan:
    """The next steps for `statefulset`, given the pods it owns and the claims of its namespace by name."""
    plan = Plan(own_claims=_claim_owners(statefulset, existing_claims))
    by_ordinal = {}
    for pod in pods:
        ordinal = pod_ordinal(statefulset, pod["metadata"]["name"])
        if ordinal is not None:
            by_ordinal[ordinal] = pod
    if not is_terminating(statefulset):
        _plan_replicas(plan, statefulset, by_ordinal, existing_claims)
        if not (plan.create_pods or plan.delete_pods):
            _plan_rolling_update(plan, statefulset, by_ordinal)
    plan.status = derive_status(statefulset, list(by_ordinal.values()))
    return plan


def pods_to_adopt(statefulset: Mapping[str, Any], pods: Sequence[Manifest]) -> list[Manifest]:
    """Of the namespace's pods, those of this set that have lost their controller."""
    selector = (statefulset["spec"].get("selector") or {}).get("matchLabels") or {}
    return [
        pod
        for pod in pods
        if pod_ordinal(statefulset, pod["metadata"]["name"]) is not None
        and labels_match(selector, pod)
        and not is_terminating(pod)
        and not any(owner.get("controller") for owner in pod["metadata"].get("ownerReferences") or [])
    ]


def _claim_owners(
    statefulset: Mapping[str, Any], claims: Mapping[str, Manifest]
) -> list[tuple[Manifest, list[Manifest]]]:
    retention = statefulset["spec"].get("persistentVolumeClaimRetentionPolicy") or {}
    reference = owner_reference(statefulset, "apps/v1", "StatefulSet")
    changes = []
    for ordinal in range(_replica_count(statefulset)):
        for template in statefulset["spec"].get("volumeClaimTemplates") or []:
            claim = claims.get(claim_name(template, f"{statefulset['metadata']['name']}-{ordinal}"))
            if not claim or is_terminating(claim):
                continue
            owners = claim["metadata"].get("ownerReferences") or []
            wanted = [owner for owner in owners if owner.get("uid") != reference["uid"]]
            if retention.get("whenDeleted") == "Delete":
                wanted.append(reference)
            if len(wanted) != len(owners):
                changes.append((claim, wanted))
    return changes


def derive_status(statefulset: Mapping[str, Any], pods: Sequence[Manifest]) -> Manifest:
    """The set's status; `currentRevision` follows the update once a rolling update is complete."""
    update_revision = revision_name(statefulset)
    previous = statefulset.get("status") or {}
    current_revision = previous.get("currentRevision") or update_revision
    live = [pod for pod in pods if not is_terminating(pod)]
    ready = sum(is_ready(pod) for pod in live)
    updated = sum(_revision_of(pod) == update_revision for pod in live)
    replicas = _replica_count(statefulset)
    if _strategy(statefulset) == "RollingUpdate" and updated == ready == len(live) == replicas:
        current_revision = update_revision
    return {
        "observedGeneration": statefulset["metadata"].get("generation", 1),
        "replicas": len(pods),
        "readyReplicas": ready,
        "availableReplicas": ready,
        "currentReplicas": sum(_revision_of(pod) == current_revision for pod in live),
        "updatedReplicas": updated,
        "currentRevision": current_revision,
        "updateRevision": update_revision,
        "collisionCount": 0,
    }


def render_pod(statefulset: Mapping[str, Any], ordinal: int) -> Manifest:
    """Pod `ordinal` of the set, with its claims as volumes."""
    metadata, spec = statefulset["metadata"], statefulset["spec"]
    name = f"{metadata['name']}-{ordinal}"
    template = spec["template"]
    template_metadata = template.get("metadata") or {}
    claimed = {
        t["metadata"]["name"]: {
            "name": t["metadata"]["name"],
            "persistentVolumeClaim": {"claimName": claim_name(t, name)},
        }
        for t in spec.get("volumeClaimTemplates") or []
    }
    volumes = [v for v in template["spec"].get("volumes") or [] if v["name"] not in claimed]
    pod_spec = {**template["spec"], "hostname": name, "volumes": [*volumes, *claimed.values()]}
    if spec.get("serviceName"):
        pod_spec["subdomain"] = spec["serviceName"]
    labels = {
        **(template_metadata.get("labels") or {}),
        POD_NAME_LABEL: name,
        POD_INDEX_LABEL: str(ordinal),
        REVISION_LABEL: revision_name(statefulset),
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": metadata["namespace"],
            "labels": labels,
            "annotations": dict(template_metadata.get("annotations") or {}),
            "ownerReferences": [owner_reference(statefulset, "apps/v1", "StatefulSet")],
        },
        "spec": pod_spec,
    }


def render_claims(statefulset: Mapping[str, Any], ordinal: int) -> list[Manifest]:
    """The claims of pod `ordinal`; owned by the set only where they are to be deleted with it."""
    metadata, spec = statefulset["metadata"], statefulset["spec"]
    name = f"{metadata['name']}-{ordinal}"
    retention = spec.get("persistentVolumeClaimRetentionPolicy") or {}
    claims = []
    for template in spec.get("volumeClaimTemplates") or []:
        template_metadata = template["metadata"]
        selector = (spec.get("selector") or {}).get("matchLabels") or {}
        claim_metadata: Manifest = {
            "name": claim_name(template, name),
            "namespace": metadata["namespace"],
            "labels": {**(template_metadata.get("labels") or {}), **selector},
            "annotations": dict(template_metadata.get("annotations") or {}),
        }
        if retention.get("whenDeleted") == "Delete":
            claim_metadata["ownerReferences"] = [owner_reference(statefulset, "apps/v1", "StatefulSet")]
        claims.append(
            {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "metadata": claim_metadata,
                "spec": template["spec"],
            }
        )
    return claims


def _plan_replicas(
    plan: Plan,
    statefulset: Mapping[str, Any],
    by_ordinal: Mapping[int, Manifest],
    existing_claims: Mapping[str, Manifest],
) -> None:
    ordered = statefulset["spec"].get("podManagementPolicy", "OrderedReady") != "Parallel"
    replicas = _replica_count(statefulset)
    for ordinal in range(replicas):
        pod = by_ordinal.get(ordinal)
        if pod is None or _awaits_its_claims(pod):
            # Also for a pod that is there already: its claim may have been on its way out when it was made.
            for claim in render_claims(statefulset, ordinal):
                if claim["metadata"]["name"] not in existing_claims:
                    plan.create_claims.append(claim)
        if pod is None:
            plan.create_pods.append(render_pod(statefulset, ordinal))
        elif _is_finished(pod) and not is_terminating(pod):
            plan.delete_pods.append(pod)
        if ordered and (pod is None or is_terminating(pod) or not is_ready(pod)):
            return
    condemned = sorted((ordinal for ordinal in by_ordinal if ordinal >= replicas), reverse=True)
    for ordinal in condemned:
        pod = by_ordinal[ordinal]
        if not is_terminating(pod):
            plan.delete_pods.append(pod)
        if ordered:
            return  # the next lower one goes once this one is gone


def _awaits_its_claims(pod: Mapping[str, Any]) -> bool:
    return not pod["spec"].get("nodeName") and not is_terminating(dict(pod))


def _plan_rolling_update(plan: Plan, statefulset: Mapping[str, Any], by_ordinal: Mapping[int, Manifest]) -> None:
    if _strategy(statefulset) != "RollingUpdate":
        return
    replicas = _replica_count(statefulset)
    rolling = (statefulset["spec"].get("updateStrategy") or {}).get("rollingUpdate") or {}
    revision = revision_name(statefulset)
    for ordinal in range(replicas - 1, int(rolling.get("partition") or 0) - 1, -1):
        pod = by_ordinal.get(ordinal)
        if pod is None or is_terminating(pod):
            return
        if _revision_of(pod) != revision:
            plan.delete_pods.append(pod)
            return
        if not is_ready(pod):
            return


def _strategy(statefulset: Mapping[str, Any]) -> str:
    return str((statefulset["spec"].get("updateStrategy") or {}).get("type") or "RollingUpdate")


def _replica_count(statefulset: Mapping[str, Any]) -> int:
    replicas = statefulset["spec"].get("replicas")
    return 1 if replicas is None else int(replicas)


def _revision_of(pod: Mapping[str, Any]) -> str:
    return str((pod["metadata"].get("labels") or {}).get(REVISION_LABEL, ""))


def _is_finished(pod: Mapping[str, Any]) -> bool:
    return (pod.get("status") or {}).get("phase") in ("Failed", "Succeeded")
