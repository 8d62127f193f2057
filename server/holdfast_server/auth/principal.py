"""Who a request comes from, and what a key look-up returns."""

from __future__ import annotations

import msgspec

from holdfast_server.auth.policy import Policy

ACCOUNT_ID = "000000000000"
"""The one account there is, as ARNs show it."""


class Principal(msgspec.Struct, frozen=True, kw_only=True):
    """The asker.  Anonymous where the access key is empty."""

    access_key: str
    user_name: str
    is_root: bool = False
    """Root may do everything; policies are not asked."""
    policies: tuple[Policy, ...] = ()

    @property
    def is_anonymous(self) -> bool:
        return not self.access_key

    @property
    def arn(self) -> str:
        """As policies name it; empty for anonymous."""
        if self.is_anonymous:
            return ""
        return f"arn:aws:iam::{ACCOUNT_ID}:" + ("root" if self.is_root else f"user/{self.user_name}")


ANONYMOUS = Principal(access_key="", user_name="anonymous")


class Credentials(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of an access key."""

    secret_key: str
    principal: Principal
    former_secret_keys: tuple[str, ...] = ()
    """That prove the same while the secret key changes."""
    session_token: str = ""
    """Of temporary keys; must come with the request then, and with no other."""
