"""Temporary credentials: everything about a session is inside its token, which only the tenant's pods can read or make.

A token is the session, sealed (`sealing`) for its access key; the secret key is in it.  So no pod keeps a list of
sessions, any pod knows any session at once, and none is lost with a pod.  What a session may do is looked up anew for
each request (the role's policies as they are now), cut down by the session policies that the token holds.

There is no list to strike a session from, so it hangs on the access key that asked for it: once that key is deleted,
disabled, expired or has another secret, its sessions are over, those of roles too, and those that other sessions asked
for.  A session ends too when the peer key that sealed it is no longer known.
"""

from __future__ import annotations

import base64
import binascii
import hashlib

import msgspec

from holdfast_server.api.sealing import PeerKeys, Sealer
from holdfast_server.auth.entities import Attached
from holdfast_server.clock.port import Clock

MAX_TOKEN_SIZE = 12 * 1024
SESSION_FORMAT = 1
_PURPOSE = b"holdfast session tokens v1"
_ACCESS_KEY_RANDOM_BYTES = 10
_SECRET_RANDOM_BYTES = 30
_MARK_SIZE_BYTES = 12
ACCESS_KEY_PREFIX = "ASIA"


class TokenError(ValueError):
    """No token of this tenant's, or not for this access key."""


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """What a token holds."""

    secret: str
    issued_ms: int
    expires_ms: int
    parent: str
    """The access key, not temporary, that asked for it, or for the session that did."""
    parent_mark: bytes
    """Of the secret that it asked with."""
    kind: str = "user"
    """`user`: stands for its parent; `role`."""
    account: str = ""
    role_name: str = ""
    role_id: str = ""
    session_name: str = ""
    policy: str = ""
    """A session policy; none where empty."""
    policy_arns: list[Attached] = []
    """Managed policies that are session policies."""
    format: int = SESSION_FORMAT


class Issued(msgspec.Struct, frozen=True, kw_only=True):
    access_key: str
    secret_key: str
    token: str
    expires_ms: int


def secret_mark(secret_key: str) -> bytes:
    return hashlib.sha256(secret_key.encode()).digest()[:_MARK_SIZE_BYTES]


class SessionTokens:
    def __init__(self, peer_keys: PeerKeys, clock: Clock) -> None:
        self._clock = clock
        self._sealer = Sealer(_PURPOSE, peer_keys, clock)

    def new_secret(self) -> str:
        return base64.b64encode(self._clock.random_bytes(_SECRET_RANDOM_BYTES)).decode()

    def issue(self, session: Session) -> Issued:
        access_key = ACCESS_KEY_PREFIX + base64.b32encode(self._clock.random_bytes(_ACCESS_KEY_RANDOM_BYTES)).decode()
        sealed = self._sealer.seal(access_key, msgspec.msgpack.encode(session))
        token = base64.urlsafe_b64encode(sealed).decode().rstrip("=")
        return Issued(access_key=access_key, secret_key=session.secret, token=token, expires_ms=session.expires_ms)

    def read(self, access_key: str, token: str) -> Session:
        """Raises TokenError.  Whether it has expired is for the caller to say."""
        if len(token) > MAX_TOKEN_SIZE:
            raise TokenError("too long")
        try:
            sealed = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
            session = msgspec.msgpack.decode(self._sealer.open(access_key, sealed)[1], type=Session)
        except (ValueError, binascii.Error, msgspec.MsgspecError) as error:
            raise TokenError("cannot be read") from error
        if session.format > SESSION_FORMAT:
            raise TokenError("of a later format")
        return session
