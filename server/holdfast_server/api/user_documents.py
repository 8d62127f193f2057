"""What is kept of users and accounts: their documents, and users' secret keys, which rest encrypted.

A secret key is sealed (`sealing`) with the access key authenticated, so that no user's secret can be put under
another's name.  Any of the pod's peer keys opens it; `resealed` brings a document under its own, and then former ones
may go.

Not here: who is known to a pod (`identities`), what clients made beside (`auth.entities`), sessions (`session_tokens`).
"""

from __future__ import annotations

import base64

import msgspec

from holdfast_server.api.sealing import PeerKeys, Sealer
from holdfast_server.clock.port import Clock

USER_PREFIX = "user/"
ACCOUNT_PREFIX = "account/"
USER_FORMAT = 2
"""1: as of the first release.  2: has fields that must not be overlooked (`UserDocument.needs_format_2`)."""
ACCOUNT_FORMAT = 1
_KEY_PURPOSE = b"holdfast user secret keys v1"


class UserDocument(msgspec.Struct, frozen=True, kw_only=True):
    """The JSON of `user/<accessKey>`."""

    secret: str
    """base64 of nonce and ciphertext."""
    name: str = ""
    policies: list[str] = []
    enabled: bool = True
    changed_ms: int = 0
    format: int = 1
    """Of this document; fields are only ever appended, and a document of a later format is refused."""
    former: list[str] = []
    """Secrets of before that are valid too, sealed like `secret`."""
    account: str = ""
    """Its name; the tenant's own where empty."""
    account_root: bool = False
    """May do everything in its account."""
    identity: str = ""
    """The unique id of its user, where clients made it; without that user it is no key."""
    expires_ms: int = 0
    """0: never."""
    policy: str = ""
    """A document that has to allow it too; none where empty."""
    created_ms: int = 0

    @property
    def sealed(self) -> list[str]:
        return [self.secret, *self.former]

    @property
    def needs_format_2(self) -> bool:
        """Whether it says something that a pod which does not know of it must not overlook."""
        return bool(self.identity or self.expires_ms or self.policy)


class AccountDocument(msgspec.Struct, frozen=True, kw_only=True):
    """The JSON of `account/<name>`."""

    display_name: str = ""
    format: int = ACCOUNT_FORMAT


def encode_user(document: UserDocument) -> bytes:
    """In the lowest format that says it all, so that pods of a release before read what they can."""
    return msgspec.json.encode(msgspec.structs.replace(document, format=2 if document.needs_format_2 else 1))


class User(msgspec.Struct, frozen=True, kw_only=True):
    """A user document, decrypted."""

    access_key: str
    secret_key: str
    name: str
    policies: tuple[str, ...] = ()
    enabled: bool = True
    former_secret_keys: tuple[str, ...] = ()
    account: str = ""
    account_root: bool = False
    identity: str = ""
    expires_ms: int = 0
    policy: str = ""
    created_ms: int = 0


class SecretBox:
    """Encrypts users' secret keys at rest."""

    def __init__(self, peer_keys: PeerKeys, clock: Clock) -> None:
        self._sealer = Sealer(_KEY_PURPOSE, peer_keys, clock)

    @property
    def keys(self) -> frozenset[bytes]:
        return self._sealer.keys

    def seal(self, access_key: str, secret_key: str) -> str:
        return base64.b64encode(self._sealer.seal(access_key, secret_key.encode())).decode()

    def open(self, access_key: str, sealed: str) -> str:
        """Raises ValueError if it was sealed with another key or for another user."""
        return self._sealer.open(access_key, base64.b64decode(sealed, validate=True))[1].decode()

    def needs_resealing(self, access_key: str, sealed: str) -> bool:
        """Whether another key than the pod's own opens it.  Raises ValueError as `open` does."""
        return self._sealer.open(access_key, base64.b64decode(sealed, validate=True))[0] > 0

    def user(self, access_key: str, body: bytes) -> User:
        """What a document says.  Raises ValueError."""
        document = _read(body)
        secret_key, *former = (self.open(access_key, sealed) for sealed in document.sealed)
        return User(
            access_key=access_key,
            secret_key=secret_key,
            name=document.name or access_key,
            policies=tuple(document.policies),
            enabled=document.enabled,
            former_secret_keys=tuple(former),
            account=document.account,
            account_root=document.account_root,
            identity=document.identity,
            expires_ms=document.expires_ms,
            policy=document.policy,
            created_ms=document.created_ms or document.changed_ms,
        )

    def resealed(self, access_key: str, body: bytes) -> bytes | None:
        """The document under the pod's own key; None where it is.  Raises ValueError."""
        document = _read(body)
        if not any(self.needs_resealing(access_key, sealed) for sealed in document.sealed):
            return None
        secret, *former = (self.seal(access_key, self.open(access_key, sealed)) for sealed in document.sealed)
        return msgspec.json.encode(msgspec.structs.replace(document, secret=secret, former=former))


def _read(body: bytes) -> UserDocument:
    document = msgspec.json.decode(body, type=UserDocument)
    if document.format > USER_FORMAT:
        raise ValueError(f"its document has format {document.format}, this server reads up to {USER_FORMAT}")
    return document
