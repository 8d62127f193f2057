"""Secrets for people, programs and pods, rendered from keys that were minted elsewhere.

Root and peer Secrets, and the copy of the latter, outlive the Tenant (no owner) unless its claims do not: data
without their keys would be lost, keys without data harm nobody.
"""

from __future__ import annotations

from holdfast_operator import labels
from holdfast_operator.credentials import KeyPair
from holdfast_operator.desired.request import RenderRequest
from holdfast_operator.desired.secret_data import render_secret
from holdfast_operator.desired.tls import client_trust
from holdfast_operator.key_book import KeyBook, encode_book, further_keys
from holdfast_operator.kube.port import Manifest
from holdfast_operator.ledger import Ledger, encode_ledger
from holdfast_operator.tenant.spec import TenantSpec
from holdfast_operator.tls.stages import speaks_tls
from holdfast_server.contract import names

ACCESS_KEY = "accessKey"
SECRET_KEY = "secretKey"
PEER_KEY = "peerKey"
TENANT_ID_KEY = "tenantId"
LEDGER_KEY = "ledger.json"
BOOK_KEY = "keys.json"
"""The operator's record of all keys."""
FURTHER_KEY = "furtherKeys.json"
"""What pods accept beside `accessKey`, `secretKey` and `peerKey` of the same Secret."""


def render_root_secret(request: RenderRequest) -> Manifest:
    tenant = request.tenant
    data = client_data(request, request.credentials.root)
    return render_secret(
        tenant,
        labels.root_secret_name(tenant.name),
        data,
        labels.COMPONENT_KEPT,
        owned=tenant.claim_retention == "Delete",
    )


def render_peer_secret(tenant: TenantSpec, tenant_id: str, book: KeyBook, ledger: Ledger) -> Manifest:
    """All that the pods' keys are made of, so that they start whatever becomes of the other Secrets."""
    return _kept_secret(tenant, labels.peer_secret_name(tenant.name), tenant_id, book, ledger)


def render_peer_copy(tenant: TenantSpec, tenant_id: str, book: KeyBook, ledger: Ledger) -> Manifest:
    """The same, in case the other is deleted."""
    return _kept_secret(tenant, labels.peer_copy_secret_name(tenant.name), tenant_id, book, ledger)


def _kept_secret(tenant: TenantSpec, name: str, tenant_id: str, book: KeyBook, ledger: Ledger) -> Manifest:
    data = {
        ACCESS_KEY: book.root.current.access_key,
        SECRET_KEY: book.root.current.secret_key,
        PEER_KEY: book.peer.own,
        FURTHER_KEY: further_keys(book).decode(),
        TENANT_ID_KEY: tenant_id,
        BOOK_KEY: encode_book(book).decode(),
        LEDGER_KEY: encode_ledger(ledger).decode(),
    }
    return render_secret(
        tenant,
        name,
        data,
        labels.COMPONENT_KEPT,
        owned=tenant.claim_retention == "Delete",
    )


def render_user_secret(request: RenderRequest, user_name: str) -> Manifest:
    tenant = request.tenant
    data = client_data(request, request.credentials.users[user_name])
    name = labels.user_secret_name(tenant.name, user_name)
    return render_secret(tenant, name, data, labels.COMPONENT_CREDENTIALS, owned=True)


def client_data(request: RenderRequest, keys: KeyPair) -> dict[str, str]:
    """Everything a client needs, under the names that the AWS tools read from the environment."""
    tenant = request.tenant
    endpoint = f"{labels.service_host(tenant.name, tenant.namespace, request.cluster_domain)}:{names.S3_PORT}"
    secure = speaks_tls(request.ledger)
    return {
        ACCESS_KEY: keys.access_key,
        SECRET_KEY: keys.secret_key,
        "AWS_ACCESS_KEY_ID": keys.access_key,
        "AWS_SECRET_ACCESS_KEY": keys.secret_key,
        "AWS_ENDPOINT_URL_S3": f"{'https' if secure else 'http'}://{endpoint}",
        "AWS_REGION": tenant.region,
        "AWS_DEFAULT_REGION": tenant.region,  # what botocore reads, and with it awscli 1
        "endpoint": endpoint,
        "insecure": "false" if secure else "true",
        **client_trust(request.tls),
    }
