"""What a valid Tenant says, with every default filled in.  Frozen: a pass works on one unchanging value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from holdfast_server.contract import geometry, names
from holdfast_server.contract.buckets import EtagForm
from holdfast_server.contract.config import DEFAULT_OBJECT_OWNERSHIP, ObjectOwnership

Spread = Literal["Preferred", "Required", "Disabled"]
Access = Literal["ReadWrite", "ReadOnly"]
Retention = Literal["Retain", "Delete"]
TlsMode = Literal["Disabled", "SelfSigned", "CertManager", "Secret"]
Plaintext = Literal["Refused", "Accepted"]
ServiceType = Literal["ClusterIP", "NodePort", "LoadBalancer"]


@dataclass(frozen=True, slots=True)
class VolumeClaim:
    """The claim behind each volume of a pool."""

    storage: str
    storage_class_name: str | None = None
    access_modes: tuple[str, ...] = ("ReadWriteOnce",)


@dataclass(frozen=True, slots=True)
class PodSettings:
    """What the pods of a pool take over from the Tenant as it stands, in Kubernetes' own structure."""

    spread_over_nodes: Spread = "Preferred"
    resources: Mapping[str, Any] = field(default_factory=dict)
    node_selector: Mapping[str, str] = field(default_factory=dict)
    affinity: Mapping[str, Any] = field(default_factory=dict)
    """Replaces the anti-affinity that `spread_over_nodes` stands for."""
    tolerations: tuple[Mapping[str, Any], ...] = ()
    topology_spread_constraints: tuple[Mapping[str, Any], ...] = ()
    priority_class_name: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    env: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class PoolSpec:
    name: str
    servers: int
    volumes_per_server: int
    quorums: geometry.Quorums
    claim: VolumeClaim
    pods: PodSettings = PodSettings()
    reduced_redundancy_parity: int | None = None
    """As the Tenant says it, if it does."""

    @property
    def reduced_parity(self) -> int:
        """Of objects of reduced redundancy that are written now."""
        chosen = self.reduced_redundancy_parity
        return geometry.reduced_parity(self.servers, self.volumes_per_server, self.quorums, chosen)

    @property
    def tolerated_servers(self) -> int:
        """Servers that may be lost while writes go on."""
        return geometry.tolerated_servers(self.servers, self.volumes_per_server, self.quorums)


@dataclass(frozen=True, slots=True)
class CorsRule:
    allowed_origins: tuple[str, ...]
    allowed_methods: tuple[str, ...]
    allowed_headers: tuple[str, ...] = ()
    expose_headers: tuple[str, ...] = ()
    max_age_seconds: int | None = None
    id: str = ""


@dataclass(frozen=True, slots=True)
class LifecycleRule:
    id: str
    enabled: bool = True
    prefix: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    larger_than_bytes: int | None = None
    smaller_than_bytes: int | None = None
    days: int | None = None
    date: str = ""
    """`2030-01-31`; from its midnight UTC on."""
    expired_marker: bool | None = None
    noncurrent_days: int | None = None
    newer_versions: int | None = None
    abort_days: int | None = None


@dataclass(frozen=True, slots=True)
class QuotaSpec:
    """How much a bucket may hold; both None: no quota."""

    size_bytes: int | None = None
    objects: int | None = None


@dataclass(frozen=True, slots=True)
class ObjectLockSpec:
    """Locking, which is never switched off again, and what new objects are kept for by default."""

    mode: str = ""
    """GOVERNANCE or COMPLIANCE; empty: no default retention."""
    days: int = 0
    years: int = 0
    """One of the two where there is a mode."""


@dataclass(frozen=True, slots=True)
class BucketEncryptionSpec:
    algorithm: str
    """`AES256`, `aws:kms`, or `None`, which takes it away."""
    key_name: str = ""


@dataclass(frozen=True, slots=True)
class BucketSpec:
    name: str
    deletion_policy: Retention = "Retain"
    """What becomes of the bucket when it leaves the spec; `Delete` removes it only once it is empty."""
    owner: str | None = None
    """The account it belongs to; None: not managed, and the tenant's own where the operator makes it."""
    versioning: str | None = None
    """Enabled or Suspended; None: not managed."""
    object_lock: ObjectLockSpec | None = None
    """None: not managed."""
    object_ownership: ObjectOwnership | None = None
    """None: not managed."""
    encryption: BucketEncryptionSpec | None = None
    """Of objects whose writer asks for none; None: not managed."""
    tags: Mapping[str, str] | None = None
    """None: not managed; here and below, what is empty is taken away."""
    cors: tuple[CorsRule, ...] | None = None
    lifecycle: tuple[LifecycleRule, ...] | None = None
    quota: QuotaSpec | None = None
    etag: EtagForm | None = None
    """What ETags it gives; None: not managed, and MD5 where nobody has set it."""
    policy: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class BucketGrant:
    name: str
    access: Access = "ReadWrite"


@dataclass(frozen=True, slots=True)
class AccountSpec:
    name: str
    display_name: str = ""
    """The name if empty."""


@dataclass(frozen=True, slots=True)
class UserSpec:
    name: str
    account: str = ""
    """Whom its buckets belong to; the tenant's own account if empty."""
    account_root: bool = False
    """May do everything in its account, and to nothing else."""
    secret_name: str | None = None
    """A Secret of the namespace with `accessKey` and `secretKey`; generated as `<tenant>-user-<name>` if None."""
    policies: tuple[str, ...] = ()
    buckets: tuple[BucketGrant, ...] = ()


@dataclass(frozen=True, slots=True)
class PolicySpec:
    name: str
    document: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class AuditSpec:
    """Where the pods' audit lines go."""

    stdout: bool = False
    webhook_url: str = ""
    token_secret_name: str | None = None
    """A Secret of the namespace with `token`."""


@dataclass(frozen=True, slots=True)
class ServiceMonitorSpec:
    labels: Mapping[str, str] = field(default_factory=dict)
    """By which a Prometheus selects what it reads."""
    interval_seconds: int = 30


@dataclass(frozen=True, slots=True)
class PrometheusRuleSpec:
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class IssuerSpec:
    """Of cert-manager."""

    name: str
    kind: str = "Issuer"
    group: str = "cert-manager.io"


@dataclass(frozen=True, slots=True)
class TlsSpec:
    mode: TlsMode = "Disabled"
    secret_name: str = ""
    """In mode Secret: a Secret of the namespace with `tls.crt`, `tls.key` and, unless it is public, `ca.crt`."""
    issuer: IssuerSpec | None = None
    """In mode CertManager."""
    additional_names: tuple[str, ...] = ()
    """DNS names and IP addresses that the certificate shall vouch for, too."""
    plaintext: Plaintext = "Refused"
    """What becomes of clients without TLS once every pod has it."""


@dataclass(frozen=True, slots=True)
class EncryptionSpec:
    secret_name: str | None = None
    """A Secret of the namespace with keys; `<tenant>-encryption`, made by the operator, if None."""
    customer_keys_over_plaintext: Plaintext = "Refused"
    """What becomes of clients that send keys of SSE-C without TLS, as the pods see it."""
    retired_keys: tuple[str, ...] = ()
    """Entries of the Secret that may be gone."""


@dataclass(frozen=True, slots=True)
class ServiceSpec:
    """How the Service for clients is reached."""

    type: ServiceType = "ClusterIP"
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    node_port: int | None = None
    external_traffic_policy: str | None = None
    load_balancer_class: str | None = None
    load_balancer_source_ranges: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class IngressSpec:
    hosts: tuple[str, ...]
    class_name: str | None = None
    tls_secret_name: str | None = None
    """A Secret of the namespace with the certificate that the ingress controller shows."""
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NetworkPolicySpec:
    clients: tuple[Mapping[str, Any], ...] | None = None
    """Peers of a NetworkPolicy; None for everybody."""


@dataclass(frozen=True, slots=True)
class ServiceAccountSpec:
    name: str | None = None
    """One that exists; that of the operator's making if None."""
    annotations: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PodIdentity:
    """Who the pods run as; None: as the image says."""

    user: int | None = None
    group: int | None = None
    volumes_group: int | None = None
    supplemental_groups: tuple[int, ...] = ()
    assigned_by_cluster: bool = False


@dataclass(frozen=True, slots=True)
class TenantSpec:
    name: str
    namespace: str
    uid: str
    generation: int
    pools: tuple[PoolSpec, ...]
    image: str | None = None
    image_pull_policy: str | None = None
    image_pull_secrets: tuple[str, ...] = ()
    region: str = names.DEFAULT_REGION
    domains: tuple[str, ...] = ()
    root_secret_name: str | None = None
    """A Secret of the namespace with `accessKey` and `secretKey`; generated as `<tenant>-root` if None."""
    object_ownership: ObjectOwnership = DEFAULT_OBJECT_OWNERSHIP
    """Of new buckets whose creator does not say."""
    accounts: tuple[AccountSpec, ...] = ()
    users: tuple[UserSpec, ...] = ()
    policies: tuple[PolicySpec, ...] = ()
    buckets: tuple[BucketSpec, ...] = ()
    key_overlap_seconds: int = 3600
    """How long former keys stay valid after the new ones are valid everywhere."""
    claim_retention: Retention = "Retain"
    allow_disruption: bool = False
    tls: TlsSpec = TlsSpec()
    encryption: EncryptionSpec | None = None
    audit: AuditSpec | None = None
    service_monitor: ServiceMonitorSpec | None = None
    """Made only where it is asked for."""
    prometheus_rule: PrometheusRuleSpec | None = None
    bucket_usage_metrics: bool = False
    """Whether pods tell what buckets hold, by name, to whoever may reach /metrics."""
    service: ServiceSpec = ServiceSpec()
    ingress: IngressSpec | None = None
    network_policy: NetworkPolicySpec | None = None
    has_disruption_budget: bool = True
    service_account: ServiceAccountSpec = ServiceAccountSpec()
    identity: PodIdentity = PodIdentity()

    @property
    def pool_names(self) -> frozenset[str]:
        return frozenset(pool.name for pool in self.pools)

    @property
    def named_secrets(self) -> frozenset[str]:
        """Secrets that are not the operator's to make."""
        named = [self.root_secret_name, self.tls.secret_name, self.token_secret_name, *self.image_pull_secrets]
        named += [user.secret_name for user in self.users]
        named += [self.encryption.secret_name] if self.encryption is not None else []
        named += [self.ingress.tls_secret_name] if self.ingress is not None else []
        return frozenset(name for name in named if name)

    @property
    def token_secret_name(self) -> str | None:
        """The Secret that has to be mounted for the audit log."""
        return self.audit.token_secret_name if self.audit is not None else None
