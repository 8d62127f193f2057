"""Who may ask: users and policies as documents, kept in memory so that checking a signature waits for nothing.

`user/<accessKey>` and `policy/<name>` are read in full at the start, every `REFRESH_SECONDS`, and one by one
when a peer announces a change.  A key that is not known is looked up directly once, at a bounded rate, so
that a user made through another pod works at once while guessed keys cannot flood the drives.
Secret keys rest encrypted (AES-256-GCM; key by HKDF-SHA256 from the tenant's peer key; the access key is
authenticated with it, so that no user's secret can be put under another's name).  The root user has no
document: its keys come from outside at each look-up and may be rotated.

Not here: deciding (see `auth/`), the admin API that writes the documents (see `admin/`).
"""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import Callable

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from holdfast_server.auth.builtin import builtin_policies
from holdfast_server.auth.policy import Policy, PolicyError, parse_policy
from holdfast_server.auth.principal import Credentials, Principal
from holdfast_server.clock.port import Clock
from holdfast_server.objects.port import ObjectError, Objects, Unavailable

log = logging.getLogger(__name__)

USER_PREFIX = "user/"
POLICY_PREFIX = "policy/"
REFRESH_SECONDS = 5.0
LOOK_UPS_PER_SECOND = 20
"""Direct look-ups of unknown access keys that one pod makes."""
LOOK_UP_TIMEOUT_SECONDS = 5.0
MAX_DOCUMENTS = 20_000
"""Of each kind; a tenant with more users is refused more of them, not served slowly."""
PAGE_SIZE = 1000
MAX_ACCESS_KEY_LENGTH = 128
_NONCE_SIZE_BYTES = 12
_KEY_PURPOSE = b"holdfast user secret keys v1"

ROOT_OWNER = "root"
USER_FORMAT = 1


class UserDocument(msgspec.Struct, frozen=True, kw_only=True):
    """The JSON of `user/<accessKey>`."""

    secret: str
    """base64 of nonce and ciphertext."""
    name: str = ""
    policies: list[str] = []
    enabled: bool = True
    changed_ms: int = 0
    format: int = USER_FORMAT
    """Of this document; fields are only ever appended, and a document of a later format is refused."""


class User(msgspec.Struct, frozen=True, kw_only=True):
    """A user document, decrypted."""

    access_key: str
    secret_key: str
    name: str
    policies: tuple[str, ...] = ()
    enabled: bool = True


def owner_id(principal: Principal) -> str:
    """What buckets remember of their creator: root by a fixed name, so that its key may be rotated."""
    return ROOT_OWNER if principal.is_root else principal.access_key


class SecretBox:
    """Encrypts users' secret keys at rest."""

    def __init__(self, peer_key: bytes, clock: Clock) -> None:
        key = HKDF(algorithm=SHA256(), length=32, salt=None, info=_KEY_PURPOSE).derive(peer_key)
        self._cipher = AESGCM(key)
        self._clock = clock

    def seal(self, access_key: str, secret_key: str) -> str:
        nonce = self._clock.random_bytes(_NONCE_SIZE_BYTES)
        sealed = self._cipher.encrypt(nonce, secret_key.encode(), access_key.encode())
        return base64.b64encode(nonce + sealed).decode()

    def open(self, access_key: str, sealed: str) -> str:
        """Raises ValueError if it was sealed with another key or for another user."""
        raw = base64.b64decode(sealed, validate=True)
        try:
            return self._cipher.decrypt(raw[:_NONCE_SIZE_BYTES], raw[_NONCE_SIZE_BYTES:], access_key.encode()).decode()
        except InvalidTag as error:
            raise ValueError("sealed with another peer key, or for another user") from error


class Identities:
    """Users and policies of the tenant.  `root` returns access key and secret key of the root user."""

    def __init__(self, objects: Objects, clock: Clock, peer_key: bytes, root: Callable[[], tuple[str, str]]) -> None:
        self._objects = objects
        self._clock = clock
        self._root = root
        self.secrets = SecretBox(peer_key, clock)
        self._users: dict[str, User] = {}
        self._builtin = builtin_policies()
        self._policies: dict[str, Policy] = {}
        self._credentials: dict[str, Credentials] = {}
        self._allowance = float(LOOK_UPS_PER_SECOND)
        self._allowance_at = clock.monotonic_seconds()
        self._changes = 0
        self.loaded = False
        """False until everything was read once; an unknown key then means "not known yet"."""

    # --- asked by every request, no waiting

    def credentials(self, access_key: str) -> Credentials | None:
        """For signatures; None for a key that this pod does not know, or a disabled user's."""
        root_key, root_secret = self._root()
        if access_key == root_key:
            root = Principal(access_key=root_key, user_name=ROOT_OWNER, is_root=True)
            return Credentials(secret_key=root_secret, principal=root)
        known = self._credentials.get(access_key)
        if known is None:
            user = self._users.get(access_key)
            if user is None or not user.enabled:
                return None
            known = self._credentials[access_key] = self._credentials_of(user)
        return known

    def _credentials_of(self, user: User) -> Credentials:
        policies = [policy for name in user.policies if (policy := self.policy(name)) is not None]
        principal = Principal(access_key=user.access_key, user_name=user.name, policies=tuple(policies))
        return Credentials(secret_key=user.secret_key, principal=principal)

    @property
    def root_access_key(self) -> str:
        return self._root()[0]

    def users(self) -> list[User]:
        """All but root, by access key."""
        return [self._users[key] for key in sorted(self._users)]

    def policy(self, name: str) -> Policy | None:
        """A built-in policy, or one that was put.  A name nobody defined grants nothing."""
        return self._builtin.get(name) or self._policies.get(name)

    def policy_names(self) -> list[str]:
        return sorted({*self._builtin, *self._policies})

    def is_builtin(self, name: str) -> bool:
        return name in self._builtin

    # --- keeping up

    async def look_up(self, access_key: str) -> bool:
        """For a key this pod does not know: ask once; True if it is known now.  Raises Unavailable or
        TimeoutError if that cannot be said."""
        if access_key in self._users or not 1 <= len(access_key) <= MAX_ACCESS_KEY_LENGTH or "/" in access_key:
            return False
        if not self._take_allowance():
            if self.loaded:
                return False
            raise Unavailable("users are not loaded yet")
        async with asyncio.timeout(LOOK_UP_TIMEOUT_SECONDS):
            await self._read_user(access_key)
            user = self._users.get(access_key)
            if user is not None:
                await self._read_policies_of(user)
        return user is not None

    def _take_allowance(self) -> bool:
        now = self._clock.monotonic_seconds()
        self._allowance = min(
            float(LOOK_UPS_PER_SECOND), self._allowance + (now - self._allowance_at) * LOOK_UPS_PER_SECOND
        )
        self._allowance_at = now
        if self._allowance < 1:
            return False
        self._allowance -= 1
        return True

    async def _read_policies_of(self, user: User) -> None:
        for name in user.policies:
            if self.policy(name) is None:
                await self._read_policy(name)

    async def announced(self, names: list[str]) -> None:
        """Re-read these documents, of which some may be users or policies.  Raises Unavailable."""
        for name in names:
            if name.startswith(USER_PREFIX):
                await self._read_user(name.removeprefix(USER_PREFIX))
            elif name.startswith(POLICY_PREFIX):
                await self._read_policy(name.removeprefix(POLICY_PREFIX))

    async def _read_user(self, access_key: str) -> None:
        document = await self._objects.get_document(USER_PREFIX + access_key)
        self._changed()
        user = self._decode(access_key, document.body) if document is not None else None
        if user is not None:
            self._users[access_key] = user
        else:
            self._users.pop(access_key, None)

    async def _read_policy(self, name: str) -> None:
        document = await self._objects.get_document(POLICY_PREFIX + name)
        self._changed()
        policy = _parse(name, document.body) if document is not None else None
        if policy is not None:
            self._policies[name] = policy
        else:
            self._policies.pop(name, None)

    def _changed(self) -> None:
        self._changes += 1
        self._credentials.clear()

    def _decode(self, access_key: str, body: bytes) -> User | None:
        try:
            document = msgspec.json.decode(body, type=UserDocument)
            if document.format > USER_FORMAT:
                raise ValueError(f"its document has format {document.format}, this server reads up to {USER_FORMAT}")
            secret_key = self.secrets.open(access_key, document.secret)
        except (msgspec.MsgspecError, ValueError) as error:
            log.error("user %s cannot be read and stays locked out: %s", access_key, error)
            return None
        return User(
            access_key=access_key,
            secret_key=secret_key,
            name=document.name or access_key,
            policies=tuple(document.policies),
            enabled=document.enabled,
        )

    async def refresh(self) -> None:
        """Read everything once.  Raises Unavailable; what was known then stays."""
        changes = self._changes
        users = await self._read_all(USER_PREFIX)
        policies = await self._read_all(POLICY_PREFIX)
        if changes != self._changes:
            return  # something newer than this listing was read meanwhile; the next round gets it all
        decoded = {name: self._decode(name, body) for name, body in users.items()}
        parsed = {name: _parse(name, body) for name, body in policies.items()}
        self._users = {name: user for name, user in decoded.items() if user is not None}
        self._policies = {name: policy for name, policy in parsed.items() if policy is not None}
        self._credentials.clear()
        self.loaded = True

    async def _read_all(self, prefix: str) -> dict[str, bytes]:
        found: dict[str, bytes] = {}
        after = ""
        while len(found) < MAX_DOCUMENTS:
            page = await self._objects.list_documents(prefix, after=after, limit=PAGE_SIZE)
            found.update({entry.key.removeprefix(prefix): entry.record.body for entry in page.entries})
            if page.next_after is None:
                break
            after = page.next_after
        return found

    async def keep_fresh(self) -> None:
        """Runs until cancelled."""
        while True:
            try:
                await self.refresh()
            except (ObjectError, TimeoutError) as error:
                log.warning("users and policies could not be refreshed: %s", error)
            await self._clock.sleep(REFRESH_SECONDS)


def _parse(name: str, body: bytes) -> Policy | None:
    try:
        return parse_policy(body)
    except PolicyError as error:
        log.error("policy %s cannot be read and grants nothing: %s", name, error)
        return None
