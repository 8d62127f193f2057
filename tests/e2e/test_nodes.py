"""Nodes that go away, by the plug or by `kubectl drain`, under clients that go on reading and writing."""

from __future__ import annotations

from typing import Any

import pytest
from kubernetes.client.exceptions import ApiException

from holdfast_operator.testing.cluster import Cluster, wait_for
from holdfast_operator.testing.traffic import traffic

pytestmark = [pytest.mark.timeout(1200), pytest.mark.cluster]


@pytest.fixture
def store(cluster: Cluster, tenant: dict[str, Any]) -> str:
    """A Tenant over four nodes; its namespace."""
    namespace = cluster.make_tenant(tenant)
    nodes = {pod.spec.node_name for pod in cluster.core.list_namespaced_pod(namespace).items}
    if len(nodes) < 4:
        pytest.skip(f"the pods are on {len(nodes)} nodes")
    return namespace


def node_of(cluster: Cluster, namespace: str, pod: str) -> str:
    return str(cluster.core.read_namespaced_pod(pod, namespace).spec.node_name)


def is_whole(cluster: Cluster, namespace: str) -> bool:
    return bool(cluster.tenant(namespace, "store")["status"]["health"] == "Healthy")


def test_a_node_without_power_interrupts_nobody(cluster: Cluster, store: str) -> None:
    if not cluster.has_plugs:
        pytest.skip("no way to pull a plug of this cluster's nodes")
    node = node_of(cluster, store, "store-pool-main-2")
    with cluster.endpoint(store, "store") as endpoint, traffic(endpoint, cluster.secret(store, "store-root")) as told:
        wait_for("some traffic", lambda: told.done >= 10)
        cluster.set_power(node, on=False)
        wait_for("Degraded", lambda: cluster.condition(store, "store", "Degraded")["status"] == "True")
        assert "store-pool-main-2" in cluster.condition(store, "store", "Degraded")["message"]
        assert cluster.condition(store, "store", "Ready")["status"] == "True"
        before = told.done
        wait_for("traffic without the node", lambda: told.done >= before + 20, 300)
        cluster.set_power(node, on=True)
        wait_for("the Tenant to be whole", lambda: is_whole(cluster, store))
    assert told.failures == []


def test_a_drained_node_gives_up_its_pod_once_and_no_second_goes_meanwhile(cluster: Cluster, store: str) -> None:
    node = node_of(cluster, store, "store-pool-main-1")
    with cluster.endpoint(store, "store") as endpoint, traffic(endpoint, cluster.secret(store, "store-root")) as told:
        wait_for("some traffic", lambda: told.done >= 10)
        cluster.cordon(node, on=True)
        try:
            wait_for("the eviction", lambda: cluster.evict(store, "store-pool-main-1"))
            wait_for("Degraded", lambda: cluster.condition(store, "store", "Degraded")["status"] == "True")
            assert not cluster.evict(store, "store-pool-main-0"), "redundancy is reduced"
            wait_for("the reason", lambda: waits_for_its_volume(cluster, store) or moved(cluster, store))
        finally:
            cluster.cordon(node, on=False)
        wait_for("the Tenant to be whole", lambda: is_whole(cluster, store))
        wait_for("the next eviction", lambda: cluster.evict(store, "store-pool-main-0"))
        wait_for("the Tenant to be degraded", lambda: not is_whole(cluster, store))
        wait_for("the Tenant to be whole", lambda: is_whole(cluster, store))
    assert told.failures == []


def waits_for_its_volume(cluster: Cluster, namespace: str) -> bool:
    try:
        pod = cluster.core.read_namespaced_pod("store-pool-main-1", namespace)
    except ApiException:
        return False
    told = " ".join(condition.message or "" for condition in pod.status.conditions or [])
    return "PersistentVolume's node affinity" in told or "volume node affinity" in told  # older Kubernetes


def moved(cluster: Cluster, namespace: str) -> bool:
    """On a cluster whose volumes follow their pods."""
    try:
        pod = cluster.core.read_namespaced_pod("store-pool-main-1", namespace)
    except ApiException:
        return False
    return any(condition.type == "Ready" and condition.status == "True" for condition in pod.status.conditions or [])
