"""Parsing: a good body gives values, a bad one gives every fault with its path."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast_operator.tenant.parse import parse_tenant

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
FIELDS = [
    "image",
    "imagePullPolicy",
    "imagePullSecrets",
    "region",
    "domains",
    "objectOwnership",
    "rootCredentials",
    "users",
    "policies",
    "buckets",
    "pools",
    "claimRetention",
    "allowDisruption",
    "service",
    "ingress",
    "networkPolicy",
    "podDisruptionBudget",
    "serviceAccount",
    "securityContext",
]
POOL_FIELDS = [
    "name",
    "servers",
    "volumesPerServer",
    "erasure",
    "volumeClaimTemplate",
    "spreadOverNodes",
    "resources",
    "nodeSelector",
    "affinity",
    "tolerations",
    "topologySpreadConstraints",
    "priorityClassName",
    "labels",
    "annotations",
    "env",
]


def faults_of(body: Any) -> list[str]:
    return [str(fault) for fault in parse_tenant(body).faults]


def pool(**changes: Any) -> dict[str, Any]:
    claim = {"spec": {"resources": {"requests": {"storage": "10Gi"}}}}
    values = {"name": "main", "servers": 4, "volumesPerServer": 2, "volumeClaimTemplate": claim, **changes}
    return {key: value for key, value in values.items() if value is not None}


def test_defaults_are_filled_in(tenant_body: Any) -> None:
    tenant = parse_tenant(tenant_body()).spec
    assert tenant is not None
    assert tenant.region == "us-east-1"
    assert tenant.object_ownership == "BucketOwnerEnforced"
    assert tenant.claim_retention == "Retain"
    assert (tenant.pools[0].quorums.set_size, tenant.pools[0].quorums.parity_shards) == (8, 4)
    assert tenant.pools[0].claim.access_modes == ("ReadWriteOnce",)
    assert tenant.buckets[0].deletion_policy == "Retain"
    assert tenant.users[0].buckets[1].access == "ReadWrite"
    assert tenant.pools[0].tolerated_servers == 1


def test_a_buckets_settings_are_read_and_their_absence_kept_apart_from_emptiness(tenant_body: Any) -> None:
    rule = {"id": "app", "allowedOrigins": ["*"], "allowedMethods": ["GET"], "maxAgeSeconds": -1}
    declared = {"name": "b01", "tags": {"a": "1"}, "cors": [rule], "policy": {"Statement": []}}
    declared["objectOwnership"] = "ObjectWriter"
    declared["etag"] = "Opaque"
    buckets = [declared, {"name": "b02", "tags": {}, "cors": [], "policy": {}}, {"name": "b03"}]
    tenant = parse_tenant(tenant_body(buckets=buckets, users=[])).spec
    assert tenant is not None
    full, empty, absent = tenant.buckets
    assert (full.tags, full.policy) == ({"a": "1"}, {"Statement": []})
    assert full.cors is not None
    assert (full.cors[0].id, full.cors[0].allowed_methods, full.cors[0].max_age_seconds) == ("app", ("GET",), -1)
    assert (empty.tags, empty.cors, empty.policy) == ({}, (), {})
    assert (absent.tags, absent.cors, absent.policy) == (None, None, None)
    assert (full.object_ownership, absent.object_ownership) == ("ObjectWriter", None)
    assert (full.etag, absent.etag) == ("Opaque", None)
    bad = [
        {
            "name": "b01",
            "tags": {"a": 1},
            "cors": [{"allowedMethods": ["PATCH"], "more": 1, "maxAgeSeconds": -2}],
            "policy": [],
        }
    ]
    assert faults_of(tenant_body(buckets=bad, users=[])) == [
        "spec.buckets[0].tags.a: must be a string, not a number",
        "spec.buckets[0].cors[0].maxAgeSeconds: -2 is not within -1 to 2147483647",
        "spec.buckets[0].cors[0].allowedOrigins: is required",
        "spec.buckets[0].cors[0].allowedMethods[0]: 'PATCH' is none of GET, PUT, POST, DELETE, HEAD",
        "spec.buckets[0].cors[0].more: is not a field this operator knows",
        "spec.buckets[0].policy: must be a mapping, not a list",
    ]
    assert faults_of(tenant_body(buckets=[{"name": "b01", "objectOwnership": "Mine"}], users=[])) == [
        "spec.buckets[0].objectOwnership: 'Mine' is none of BucketOwnerEnforced, BucketOwnerPreferred, ObjectWriter"
    ]
    assert faults_of(tenant_body(buckets=[{"name": "b01", "etag": "opaque"}], users=[])) == [
        "spec.buckets[0].etag: 'opaque' is none of MD5, Opaque"
    ]


def test_accounts_are_read_and_users_belong_to_one_of_them(tenant_body: Any) -> None:
    accounts = [{"name": "main", "displayName": "Main & Söhne"}, {"name": "alt"}]
    users = [{"name": "boss", "account": "main", "accountRoot": True}, {"name": "own"}]
    tenant = parse_tenant(tenant_body(accounts=accounts, users=users)).spec
    assert [(one.name, one.display_name) for one in tenant.accounts] == [("main", "Main & Söhne"), ("alt", "")]
    assert [user.account_root for user in tenant.users] == [True, False]
    bad_users = [
        {"name": "a", "account": "main", "accountRoot": True},
        {"name": "b", "account": "main", "accountRoot": True},
        {"name": "c", "account": "mian"},
        {"name": "d", "accountRoot": True},
        {"name": "e", "account": "alt", "accountRoot": True, "policies": ["readwrite"]},
    ]
    bad_accounts = [*accounts, {"name": "alt"}, {"name": "root"}, {"name": "x", "displayName": "a\nb"}]
    assert set(faults_of(tenant_body(accounts=bad_accounts, users=bad_users))) == {
        "spec.accounts[2].name: 'alt' stands twice",
        "spec.accounts[3].name: 'root' is how the tenant's own account is shown, which is always there",
        "spec.accounts[4].displayName: must be printable",
        "spec.users[1].accountRoot: account 'main' has another root already",
        "spec.users[2].account: 'mian' is not in spec.accounts",
        "spec.users[3].accountRoot: is for users of an account: the tenant's own has its root already",
        "spec.users[4].accountRoot: may do everything in its account: policies and buckets say nothing beside it",
    }


def test_a_users_account_is_read_and_checked_as_the_store_does(tenant_body: Any) -> None:
    users = [{"name": "a", "account": "Team_A.1@=+,-"}, {"name": "b"}]
    tenant = parse_tenant(tenant_body(users=users)).spec
    assert tenant is not None
    assert [user.account for user in tenant.users] == ["Team_A.1@=+,-", ""]
    bad = ["root", "a b", "", 7, "a" * 129]
    assert faults_of(tenant_body(users=[{"name": f"u{n}", "account": account} for n, account in enumerate(bad)])) == [
        "spec.users[0].account: 'root' is how the tenant's own account is shown: leave the field out",
        "spec.users[1].account: 'a b' does not match [A-Za-z0-9_.@=+,-]+",
        "spec.users[2].account: '' does not match [A-Za-z0-9_.@=+,-]+",
        "spec.users[3].account: must be a string, not a number",
        "spec.users[4].account: is 129 characters long, at most 128 are allowed",
    ]


def test_all_faults_are_reported_at_once(tenant_body: Any) -> None:
    body = tenant_body(
        pools=[pool(servers=0, volumesPerServer="two", erasure={"parity": 99})],
        buckets=[{"name": "UPPER"}, {"name": "fine", "deletionPolicy": "Burn"}],
        claimRetention="Maybe",
        allowDisruption="yes",
    )
    assert faults_of(body) == [
        "spec.pools[0].servers: 0 is not within 1 to 256",
        "spec.pools[0].volumesPerServer: must be a whole number, not a string",
        "spec.pools[0].erasure.parity: 99 is not within 0 to 8",
        "spec.buckets[0].name: 'UPPER' does not match [a-z0-9][a-z0-9.-]{1,61}[a-z0-9]",
        "spec.buckets[1].deletionPolicy: 'Burn' is none of Retain, Delete",
        "spec.claimRetention: 'Maybe' is none of Retain, Delete",
        "spec.allowDisruption: must be true or false, not a string",
    ]


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"pools": []}, "spec.pools: at least one pool is required"),
        ({"pools": None}, "spec.pools: at least one pool is required"),
        ({"pools": [pool(name="9lives")]}, "spec.pools[0].name: '9lives' does not match"),
        ({"pools": [pool(), pool()]}, "spec.pools[1].name: 'main' stands twice"),
        ({"pools": [pool(erasure={"setSize": 5})]}, "spec.pools[0].erasure.setSize: 5 does not fit"),
        (
            {"pools": [pool(erasure={"reducedRedundancyParity": 1})]},
            "spec.pools[0].erasure.reducedRedundancyParity: 1 is not within 2 to 4, the parity; each server",
        ),
        (
            {"pools": [pool(erasure={"parity": 2, "reducedRedundancyParity": 3})]},
            "spec.pools[0].erasure.reducedRedundancyParity: 3 is not within",
        ),
        ({"pools": [pool(erasure={"parity": 0})]}, "spec.pools[0].erasure.parity: 0 would lose data"),
        ({"pools": [pool(servers=17, volumesPerServer=1)]}, "spec.pools[0].servers: 17 servers"),
        (
            {"pools": [pool(volumeClaimTemplate=None)]},
            "volumeClaimTemplate.spec.resources.requests.storage: is required",
        ),
        (
            {"pools": [pool(resources={"requests": {"cpu": "one"}})]},
            "spec.pools[0].resources.requests.cpu: 'one' is no amount such as 500m or 2Gi",
        ),
        (
            {"pools": [pool(resources={"limits": {"cpu": 1, "memory": "256mi"}})]},
            "spec.pools[0].resources.limits.memory: '256mi' is no amount",
        ),
        ({"pools": [pool(resources={"limits": {"cpu": True}})]}, "resources.limits.cpu: True is no amount"),
        ({"pools": [pool(env=[{"name": "POD_IP"}])]}, "spec.pools[0].env[0].name: POD_IP is set by the operator"),
        ({"pools": [pool(env=[{"value": "x"}])]}, "spec.pools[0].env[0].name: is required"),
        ({"pools": [pool(state="Draining")]}, "spec.pools[0].state: is not a field this operator knows"),
        ({"pools": [pool(name="m" * 40), pool(name="x" * 41)]}, "spec.pools[1].name: is 41 characters long"),
        ({"buckets": "loki"}, "spec.buckets: must be a list, not a string"),
        ({"buckets": ["loki"]}, "spec.buckets[0]: must be a mapping, not a string"),
        ({"buckets": [{"name": "a" * 64}]}, "spec.buckets[0].name: is 64 characters long, at most 63 are allowed"),
        ({"buckets": [{"name": "x.y"}] * 300}, "spec.buckets: has 300 entries, at most 256 are allowed"),
        ({"buckets": [{"name": "abc", "quota": 1}]}, "spec.buckets[0].quota: must be a mapping, not a number"),
        ({"users": [{"name": "u", "policies": ["nope"]}]}, "spec.users[0].policies[0]: 'nope' is neither"),
        ({"users": [{"name": "u", "secretRef": {}}]}, "spec.users[0].secretRef.name: is required"),
        ({"users": [{"name": "u", "buckets": [{"name": "abc", "access": "All"}]}]}, "'All' is none of"),
        ({"policies": [{"name": "readonly", "document": {"a": 1}}]}, "readonly is built in"),
        ({"policies": [{"name": "tenant-user-x", "document": {"a": 1}}]}, "are the operator's"),
        ({"policies": [{"name": "p"}]}, "spec.policies[0].document: is required"),
        ({"magic": {"mode": "SelfSigned"}}, "spec.magic: is not a field this operator knows"),
        ({"domains": ["-bad-"]}, "spec.domains[0]: '-bad-' is not a domain name"),
        ({"objectOwnership": "Mine"}, "spec.objectOwnership: 'Mine' is none of"),
        ({"region": "Über"}, "spec.region: 'Über' does not match"),
        ({"imagePullPolicy": "Sometimes"}, "spec.imagePullPolicy: 'Sometimes' is none of"),
    ],
)
def test_each_fault_names_its_field(tenant_body: Any, changes: dict[str, Any], fault: str) -> None:
    found = faults_of(tenant_body(**changes))
    assert any(fault in text for text in found), found


@pytest.mark.parametrize("amount", ["1", 1, 0.1, "0.5", "500m", " 2Gi ", "1e3", "1E2", "1E", "-1", "+.5", "3.", None])
def test_what_kubernetes_takes_for_an_amount_is_passed_on(tenant_body: Any, amount: Any) -> None:
    resources = {"requests": {"cpu": amount}, "limits": ["no mapping"], "claims": [{"name": "gpu"}]}
    tenant = parse_tenant(tenant_body(pools=[pool(resources=resources)])).spec
    assert tenant is not None
    assert tenant.pools[0].pods.resources == resources


def test_names_that_would_grow_too_long_are_refused(tenant_body: Any) -> None:
    body = tenant_body()
    body["metadata"]["name"] = "t" * 56
    assert "metadata.name: the Service" in faults_of(body)[0]
    body["metadata"]["name"] = "t" * 43
    assert "has 53 characters, at most 52 are allowed" in faults_of(body)[0]
    body["metadata"]["name"] = "t" * 42
    assert faults_of(body) == []


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.sampled_from(FIELDS), ANYTHING))
def test_no_spec_whatever_it_holds_raises(spec: dict[str, Any]) -> None:
    body = {"metadata": {"name": "logs", "namespace": "loki", "uid": "u"}, "spec": spec}
    parsed = parse_tenant(body)
    assert (parsed.spec is None) == bool(parsed.faults)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.sampled_from(POOL_FIELDS), ANYTHING))
def test_no_pool_whatever_it_holds_raises(values: dict[str, Any]) -> None:
    body = {"metadata": {"name": "logs", "namespace": "loki", "uid": "u"}, "spec": {"pools": [values]}}
    parsed = parse_tenant(body)
    assert (parsed.spec is None) == bool(parsed.faults)
