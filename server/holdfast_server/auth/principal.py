"""Who a request comes from, and what a key look-up returns.

Buckets and objects belong to *accounts*; a user is in one.  The account without a name is the tenant's own: root and
every user that was declared without an account are in it.  An account is shown to clients by a canonical id (in
grants), a number of twelve digits (in ARNs) and its name; all three follow from the name.
"""

from __future__ import annotations

import hashlib

import msgspec

from holdfast_server.auth.policy import Policy

TENANT_ACCOUNT = ""
ACCOUNT_ID = "000000000000"
"""Of the tenant's own account, as ARNs show it."""
ROOT_NAME = "root"


def account_name(account: str) -> str:
    """For people."""
    return account or ROOT_NAME


def account_id(account: str) -> str:
    """Twelve digits."""
    if not account:
        return ACCOUNT_ID
    return f"{int.from_bytes(hashlib.sha256(account.encode()).digest()[:8], 'big') % 10**12:012}"


def canonical_id(account: str) -> str:
    """64 hex digits."""
    return hashlib.sha256(account_name(account).encode()).hexdigest()


class Principal(msgspec.Struct, frozen=True, kw_only=True):
    """The asker.  Anonymous where the access key is empty."""

    access_key: str
    user_name: str
    is_root: bool = False
    """Root may do everything that no bucket's policy denies; no policies of its own are asked."""
    account: str = TENANT_ACCOUNT
    policies: tuple[Policy, ...] = ()

    @property
    def is_anonymous(self) -> bool:
        return not self.access_key

    @property
    def arn(self) -> str:
        """As policies name it; empty for anonymous."""
        if self.is_anonymous:
            return ""
        return f"arn:aws:iam::{account_id(self.account)}:" + ("root" if self.is_root else f"user/{self.user_name}")

    @property
    def names(self) -> tuple[str, ...]:
        """Under which a bucket's policy may name it, or its account; none for anonymous."""
        if self.is_anonymous:
            return ()
        number = account_id(self.account)
        return (self.arn, self.user_name, number, f"arn:aws:iam::{number}:root", canonical_id(self.account))


ANONYMOUS = Principal(access_key="", user_name="anonymous")


class Credentials(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of an access key."""

    secret_key: str
    principal: Principal
    former_secret_keys: tuple[str, ...] = ()
    """That prove the same while the secret key changes."""
    session_token: str = ""
    """Of temporary keys; must come with the request then, and with no other."""
