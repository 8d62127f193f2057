"""Who a request comes from, and what a key look-up returns.

Buckets and objects belong to *accounts*; a user is in one.  The account without a name is the tenant's own: root and
every user that was declared without an account are in it.  An account is shown to clients by a canonical id (in
grants), a number of twelve digits (in ARNs) and its name; all three follow from the name.

*Root* is the store's.  The root of an account is a user of it who may do everything in that account, and nothing to the
store.  A *session* (from STS) stands for a user, or for a role that was assumed; what it may do is what they may do,
cut down by its limits.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from holdfast_server.auth.policy import Policy
from holdfast_server.contract.accounts import OWN_ACCOUNT_ID, ROOT_NAME, account_id, account_name, canonical_id

TENANT_ACCOUNT = ""
ACCOUNT_ID = OWN_ACCOUNT_ID
"""Of the tenant's own account, as ARNs show it."""
_NO_BARE_NAME = re.compile(r"[0-9]{12}|[0-9a-f]{64}|root")
"""A user of such a name is not known by it alone: it would pass for an account, or for root."""


class AssumedRole(msgspec.Struct, frozen=True, kw_only=True):
    """A session of a role."""

    name: str
    path: str = "/"
    unique_id: str = ""
    session_name: str


class Principal(msgspec.Struct, frozen=True, kw_only=True):
    """The asker.  Anonymous where the access key is empty."""

    access_key: str
    user_name: str
    """Of a role's session: the role's name."""
    is_root: bool = False
    """Root may do everything that no bucket's policy denies; no policies of its own are asked."""
    account: str = TENANT_ACCOUNT
    policies: tuple[Policy, ...] = ()
    """Given by who administers the store."""
    client_policies: tuple[Policy, ...] = ()
    """Given through the IAM API, by users of the account: they never allow to administer the store."""
    is_account_root: bool = False
    """May do everything in its account that no bucket's policy denies."""
    path: str = "/"
    unique_id: str = ""
    tags: Mapping[str, str] = {}
    """Of the user, or of the role of which it is a session."""
    role: AssumedRole | None = None
    limits: tuple[tuple[Policy, ...], ...] = ()
    """Each of these has to allow it too: the session's policies, those of its access key."""
    issued_ms: int = 0
    """When the session began; 0 for a key that is not temporary."""
    origin: str = ""
    """Of a session: the access key that it hangs on."""

    @property
    def is_anonymous(self) -> bool:
        return not self.access_key

    @property
    def is_temporary(self) -> bool:
        return self.issued_ms > 0

    @property
    def everything_at_home(self) -> bool:
        """Whether it needs no policy of its own."""
        return self.is_root or self.is_account_root

    @property
    def all_policies(self) -> tuple[Policy, ...]:
        """Those that say something about it."""
        return (*self.policies, *self.client_policies, *(policy for layer in self.limits for policy in layer))

    @property
    def arn(self) -> str:
        """As policies name it; empty for anonymous."""
        if self.is_anonymous:
            return ""
        number = account_id(self.account)
        if self.role is not None:
            return f"arn:aws:sts::{number}:assumed-role/{self.role.name}/{self.role.session_name}"
        return f"arn:aws:iam::{number}:" + ("root" if self.everything_at_home else f"user{self.path}{self.user_name}")

    @property
    def user_id(self) -> str:
        """`aws:userid`."""
        if self.role is not None:
            return f"{self.role.unique_id}:{self.role.session_name}"
        return self.unique_id or self.user_name

    def own_names(self, account: str) -> tuple[str, ...]:
        """Under which a policy of `account` may name it and no other; none for anonymous."""
        if self.is_anonymous:
            return ()
        if self.role is not None:
            return (self.arn, f"arn:aws:iam::{account_id(self.account)}:role{self.role.path}{self.role.name}")
        bare = self.is_root or (account == self.account and not _NO_BARE_NAME.fullmatch(self.user_name))
        return (self.arn, self.user_name) if bare else (self.arn,)

    def names(self, account: str) -> tuple[str, ...]:
        """`own_names`, and those of its account."""
        if self.is_anonymous:
            return ()
        number = account_id(self.account)
        return (*self.own_names(account), number, f"arn:aws:iam::{number}:root", canonical_id(self.account))


ANONYMOUS = Principal(access_key="", user_name="anonymous")


class Credentials(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of an access key."""

    secret_key: str
    principal: Principal
    former_secret_keys: tuple[str, ...] = ()
    """That prove the same while the secret key changes."""
    session_token: str = ""
    """Of temporary keys; must come with the request then, and with no other."""
    expires_ms: int = 0
    """0: never."""


__all__ = [
    "ACCOUNT_ID", "ANONYMOUS", "ROOT_NAME", "TENANT_ACCOUNT", "AssumedRole", "Credentials", "Principal", "account_id",
    "account_name", "canonical_id",
]  # fmt: skip
