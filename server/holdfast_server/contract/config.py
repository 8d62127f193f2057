"""The file a storage pod of a tenant reads: `holdfast server --config FILE --pod NAME`.

YAML or JSON with camelCase keys; unknown keys are refused, all faults are reported together by the reader.
The operator writes it into the ConfigMap `<tenant>-config`, key `config.yaml`, the same for every pod; the
pod re-reads it when it changes.  Secrets are never in it: they are references to mounted files.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from holdfast_server.contract import geometry, names

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=253)]


class _Struct(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    pass


class TenantConfig(_Struct, frozen=True, kw_only=True):
    id: Name
    """Minted once by the operator and kept with the tenant's Secrets; a drive of another tenant is refused."""
    name: Name
    namespace: str = ""


class ErasureConfig(_Struct, frozen=True, kw_only=True):
    set_size: int
    parity: int
    reduced_redundancy_parity: int | None = None
    """Of objects of the class REDUCED_REDUNDANCY that are written from now on; by default as `geometry.reduced_parity`
    says."""


class PoolConfig(_Struct, frozen=True, kw_only=True):
    name: Name
    servers: int
    volumes_per_server: int
    erasure: ErasureConfig
    pod_name_prefix: str
    """Pod *i* of the pool is named `<pod_name_prefix><i>`, as a StatefulSet names it: `logs-pool-main-`."""
    host_suffix: str = ""
    """Pod *i* is reached at `<pod name><host_suffix>`: `.logs-pods.loki.svc.cluster.local`."""
    drive_path: str
    """Where volume *v* is mounted in each pod; `{volume}` stands for *v*: `/data{volume}`."""
    first_node: int = 0
    """Pod *i*'s number in stamps is `first_node + i`: unique over the tenant's life, never reused."""
    weight: Annotated[float, msgspec.Meta(gt=0)] = 1.0
    readable_from_epoch: int = 1
    writable_from_epoch: int = 1
    formatting: bool = False
    """True until the operator has seen every drive of the pool formatted: blank drives may be given their
    identity.  Afterwards an empty drive is a *replacement* and must heal before it counts."""


class KeyFiles(_Struct, frozen=True, kw_only=True):
    root_user_file: str
    root_password_file: str
    peer_key_file: str
    further_keys_file: str = ""
    """Keys that are accepted beside these (`contract.keys`), while keys change; none where empty."""


class Listen(_Struct, frozen=True, kw_only=True):
    s3_port: int = names.S3_PORT
    console_port: int = names.CONSOLE_PORT
    peer_port: int = names.PEER_PORT


class AuditFile(_Struct, frozen=True, kw_only=True):
    path: Annotated[str, msgspec.Meta(pattern="^/[^\\x00]+$", max_length=4096)]
    max_size_bytes: Annotated[int, msgspec.Meta(ge=1 << 20)] = 100 << 20
    """When it has grown to that it is renamed to `<path>.1`, and a new one is begun."""
    keep: Annotated[int, msgspec.Meta(ge=0, le=100)] = 4
    """Renamed files that are kept."""


class AuditWebhook(_Struct, frozen=True, kw_only=True):
    url: Annotated[str, msgspec.Meta(pattern=r"^https?://[^\s/@]+(/\S*)?$", max_length=2048)]
    """Gets a POST of lines (`application/x-ndjson`).  Keys do not belong into it: `token_file`."""
    token_file: str = ""
    """Holds what is sent as `Authorization: Bearer …`; none where empty."""


class AuditConfig(_Struct, frozen=True, kw_only=True):
    """Where a line per request goes (`holdfast_server.audit`); nowhere by default."""

    stdout: bool = False
    file: AuditFile | None = None
    webhook: AuditWebhook | None = None


TlsStage = Literal["Offered", "Used", "Required"]
"""How far a tenant's pods use TLS (docs/decisions/0007-tls.md).  Between peers: both are accepted, and dialled is
without (Offered) or with it (Used); only with it (Required).  Clients may do as they like up to Used."""


class CertificateFiles(_Struct, frozen=True, kw_only=True):
    """PEM files, read again when they change."""

    certificate_file: str
    key_file: str
    ca_file: str
    """What the other end's certificate is verified against."""


class TlsConfig(_Struct, frozen=True, kw_only=True):
    certificate_file: str
    """Shown to clients, with its chain."""
    key_file: str
    peers: CertificateFiles
    """Of the tenant's own authority, which vouches for pods and nobody else."""
    stage: TlsStage = "Required"
    plaintext: Literal["Refused", "Accepted"] = "Refused"
    """What becomes of clients without TLS at stage Required; probes are answered either way."""


class DebugConfig(_Struct, frozen=True, kw_only=True):
    """For tests of the store itself; the operator never writes it, and no field of a Tenant leads here."""

    lifecycle_day_seconds: Annotated[float, msgspec.Meta(ge=0.5, le=86400.0)] | None = None
    """How long lifecycle rules take a day to be.  Data is deleted sooner by that."""


class EncryptionConfig(_Struct, frozen=True, kw_only=True):
    """What objects are encrypted with (docs/decisions/0012-encryption.md)."""

    keys_folder: str = ""
    """A file per key (`contract.encryption_keys`), read again when it changes; without it there is SSE-C only."""
    customer_keys_over_plaintext: Literal["Refused", "Accepted"] = "Refused"
    """Whether clients may send keys of SSE-C without TLS, as the pods see it."""


ObjectOwnership = Literal["BucketOwnerEnforced", "BucketOwnerPreferred", "ObjectWriter"]
DEFAULT_OBJECT_OWNERSHIP: ObjectOwnership = "BucketOwnerEnforced"


class ServerConfig(_Struct, frozen=True, kw_only=True):
    version: int = names.CONFIG_VERSION
    tenant: TenantConfig
    epoch: int = 1
    region: str = names.DEFAULT_REGION
    domains: list[str] = []
    pools: Annotated[list[PoolConfig], msgspec.Meta(min_length=1)]
    keys: KeyFiles
    listen: Listen = Listen()
    tls: TlsConfig | None = None
    audit: AuditConfig | None = None
    encryption: EncryptionConfig | None = None
    object_ownership: ObjectOwnership = DEFAULT_OBJECT_OWNERSHIP
    """Of new buckets whose creator does not say.  Access control lists are in force but with BucketOwnerEnforced;
    with ObjectWriter a new bucket has no ownership controls set, which means the same."""
    bucket_usage_metrics: bool = False
    """Whether /metrics, which needs no keys, tells what buckets hold, by name."""
    debug: DebugConfig | None = None


class ConfigError(ValueError):
    """Every fault of the file, one per line, each with the path of its field."""


def from_builtins(value: object) -> ServerConfig:
    """Check a parsed YAML document and turn it into a ServerConfig; raises ConfigError."""
    try:
        config = msgspec.convert(value, ServerConfig)
    except msgspec.ValidationError as error:
        raise ConfigError(str(error)) from error
    faults = list(_faults(config))
    if faults:
        raise ConfigError("\n".join(faults))
    return config


def to_builtins(config: ServerConfig) -> dict[str, object]:
    document = dict(msgspec.to_builtins(config))
    for name in ("audit", "debug", "encryption", "tls"):
        if document[name] is None:
            # Unknown to the release before, which pods still run while a tenant is upgraded.
            del document[name]
    for pool in document["pools"]:
        if pool["erasure"]["reducedRedundancyParity"] is None:
            del pool["erasure"]["reducedRedundancyParity"]
    if config.object_ownership == DEFAULT_OBJECT_OWNERSHIP:
        del document["objectOwnership"]
    if not config.bucket_usage_metrics:
        del document["bucketUsageMetrics"]
    return document


def _faults(config: ServerConfig) -> list[str]:
    faults = _faults_of_epochs(config)
    if config.version != names.CONFIG_VERSION:
        faults.append(f"version: {config.version} is not {names.CONFIG_VERSION}, the one this server reads")
    seen: set[int] = set()
    pool_names: set[str] = set()
    for index, pool in enumerate(config.pools):
        where = f"pools[{index}]"
        try:
            erasure = pool.erasure
            quorums = geometry.resolve(pool.servers, pool.volumes_per_server, erasure.set_size, erasure.parity)
            geometry.reduced_parity(pool.servers, pool.volumes_per_server, quorums, erasure.reduced_redundancy_parity)
        except geometry.GeometryError as error:
            faults.append(f"{where}.{error}")
        if pool.name in pool_names:
            faults.append(f"{where}.name: {pool.name!r} stands twice")
        pool_names.add(pool.name)
        nodes = set(range(pool.first_node, pool.first_node + pool.servers))
        if seen & nodes:
            faults.append(f"{where}.firstNode: overlaps another pool's pod numbers")
        if pool.first_node < 0 or pool.first_node + pool.servers > names.MAX_PODS:
            faults.append(f"{where}.firstNode: pod numbers must lie within 0 to {names.MAX_PODS - 1}")
        seen |= nodes
        if pool.volumes_per_server > 1 and "{volume}" not in pool.drive_path:
            faults.append(f"{where}.drivePath: must contain {{volume}} with more than one volume per server")
    return faults


def _faults_of_epochs(config: ServerConfig) -> list[str]:
    """A pool that joins must be readable an epoch before it is writable: no pod may place a key where a pod that is
    one epoch behind would not look."""
    faults = []
    first = min(pool.writable_from_epoch for pool in config.pools)
    if first > config.epoch:
        faults.append(f"epoch: no pool takes writes in epoch {config.epoch}")
    for index, pool in enumerate(config.pools):
        joined = pool.writable_from_epoch > first
        if pool.readable_from_epoch + joined > pool.writable_from_epoch:
            wanted = "before" if joined else "when"
            faults.append(f"pools[{index}].readableFromEpoch: a pool must be readable {wanted} it is writable")
    return faults
