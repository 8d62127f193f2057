"""How a Tenant's pods are reached and who they run as: what the fields of the spec become in the cluster."""

from __future__ import annotations

from typing import Any

import kubernetes_validate
import pytest

from holdfast_operator.kube.errors import KubeError, KubeForbidden, KubeRejected
from holdfast_operator.kube.port import (
    DISRUPTION_BUDGET,
    INGRESS,
    NETWORK_POLICY,
    SERVICE,
    SERVICE_ACCOUNT,
    STATEFUL_SET,
    Kind,
)
from holdfast_operator.tenant.parse import parse_tenant
from holdfast_operator.tls.names import client_names

VERSIONS = ("1.29", "1.37")
INGRESS_SPEC = {
    "hosts": ["s3.example.com", "*.s3.example.com"],
    "className": "nginx",
    "tlsSecretRef": {"name": "s3-certificate"},
    "annotations": {"nginx.ingress.kubernetes.io/proxy-body-size": "0"},
}
CLIENTS = [
    {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "loki"}}},
    {"ipBlock": {"cidr": "192.0.2.0/24", "except": ["192.0.2.7/32"]}},
]


def made(world: Any, kind: Kind, name: str = "logs") -> dict[str, Any]:
    """The object, once it is known to be valid for Kubernetes."""
    manifest: dict[str, Any] = world.kube.object(kind, name)
    for version in VERSIONS:
        plain = {key: value for key, value in manifest.items() if key != "status"}
        kubernetes_validate.validate(plain, version, strict=True)
    return manifest


def pod_spec(world: Any) -> dict[str, Any]:
    spec: dict[str, Any] = made(world, STATEFUL_SET, "logs-pool-main")["spec"]["template"]["spec"]
    return spec


async def test_a_load_balancer_leads_to_the_pods(world: Any) -> None:
    service = {
        "type": "LoadBalancer",
        "labels": {"team": "storage", "holdfast.dev/tenant": "other"},
        "annotations": {"lb.example/internal": "true"},
        "nodePort": 30900,
        "externalTrafficPolicy": "Local",
        "loadBalancerClass": "example.com/lb",
        "loadBalancerSourceRanges": ["192.0.2.0/24"],
    }
    await world.start(service=service)
    found = made(world, SERVICE)
    assert found["metadata"]["labels"]["team"] == "storage"
    assert found["metadata"]["labels"]["holdfast.dev/tenant"] == "logs", "the operator must find it again"
    assert found["metadata"]["annotations"]["lb.example/internal"] == "true"
    spec = found["spec"]
    assert (spec["type"], spec["ports"][0]["nodePort"]) == ("LoadBalancer", 30900)
    assert (spec["externalTrafficPolicy"], spec["loadBalancerClass"]) == ("Local", "example.com/lb")
    assert spec["loadBalancerSourceRanges"] == ["192.0.2.0/24"]
    assert made(world, SERVICE, "logs-pods")["spec"]["clusterIP"] == "None", "the pods' own names stay"
    world.change_spec()
    await world.run_pass()
    spec = made(world, SERVICE)["spec"]
    assert spec["type"] == "ClusterIP"
    assert not {"externalTrafficPolicy", "loadBalancerClass", "loadBalancerSourceRanges"} & set(spec)


async def test_an_ingress_leads_to_the_service_and_goes_when_it_is_not_wanted(world: Any) -> None:
    await world.start(ingress=INGRESS_SPEC)
    found = made(world, INGRESS)
    spec = found["spec"]
    assert [rule["host"] for rule in spec["rules"]] == INGRESS_SPEC["hosts"]
    (path,) = spec["rules"][0]["http"]["paths"]
    assert path["backend"] == {"service": {"name": "logs", "port": {"name": "s3"}}}
    assert spec["tls"] == [{"hosts": INGRESS_SPEC["hosts"], "secretName": "s3-certificate"}]
    assert spec["ingressClassName"] == "nginx"
    assert found["metadata"]["annotations"]["nginx.ingress.kubernetes.io/proxy-body-size"] == "0"
    assert found["metadata"]["ownerReferences"][0]["kind"] == "Tenant"
    assert world.condition("NetworkReady")["message"] == "what spec.ingress asks for is there"
    world.kube.calls.clear()
    await world.run_passes(3)
    assert [call for call in world.kube.calls if call[0] != "status"] == [], "at rest it writes nothing"
    world.change_spec()
    await world.run_pass()
    assert world.kube.names(INGRESS) == []
    conditions = world.kube.tenant_status("logs")["conditions"]
    assert "NetworkReady" not in {condition["type"] for condition in conditions}


def test_a_certificate_of_the_operators_vouches_for_the_names_of_the_ingress(tenant_body: Any) -> None:
    tenant = parse_tenant(tenant_body(ingress=INGRESS_SPEC, tls={"mode": "SelfSigned"})).spec
    assert tenant is not None
    assert {"s3.example.com", "*.s3.example.com"} <= set(client_names(tenant, "cluster.local", ()).dns)


async def test_a_network_policy_lets_in_pods_operator_and_the_named_clients(world: Any) -> None:
    await world.start(networkPolicy={"clients": CLIENTS})
    spec = made(world, NETWORK_POLICY)["spec"]
    pods = {"matchLabels": {"holdfast.dev/tenant": "logs", "app.kubernetes.io/component": "storage"}}
    assert spec["podSelector"] == pods
    assert spec["policyTypes"] == ["Ingress"], "what a pod may reach is not restricted"
    among, operator, clients = spec["ingress"]
    assert among == {"from": [{"podSelector": pods}], "ports": ports(9000, 9010)}
    assert operator["from"][0]["podSelector"] == {"matchLabels": {"app.kubernetes.io/name": "holdfast-operator"}}
    assert operator["ports"] == ports(9000)
    assert clients == {"from": CLIENTS, "ports": ports(9000, 9001)}


@pytest.mark.parametrize(("policy", "rule"), [({}, [{"ports": [9000, 9001]}]), ({"clients": []}, [])])
async def test_everybody_or_nobody_may_be_let_in(world: Any, policy: dict[str, Any], rule: list[Any]) -> None:
    await world.start(networkPolicy=policy)
    further = made(world, NETWORK_POLICY)["spec"]["ingress"][2:]
    assert [{"ports": [port["port"] for port in one["ports"]]} for one in further] == rule
    assert not any("from" in one for one in further)


def ports(*numbers: int) -> list[dict[str, Any]]:
    return [{"protocol": "TCP", "port": number} for number in numbers]


async def test_a_refused_ingress_is_told_and_nothing_waits_for_it(world: Any) -> None:
    def refuse(verb: str, kind: str, name: str) -> KubeError | None:
        if (verb, kind) == ("apply", "Ingress"):
            return KubeRejected("ingresses: an admission webhook says no")
        return KubeForbidden("not allowed") if kind == "NetworkPolicy" else None

    world.kube.fail_on = refuse
    await world.start(ingress=INGRESS_SPEC, networkPolicy={})
    told = world.condition("NetworkReady")
    assert (told["status"], told["reason"]) == ("False", "CannotApply")
    assert "spec.ingress: ingresses: an admission webhook says no" in told["message"]
    assert "spec.networkPolicy: not allowed" in told["message"]
    assert world.condition("Ready")["status"] == "True"
    world.kube.fail_on = lambda verb, kind, name: None
    await world.run_pass()
    assert world.condition("NetworkReady")["status"] == "True"


async def test_who_asks_for_nothing_causes_no_calls(world: Any) -> None:
    asked: list[str] = []
    world.kube.fail_on = lambda verb, kind, name: asked.append(kind)
    await world.start()
    asked.clear()
    await world.run_passes(3)
    assert not {"Ingress", "NetworkPolicy"} & set(asked)


async def test_the_disruption_budget_can_be_left_to_others(world: Any) -> None:
    await world.start()
    assert world.kube.names(DISRUPTION_BUDGET) == ["logs"]
    world.change_spec(podDisruptionBudget={"enabled": False})
    await world.run_pass()
    assert world.kube.names(DISRUPTION_BUDGET) == []


async def test_the_pods_run_under_an_account_of_their_own_or_one_that_exists(world: Any) -> None:
    await world.start(serviceAccount={"annotations": {"cloud.example/role": "none"}})
    account = made(world, SERVICE_ACCOUNT)
    assert account["metadata"]["annotations"]["cloud.example/role"] == "none"
    assert account["automountServiceAccountToken"] is False
    assert pod_spec(world)["serviceAccountName"] == "logs"
    world.change_spec(serviceAccount={"name": "existing"})
    await world.run_pass()
    assert world.kube.names(SERVICE_ACCOUNT) == [], "theirs is not touched, ours is not needed"
    assert pod_spec(world)["serviceAccountName"] == "existing"
    assert pod_spec(world)["automountServiceAccountToken"] is False


async def test_the_pods_run_as_who_the_tenant_says_and_never_as_root(world: Any) -> None:
    await world.start(securityContext={"runAsUser": 2000, "runAsGroup": 3000, "fsGroup": 4000})
    context = pod_spec(world)["securityContext"]
    assert (context["runAsUser"], context["runAsGroup"], context["fsGroup"]) == (2000, 3000, 4000)
    assert context["runAsNonRoot"] is True
    world.change_spec(securityContext={"runAsUser": 0})
    await world.run_pass()
    assert "spec.securityContext.runAsUser: 0 is not within 1 to" in world.condition("SpecValid")["message"]


async def test_user_and_groups_can_be_left_to_the_cluster(world: Any) -> None:
    await world.start(securityContext={"assignedByCluster": True, "supplementalGroups": [5000]})
    context = pod_spec(world)["securityContext"]
    assert not {"runAsUser", "runAsGroup", "fsGroup"} & set(context)
    assert (context["runAsNonRoot"], context["supplementalGroups"]) == (True, [5000])


FAULTS = [
    ({"service": {"nodePort": 30900}}, "spec.service.nodePort: is for the types NodePort and LoadBalancer"),
    ({"service": {"type": "NodePort", "loadBalancerClass": "x"}}, "spec.service.loadBalancerClass: is for the type"),
    ({"service": {"type": "ExternalName"}}, "spec.service.type: 'ExternalName' is none of ClusterIP, NodePort"),
    (
        {"service": {"type": "LoadBalancer", "loadBalancerSourceRanges": ["192.0.2.0"]}},
        "spec.service.loadBalancerSourceRanges[0]: '192.0.2.0' is no network",
    ),
    ({"ingress": {}}, "spec.ingress.hosts: at least one name is required"),
    ({"ingress": {"hosts": ["s3.*.example.com"]}}, "spec.ingress.hosts[0]: 's3.*.example.com' is not a DNS name"),
    ({"ingress": {"hosts": ["a.example"], "class": "x"}}, "spec.ingress.class: is not a field this operator knows"),
    ({"networkPolicy": {"clients": [{}]}}, "spec.networkPolicy.clients[0]: podSelector, namespaceSelector or ipBlock"),
    (
        {"networkPolicy": {"clients": [{"podSelector": {}, "ipBlock": {"cidr": "192.0.2.0/24"}}]}},
        "spec.networkPolicy.clients[0].ipBlock: stands alone",
    ),
    (
        {"networkPolicy": {"clients": [{"ipBlock": {"cidr": "192.0.2.0/99"}}]}},
        "spec.networkPolicy.clients[0].ipBlock.cidr: '192.0.2.0/99' is no network",
    ),
    ({"podDisruptionBudget": {"enabled": "no"}}, "spec.podDisruptionBudget.enabled: must be true or false"),
    ({"serviceAccount": {"name": "a", "annotations": {"b": "c"}}}, "spec.serviceAccount.annotations: cannot be given"),
    ({"securityContext": {"assignedByCluster": True, "fsGroup": 7}}, "spec.securityContext.assignedByCluster: cannot"),
    ({"securityContext": {"supplementalGroups": [0]}}, "spec.securityContext.supplementalGroups[0]: 0 is not within"),
    ({"securityContext": {"privileged": True}}, "spec.securityContext.privileged: is not a field"),
]


@pytest.mark.parametrize(("spec", "message"), FAULTS, ids=[message.partition(":")[0] for _, message in FAULTS])
async def test_what_cannot_be_is_named(world: Any, spec: dict[str, Any], message: str) -> None:
    await world.start(**spec)
    told = world.condition("SpecValid")
    assert told["status"] == "False"
    assert message in told["message"]
    assert world.kube.names(STATEFUL_SET) == []
