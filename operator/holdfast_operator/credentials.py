"""Keys as values.  Their `repr` never shows a secret, so that none can slip into a log.  Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from holdfast_operator.ledger import Ledger


@dataclass(frozen=True, slots=True)
class KeyPair:
    access_key: str
    secret_key: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class PeerIdentity:
    """What the tenant's pods know each other by; minted once, outlives the Tenant."""

    tenant_id: str
    peer_key: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class TenantCredentials:
    """All keys of a tenant as gathered from its Secrets, with the ledger that lies beside the peer key."""

    root: KeyPair
    peer: PeerIdentity
    ledger: Ledger
    users: Mapping[str, KeyPair]
