"""Secrets with certificates, what the pods are told of them, and the request to cert-manager.  Pure."""

from __future__ import annotations

from holdfast_operator import labels
from holdfast_operator.desired.metadata import render_metadata
from holdfast_operator.desired.secret_data import render_secret
from holdfast_operator.kube.port import CERTIFICATE as CERTIFICATE_KIND
from holdfast_operator.kube.port import Manifest
from holdfast_operator.ledger import Ledger
from holdfast_operator.tenant.spec import TenantSpec
from holdfast_operator.tls.names import client_names
from holdfast_operator.tls.values import Authority, TenantTls, joined
from holdfast_server.contract import config

FOLDER = "/etc/holdfast/tls"
VOLUME = "tls"
CERTIFICATE, KEY, AUTHORITY = "tls.crt", "tls.key", "ca.crt"
PEERS_CERTIFICATE, PEERS_KEY, PEERS_AUTHORITY = "peer.crt", "peer.key", "peer-ca.crt"
COMING_CERTIFICATE, COMING_KEY, PAST = "coming.crt", "coming.key", "past.crt"


def render_tls(tenant: TenantSpec, tls: TenantTls | None) -> list[Manifest]:
    """The authority first: nothing it signed may be seen before it is safe."""
    if tls is None or tls.authority is None:
        return []
    return [render_authority_secret(tenant, tls.authority), _tls_secret(tenant, tls)]


def render_authority_secret(tenant: TenantSpec, authority: Authority) -> Manifest:
    """Outlives the Tenant with its keys: clients that trust it need not be told anew."""
    data = {
        CERTIFICATE: authority.signing.certificate,
        KEY: authority.signing.key,
        AUTHORITY: authority.bundle,
        PAST: authority.past,
    }
    if authority.coming is not None:
        data |= {COMING_CERTIFICATE: authority.coming.certificate, COMING_KEY: authority.coming.key}
    owned = tenant.claim_retention == "Delete"
    return render_secret(tenant, labels.authority_secret_name(tenant.name), data, labels.COMPONENT_KEPT, owned=owned)


def _tls_secret(tenant: TenantSpec, tls: TenantTls) -> Manifest:
    data = {
        PEERS_CERTIFICATE: tls.peers.certificate,
        PEERS_KEY: tls.peers.key,
        PEERS_AUTHORITY: tls.peers_authority,
        AUTHORITY: tls.clients_authority,
    }
    if tls.clients is not None:
        data |= {CERTIFICATE: tls.clients.certificate, KEY: tls.clients.key}
    return render_secret(tenant, labels.tls_secret_name(tenant.name), data, labels.COMPONENT_CREDENTIALS, owned=True)


def tls_config(tenant: TenantSpec, ledger: Ledger) -> config.TlsConfig | None:
    """What the pods are told; None where they are to use none."""
    if ledger.tls_stage == "Off":
        return None
    return config.TlsConfig(
        certificate_file=f"{FOLDER}/{CERTIFICATE}",
        key_file=f"{FOLDER}/{KEY}",
        peers=config.CertificateFiles(
            certificate_file=f"{FOLDER}/{PEERS_CERTIFICATE}",
            key_file=f"{FOLDER}/{PEERS_KEY}",
            ca_file=f"{FOLDER}/{PEERS_AUTHORITY}",
        ),
        stage=ledger.tls_stage,  # type: ignore[arg-type]
        plaintext=tenant.tls.plaintext,
    )


def tls_volume(tenant: TenantSpec) -> Manifest:
    """In every pod, whatever the mode: the files come and go, and no pod is restarted for them."""
    secret = {"secretName": labels.tls_secret_name(tenant.name), "optional": True}
    return {"name": VOLUME, "secret": secret}


def tls_mount() -> Manifest:
    return {"name": VOLUME, "mountPath": FOLDER, "readOnly": True}


def client_trust(tls: TenantTls | None) -> dict[str, str]:
    """What a client's Secret says of it."""
    authority = joined([tls.clients_authority]) if tls is not None else ""
    return {AUTHORITY: authority} if authority else {}


def render_certificate(tenant: TenantSpec, cluster_domain: str) -> list[Manifest]:
    """The request to cert-manager, in mode CertManager only.  The key's kind is the mint's own."""
    if tenant.tls.mode != "CertManager" or tenant.tls.issuer is None:
        return []
    names = client_names(tenant, cluster_domain, ())
    issuer = tenant.tls.issuer
    name = labels.certificate_name(tenant.name)
    return [
        {
            "apiVersion": CERTIFICATE_KIND.api_version,
            "kind": CERTIFICATE_KIND.kind,
            "metadata": render_metadata(tenant, name, component=labels.COMPONENT_CREDENTIALS),
            "spec": {
                "secretName": name,
                "issuerRef": {"name": issuer.name, "kind": issuer.kind, "group": issuer.group},
                "dnsNames": list(names.dns),
                "ipAddresses": list(names.addresses),
                "privateKey": {"algorithm": "ECDSA", "size": 256, "rotationPolicy": "Always"},
                "usages": ["digital signature", "server auth"],
            },
        }
    ]
