"""The operator's own bad days: killed while another stands by, and lost with its node.

Only where it is a Deployment's pod: that of the stand-in is a process beside the cluster, whose death the other tests
have, and two of which `tests/blackbox/test_operator_under_load.py` has.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from kubernetes import watch

from holdfast_operator.testing.cluster import Cluster, wait_for
from holdfast_operator.testing.traffic import traffic
from holdfast_server.testing.standin import StandIn

pytestmark = [pytest.mark.timeout(1200), pytest.mark.cluster]
LONG_SECONDS = 420.0
"""A node is given up, a pod is started elsewhere and finds its Tenants, on a machine that does other things too."""


@pytest.fixture
def store(cluster: Cluster, standin: StandIn | None, tenant: dict[str, Any]) -> str:
    """A Tenant that is ready; its namespace."""
    if standin is not None:
        pytest.skip("the stand-in's operator is no pod")
    namespace = cluster.make_tenant(tenant, LONG_SECONDS)
    wait_for("the Tenant to be whole", lambda: is_whole(cluster, namespace), LONG_SECONDS)
    return namespace


@pytest.fixture
def standby(cluster: Cluster, store: str) -> Iterator[None]:
    """Two operators, one of which works."""
    before = cluster.scale_operator(2)
    try:
        wait_for("the second operator", lambda: len(cluster.operator_pods()) == 2, LONG_SECONDS)
        yield
    finally:
        cluster.scale_operator(before)
        wait_for("as many operators as before", lambda: len(cluster.operator_pods()) == before, LONG_SECONDS)


def is_whole(cluster: Cluster, namespace: str) -> bool:
    return bool(cluster.tenant(namespace, "store")["status"]["health"] == "Healthy")


def is_settled(cluster: Cluster, namespace: str) -> bool:
    ready = cluster.is_ready(namespace, "store") and is_whole(cluster, namespace)
    return ready and cluster.condition(namespace, "store", "Progressing")["reason"] == "Settled"


@contextmanager
def made(cluster: Cluster, namespace: str) -> Iterator[dict[str, list[str]]]:
    """Pod → uids of all that were ever made under that name, in order, while the block runs."""
    told: dict[str, list[str]] = {}
    stop = threading.Event()

    def follow() -> None:
        following = watch.Watch()
        while not stop.is_set():
            since = {"resource_version": following.resource_version} if following.resource_version else {}
            for event in following.stream(cluster.core.list_namespaced_pod, namespace, timeout_seconds=5, **since):
                uids = told.setdefault(event["object"].metadata.name, [])
                if event["object"].metadata.uid not in uids:
                    uids.append(event["object"].metadata.uid)

    thread = threading.Thread(target=follow)
    thread.start()
    try:
        yield told
    finally:
        stop.set()
        thread.join()


def test_a_standby_takes_over_in_the_middle_of_a_roll_and_does_nothing_twice(
    cluster: Cluster, store: str, standby: None, tenant: dict[str, Any]
) -> None:
    pool = tenant["spec"]["pools"][0]
    keys, peers = cluster.secret(store, "store-root"), cluster.secret(store, "store-peer")["peerKey"]
    with (
        cluster.endpoint(store, "store") as endpoint,
        traffic(endpoint, keys) as told,
        made(cluster, store) as pods,
    ):
        wait_for("some traffic", lambda: told.done >= 10)
        wait_for("the pods to be seen", lambda: len(pods) == 4)
        cluster.patch_tenant(
            store, "store", {"spec": {"pools": [{**pool, "env": [{"name": "SEEN_BY_NOBODY", "value": "1"}]}]}}
        )
        wait_for("the first pod to be replaced", lambda: any(len(uids) == 2 for uids in pods.values()), LONG_SECONDS)
        former = cluster.working_operator()
        cluster.core.delete_namespaced_pod(*former, grace_period_seconds=0)
        wait_for("the other to work", lambda: cluster.working_operator() != former, LONG_SECONDS)
        wait_for(
            "the roll to end",
            lambda: all(len(uids) >= 2 for uids in pods.values()) and is_settled(cluster, store),
            LONG_SECONDS,
        )
        at = told.done
        wait_for("traffic after it", lambda: told.done >= at + 10)
    assert told.failures == []
    assert {name: len(uids) for name, uids in pods.items()} == dict.fromkeys(pods, 2), "each was replaced once"
    assert cluster.secret(store, "store-root") == keys
    assert cluster.secret(store, "store-peer")["peerKey"] == peers


def test_an_operator_is_lost_with_its_node_and_another_tells_the_truth(cluster: Cluster, store: str) -> None:
    if not cluster.has_plugs:
        pytest.skip("no way to pull a plug of this cluster's nodes")
    pods = cluster.core.list_namespaced_pod(store).items
    (operator,) = cluster.operator_pods()
    node = operator.spec.node_name
    lost = [pod.metadata.name for pod in pods if pod.spec.node_name == node]
    if len({pod.spec.node_name for pod in pods}) < 4 or len(lost) != 1:
        pytest.skip("the operator's node has no pod of the store, or more than one may be lost")
    other = next(pod.metadata.name for pod in pods if pod.spec.node_name != node)
    with cluster.endpoint(store, "store") as endpoint, traffic(endpoint, cluster.secret(store, "store-root")) as told:
        wait_for("some traffic", lambda: told.done >= 10)
        cluster.set_power(node, on=False)
        try:
            wait_for("Degraded", lambda: tells_of(cluster, store, lost[0]), LONG_SECONDS)
            assert cluster.condition(store, "store", "Ready")["status"] == "True"
            assert [pod.spec.node_name for pod in cluster.operator_pods()] != [node]
            assert not cluster.evict(store, other), "redundancy is reduced"
            at = told.done
            wait_for("traffic without the node", lambda: told.done >= at + 20, LONG_SECONDS)
        finally:
            cluster.set_power(node, on=True)
        wait_for("the Tenant to be whole", lambda: is_whole(cluster, store), LONG_SECONDS)
        wait_for("the next eviction", lambda: cluster.evict(store, other), LONG_SECONDS)
        wait_for("the Tenant to be degraded", lambda: not is_whole(cluster, store), LONG_SECONDS)
        wait_for("the Tenant to be whole", lambda: is_whole(cluster, store), LONG_SECONDS)
    assert told.failures == []


def tells_of(cluster: Cluster, namespace: str, pod: str) -> bool:
    degraded = cluster.condition(namespace, "store", "Degraded")
    return degraded["status"] == "True" and pod in degraded["message"]
