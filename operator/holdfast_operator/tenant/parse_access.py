"""The part of a Tenant that says how its pods are reached and who they run as: one function per field of the spec.

As in `parse`, a fault is noted and reading goes on.  Not here: whether a load balancer, an ingress controller or a
network plugin is there to honour it; that is the cluster's.
"""

from __future__ import annotations

import re
from ipaddress import ip_network
from typing import Any, cast

from holdfast_operator.tenant import limits
from holdfast_operator.tenant.fields import Fields
from holdfast_operator.tenant.spec import (
    IngressSpec,
    NetworkPolicySpec,
    PodIdentity,
    ServiceAccountSpec,
    ServiceSpec,
    ServiceType,
)

_TYPES = ("ClusterIP", "NodePort", "LoadBalancer")
_TRAFFIC_POLICIES = ("Cluster", "Local")


def parse_service(fields: Fields) -> ServiceSpec:
    service_type = cast(ServiceType, fields.choice("type", _TYPES, "ClusterIP"))
    for name in ("nodePort", "externalTrafficPolicy"):
        if service_type == "ClusterIP" and fields.has(name):
            fields.fault(name, "is for the types NodePort and LoadBalancer")
    for name in ("loadBalancerClass", "loadBalancerSourceRanges"):
        if service_type != "LoadBalancer" and fields.has(name):
            fields.fault(name, "is for the type LoadBalancer")
    policy = None
    if fields.has("externalTrafficPolicy"):
        policy = fields.choice("externalTrafficPolicy", _TRAFFIC_POLICIES, "Cluster")
    ranges = fields.texts("loadBalancerSourceRanges", max_count=limits.MAX_NETWORKS)
    _check_networks(fields, "loadBalancerSourceRanges", ranges)
    service = ServiceSpec(
        type=service_type,
        labels=fields.text_mapping("labels"),
        annotations=fields.text_mapping("annotations"),
        node_port=fields.integer("nodePort", None, low=1, high=limits.MAX_PORT),
        external_traffic_policy=policy,
        load_balancer_class=fields.text("loadBalancerClass", max_size=253) or None,
        load_balancer_source_ranges=ranges,
    )
    fields.finish()
    return service


def parse_ingress(fields: Fields) -> IngressSpec:
    hosts = fields.texts("hosts", max_count=limits.MAX_INGRESS_HOSTS)
    if not hosts:
        fields.fault("hosts", "at least one name is required")
    for index, host in enumerate(hosts):
        if len(host) > 253 or not re.fullmatch(limits.INGRESS_HOST, host):
            fields.fault(f"hosts[{index}]", f"{host!r} is not a DNS name in lower case")
    secret_name = None
    if fields.has("tlsSecretRef"):
        reference = fields.child("tlsSecretRef")
        secret_name = reference.text("name", required=True, max_size=253, pattern=limits.SECRET_NAME)
        reference.finish()
    ingress = IngressSpec(
        hosts=tuple(dict.fromkeys(hosts)),
        class_name=fields.text("className", max_size=253, pattern=limits.SECRET_NAME) or None,
        tls_secret_name=secret_name,
        labels=fields.text_mapping("labels"),
        annotations=fields.text_mapping("annotations"),
    )
    fields.finish()
    return ingress


def parse_network_policy(fields: Fields) -> NetworkPolicySpec:
    clients = None
    if fields.has("clients"):
        clients = tuple(_client(peer) for peer in fields.items("clients", max_count=limits.MAX_NETWORK_CLIENTS))
    fields.finish()
    return NetworkPolicySpec(clients)


def _client(fields: Fields) -> dict[str, Any]:
    peer: dict[str, Any] = {}
    # An empty selector selects everything, so that being there is what counts.
    if fields.has("podSelector"):
        peer["podSelector"] = fields.mapping("podSelector")
    if fields.has("namespaceSelector"):
        peer["namespaceSelector"] = fields.mapping("namespaceSelector")
    if fields.has("ipBlock"):
        if peer:
            fields.fault("ipBlock", "stands alone")
        block = fields.child("ipBlock")
        cidr = block.text("cidr", required=True, max_size=49, pattern=limits.NETWORK)
        if cidr and not _is_network(cidr):
            block.fault("cidr", f"{cidr!r} is no network as in 192.0.2.0/24")
        excluded = block.texts("except", max_count=limits.MAX_NETWORKS)
        _check_networks(block, "except", excluded)
        block.finish()
        peer["ipBlock"] = {"cidr": cidr, **({"except": list(excluded)} if excluded else {})}
    if not peer:
        fields.fault("", "podSelector, namespaceSelector or ipBlock is required")
    fields.finish()
    return peer


def parse_disruption_budget(fields: Fields) -> bool:
    """Whether there shall be one."""
    enabled = fields.flag("enabled", True)
    fields.finish()
    return enabled


def parse_service_account(fields: Fields) -> ServiceAccountSpec:
    account = ServiceAccountSpec(
        name=fields.text("name", max_size=253, pattern=limits.SECRET_NAME) or None,
        annotations=fields.text_mapping("annotations"),
    )
    if account.name is not None and fields.has("annotations"):
        fields.fault("annotations", "cannot be given together with name, whose ServiceAccount is not the operator's")
    fields.finish()
    return account


def parse_identity(fields: Fields) -> PodIdentity:
    groups = fields.integers("supplementalGroups", low=1, high=limits.MAX_ID, max_count=limits.MAX_GROUPS)
    identity = PodIdentity(
        user=fields.integer("runAsUser", None, low=1, high=limits.MAX_ID),
        group=fields.integer("runAsGroup", None, low=1, high=limits.MAX_ID),
        volumes_group=fields.integer("fsGroup", None, low=1, high=limits.MAX_ID),
        supplemental_groups=groups,
        assigned_by_cluster=fields.flag("assignedByCluster"),
    )
    if identity.assigned_by_cluster and (identity.user, identity.group, identity.volumes_group) != (None, None, None):
        fields.fault("assignedByCluster", "cannot be given together with runAsUser, runAsGroup or fsGroup")
    fields.finish()
    return identity


def _check_networks(fields: Fields, name: str, networks: tuple[str, ...]) -> None:
    for index, network in enumerate(networks):
        if not _is_network(network):
            fields.fault(f"{name}[{index}]", f"{network!r} is no network as in 192.0.2.0/24")


def _is_network(text: str) -> bool:
    try:
        ip_network(text, strict=False)  # as Kubernetes, which takes 192.0.2.1/24 for 192.0.2.0/24
    except ValueError:
        return False
    return "/" in text
