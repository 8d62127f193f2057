"""The API server refuses at admission what the geometry refuses later: the CRD's rules and the code agree."""

from __future__ import annotations

import copy
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml

from holdfast_local.apiserver.schema.cel import validate_rules
from holdfast_server.contract import geometry

ROOT = Path(__file__).parents[3]
CRD = yaml.load((ROOT / "crds" / "tenant.yaml").read_text(), Loader=yaml.CSafeLoader)
SCHEMA = CRD["spec"]["versions"][0]["schema"]["openAPIV3Schema"]


def tenant(servers: int, volumes: int, size: int | None, parity: int | None) -> dict[str, Any]:
    pool: dict[str, Any] = {
        "name": "main",
        "servers": servers,
        "volumesPerServer": volumes,
        "volumeClaimTemplate": {"spec": {"resources": {"requests": {"storage": "1Gi"}}}},
    }
    erasure = {key: value for key, value in (("setSize", size), ("parity", parity)) if value is not None}
    if erasure:
        pool["erasure"] = erasure
    return {"metadata": {"name": "t"}, "spec": {"pools": [pool]}}


@pytest.mark.parametrize("servers", [1, 2, 3, 4, 5, 6, 8, 12, 16, 17])
def test_admission_and_geometry_refuse_the_same_pools(servers: int) -> None:
    for volumes, size, parity in product((1, 2, 4, 17), (None, 1, 2, 4, 6, 8, 12, 16), (None, 0, 1, 2, 3, 8)):
        try:
            geometry.resolve(servers, volumes, size, parity)
        except geometry.GeometryError:
            refused = True
        else:
            refused = False
        causes = validate_rules(tenant(servers, volumes, size, parity), None, SCHEMA)
        assert bool(causes) == refused, (volumes, size, parity, causes)


def test_the_refusal_names_the_field() -> None:
    (cause,) = validate_rules(tenant(4, 2, 8, 5), None, SCHEMA)
    assert cause.field == "spec.pools[0].erasure.parity"
    (cause,) = validate_rules(tenant(4, 2, 6, None), None, SCHEMA)
    assert cause.field == "spec.pools[0].erasure.setSize"
    (cause,) = validate_rules(tenant(17, 1, None, None), None, SCHEMA)
    assert cause.field == "spec.pools[0]"


@pytest.mark.parametrize(
    ("before", "after", "accepted"),
    [
        ({"setSize": 8, "parity": 4}, {"setSize": 8, "parity": 4, "reducedRedundancyParity": 2}, True),
        ({"reducedRedundancyParity": 2}, {"reducedRedundancyParity": 3}, True),
        ({"reducedRedundancyParity": 2}, None, True),
        (None, {"reducedRedundancyParity": 2}, True),
        (None, {"parity": 4}, False),
        ({"parity": 4}, {"parity": 3, "reducedRedundancyParity": 2}, False),
        ({"setSize": 8}, {"setSize": 4}, False),
        ({"setSize": 8, "reducedRedundancyParity": 2}, {"reducedRedundancyParity": 2}, False),
        ({"parity": 2}, {"parity": 2, "reducedRedundancyParity": 3}, False),
    ],
)
def test_of_erasure_only_the_parity_of_reduced_redundancy_may_change(
    before: dict[str, int] | None, after: dict[str, int] | None, accepted: bool
) -> None:
    old, new = tenant(4, 2, None, None), tenant(4, 2, None, None)
    for body, erasure in ((old, before), (new, after)):
        if erasure is not None:
            body["spec"]["pools"][0]["erasure"] = erasure
    assert bool(validate_rules(new, old, SCHEMA)) != accepted


@pytest.mark.parametrize(("name", "accepted"), [("a", True), ("logs-2", True), ("a.b", False), ("2a", False)])
def test_only_names_that_a_service_can_have_are_accepted(name: str, accepted: bool) -> None:
    body = tenant(4, 2, None, None) | {"metadata": {"name": name}}
    assert bool(validate_rules(body, None, SCHEMA)) != accepted


@pytest.mark.parametrize(
    ("state", "accepted"), [("Joining", True), ("Active", False), ("Degraded", False), (None, True)]
)
def test_a_pool_may_be_left_out_before_it_has_joined(state: str | None, accepted: bool) -> None:
    old, new = tenant(4, 2, None, None), tenant(4, 2, None, None)
    old["spec"]["pools"].append({**old["spec"]["pools"][0], "name": "more"})
    old["status"] = {"pools": [{"name": "main", "state": "Active"}]}
    if state is not None:
        old["status"]["pools"].append({"name": "more", "state": state})
    assert not validate_rules(old, old, SCHEMA)
    new["status"] = old["status"]
    causes = validate_rules(new, old, SCHEMA)
    assert bool(causes) != accepted
    assert all(cause.field == "spec.pools" and "cannot be left out" in cause.message for cause in causes)
    renamed = {**new, "spec": {"pools": [{**new["spec"]["pools"][0], "name": "other"}]}}
    assert validate_rules(renamed, old, SCHEMA), "the first never"
    for nothing_said in ({"conditions": []}, {"pools": []}, None):
        old["status"] = nothing_said
        if nothing_said is None:
            del old["status"]
        assert not validate_rules(renamed, old, SCHEMA), "the operator tells, by what it has written down"


@pytest.mark.parametrize(("storage", "accepted"), [("1", True), ("0.5Gi", True), ("0", False), ("0.0Ti", False)])
def test_a_volume_of_no_size_is_refused(storage: str, accepted: bool) -> None:
    body = tenant(4, 2, None, None)
    body["spec"]["pools"][0]["volumeClaimTemplate"]["spec"]["resources"]["requests"]["storage"] = storage
    assert bool(validate_rules(body, None, SCHEMA)) != accepted


@pytest.mark.parametrize(
    ("before", "after", "accepted"),
    [("1Gi", "2Gi", True), ("1Gi", "1024Mi", True), ("2Gi", "1.9Gi", False), ("1Gi", "1G", False)],
)
def test_a_volume_may_only_grow(before: str, after: str, accepted: bool) -> None:
    old, new = sized(before), sized(after)
    causes = validate_rules(new, old, SCHEMA)
    assert bool(causes) != accepted
    assert all(cause.field == "spec.pools" and "storage can only grow" in cause.message for cause in causes)


@pytest.mark.parametrize(
    ("seen", "after", "accepted"),
    [
        ("10Gi", "10Gi", True),
        ("10Gi", "10240Mi", True),
        ("10Gi", "11Gi", True),
        ("10Gi", "9.9Gi", False),
        ("10Gi", "10G", False),
        ("10995116277m", "1.1Gi", True),
        ("100Gi", "10Gi", False),
        (None, "10Gi", False),
    ],
)
def test_a_size_that_no_volume_has_may_be_taken_back(seen: str | None, after: str, accepted: bool) -> None:
    """A typo that the storage class has refused, and that would else stand for ever."""
    old, new = sized("1000Gi"), sized(after)
    old["status"] = new["status"] = {"pools": [{"name": "main"}]}
    if seen is not None:
        old["status"]["pools"][0]["volumeSize"] = seen
    causes = validate_rules(new, old, SCHEMA)
    assert bool(causes) != accepted
    told = "storage can only grow, or go back to the volumeSize of its pool in the status"
    told += f", {seen}" if seen is not None else ""
    assert [cause.message for cause in causes] == [] if accepted else [f"Invalid value: {told}"]
    assert not validate_rules(sized("2000Gi") | {"status": old["status"]}, old, SCHEMA), "and it may grow"


def test_of_several_pools_each_goes_by_its_own_size() -> None:
    old = sized("1000Gi")
    old["spec"]["pools"].append({**copy.deepcopy(old["spec"]["pools"][0]), "name": "more"})
    old["status"] = {"pools": [{"name": "main", "volumeSize": "10Gi"}, {"name": "more", "volumeSize": "1000Gi"}]}
    assert not validate_rules(old, old, SCHEMA)
    for lowered, accepted in (("main", True), ("more", False)):
        new = copy.deepcopy(old)
        pool = next(pool for pool in new["spec"]["pools"] if pool["name"] == lowered)
        pool["volumeClaimTemplate"]["spec"]["resources"]["requests"]["storage"] = "20Gi"
        causes = validate_rules(new, old, SCHEMA)
        assert bool(causes) != accepted
        assert all(cause.message.endswith("of its pool in the status") for cause in causes)


@pytest.mark.parametrize("change", [{"storageClassName": "fast"}, {"accessModes": ["ReadWriteOncePod"]}])
def test_nothing_else_of_a_claim_may_change(change: dict[str, Any]) -> None:
    for before, after in (({}, change), ({"storageClassName": "slow", "accessModes": ["ReadWriteOnce"]}, change)):
        old, new = sized("1Gi", accessModes=["ReadWriteOnce"]), sized("1Gi", accessModes=["ReadWriteOnce"])
        old["spec"]["pools"][0]["volumeClaimTemplate"]["spec"].update(before)
        new["spec"]["pools"][0]["volumeClaimTemplate"]["spec"].update({**before, **after})
        assert validate_rules(new, old, SCHEMA), (before, after)


CEL_REFUSALS: list[tuple[dict[str, Any], str]] = [
    ({"service": {"type": "ClusterIP", "nodePort": 30900}}, "spec.service.nodePort"),
    ({"service": {"type": "ClusterIP", "externalTrafficPolicy": "Local"}}, "spec.service.externalTrafficPolicy"),
    ({"service": {"type": "NodePort", "loadBalancerClass": "x"}}, "spec.service.loadBalancerClass"),
    (
        {"service": {"type": "NodePort", "loadBalancerSourceRanges": ["192.0.2.0/24"]}},
        "spec.service.loadBalancerSourceRanges",
    ),
    ({"networkPolicy": {"clients": [{}]}}, "spec.networkPolicy.clients[0]"),
    (
        {"networkPolicy": {"clients": [{"podSelector": {}, "ipBlock": {"cidr": "192.0.2.0/24"}}]}},
        "spec.networkPolicy.clients[0].ipBlock",
    ),
    ({"serviceAccount": {"name": "a", "annotations": {}}}, "spec.serviceAccount.annotations"),
    ({"securityContext": {"assignedByCluster": True, "runAsUser": 1}}, "spec.securityContext.assignedByCluster"),
]


@pytest.mark.parametrize(("spec", "field"), CEL_REFUSALS, ids=[field for _, field in CEL_REFUSALS])
def test_what_contradicts_itself_is_refused_by_its_field(spec: dict[str, Any], field: str) -> None:
    body = tenant(4, 2, None, None)
    body["spec"].update(spec)
    assert [cause.field for cause in validate_rules(body, None, SCHEMA)] == [field]


@pytest.mark.parametrize(
    ("before", "after", "accepted"),
    [
        (None, {"runAsUser": 65532, "assignedByCluster": False}, True),
        (None, {"runAsUser": 2000, "assignedByCluster": False}, False),
        ({"runAsUser": 2000, "assignedByCluster": False}, None, False),
        ({"runAsUser": 2000, "assignedByCluster": False}, {"runAsUser": 2000, "assignedByCluster": False}, True),
        (None, {"assignedByCluster": True}, False),
        ({"fsGroup": 1, "assignedByCluster": False}, {"fsGroup": 2, "assignedByCluster": False}, True),
    ],
)
def test_the_user_of_the_files_stays(before: Any, after: Any, accepted: bool) -> None:
    old, new = tenant(4, 2, None, None), tenant(4, 2, None, None)
    for body, context in ((old, before), (new, after)):
        if context is not None:
            body["spec"]["securityContext"] = context
    causes = validate_rules(new, old, SCHEMA)
    assert bool(causes) != accepted
    assert all(cause.field == "spec.securityContext" for cause in causes)


def test_the_class_of_a_load_balancer_is_fixed_as_kubernetes_has_it() -> None:
    old, new = tenant(4, 2, None, None), tenant(4, 2, None, None)
    old["spec"]["service"] = {"type": "LoadBalancer", "loadBalancerClass": "a"}
    for changed, accepted in (
        ({"type": "LoadBalancer", "loadBalancerClass": "a"}, True),
        ({"type": "LoadBalancer", "loadBalancerClass": "b"}, False),
        ({"type": "LoadBalancer"}, False),
        ({"type": "ClusterIP"}, True),
    ):
        new["spec"]["service"] = changed
        assert bool(validate_rules(new, old, SCHEMA)) != accepted, changed


@pytest.mark.parametrize(("account", "accepted"), [("team-a", True), ("rooted", True), ("root", False)])
def test_the_tenants_own_account_is_not_named(account: str, accepted: bool) -> None:
    body = tenant(4, 2, None, None)
    body["spec"]["users"] = [{"name": "a"}, {"name": "b", "account": account}]
    causes = validate_rules(body, None, SCHEMA)
    assert [cause.field for cause in causes] == ([] if accepted else ["spec.users[1].account"])


def sized(storage: str, **spec: Any) -> dict[str, Any]:
    body = tenant(4, 2, None, None)
    claim = {"spec": {"resources": {"requests": {"storage": storage}}, **spec}}
    body["spec"]["pools"][0]["volumeClaimTemplate"] = claim
    return body
