"""What happens by itself: garbage collection, namespaces, disruption budgets and evictions."""

from __future__ import annotations

from typing import Any

MAPS = "/api/v1/namespaces/default/configmaps"
PODS = "/api/v1/namespaces/default/pods"
BUDGETS = "/apis/policy/v1/namespaces/default/poddisruptionbudgets"


def config_map(name: str, *owners: Any, blocking: bool = False) -> dict[str, Any]:
    references = [
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "name": owner["metadata"]["name"],
            "uid": owner["metadata"]["uid"],
            "blockOwnerDeletion": blocking,
        }
        for owner in owners
    ]
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "ownerReferences": references}}


async def test_dependents_go_with_their_owner_through_every_generation(api: Any) -> None:
    parent = await api.create(MAPS, config_map("parent"))
    child = await api.create(MAPS, config_map("child", parent))
    await api.create(MAPS, config_map("grandchild", child))
    await api.call("DELETE", f"{MAPS}/parent")
    await api.gone(f"{MAPS}/child")
    await api.gone(f"{MAPS}/grandchild")


async def test_a_dependent_with_another_owner_stays(api: Any) -> None:
    first = await api.create(MAPS, config_map("first"))
    second = await api.create(MAPS, config_map("second"))
    await api.create(MAPS, config_map("child", first, second))
    await api.call("DELETE", f"{MAPS}/first")
    child = await api.until(f"{MAPS}/child", lambda obj: len(obj["metadata"]["ownerReferences"]) == 1)
    assert child["metadata"]["ownerReferences"][0]["name"] == "second"


async def test_a_dependent_of_an_owner_that_never_was_is_collected(api: Any) -> None:
    ghost = {"metadata": {"name": "ghost", "uid": "00000000-0000-0000-0000-000000000000"}}
    await api.create(MAPS, config_map("child", ghost))
    await api.gone(f"{MAPS}/child")


async def test_orphaned_dependents_stay_and_lose_the_reference(api: Any) -> None:
    parent = await api.create(MAPS, config_map("parent"))
    await api.create(MAPS, config_map("child", parent))
    await api.call("DELETE", f"{MAPS}/parent", {"propagationPolicy": "Orphan"})
    await api.gone(f"{MAPS}/parent")
    assert "ownerReferences" not in (await api.get(f"{MAPS}/child"))["metadata"]


async def test_foreground_deletion_waits_for_blocking_dependents(api: Any) -> None:
    parent = await api.create(MAPS, config_map("parent"))
    child = config_map("child", parent, blocking=True)
    child["metadata"]["finalizers"] = ["example.com/hold"]
    await api.create(MAPS, child)
    await api.call("DELETE", f"{MAPS}/parent", {"propagationPolicy": "Foreground"})
    await api.until(f"{MAPS}/child", lambda obj: "deletionTimestamp" in obj["metadata"])
    assert (await api.get(f"{MAPS}/parent"))["metadata"]["finalizers"] == ["foregroundDeletion"]
    await api.patch(f"{MAPS}/child", {"metadata": {"finalizers": None}})
    await api.gone(f"{MAPS}/parent")


async def test_a_namespace_has_its_service_account_and_takes_its_content_along(api: Any) -> None:
    await api.create("/api/v1/namespaces", {"metadata": {"name": "demo"}})
    await api.until("/api/v1/namespaces/demo/serviceaccounts/default", lambda obj: True)
    await api.create("/api/v1/namespaces/demo/configmaps", config_map("c"))
    _, namespace = await api.call("DELETE", "/api/v1/namespaces/demo")
    assert namespace["status"]["phase"] == "Terminating"
    await api.gone("/api/v1/namespaces/demo")
    assert (await api.get("/api/v1/namespaces/demo/configmaps"))["items"] == []


async def test_a_terminating_namespace_takes_nothing_new_and_waits_for_its_pods(api: Any) -> None:
    await api.create("/api/v1/namespaces", {"metadata": {"name": "demo"}})
    await api.create("/api/v1/namespaces/demo/pods", pod("p"))
    await api.call("DELETE", "/api/v1/namespaces/demo")
    status, body = await api.call("POST", "/api/v1/namespaces/demo/configmaps", config_map("late"))
    assert (status, "because it is being terminated" in body["message"]) == (403, True)
    await api.until("/api/v1/namespaces/demo/pods/p", lambda obj: "deletionTimestamp" in obj["metadata"])
    assert (await api.get("/api/v1/namespaces/demo"))["status"]["phase"] == "Terminating"
    await api.call("DELETE", "/api/v1/namespaces/demo/pods/p", {"gracePeriodSeconds": 0})
    await api.gone("/api/v1/namespaces/demo")


def pod(name: str) -> dict[str, Any]:
    spec = {"nodeName": "n", "containers": [{"name": "c", "image": "i:1"}]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": "x"}}, "spec": spec}


async def ready(api: Any, name: str, status: str = "True") -> None:
    condition = {"type": "Ready", "status": status}
    await api.patch(f"{PODS}/{name}/status", {"status": {"phase": "Running", "conditions": [condition]}})


async def three_pods_with_a_budget(api: Any, **spec: Any) -> None:
    for name in ("a", "b", "c"):
        await api.create(PODS, pod(name))
        await ready(api, name)
    selector = {"matchLabels": {"app": "x"}}
    budget = {"metadata": {"name": "b"}, "spec": {"selector": selector, "maxUnavailable": 1, **spec}}
    await api.create(BUDGETS, budget)


async def evict(api: Any, name: str) -> tuple[int, Any]:
    found: tuple[int, Any] = await api.call("POST", f"{PODS}/{name}/eviction", {"metadata": {"name": name}})
    return found


async def test_a_budget_counts_ready_pods(api: Any) -> None:
    await three_pods_with_a_budget(api)
    status = (await api.until(f"{BUDGETS}/b", lambda obj: obj["status"]["disruptionsAllowed"] == 1))["status"]
    assert (status["expectedPods"], status["currentHealthy"], status["desiredHealthy"]) == (3, 3, 2)
    await ready(api, "a", "False")
    status = (await api.until(f"{BUDGETS}/b", lambda obj: obj["status"]["disruptionsAllowed"] == 0))["status"]
    assert status["currentHealthy"] == 2


async def test_two_evictions_at_once_never_exceed_the_budget(api: Any) -> None:
    await three_pods_with_a_budget(api)
    assert (await evict(api, "a"))[0] == 201
    status, body = await evict(api, "b")
    assert (status, body["reason"]) == (429, "TooManyRequests")
    assert body["message"] == "Cannot evict pod as it would violate the pod's disruption budget."
    assert "deletionTimestamp" not in (await api.get(f"{PODS}/b"))["metadata"]


async def test_an_unready_pod_is_evicted_always_if_the_budget_says_so(api: Any) -> None:
    await three_pods_with_a_budget(api, maxUnavailable=0, unhealthyPodEvictionPolicy="AlwaysAllow")
    await ready(api, "a", "False")
    assert (await evict(api, "b"))[0] == 429
    assert (await evict(api, "a"))[0] == 201


async def test_a_pod_without_a_budget_is_evicted(api: Any) -> None:
    await api.create(PODS, pod("a"))
    await ready(api, "a")
    assert (await evict(api, "a"))[0] == 201
    assert (await evict(api, "none"))[0] == 404
