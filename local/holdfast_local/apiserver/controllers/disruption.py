"""PodDisruptionBudgets: their status from the Ready pods, and evictions that respect them.

The status is derived anew from the present pods on every change (level-triggered) and again inside `evict`, so that two
evictions in a row can never both use the last allowed disruption: a pod that is being deleted no longer counts.
"""

import math
from collections.abc import Sequence
from typing import Any

from holdfast_local.apiserver import errors
from holdfast_local.apiserver.deleting import DeleteOptions, delete
from holdfast_local.apiserver.errors import Cause
from holdfast_local.apiserver.resources import PODS, Object, Resource
from holdfast_local.apiserver.selection import matches_label_selector
from holdfast_local.apiserver.storage.store import Store
from holdfast_local.apiserver.writing import MERGE_PATCH, WriteOptions, Writer

BUDGETS = ("policy", "poddisruptionbudgets")
WORKLOADS = (("apps", "statefulsets"), ("apps", "replicasets"), ("apps", "deployments"))


def is_ready(pod: Object) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return any(entry.get("type") == "Ready" and entry.get("status") == "True" for entry in conditions)


def covered_pods(store: Store, budget: Object) -> list[Object]:
    """The pods that a budget protects."""
    namespace = budget["metadata"]["namespace"]
    selector = (budget.get("spec") or {}).get("selector")
    pods = store.list(PODS, namespace)
    return [
        pod
        for pod in pods
        if matches_label_selector(selector, pod["metadata"].get("labels") or {})
        and (pod.get("status") or {}).get("phase") not in ("Succeeded", "Failed")
    ]


def budget_status(store: Store, budget: Object, now: str) -> dict[str, Any]:
    """The status that the present pods give a budget; the condition's time changes only with its state."""
    pods = covered_pods(store, budget)
    spec = budget.get("spec") or {}
    expected = _expected_count(store, pods) if _needs_scale(spec) else len(pods)
    if spec.get("maxUnavailable") is not None:
        desired = max(0, expected - _resolved(spec["maxUnavailable"], expected))
    else:
        desired = _resolved(spec.get("minAvailable", 0), expected)
    healthy = sum(1 for pod in pods if is_ready(pod) and not pod["metadata"].get("deletionTimestamp"))
    allowed = max(0, healthy - desired) if expected > 0 else 0
    return {
        "observedGeneration": budget["metadata"].get("generation", 1),
        "currentHealthy": healthy,
        "desiredHealthy": desired,
        "disruptionsAllowed": allowed,
        "expectedPods": expected,
        "conditions": [_condition(budget, allowed > 0, now)],
    }


def _needs_scale(spec: dict[str, Any]) -> bool:
    """As on a real server: only a whole `minAvailable` does without knowing how many pods there should be."""
    return spec.get("maxUnavailable") is not None or isinstance(spec.get("minAvailable"), str)


def _expected_count(store: Store, pods: Sequence[Object]) -> int:
    owners = {}
    loose = 0
    for pod in pods:
        references = pod["metadata"].get("ownerReferences") or ()
        controller = next((entry["uid"] for entry in references if entry.get("controller")), None)
        address = store.by_uid(controller) if controller else None
        owner = store.at(address) if address is not None and address.key in WORKLOADS else None
        if owner is None:
            loose += 1
        else:
            owners[controller] = int((owner.get("spec") or {}).get("replicas", 1))
    return loose + sum(owners.values())


def _resolved(value: Any, total: int) -> int:
    if isinstance(value, str) and value.endswith("%"):
        return math.ceil(total * int(value[:-1]) / 100)
    return int(value)


def _condition(budget: Object, allowed: bool, now: str) -> dict[str, Any]:
    status = "True" if allowed else "False"
    for entry in (budget.get("status") or {}).get("conditions") or ():
        if entry.get("type") == "DisruptionAllowed" and entry.get("status") == status:
            now = entry["lastTransitionTime"]
    return {
        "type": "DisruptionAllowed",
        "status": status,
        "reason": "SufficientPods" if allowed else "InsufficientPods",
        "message": "",
        "lastTransitionTime": now,
        "observedGeneration": budget["metadata"].get("generation", 1),
    }


def refresh_budget(writer: Writer, resource: Resource, namespace: str, name: str) -> None:
    """Writes a budget's status if it changed."""
    budget = writer.store.get(BUDGETS, namespace, name)
    if budget is None or budget["metadata"].get("deletionTimestamp"):
        return
    status = budget_status(writer.store, budget, writer.now())
    options = WriteOptions(manager="disruption-controller")
    writer.patch(resource, namespace, name, MERGE_PATCH, {"status": status}, options, "status")


def evict(writer: Writer, pods: Resource, namespace: str, name: str, body: Any) -> None:
    """Deletes a pod if every budget that covers it allows so. Raises StatusError 404, 409, or 429 if one does not."""
    pod = writer.get(pods, namespace, name)
    fields = body if isinstance(body, dict) else {}
    options = DeleteOptions.parse(fields.get("deleteOptions"), {})
    if not pod["metadata"].get("deletionTimestamp"):
        _check_budgets(writer, pod)
    delete(writer, pods, namespace, name, options)


def _check_budgets(writer: Writer, pod: Object) -> None:
    namespace = pod["metadata"]["namespace"]
    if (pod.get("status") or {}).get("phase") in ("Pending", "Succeeded", "Failed"):
        return
    labels = pod["metadata"].get("labels") or {}
    budgets = [
        budget
        for budget in writer.store.list(BUDGETS, namespace)
        if matches_label_selector((budget.get("spec") or {}).get("selector"), labels)
    ]
    if len(budgets) > 1:
        raise errors.internal("This pod has more than one PodDisruptionBudget, which the eviction subresource does "
                              "not support.")  # fmt: skip
    for budget in budgets:
        status = budget_status(writer.store, budget, writer.now())
        always = (budget.get("spec") or {}).get("unhealthyPodEvictionPolicy") == "AlwaysAllow"
        enough = status["currentHealthy"] >= status["desiredHealthy"] and status["desiredHealthy"] > 0
        if not is_ready(pod) and (always or enough):
            continue
        if status["disruptionsAllowed"] > 0:
            continue
        budget_name = budget["metadata"]["name"]
        detail = (
            f"The disruption budget {budget_name} needs {status['desiredHealthy']} healthy pods and has "
            f"{status['currentHealthy']} currently"
        )
        cause = Cause("", "DisruptionBudget", detail)
        message = "Cannot evict pod as it would violate the pod's disruption budget."
        raise errors.too_many_requests(message, [cause])
