"""Keys as values.  Their `repr` never shows a secret, so that none can slip into a log.  Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from holdfast_server.contract.keys import MAX_ACCESS_KEY_LENGTH, MIN_ACCESS_KEY_LENGTH

ACCESS_KEY_FORM = re.compile(rf"[A-Za-z0-9_.@+-]{{{MIN_ACCESS_KEY_LENGTH},{MAX_ACCESS_KEY_LENGTH}}}")
"""As the storage pods have it: a signature could not carry other keys."""
ACCESS_KEY_WORDS = f"may have A-Z a-z 0-9 _ . @ + - only, at most {MAX_ACCESS_KEY_LENGTH}"


@dataclass(frozen=True, slots=True)
class KeyPair:
    access_key: str
    secret_key: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class PeerIdentity:
    """What the tenant's pods know each other by; minted once, outlives the Tenant."""

    tenant_id: str
    peer_key: str = field(repr=False)
