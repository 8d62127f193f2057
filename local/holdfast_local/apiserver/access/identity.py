"""Who is asking: bearer tokens, and the groups that come with a name. Pure."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass

MASTERS = "system:masters"
AUTHENTICATED = "system:authenticated"
UNAUTHENTICATED = "system:unauthenticated"
_ACCOUNT_PREFIX = "system:serviceaccount:"


@dataclass(frozen=True)
class User:
    """An authenticated (or anonymous) client."""

    name: str
    groups: tuple[str, ...]

    @property
    def is_master(self) -> bool:
        return MASTERS in self.groups


ANONYMOUS = User("system:anonymous", (UNAUTHENTICATED,))

Tokens = Mapping[str, tuple[str, tuple[str, ...]]]
"""Bearer token → user name and groups."""


def service_account_user(namespace: str, name: str) -> User:
    """The user that a pod with this service account is."""
    groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", AUTHENTICATED)
    return User(f"{_ACCOUNT_PREFIX}{namespace}:{name}", groups)


def account_of(name: str) -> tuple[str, str] | None:
    """Namespace and name of the service account that a user of this name is; None where it is none."""
    if not name.startswith(_ACCOUNT_PREFIX):
        return None
    namespace, _, account = name.removeprefix(_ACCOUNT_PREFIX).partition(":")
    return namespace, account


def user_from(name: str, groups: tuple[str, ...]) -> User:
    """A user from a token table: names of service accounts bring their groups along."""
    account = account_of(name)
    if account is not None:
        groups = (*groups, *service_account_user(*account).groups)
    return User(name, tuple(dict.fromkeys((*groups, AUTHENTICATED))))


class Authenticator:
    """Finds the user of a token; tokens of service accounts are added while we run."""

    def __init__(self, tokens: Tokens) -> None:
        self._users = {token: user_from(name, tuple(groups)) for token, (name, groups) in tokens.items()}

    def issue(self, namespace: str, account: str) -> str:
        """A new token for a service account; valid until the server stops."""
        token = secrets.token_urlsafe(32)
        self._users[token] = service_account_user(namespace, account)
        return token

    def authenticate(self, authorization: str | None) -> User | None:
        """The user of an `Authorization` header; anonymous without one, None if it is not valid."""
        if not authorization:
            return ANONYMOUS
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer":
            return None
        # Compared by hash lookup: timing tells nothing about random 256-bit tokens that is of use to a local client.
        return self._users.get(token.strip())
