"""Keys as values.  Their `repr` never shows a secret, so that none can slip into a log.  Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

MIN_ACCESS_KEY_SIZE = 3
MIN_SECRET_KEY_SIZE = 8
MAX_SECRET_KEY_SIZE = 256
"""What the store takes."""
ACCESS_KEY_FORM = re.compile(r"[A-Za-z0-9_.@+-]{3,128}")
"""As the storage pods have it: a signature could not carry other keys."""
ACCESS_KEY_WORDS = "may have A-Z a-z 0-9 _ . @ + - only, at most 128"


@dataclass(frozen=True, slots=True)
class KeyPair:
    access_key: str
    secret_key: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class PeerIdentity:
    """What the tenant's pods know each other by; minted once, outlives the Tenant."""

    tenant_id: str
    peer_key: str = field(repr=False)
