"""The file every storage pod reads: `ServerConfig` of the contract, the same for all pods of the tenant.

Pools come from the ledger, not from the spec: a pool exists for the pods from the moment it was written down,
with the numbers it was written down with.
"""

from __future__ import annotations

import yaml

from holdfast_operator import labels
from holdfast_operator.desired import paths, secrets
from holdfast_operator.desired.metadata import render_metadata
from holdfast_operator.desired.request import RenderRequest
from holdfast_operator.desired.tls import tls_config
from holdfast_operator.kube.port import Manifest
from holdfast_operator.ledger import PoolRecord
from holdfast_operator.tenant.spec import TenantSpec
from holdfast_server.contract import config


def render_config_map(request: RenderRequest) -> Manifest:
    document = config.to_builtins(server_config(request))
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": render_metadata(request.tenant, labels.config_map_name(request.tenant.name)),
        # By libyaml: in Python alone it would be a fifth of what a pass over a Tenant takes.
        "data": {paths.CONFIG_KEY: yaml.dump(document, Dumper=yaml.CSafeDumper, sort_keys=False)},
    }


def server_config(request: RenderRequest) -> config.ServerConfig:
    tenant = request.tenant
    return config.ServerConfig(
        tenant=config.TenantConfig(id=request.credentials.tenant_id, name=tenant.name, namespace=tenant.namespace),
        epoch=request.ledger.epoch,
        region=tenant.region,
        domains=list(tenant.domains),
        tls=tls_config(tenant, request.ledger),
        audit=_audit(tenant),
        encryption=_encryption(tenant),
        object_ownership=tenant.object_ownership,
        bucket_usage_metrics=tenant.bucket_usage_metrics,
        pools=[_pool(tenant, record, request.cluster_domain) for record in request.ledger.pools],
        keys=config.KeyFiles(
            root_user_file=f"{paths.KEYS_FOLDER}/{secrets.ACCESS_KEY}",
            root_password_file=f"{paths.KEYS_FOLDER}/{secrets.SECRET_KEY}",
            peer_key_file=f"{paths.KEYS_FOLDER}/{secrets.PEER_KEY}",
            further_keys_file=f"{paths.KEYS_FOLDER}/{secrets.FURTHER_KEY}",
        ),
    )


def _encryption(tenant: TenantSpec) -> config.EncryptionConfig | None:
    if tenant.encryption is None:
        return None
    return config.EncryptionConfig(
        keys_folder=paths.ENCRYPTION_FOLDER,
        customer_keys_over_plaintext=tenant.encryption.customer_keys_over_plaintext,
    )


def _audit(tenant: TenantSpec) -> config.AuditConfig | None:
    audit = tenant.audit
    if audit is None:
        return None
    webhook = None
    if audit.webhook_url:
        token_file = f"{paths.AUDIT_FOLDER}/{paths.AUDIT_TOKEN_KEY}" if audit.token_secret_name else ""
        webhook = config.AuditWebhook(url=audit.webhook_url, token_file=token_file)
    return config.AuditConfig(stdout=audit.stdout, webhook=webhook)


def _pool(tenant: TenantSpec, record: PoolRecord, cluster_domain: str) -> config.PoolConfig:
    service = labels.pods_service_name(tenant.name)
    return config.PoolConfig(
        name=record.name,
        servers=record.servers,
        volumes_per_server=record.volumes_per_server,
        erasure=config.ErasureConfig(
            set_size=record.set_size,
            parity=record.parity,
            reduced_redundancy_parity=next(
                (pool.reduced_redundancy_parity for pool in tenant.pools if pool.name == record.name), None
            ),
        ),
        pod_name_prefix=labels.pod_name_prefix(tenant.name, record.name),
        host_suffix=f".{service}.{tenant.namespace}.svc.{cluster_domain}",
        drive_path=paths.DRIVE_PATH,
        first_node=record.first_node,
        readable_from_epoch=record.readable_from_epoch,
        writable_from_epoch=record.writable_from_epoch,
        formatting=not record.formatted,
    )
