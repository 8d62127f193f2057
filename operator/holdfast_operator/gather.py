"""Reads the tenant's keys from its Secrets and mints, once, those that are missing.

A key is minted with a plain create: if the Secret is there after all, the create fails and the pass is run
again, so that a key in use is never replaced.  A Secret under one of our names that is not labelled as ours is
left alone and reported.  A Secret that is ours but lacks a key is reported too, never repaired by guessing.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from dataclasses import dataclass

from holdfast_operator import labels
from holdfast_operator.credentials import KeyPair, PeerIdentity, TenantCredentials
from holdfast_operator.desired import secrets as secret_manifests
from holdfast_operator.kube.port import SECRET, KubeClient, Manifest
from holdfast_operator.ledger import Ledger, LedgerError, decode_ledger
from holdfast_operator.tenant.spec import TenantSpec

MIN_ACCESS_KEY_SIZE = 3
MIN_SECRET_KEY_SIZE = 8


class CredentialsFault(Exception):
    """Keys are missing, unusable or not ours; `reason` is fit for a condition."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class KeyMint:
    """Where new keys come from; in tests, from a counter."""

    key_pair: Callable[[], KeyPair]
    peer_identity: Callable[[], PeerIdentity]


async def gather_credentials(kube: KubeClient, tenant: TenantSpec, mint: KeyMint) -> TenantCredentials:
    """Raises CredentialsFault, or KubeError if the API server cannot be asked."""
    peer, ledger = await _peer(kube, tenant, mint)
    root = await _key_pair(
        kube,
        tenant,
        tenant.root_secret_name,
        labels.root_secret_name(tenant.name),
        labels.COMPONENT_KEPT,
        mint,
    )
    users = {}
    owners = {root.access_key: "the root user"}
    for user in tenant.users:
        name = labels.user_secret_name(tenant.name, user.name)
        pair = await _key_pair(kube, tenant, user.secret_name, name, labels.COMPONENT_CREDENTIALS, mint)
        if pair.access_key in owners:
            raise CredentialsFault(
                "AccessKeyNotUnique",
                f"user {user.name!r} has the same access key as {owners[pair.access_key]}",
            )
        owners[pair.access_key] = f"user {user.name!r}"
        users[user.name] = pair
    return TenantCredentials(root=root, peer=peer, ledger=ledger, users=users)


async def _peer(kube: KubeClient, tenant: TenantSpec, mint: KeyMint) -> tuple[PeerIdentity, Ledger]:
    name = labels.peer_secret_name(tenant.name)
    secret = await _own_secret(kube, tenant, name)
    if secret is None:
        identity, ledger = mint.peer_identity(), Ledger()
        manifest = secret_manifests.render_peer_secret(tenant, identity, ledger)
        manifest["metadata"].pop("ownerReferences", None)
        await kube.create(manifest)
        return identity, ledger
    values = _decoded(secret)
    identity = PeerIdentity(
        tenant_id=_required(values, name, secret_manifests.TENANT_ID_KEY, 1),
        peer_key=_required(values, name, secret_manifests.PEER_KEY, MIN_SECRET_KEY_SIZE),
    )
    try:
        ledger = decode_ledger(_required(values, name, secret_manifests.LEDGER_KEY, 1).encode())
    except LedgerError as error:
        raise CredentialsFault("LedgerUnreadable", f"Secret {name}: {error}") from error
    return identity, ledger


async def _key_pair(
    kube: KubeClient, tenant: TenantSpec, given_name: str | None, own_name: str, component: str, mint: KeyMint
) -> KeyPair:
    if given_name is not None:
        secret = await kube.get(SECRET, tenant.namespace, given_name)
        if secret is None:
            raise CredentialsFault("SecretMissing", f"Secret {given_name} does not exist")
        return _pair_of(secret)
    secret = await _own_secret(kube, tenant, own_name)
    if secret is not None:
        return _pair_of(secret)
    pair = mint.key_pair()
    await kube.create(secret_manifests.render_key_secret(tenant, own_name, pair, component))
    return pair


async def _own_secret(kube: KubeClient, tenant: TenantSpec, name: str) -> Manifest | None:
    secret = await kube.get(SECRET, tenant.namespace, name)
    if secret is not None and not labels.is_labelled_for(secret, tenant.name):
        raise CredentialsFault("SecretNotOurs", f"Secret {name} exists but does not belong to tenant {tenant.name}")
    return secret


def _pair_of(secret: Manifest) -> KeyPair:
    name, values = secret["metadata"]["name"], _decoded(secret)
    return KeyPair(
        _required(values, name, secret_manifests.ACCESS_KEY, MIN_ACCESS_KEY_SIZE),
        _required(values, name, secret_manifests.SECRET_KEY, MIN_SECRET_KEY_SIZE),
    )


def _decoded(secret: Manifest) -> dict[str, str]:
    values = {}
    for key, text in (secret.get("data") or {}).items():
        try:
            values[key] = base64.b64decode(text or "").decode()
        except (binascii.Error, UnicodeDecodeError):
            continue  # reported as missing, if it is one of ours
    return values


def _required(values: dict[str, str], secret_name: str, key: str, min_size: int) -> str:
    value = values.get(key, "").strip()
    if len(value) < min_size:
        raise CredentialsFault("SecretIncomplete", f"Secret {secret_name}: {key} needs at least {min_size} characters")
    return value
