"""The names by which a tenant is reached.  Pure.

A wildcard stands for one label only: `*.logs.loki.svc` is every bucket below the Service, not the Service itself.
Pods are covered by one wildcard, so that a pool that joins changes no certificate.
"""

from __future__ import annotations

from ipaddress import ip_address

from holdfast_operator import labels
from holdfast_operator.tenant.fields import is_address
from holdfast_operator.tenant.spec import TenantSpec
from holdfast_operator.tls.values import SubjectNames

_LOOPBACK = ("127.0.0.1", "::1")


def client_names(tenant: TenantSpec, cluster_domain: str, service_addresses: tuple[str, ...]) -> SubjectNames:
    """Of the S3 endpoint: the Service in every form, buckets below it, each pod, the tenant's domains, the names of its
    Ingress (for controllers that pass TLS through, or verify the pods), what was added.

    `service_addresses`: for clients that have no name service; loopback is for `kubectl port-forward`.
    """
    service = _forms(labels.service_name(tenant.name), tenant.namespace, cluster_domain)
    domains = [name for domain in tenant.domains for name in (domain, f"*.{domain}")]
    added = (*(tenant.ingress.hosts if tenant.ingress is not None else ()), *tenant.tls.additional_names)
    dns = [*service, *(f"*.{form}" for form in service[1:]), *_pods(tenant, cluster_domain), *domains, "localhost"]
    dns += [name for name in added if not is_address(name)]
    addresses = [*service_addresses, *_LOOPBACK, *(str(ip_address(name)) for name in added if is_address(name))]
    return SubjectNames(tuple(dict.fromkeys(dns)), tuple(dict.fromkeys(addresses)))


def peer_names(tenant: TenantSpec, cluster_domain: str) -> SubjectNames:
    """Of pods among themselves."""
    return SubjectNames(tuple(_pods(tenant, cluster_domain)))


def required_names(tenant: TenantSpec, cluster_domain: str) -> tuple[str, ...]:
    """What a certificate that somebody else made must vouch for: the published endpoint, and what the Tenant names."""
    endpoint = labels.service_host(tenant.name, tenant.namespace, cluster_domain)
    return (endpoint, *tenant.domains, *(name for name in tenant.tls.additional_names if not name.startswith("*.")))


def _forms(service: str, namespace: str, cluster_domain: str) -> list[str]:
    """Shortest first."""
    local = f"{service}.{namespace}"
    return [service, local, f"{local}.svc", f"{local}.svc.{cluster_domain}"]


def _pods(tenant: TenantSpec, cluster_domain: str) -> list[str]:
    forms = _forms(labels.pods_service_name(tenant.name), tenant.namespace, cluster_domain)
    return [f"*.{form}" for form in reversed(forms[1:])]
