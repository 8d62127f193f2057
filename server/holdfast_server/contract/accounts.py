"""How an account shows itself: its number in ARNs and its canonical id in grants, which both follow from its name.

The account without a name is the tenant's own.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache

ROOT_NAME = "root"
"""How the tenant's own account is shown; no other may be called so."""
OWN_ACCOUNT_ID = "000000000000"
KEPT = 1024
"""Of what follows from names of accounts: every request asks for it."""


def account_name(account: str) -> str:
    """For people."""
    return account or ROOT_NAME


@lru_cache(maxsize=KEPT)
def account_id(account: str) -> str:
    """Twelve digits, as ARNs show it."""
    if not account:
        return OWN_ACCOUNT_ID
    return f"{int.from_bytes(hashlib.sha256(account.encode()).digest()[:8], 'big') % 10**12:012}"


@lru_cache(maxsize=KEPT)
def canonical_id(account: str) -> str:
    """64 hex digits, as grants show it."""
    return hashlib.sha256(account_name(account).encode()).hexdigest()
