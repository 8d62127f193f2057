"""Secrets for people, programs and pods, rendered from keys that were minted elsewhere.

Root and peer Secrets outlive the Tenant (no owner) unless its claims do not: data without their keys would be
lost, keys without data harm nobody.
"""

from __future__ import annotations

import base64

from holdfast_operator import labels
from holdfast_operator.credentials import KeyPair, PeerIdentity
from holdfast_operator.desired.metadata import render_metadata
from holdfast_operator.desired.request import RenderRequest
from holdfast_operator.kube.port import Manifest
from holdfast_operator.ledger import Ledger, encode_ledger
from holdfast_operator.tenant.spec import TenantSpec
from holdfast_server.contract import names

ACCESS_KEY = "accessKey"
SECRET_KEY = "secretKey"
PEER_KEY = "peerKey"
TENANT_ID_KEY = "tenantId"
LEDGER_KEY = "ledger.json"


def render_root_secret(request: RenderRequest) -> Manifest:
    tenant = request.tenant
    data = client_data(tenant, request.credentials.root, request.cluster_domain)
    return _secret(
        tenant,
        labels.root_secret_name(tenant.name),
        data,
        labels.COMPONENT_KEPT,
        owned=tenant.claim_retention == "Delete",
    )


def render_peer_secret(tenant: TenantSpec, peer: PeerIdentity, ledger: Ledger) -> Manifest:
    data = {
        PEER_KEY: peer.peer_key,
        TENANT_ID_KEY: peer.tenant_id,
        LEDGER_KEY: encode_ledger(ledger).decode(),
    }
    return _secret(
        tenant,
        labels.peer_secret_name(tenant.name),
        data,
        labels.COMPONENT_KEPT,
        owned=tenant.claim_retention == "Delete",
    )


def render_user_secret(request: RenderRequest, user_name: str) -> Manifest:
    tenant = request.tenant
    data = client_data(tenant, request.credentials.users[user_name], request.cluster_domain)
    name = labels.user_secret_name(tenant.name, user_name)
    return _secret(tenant, name, data, labels.COMPONENT_CREDENTIALS, owned=True)


def render_key_secret(tenant: TenantSpec, name: str, keys: KeyPair, component: str) -> Manifest:
    """A Secret of freshly minted keys and nothing else; the next apply adds the rest."""
    return _secret(tenant, name, {ACCESS_KEY: keys.access_key, SECRET_KEY: keys.secret_key}, component, owned=False)


def client_data(tenant: TenantSpec, keys: KeyPair, cluster_domain: str) -> dict[str, str]:
    """Everything a client needs, under the names that the AWS tools read from the environment."""
    endpoint = f"{labels.service_host(tenant.name, tenant.namespace, cluster_domain)}:{names.S3_PORT}"
    return {
        ACCESS_KEY: keys.access_key,
        SECRET_KEY: keys.secret_key,
        "AWS_ACCESS_KEY_ID": keys.access_key,
        "AWS_SECRET_ACCESS_KEY": keys.secret_key,
        "AWS_ENDPOINT_URL_S3": f"http://{endpoint}",
        "AWS_REGION": tenant.region,
        "endpoint": endpoint,
        "insecure": "true",
    }


def _secret(tenant: TenantSpec, name: str, data: dict[str, str], component: str, *, owned: bool) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": render_metadata(tenant, name, component=component, owned=owned),
        "type": "Opaque",
        "data": {key: base64.b64encode(value.encode()).decode() for key, value in sorted(data.items())},
    }
