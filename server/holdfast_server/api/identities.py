"""Who may ask: users and policies as documents, kept in memory so that checking a signature waits for nothing.

`user/<accessKey>` and `policy/<name>` are read in full at the start, every `REFRESH_SECONDS`, and one by one
when a peer announces a change.  A key that is not known is looked up directly once, at a bounded rate, so
that a user made through another pod works at once while guessed keys cannot flood the drives.
Secret keys rest encrypted (AES-256-GCM; key by HKDF-SHA256 from the tenant's peer key; the access key is
authenticated with it, so that no user's secret can be put under another's name).  While the peer key changes, what
was sealed with any that the pod knows is readable; `reseal` brings all of it under the pod's own, and then the others
may go.  The root user has no document: its keys come from outside at each look-up; several may be valid at a time.

Not here: deciding (see `auth/`), the admin API that writes the documents (see `admin/`).
"""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import Callable, Sequence

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from holdfast_server.auth.builtin import builtin_policies
from holdfast_server.auth.policy import Policy, PolicyError, parse_policy
from holdfast_server.auth.principal import TENANT_ACCOUNT, Credentials, Principal, account_name, canonical_id
from holdfast_server.clock.port import Clock
from holdfast_server.objects.port import Condition, Conflict, ObjectError, Objects, Record, Unavailable

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

PeerKeys = Callable[[], Sequence[bytes]]
"""All that the pod knows now, its own first."""
RootPairs = Callable[[], Sequence[tuple[str, str]]]
"""Access key and secret key of every pair that is root now, the pod's own first; several may share an access key."""


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
    former: list[str] = []
    """Secrets of before that are valid too, sealed like `secret`."""
    account: str = ""
    """Its name; the tenant's own where empty."""

    @property
    def sealed(self) -> list[str]:
        return [self.secret, *self.former]


class User(msgspec.Struct, frozen=True, kw_only=True):
    """A user document, decrypted."""

    access_key: str
    secret_key: str
    name: str
    policies: tuple[str, ...] = ()
    enabled: bool = True
    former_secret_keys: tuple[str, ...] = ()
    account: str = ""


class Resealed(msgspec.Struct, frozen=True):
    """What became of the users whose secrets were sealed with another peer key."""

    done: int = 0
    left: int = 0
    """Changed by somebody meanwhile: to be looked at again."""
    unreadable: int = 0
    """Sealed with a key that is not known here."""


class _ChangedMeanwhile(Exception):
    """The document is not the one that was read."""


def owner_id(principal: Principal) -> str:
    """What buckets remember of their creator: root by a fixed name, so that its key may be rotated."""
    return ROOT_OWNER if principal.is_root else principal.access_key


class SecretBox:
    """Encrypts users' secret keys at rest."""

    def __init__(self, peer_keys: PeerKeys, clock: Clock) -> None:
        self._peer_keys = peer_keys
        self._ciphers: dict[bytes, AESGCM] = {}
        self._clock = clock

    def _known(self) -> list[AESGCM]:
        """A cipher for each peer key, in their order."""
        keys = self._peer_keys()
        if set(self._ciphers) != set(keys):
            self._ciphers = {key: self._ciphers.get(key) or _cipher_of(key) for key in keys}
        return [self._ciphers[key] for key in keys]

    def seal(self, access_key: str, secret_key: str) -> str:
        nonce = self._clock.random_bytes(_NONCE_SIZE_BYTES)
        sealed = self._known()[0].encrypt(nonce, secret_key.encode(), access_key.encode())
        return base64.b64encode(nonce + sealed).decode()

    def open(self, access_key: str, sealed: str) -> str:
        """Raises ValueError if it was sealed with another key or for another user."""
        return self._open(access_key, sealed)[1]

    def needs_resealing(self, access_key: str, sealed: str) -> bool:
        """Whether another key than the pod's own opens it.  Raises ValueError as `open` does."""
        return self._open(access_key, sealed)[0] > 0

    def _open(self, access_key: str, sealed: str) -> tuple[int, str]:
        raw = base64.b64decode(sealed, validate=True)
        nonce, text = raw[:_NONCE_SIZE_BYTES], raw[_NONCE_SIZE_BYTES:]
        for index, cipher in enumerate(self._known()):
            try:
                return index, cipher.decrypt(nonce, text, access_key.encode()).decode()
            except InvalidTag:
                continue
        raise ValueError("sealed with another peer key, or for another user")


def _cipher_of(peer_key: bytes) -> AESGCM:
    return AESGCM(HKDF(algorithm=SHA256(), length=32, salt=None, info=_KEY_PURPOSE).derive(peer_key))


class Identities:
    """Users and policies of the tenant."""

    def __init__(self, objects: Objects, clock: Clock, peer_keys: PeerKeys, root: RootPairs) -> None:
        self._objects = objects
        self._clock = clock
        self._root = root
        self.secrets = SecretBox(peer_keys, clock)
        self._users: dict[str, User] = {}
        self._builtin = builtin_policies()
        self._policies: dict[str, Policy] = {}
        self._credentials: dict[str, Credentials] = {}
        self._account_names: dict[str, str] | None = None
        self._allowance = float(LOOK_UPS_PER_SECOND)
        self._allowance_at = clock.monotonic_seconds()
        self._changes = 0
        self.loaded = False
        """False until everything was read once; an unknown key then means "not known yet"."""

    # --- asked by every request, no waiting

    def credentials(self, access_key: str) -> Credentials | None:
        """For signatures; None for a key that this pod does not know, or a disabled user's."""
        secrets = [secret for key, secret in self._root() if key == access_key]
        if secrets:
            root = Principal(access_key=access_key, user_name=ROOT_OWNER, is_root=True)
            return Credentials(secret_key=secrets[0], principal=root, former_secret_keys=tuple(secrets[1:]))
        known = self._credentials.get(access_key)
        if known is None:
            user = self._users.get(access_key)
            if user is None or not user.enabled:
                return None
            known = self._credentials[access_key] = self._credentials_of(user)
        return known

    def _credentials_of(self, user: User) -> Credentials:
        policies = [policy for name in user.policies if (policy := self.policy(name)) is not None]
        principal = Principal(
            access_key=user.access_key, user_name=user.name, account=user.account, policies=tuple(policies)
        )
        return Credentials(secret_key=user.secret_key, principal=principal, former_secret_keys=user.former_secret_keys)

    @property
    def root_access_keys(self) -> frozenset[str]:
        return frozenset(access_key for access_key, _ in self._root())

    def users(self) -> list[User]:
        """All but root, by access key."""
        return [self._users[key] for key in sorted(self._users)]

    def account_of(self, canonical: str) -> str | None:
        """The name for people of the account with that canonical id; None where there is none."""
        return self._accounts().get(canonical)

    def _accounts(self) -> dict[str, str]:
        if self._account_names is None:
            accounts = {TENANT_ACCOUNT, *(user.account for user in self._users.values())}
            self._account_names = {canonical_id(account): account_name(account) for account in accounts}
        return self._account_names

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
        return access_key in self._users

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

    async def announced(self, names: list[str]) -> None:
        """Re-read these documents, of which some may be users or policies.  Raises Unavailable."""
        for name in names:
            if name.startswith(USER_PREFIX):
                await self._read_user(name.removeprefix(USER_PREFIX))
            elif name.startswith(POLICY_PREFIX):
                await self._read_policy(name.removeprefix(POLICY_PREFIX))

    async def _read_user(self, access_key: str) -> None:
        """The user becomes known together with its policies: known without them, it would be refused what it may do
        (403, which no client repeats) by a pod that has just started.  The user is read again after its policies, so
        that what is taken over was current when the last call began."""
        read: set[str] = set()
        while True:
            document = await self._objects.get_document(USER_PREFIX + access_key)
            user = self._decode(access_key, document.body) if document is not None else None
            missing = [name for name in user.policies if self.policy(name) is None] if user is not None else []
            if read.issuperset(missing):
                break
            for name in missing:
                await self._read_policy(name)
                read.add(name)
        self._changed()
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
        self._forget()

    def _forget(self) -> None:
        self._credentials.clear()
        self._account_names = None

    def _decode(self, access_key: str, body: bytes) -> User | None:
        try:
            document = msgspec.json.decode(body, type=UserDocument)
            if document.format > USER_FORMAT:
                raise ValueError(f"its document has format {document.format}, this server reads up to {USER_FORMAT}")
            secret_key, *former = (self.secrets.open(access_key, sealed) for sealed in document.sealed)
        except (msgspec.MsgspecError, ValueError) as error:
            log.error("user %s cannot be read and stays locked out: %s", access_key, error)
            return None
        return User(
            access_key=access_key,
            secret_key=secret_key,
            name=document.name or access_key,
            policies=tuple(document.policies),
            enabled=document.enabled,
            former_secret_keys=tuple(former),
            account=document.account,
        )

    async def reseal(self) -> Resealed:
        """Bring every user's secrets under the pod's own peer key; one that is changed meanwhile is left for the
        next time.  Raises Unavailable; what was done then stays done."""
        done = left = unreadable = 0
        for access_key, body in (await self._read_all(USER_PREFIX)).items():
            try:
                fresh = self._resealed(access_key, body)
                if fresh is not None:
                    await self._objects.put_document(USER_PREFIX + access_key, fresh, _still(body))
                    done += 1
            except (msgspec.MsgspecError, ValueError):
                unreadable += 1
            except (_ChangedMeanwhile, Conflict):
                left += 1
        return Resealed(done, left, unreadable)

    def _resealed(self, access_key: str, body: bytes) -> bytes | None:
        """The document under the pod's own key; None where it is."""
        document = msgspec.json.decode(body, type=UserDocument)
        if document.format > USER_FORMAT:
            raise ValueError("of a later format")
        if not any(self.secrets.needs_resealing(access_key, sealed) for sealed in document.sealed):
            return None
        secret, *former = (
            self.secrets.seal(access_key, self.secrets.open(access_key, sealed)) for sealed in document.sealed
        )
        return msgspec.json.encode(msgspec.structs.replace(document, secret=secret, former=former))

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
        self._forget()
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


def _still(body: bytes) -> Condition:
    def check(current: Record | None) -> None:
        if current is None or current.body != body:
            raise _ChangedMeanwhile

    return check


def _parse(name: str, body: bytes) -> Policy | None:
    try:
        return parse_policy(body)
    except PolicyError as error:
        log.error("policy %s cannot be read and grants nothing: %s", name, error)
        return None
