"""Names and routes of Services, from pods and their state."""

from __future__ import annotations

from typing import Any

from holdfast_local.kubelet import hosts_table
from holdfast_local.kubelet.live_pods import LivePod
from holdfast_local.kubelet.service_routes import (
    Backend,
    backends_of,
    members_of,
    names_of,
    render_endpoint_slice,
    render_endpoints,
)

Manifest = dict[str, Any]


def pod(name: str, **metadata: Any) -> Manifest:
    return {
        "metadata": {"name": name, "namespace": "shop", "uid": f"uid-{name}", "labels": {"app": "web"}, **metadata},
        "spec": {
            "hostname": name,
            "subdomain": "web-pods",
            "containers": [{"name": "c", "ports": [{"name": "s3", "containerPort": 9000}]}],
        },
    }


def service(name: str = "web", **spec: Any) -> Manifest:
    ports = [{"name": "s3", "port": 80, "targetPort": "s3"}]
    return {
        "metadata": {"name": name, "namespace": "shop", "uid": "uid-service"},
        "spec": {"selector": {"app": "web"}, "ports": ports, "clusterIP": "127.78.1.2", **spec},
    }


LIVE = {
    ("shop", "web-0"): LivePod("127.77.1.2", ready=True),
    ("shop", "web-1"): LivePod("127.77.1.3", ready=False),
    ("shop", "web-2"): LivePod("127.77.1.4", ready=True),
}
LEAVING = {"deletionTimestamp": "2026-01-01T00:00:00Z"}


def backends(of: Manifest, pods: list[Manifest]) -> list[Backend]:
    return backends_of(of, of["spec"]["ports"][0], members_of(of, pods, LIVE))


def test_a_service_routes_to_ready_pods_by_their_port_name() -> None:
    pods = [pod("web-0"), pod("web-1"), pod("web-2")]
    assert backends(service(), pods) == [Backend("127.77.1.2", 9000), Backend("127.77.1.4", 9000)]


def test_a_pod_being_deleted_gets_no_new_connections() -> None:
    assert backends(service(), [pod("web-0", **LEAVING), pod("web-2")]) == [Backend("127.77.1.4", 9000)]


def test_a_pod_nobody_runs_is_not_routed_to_whatever_its_status_says() -> None:
    stale = pod("web-9")
    stale["status"] = {"conditions": [{"type": "Ready", "status": "True"}]}
    assert backends(service(), [stale]) == []


def test_other_namespaces_and_empty_selectors_match_nothing() -> None:
    assert backends(service(), [pod("web-0", namespace="other")]) == []
    assert backends(service(selector={}), [pod("web-0")]) == []


def test_names_of_a_headless_service_include_unready_pods_where_published() -> None:
    headless = service("web-pods", clusterIP="None", publishNotReadyAddresses=True)
    hosts = {name.host for name in names_of(headless, members_of(headless, [pod("web-0"), pod("web-1")], LIVE))}
    assert hosts == {"web-pods", "web-0.web-pods", "web-1.web-pods"}
    strict = service("web-pods", clusterIP="None")
    hosts = {name.host for name in names_of(strict, members_of(strict, [pod("web-0"), pod("web-1")], LIVE))}
    assert hosts == {"web-pods", "web-0.web-pods"}


def test_hosts_table_gives_short_names_in_the_own_namespace_only() -> None:
    names = [hosts_table.Name("127.78.1.2", "web", "shop"), hosts_table.Name("127.78.1.3", "web", "other")]
    text = hosts_table.render("shop", names, ["127.0.0.1 localhost # loop", "# comment", ""])
    lines = [line.split() for line in text.splitlines() if not line.startswith("#")]
    ours = next(line for line in lines if line[0] == "127.78.1.2")
    assert ours[1:] == ["web.shop.svc.cluster.local", "web.shop.svc", "web.shop", "web"]
    theirs = next(line for line in lines if line[0] == "127.78.1.3")
    assert "web" not in theirs
    assert lines[-1][:2] == ["127.0.0.1", "localhost"]


def test_endpoint_objects_tell_ready_from_waiting() -> None:
    members = members_of(service(), [pod("web-0"), pod("web-1")], LIVE)
    endpoints = render_endpoints(service(), members)["subsets"][0]
    assert [address["ip"] for address in endpoints["addresses"]] == ["127.77.1.2"]
    assert [address["ip"] for address in endpoints["notReadyAddresses"]] == ["127.77.1.3"]
    slice_ = render_endpoint_slice(service(), members)
    assert [endpoint["conditions"]["ready"] for endpoint in slice_["endpoints"]] == [True, False]
    assert slice_["ports"] == [{"port": 9000, "protocol": "TCP", "name": "s3"}]
