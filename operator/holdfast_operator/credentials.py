"""Keys as values.  Their `repr` never shows a secret, so that none can slip into a log.  Pure."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class KeyPair:
    access_key: str
    secret_key: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class PeerIdentity:
    """What the tenant's pods know each other by; minted once, outlives the Tenant."""

    tenant_id: str
    peer_key: str = field(repr=False)
