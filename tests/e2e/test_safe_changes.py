"""Upgrades, changed configuration and changed keys under clients that go on reading and writing."""

from __future__ import annotations

from typing import Any

import pytest

from holdfast_operator.testing.cluster import Cluster, wait_for
from holdfast_operator.testing.traffic import s3, traffic
from holdfast_server.testing.standin import StandIn

pytestmark = [pytest.mark.timeout(1200), pytest.mark.cluster]


@pytest.fixture
def store(cluster: Cluster, tenant: dict[str, Any]) -> str:
    """A Tenant that is ready; its namespace."""
    return cluster.make_tenant(tenant)


def pods(cluster: Cluster, namespace: str) -> dict[str, str]:
    """Name → uid of those that are there."""
    found = cluster.core.list_namespaced_pod(namespace).items
    return {pod.metadata.name: pod.metadata.uid for pod in found if pod.metadata.deletion_timestamp is None}


def settled(cluster: Cluster, namespace: str) -> bool:
    current = cluster.is_ready(namespace, "store")
    return current and cluster.condition(namespace, "store", "Progressing")["reason"] == "Settled"


def test_an_upgrade_a_change_of_configuration_and_a_restarted_operator_interrupt_nobody(
    cluster: Cluster, store: str, tenant: dict[str, Any], standin: StandIn | None
) -> None:
    before = pods(cluster, store)
    pool = tenant["spec"]["pools"][0]
    with cluster.endpoint(store, "store") as endpoint, traffic(endpoint, cluster.secret(store, "store-root")) as told:
        wait_for("some traffic", lambda: told.done >= 10)
        cluster.patch_tenant(store, "store", {"spec": {"domains": ["s3.example.com"]}})
        cluster.patch_tenant(
            store, "store", {"spec": {"pools": [{**pool, "env": [{"name": "SEEN_BY_NOBODY", "value": "1"}]}]}}
        )

        def rolled() -> bool:
            now = pods(cluster, store)
            return now.keys() == before.keys() and not set(now.values()) & set(before.values())

        wait_for("the first pod to go", lambda: pods(cluster, store) != before)
        if standin is None:
            cluster.kill_operator()
        else:
            standin.kill_operator()
        wait_for("every pod to be replaced", rolled, 300)
        wait_for("the roll to end", lambda: settled(cluster, store))
        at = told.done
        wait_for("traffic after it", lambda: told.done >= at + 10)
    assert told.failures == []


@pytest.mark.parametrize("name", ["store-root", "store-user-app"])
def test_keys_change_and_both_pairs_are_valid_meanwhile(cluster: Cluster, store: str, name: str) -> None:
    uids = pods(cluster, store)
    old = cluster.secret(store, name)
    with cluster.endpoint(store, "store") as endpoint, traffic(endpoint, old) as told:
        wait_for("some traffic", lambda: told.done >= 5)
        cluster.annotate_secret(store, name, "holdfast.dev/new-keys", "1")
        wait_for("new keys", lambda: cluster.secret(store, name)["accessKey"] != old["accessKey"], 300)
        new = cluster.secret(store, name)
        # Announced means valid, on whichever pod the connection ends.
        for number in range(20):
            s3(endpoint, new).put_object(Bucket="first", Key=f"new/{number}", Body=b"x")
        # Secrets are written in the middle of a pass, the status at its end.
        wait_for(
            "the condition to say so",
            lambda: "valid until" in cluster.condition(store, "store", "CredentialsReady")["message"],
        )
    assert told.failures == []
    with cluster.endpoint(store, "store") as endpoint:
        cluster.patch_tenant(store, "store", {"spec": {"keyOverlapSeconds": 0}})

        def refused() -> bool:
            try:
                s3(endpoint, old).list_objects_v2(Bucket="first")
            except s3(endpoint, old).exceptions.ClientError as error:
                return str(error.response["Error"]["Code"]) == "InvalidAccessKeyId"
            return False

        wait_for("the former keys to end", refused, 300)
        s3(endpoint, new).list_objects_v2(Bucket="first")
    assert pods(cluster, store) == uids, "without a restart"


def test_a_changed_peer_key_interrupts_nobody_and_users_keep_their_keys(cluster: Cluster, store: str) -> None:
    uids = pods(cluster, store)
    user, before = cluster.secret(store, "store-user-app"), cluster.secret(store, "store-peer")["peerKey"]
    with cluster.endpoint(store, "store") as endpoint, traffic(endpoint, user) as told:
        wait_for("some traffic", lambda: told.done >= 5)
        cluster.annotate_secret(store, "store-peer", "holdfast.dev/new-keys", "1")
        wait_for("a new peer key", lambda: cluster.secret(store, "store-peer")["peerKey"] != before, 300)
        wait_for(
            "the end of the change",
            lambda: cluster.condition(store, "store", "CredentialsReady")["reason"] == "Present", 300,
        )  # fmt: skip
        at = told.done
        wait_for("traffic after it", lambda: told.done >= at + 10)
    assert told.failures == []
    assert pods(cluster, store) == uids, "without a restart"


@pytest.mark.parametrize("name", ["store-root", "store-user-app", "store-peer"])
def test_a_secret_that_was_deleted_is_there_again_with_the_same_keys(cluster: Cluster, store: str, name: str) -> None:
    before = cluster.secret(store, name)
    cluster.core.delete_namespaced_secret(name, store)
    wait_for("the Secret", lambda: cluster.secret(store, name) == before)
    wait_for("the Tenant to be Ready", lambda: cluster.is_ready(store, "store"))
