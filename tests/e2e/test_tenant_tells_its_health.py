"""The bad day as an operator sees it: a pod lost, a volume that comes back empty; in the Tenant's status and events,
in `holdfast admin` and in `/metrics`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from holdfast_operator.testing.cluster import Cluster, wait_for
from holdfast_operator.testing.traffic import s3
from holdfast_server.testing.standin import StandIn

pytestmark = [pytest.mark.timeout(1200), pytest.mark.cluster]
OBJECTS = 200
ATTEMPTS = 20


def degraded(cluster: Cluster, namespace: str) -> dict[str, Any]:
    return cluster.condition(namespace, "store", "Degraded")


def events(cluster: Cluster, namespace: str) -> dict[str, str]:
    """Reason → type, of the events about the Tenant."""
    listed = cluster.core.list_namespaced_event(namespace, field_selector="involvedObject.kind=Tenant").items
    return {event.reason: event.type for event in listed}


def test_a_pod_lost_and_back_shows_in_conditions_and_events(cluster: Cluster, tenant: dict[str, Any]) -> None:
    namespace = cluster.make_tenant(tenant)
    wait_for("the Tenant to be whole", lambda: degraded(cluster, namespace)["status"] == "False")
    (row,) = cluster.table(namespace)
    assert {"Name": "store", "Ready": "True", "Health": "Healthy"}.items() <= row.items()
    assert row["Capacity"]
    assert row["Age"]
    cluster.core.delete_namespaced_pod("store-pool-main-2", namespace, grace_period_seconds=0)
    wait_for("Degraded", lambda: degraded(cluster, namespace)["status"] == "True")
    assert "Ready" in [c["type"] for c in cluster.tenant(namespace, "store")["status"]["conditions"]]
    wait_for("the Tenant to be whole again", lambda: degraded(cluster, namespace)["status"] == "False")
    wait_for("the events", lambda: events(cluster, namespace).get("Whole") == "Normal")
    assert events(cluster, namespace)["DrivesMissing"] == "Warning"


def test_an_emptied_volume_is_filled_in_sight_of_everybody(
    cluster: Cluster, standin: StandIn | None, tenant: dict[str, Any]
) -> None:
    namespace = cluster.make_tenant(tenant)
    keys = cluster.secret(namespace, "store-root")
    with cluster.endpoint(namespace, "store") as endpoint:
        client = s3(endpoint, keys)
        bodies = write(client, OBJECTS)
        # A write that missed a drive, as on a busy machine, is made up for first.
        wait_for("the store to be whole", lambda: heal_status(endpoint, keys)[0] == 0, pause_seconds=1)

        empty_volume(cluster, standin, namespace)
        cluster.core.delete_namespaced_pod("store-pool-main-1", namespace, grace_period_seconds=0)
        # What changes while the drive is away or being filled is as much part of what it has to have.
        for number in range(0, OBJECTS, 20):
            bodies[f"k/{number}"] = b"written meanwhile" * (number * 331 % 9000)
            client.put_object(Bucket="first", Key=f"k/{number}", Body=bodies[f"k/{number}"])
        for number in range(1, OBJECTS, 20):
            client.delete_object(Bucket="first", Key=f"k/{number}")
            del bodies[f"k/{number}"]
        wait_for(
            "the command to tell",
            lambda: tells_of(heal_status(endpoint, keys), "store-pool-main-1/data0"),
            pause_seconds=1,
        )
        wait_for("Degraded", lambda: "store-pool-main-1: data0" in degraded(cluster, namespace)["message"])
        assert degraded(cluster, namespace)["status"] == "True"

        wait_for("the drive to be filled", lambda: heal_status(endpoint, keys)[0] == 0, 300, 1)
        wait_for("the Tenant to be whole again", lambda: degraded(cluster, namespace)["status"] == "False", 300)
        assert "healing" not in cluster.tenant(namespace, "store")["status"]["pools"][0]
        assert drive_state(cluster, namespace) == "ok"
        assert metric(cluster, namespace, "holdfast_heal_filled_drives_total") == 1
        assert metric(cluster, namespace, "holdfast_heal_copies_total") >= OBJECTS - 2 * (OBJECTS // 20)
        with without(cluster, namespace, "store-pool-main-2", "store-pool-main-3"):
            # Two of four are left, as few as can be read from: the filled drive must have its part of everything.
            for key, body in bodies.items():
                assert client.get_object(Bucket="first", Key=key)["Body"].read() == body
            listed = client.list_objects_v2(Bucket="first", Prefix="k/").get("Contents", [])
            assert {entry["Key"] for entry in listed} == set(bodies)


def tells_of(told: tuple[int, dict[str, Any]], drive: str) -> bool:
    """Whatever else it may have to say of a store that a drive is missing from."""
    code, status = told
    return code == 1 and any(drive in finding for finding in status["findings"])


@contextmanager
def without(cluster: Cluster, namespace: str, *names: str) -> Iterator[None]:
    """These pods are gone while the block runs, since their nodes take none; claims may bind them to those."""
    pods = [cluster.core.read_namespaced_pod(name, namespace) for name in names]
    nodes = {str(pod.spec.node_name) for pod in pods}
    try:
        for node in nodes:
            cluster.cordon(node, on=True)
        for name in names:
            cluster.core.delete_namespaced_pod(name, namespace, grace_period_seconds=0)
        yield
    finally:
        for node in nodes:
            cluster.cordon(node, on=False)


def write(client: Any, count: int) -> dict[str, bytes]:
    """Key → body of as many objects, small and large."""
    bodies = {f"k/{number}": bytes([number % 251]) * (number * 997 % 200_000) for number in range(count)}
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda item: client.put_object(Bucket="first", Key=item[0], Body=item[1]), bodies.items()))
    return bodies


def empty_volume(cluster: Cluster, standin: StandIn | None, namespace: str) -> None:
    """Of store-pool-main-1, while its pod runs."""
    if standin is None:
        cluster.run_in(namespace, "store-pool-main-1", ["find", "/data0", "-mindepth", "1", "-delete"])
    else:
        empty(standin.state / "volumes" / namespace / "data0-store-pool-main-1")


def heal_status(endpoint: str, keys: dict[str, str]) -> tuple[int, dict[str, Any]]:
    """Exit code and JSON of `holdfast admin heal status`, as it is typed."""
    command = [str(Path(sys.executable).parent / "holdfast"), "admin", "heal", "status", "--json"]
    environment = {
        **os.environ,
        "AWS_ENDPOINT_URL_S3": endpoint,
        "AWS_ACCESS_KEY_ID": keys["accessKey"],
        "AWS_SECRET_ACCESS_KEY": keys["secretKey"],
    }
    for _ in range(ATTEMPTS):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
        if done.returncode in (0, 1):
            return done.returncode, json.loads(done.stdout)
        time.sleep(1)  # it asked a pod that has just gone
    raise AssertionError(done.stderr)


def empty(volume: Path) -> None:
    """What is left is the mount point."""
    assert any(volume.iterdir())
    subprocess.run(["find", str(volume), "-mindepth", "1", "-delete"], check=True)


def exposition(cluster: Cluster, namespace: str) -> str:
    return cluster.pod_page(namespace, "store-pool-main-1", "/metrics")


def metric(cluster: Cluster, namespace: str, name: str) -> float:
    families = text_string_to_metric_families(exposition(cluster, namespace))
    (value,) = [sample.value for family in families for sample in family.samples if sample.name == name]
    return value


def drive_state(cluster: Cluster, namespace: str) -> str:
    families = text_string_to_metric_families(exposition(cluster, namespace))
    states = [sample for family in families if family.name == "holdfast_drive_state" for sample in family.samples]
    (state,) = [sample.labels["state"] for sample in states if sample.value == 1]
    return str(state)
