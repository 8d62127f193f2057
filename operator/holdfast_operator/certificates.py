"""Gathers a tenant's certificates, and has those made that are due.

Secrets: `<t>-ca` has the tenant's own authority, which vouches for its pods among themselves in every mode and for the
S3 endpoint in mode SelfSigned; it outlives the Tenant as its keys do.  `<t>-tls` is what pods mount: both pairs, and
what verifies them.  What a user brings (mode Secret), or cert-manager makes, is checked first and copied there, so that
pods have one place to look at, no mode change restarts them, and a broken renewal never reaches them: whatever was
good goes on to be served, also after its end, and the fault is told.

Nothing is written here but a first `<t>-ca`, with a plain create: of two creators one wins.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from holdfast_operator import labels
from holdfast_operator.desired import tls as manifests
from holdfast_operator.desired.secret_data import decoded
from holdfast_operator.kube.errors import REFUSALS
from holdfast_operator.kube.port import SECRET, KubeClient, Manifest
from holdfast_operator.ledger import Ledger
from holdfast_operator.tenant.spec import TenantSpec
from holdfast_operator.tls.names import client_names, peer_names, required_names
from holdfast_operator.tls.reading import PairUnusable, check_pair, is_authority, read_certificate
from holdfast_operator.tls.renewal import current_authority, current_leaf
from holdfast_operator.tls.values import Authority, CertificateMint, KeyCertificate, TenantTls


@dataclass(frozen=True, slots=True)
class CertificatePorts:
    kube: KubeClient
    mint: CertificateMint
    now: datetime
    cluster_domain: str


class TlsFault(Exception):
    """Nothing can be gathered; `reason` is fit for a condition."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


async def gather_tls(
    ports: CertificatePorts, tenant: TenantSpec, ledger: Ledger, service: Manifest | None
) -> TenantTls | None:
    """None for a tenant that has nothing to do with TLS.  `service` is that of the S3 endpoint, where it exists.
    Raises TlsFault, or KubeError if the API server cannot be asked."""
    if tenant.tls.mode == "Disabled" and ledger.tls_stage == "Off":
        return None
    mounted = labels.tls_secret_name(tenant.name)
    if tenant.tls.mode == "Secret" and tenant.tls.secret_name == mounted:
        # It would be taken for the user's, checked, and never renewed.
        raise TlsFault(
            "SecretNotOurs",
            f"spec.tls.secretRef: {mounted} is what the operator itself writes for the pods; give the certificate's "
            "Secret another name",
        )
    served = await _own_values(ports.kube, tenant, mounted) or {}
    authority = await _authority(ports, tenant, served.get(manifests.PEERS_AUTHORITY, ""))
    names = peer_names(tenant, ports.cluster_domain)
    known = _pair(served, manifests.PEERS_CERTIFICATE, manifests.PEERS_KEY)
    peers = current_leaf(known, authority, names, ports.now, ports.mint)
    kept = _pair(served, manifests.CERTIFICATE, manifests.KEY)
    if tenant.tls.mode == "SelfSigned":
        wanted = client_names(tenant, ports.cluster_domain, _addresses(service))
        clients = current_leaf(kept, authority, wanted, ports.now, ports.mint)
        return _tenant_tls(clients, authority.bundle, peers, authority)
    if kept is not None and not _can_be_shown(kept, ports.now):
        kept = None
    try:
        if tenant.tls.mode == "Disabled":
            # On the way to it: what is served goes on to be, until nobody needs it.
            return _tenant_tls(kept, served.get(manifests.AUTHORITY, ""), peers, authority)
        clients, clients_authority = await _brought(ports, tenant)
        return _tenant_tls(clients, clients_authority, peers, authority)
    except PairUnusable as error:
        trouble = (error.reason, str(error))
        return _tenant_tls(kept, served.get(manifests.AUTHORITY, ""), peers, authority, trouble)


def as_served(mounted: Manifest | None, trouble: tuple[str, str], now: datetime) -> TenantTls | None:
    """What pods have, where nothing can be gathered: they go on with it, and so does all that clients are told.  None
    where `mounted`, the Secret of the pods, is not there or of no use."""
    values = decoded(mounted) if mounted is not None else {}
    peers = _pair(values, manifests.PEERS_CERTIFICATE, manifests.PEERS_KEY)
    clients = _pair(values, manifests.CERTIFICATE, manifests.KEY)
    if peers is None or not _can_be_shown(peers, now):
        return None
    if clients is not None and not _can_be_shown(clients, now):
        clients = None
    authority = values.get(manifests.AUTHORITY, "")
    return _tenant_tls(clients, authority, peers, None, trouble, values.get(manifests.PEERS_AUTHORITY, ""))


async def _brought(ports: CertificatePorts, tenant: TenantSpec) -> tuple[KeyCertificate, str]:
    """What the user or cert-manager put into a Secret.  Raises PairUnusable."""
    by_hand = tenant.tls.mode == "Secret"
    name = tenant.tls.secret_name if by_hand else labels.certificate_name(tenant.name)
    secret = await ports.kube.get(SECRET, tenant.namespace, name)
    if secret is None and not by_hand:
        raise PairUnusable("WaitingForCertificate", f"cert-manager has not made Secret {name} yet")
    if secret is None:
        raise PairUnusable("SecretMissing", f"Secret {name} does not exist")
    values = decoded(secret)
    missing = [key for key in (manifests.CERTIFICATE, manifests.KEY) if not values.get(key, "").strip()]
    if missing:
        raise PairUnusable("SecretIncomplete", f"Secret {name} lacks {' and '.join(missing)}")
    pair = KeyCertificate(values[manifests.CERTIFICATE], values[manifests.KEY])
    authority = values.get(manifests.AUTHORITY, "")
    try:
        check_pair(pair, required_names(tenant, ports.cluster_domain), authority, ports.now)
    except PairUnusable as error:
        raise PairUnusable(error.reason, f"Secret {name}: {error}") from error
    return pair, authority


async def _authority(ports: CertificatePorts, tenant: TenantSpec, trusted_by_pods: str) -> Authority:
    name = labels.authority_secret_name(tenant.name)
    values = await _own_values(ports.kube, tenant, name)
    try:
        known = _known_authority(values, name) if values is not None else None
        authority = current_authority(known, trusted_by_pods, f"{tenant.name} Holdfast CA", ports.now, ports.mint)
    except ValueError as error:
        raise TlsFault("AuthorityUnreadable", f"Secret {name}: {error}; delete it to have another made") from error
    if values is None:
        manifest = manifests.render_authority_secret(tenant, authority)
        manifest["metadata"].pop("ownerReferences", None)
        try:
            await ports.kube.create(manifest)
        except REFUSALS as error:
            raise TlsFault("AuthorityNotMade", f"Secret {name} cannot be made: {error}") from error
    return authority


def _known_authority(values: dict[str, str], name: str) -> Authority:
    signing = _pair(values, manifests.CERTIFICATE, manifests.KEY)
    if signing is None:
        raise TlsFault("AuthorityUnreadable", f"Secret {name} lacks tls.crt or tls.key; delete it to have another made")
    coming = _pair(values, manifests.COMING_CERTIFICATE, manifests.COMING_KEY)
    for pair in (signing, *([coming] if coming is not None else [])):
        try:
            read = check_pair(pair, (), "", read_certificate(pair.certificate).begins)
        except PairUnusable as error:
            raise ValueError(str(error)) from error
        if not is_authority(read.certificate):
            raise ValueError("tls.crt is no authority of the operator's making")
    return Authority(signing, coming, values.get(manifests.PAST, ""))


def _tenant_tls(
    clients: KeyCertificate | None,
    clients_authority: str,
    peers: KeyCertificate,
    authority: Authority | None,
    trouble: tuple[str, str] | None = None,
    peers_authority: str = "",
) -> TenantTls:
    expires = read_certificate(clients.certificate).expires if clients is not None else None
    bundle = authority.bundle if authority is not None else peers_authority
    return TenantTls(clients, clients_authority, peers, bundle, authority, trouble, expires)


def _can_be_shown(pair: KeyCertificate, now: datetime) -> bool:
    """Also after its end: there is nothing better, and clients that do not verify, and pods that start, need some."""
    try:
        check_pair(pair, (), "", min(now, read_certificate(pair.certificate).expires - timedelta(seconds=1)))
    except (PairUnusable, ValueError):
        return False
    return True


def _addresses(service: Manifest | None) -> tuple[str, ...]:
    spec = (service or {}).get("spec") or {}
    found = spec.get("clusterIPs") or [spec.get("clusterIP")]
    return tuple(address for address in found if address and address != "None")


def _pair(values: dict[str, str], certificate: str, key: str) -> KeyCertificate | None:
    if not values.get(certificate) or not values.get(key):
        return None
    return KeyCertificate(values[certificate], values[key])


async def _own_values(kube: KubeClient, tenant: TenantSpec, name: str) -> dict[str, str] | None:
    secret = await kube.get(SECRET, tenant.namespace, name)
    if secret is None:
        return None
    if not labels.is_labelled_for(secret, tenant.name):
        raise TlsFault("SecretNotOurs", labels.strange_secret_words(name, tenant.name))
    return decoded(secret)
