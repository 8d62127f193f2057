"""Who may ask: keys, users and policies as documents, kept in memory so that checking a signature waits for nothing.

`user/<accessKey>` holds an access key and whose it is, `policy/<name>` a policy that belongs to no account,
`account/<name>` what an account is called, `iam/…` what clients made through the IAM API (`auth.entities`).  All is
read in full at the start, every `REFRESH_SECONDS`, and one by one when a peer announces a change.  A key that is not
known is looked up directly once, at a bounded rate, so that a user made through another pod works at once while guessed
keys cannot flood the drives.

Keys of one name and account are one user's.  A user that was declared is known by its keys alone, which name its
policies; what clients give it beside is in its entity.  A key that clients made names its user's unique id, and works
only as long as that user is there.

The root user has no document: its keys come from outside at each look-up; several may be valid at a time.  Sessions
have none either: see `session_tokens`.

Not here: what a user's document says, and how its secrets rest (`user_documents`), deciding (see `auth/`), who may
change what (see `admin/` and `iam/`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from holdfast_server.api.directory import Directory
from holdfast_server.api.sealing import PeerKeys
from holdfast_server.api.session_tokens import Session, SessionTokens, TokenError, secret_mark
from holdfast_server.api.user_documents import ACCOUNT_PREFIX, USER_PREFIX, AccountDocument, SecretBox, User
from holdfast_server.auth.builtin import aws_document, aws_policies, builtin_document, builtin_policies
from holdfast_server.auth.entities import (
    ENTITY_PREFIX,
    ROLE,
    USER,
    RoleEntity,
    UserEntity,
    declared_user_id,
    document_name,
)
from holdfast_server.auth.policy import Policy, PolicyError, parse_policy
from holdfast_server.auth.principal import (
    TENANT_ACCOUNT,
    AssumedRole,
    Credentials,
    Principal,
    account_id,
    account_name,
    canonical_id,
)
from holdfast_server.clock.port import Clock
from holdfast_server.contract.keys import MAX_ACCESS_KEY_LENGTH
from holdfast_server.objects.port import Condition, Conflict, ObjectError, Objects, Record, Unavailable
from holdfast_server.s3.errors import S3Error

T = TypeVar("T")

log = logging.getLogger(__name__)

POLICY_PREFIX = "policy/"
REFRESH_SECONDS = 5.0
FIRST_RETRY_SECONDS = 0.1
LAST_RETRY_SECONDS = 1.0
"""Between attempts while nothing is loaded yet: users are told 503 meanwhile."""
TOLD_AGAIN_SECONDS = 60.0
"""Between two lines of the log that say the same."""
LOOK_UPS_PER_SECOND = 20
"""Direct look-ups of unknown access keys that one pod makes."""
LOOK_UP_TIMEOUT_SECONDS = 5.0
MAX_DOCUMENTS = 20_000
"""Of each kind; a tenant with more users is refused more of them, not served slowly."""
PAGE_SIZE = 1000
MAX_KEPT_SESSIONS = 4096
"""Sessions whose tokens were read, so that it is not done for each request."""

ROOT_OWNER = "root"

RootPairs = Callable[[], Sequence[tuple[str, str]]]
"""Access key and secret key of every pair that is root now, the pod's own first; several may share an access key."""


class Resealed(msgspec.Struct, frozen=True):
    """What became of the users whose secrets were sealed with another peer key."""

    done: int = 0
    left: int = 0
    """Changed by somebody meanwhile: to be looked at again."""
    unreadable: int = 0
    """Sealed with a key that is not known here."""


class _ChangedMeanwhile(Exception):
    """The document is not the one that was read."""


@dataclass(slots=True)
class _Reading:
    """Single reads of one document that go on at once."""

    count: int = 0
    taken_turn: int = 0
    """Of the one that was taken over, as of `Identities._turns`."""


class _Unknown(S3Error):
    """A session hangs on documents that this pod has not read yet."""

    def __init__(self, access_key: str, documents: Sequence[str]) -> None:
        super().__init__("InvalidAccessKeyId", AWSAccessKeyId=access_key)
        self.documents = tuple(documents)


def owner_id(principal: Principal) -> str:
    """What buckets remember of their creator: root by a fixed name, so that its key may be rotated."""
    return ROOT_OWNER if principal.is_root else principal.unique_id or principal.access_key


class Identities:
    """Users and policies of the tenant."""

    def __init__(self, objects: Objects, clock: Clock, peer_keys: PeerKeys, root: RootPairs) -> None:
        self._objects = objects
        self._clock = clock
        self._root = root
        self.secrets = SecretBox(peer_keys, clock)
        self._users: dict[str, User] = {}
        self._opened: dict[str, tuple[bytes, User]] = {}
        """Documents as they were last listed, and what they say: opening all secrets takes a second of 20,000 users, in
        which nobody is answered."""
        self._opened_with: frozenset[bytes] = frozenset()
        self._builtin = builtin_policies()
        self._of_aws = aws_policies()
        self._policies: dict[str, tuple[bytes, Policy]] = {}
        """By name, each with its document."""
        self.directory = Directory(self.managed_policy)
        self.tokens = SessionTokens(peer_keys, clock)
        self._display_names: dict[str, str] = {}
        self._credentials: dict[str, Credentials] = {}
        self._sessions: dict[tuple[str, str], Session] = {}
        self._account_names: dict[str, str] | None = None
        self._declared: set[tuple[str, str]] | None = None
        self._ordered: list[User] | None = None
        """All users by access key."""
        self._keys: dict[tuple[str, str], list[User]] | None = None
        """In that order, by account and name in lower case; of keys that clients made the user's id in its place."""
        self._allowance = float(LOOK_UPS_PER_SECOND)
        self._allowance_at = clock.monotonic_seconds()
        self._listings: dict[int, dict[str, bytes | None]] = {}
        """What was read singly while all documents are being listed, by document name; one for each listing, by its
        turn."""
        self._turns = 0
        """Reads of one document and listings of all, counted as they begin.  What began later has seen at least as
        much, so what began earlier is not taken over after it."""
        self._listed_turn = 0
        """Of the listing that was taken over."""
        self._reading: dict[str, _Reading] = {}
        """Of documents that are being read singly, by their names."""
        self.iam_begun = False
        """Whether it is known that every pod knows IAM's documents (`iam.call`)."""
        self.loaded = False
        """False until everything was read once; an unknown key then means "not known yet"."""

    # --- asked by every request, no waiting

    def credentials(self, access_key: str, session_token: str = "") -> Credentials | None:
        """For signatures; None for a key that this pod does not know, or that is disabled or has expired.

        Raises InvalidToken: a session's token must come with its key and with no other.  That a session has expired is
        for the caller to say, once its signature is proven (`Credentials.expires_ms`)."""
        if session_token:
            return self._session_credentials(access_key, session_token)
        secrets = [secret for key, secret in self._root() if key == access_key]
        if secrets:
            root = Principal(access_key=access_key, user_name=ROOT_OWNER, is_root=True)
            return Credentials(secret_key=secrets[0], principal=root, former_secret_keys=tuple(secrets[1:]))
        known = self._credentials.get(access_key)
        if known is None:
            user = self._users.get(access_key)
            known = self._credentials_of(user) if user is not None and user.enabled else None
            if known is None:
                return None
            self._credentials[access_key] = known
        return None if 0 < known.expires_ms <= self._clock.now_ms() else known

    def known(self, access_key: str, session_token: str) -> Credentials:
        """The same.  Raises InvalidAccessKeyId too."""
        found = self.credentials(access_key, session_token)
        if found is None:
            raise S3Error("InvalidAccessKeyId", AWSAccessKeyId=access_key)
        return found

    def _credentials_of(self, user: User) -> Credentials | None:
        entity = self._entity_of(user)
        if self.directory.is_unreadable(USER, user.account, user.name) or (user.identity and entity is None):
            return None
        policies = [policy for name in user.policies if (policy := self.policy(name)) is not None]
        principal = Principal(
            access_key=user.access_key,
            user_name=entity.name if entity is not None else user.name,
            account=user.account,
            policies=tuple(policies),
            client_policies=tuple(self.directory.policies_of_user(entity)) if entity is not None else (),
            is_account_root=user.account_root,
            path=entity.path if entity is not None else "/",
            unique_id=entity.id if entity is not None else declared_user_id(user.account, user.name),
            tags=entity.tags if entity is not None else {},
            limits=((self.directory.parsed(user.policy),),) if user.policy else (),
        )
        return Credentials(
            secret_key=user.secret_key,
            principal=principal,
            former_secret_keys=user.former_secret_keys,
            expires_ms=user.expires_ms,
        )

    def _entity_of(self, user: User) -> UserEntity | None:
        if not user.identity:
            return self.directory.find(UserEntity, user.account, user.name)
        entity = self.directory.by_id(UserEntity, user.identity)
        if entity is None or entity.account != user.account:
            return None
        return None if entity.declared and not self._is_declared(entity) else entity

    def _is_declared(self, entity: UserEntity) -> bool:
        """Whether a declared user is so still: what clients gave it, keys too, counts only as long."""
        if self._declared is None:
            self._declared = {(one.account, one.name.lower()) for one in self._users.values() if not one.identity}
        return (entity.account, entity.name.lower()) in self._declared

    # --- sessions

    def _session_credentials(self, access_key: str, token: str) -> Credentials:
        session = self._sessions.get((access_key, token))
        if session is None:
            try:
                session = self.tokens.read(access_key, token)
            except TokenError as error:
                raise S3Error("InvalidToken", AWSAccessKeyId=access_key) from error
            while len(self._sessions) >= MAX_KEPT_SESSIONS:
                self._sessions.pop(next(iter(self._sessions)))
            self._sessions[access_key, token] = session
        principal = self._session_principal(access_key, session)
        return Credentials(
            secret_key=session.secret, principal=principal, session_token=token, expires_ms=session.expires_ms
        )

    def _session_principal(self, access_key: str, session: Session) -> Principal:
        """Who it stands for, as that is now.  Raises InvalidAccessKeyId where it hangs on nothing any more."""
        parent = self.credentials(session.parent)
        secrets = (parent.secret_key, *parent.former_secret_keys) if parent is not None else ()
        role = self.directory.by_id(RoleEntity, session.role_id) if session.kind == "role" else None
        missing = [USER_PREFIX + session.parent] if session.parent not in self._users and parent is None else []
        if session.kind == "role" and role is None:
            missing.append(document_name(ROLE, session.account, session.role_name))
        if session.parent_mark not in [secret_mark(secret) for secret in secrets] or missing:
            raise _Unknown(access_key, missing)
        assert parent is not None
        limits = self._session_limits(session)
        if role is None:
            return msgspec.structs.replace(
                parent.principal,
                access_key=access_key,
                limits=(*parent.principal.limits, *limits),
                issued_ms=session.issued_ms,
                origin=session.parent,
            )
        return Principal(
            access_key=access_key,
            user_name=role.name,
            account=role.account,
            client_policies=tuple(self.directory.policies_of(role)),
            unique_id=role.id,
            tags=role.tags,
            role=AssumedRole(name=role.name, path=role.path, unique_id=role.id, session_name=session.session_name),
            limits=limits,
            issued_ms=session.issued_ms,
            origin=session.parent,
        )

    def hold_of(self, access_key: str, token: str, proved_with: int) -> tuple[str, bytes]:
        """What a session that is asked for now has to hang on: access key, and the mark of the secret.

        `proved_with`: as of `Identity`.  A session's sessions hang on what it hangs on itself.  Raises S3Error where
        there is nothing (any more)."""
        known = self.known(access_key, token)
        if token:
            session = self.tokens.read(access_key, token)
            return session.parent, session.parent_mark
        return access_key, secret_mark((known.secret_key, *known.former_secret_keys)[proved_with])

    def _session_limits(self, session: Session) -> tuple[tuple[Policy, ...], ...]:
        """One layer, if there are any session policies: a managed one that is gone allows nothing."""
        if not session.policy and not session.policy_arns:
            return ()
        texts = [self.directory.parsed(session.policy)] if session.policy else []
        found = [self.directory.policy_of(attached, session.account) for attached in session.policy_arns]
        return ((*texts, *(policy for policy in found if policy is not None)),)

    @property
    def root_access_keys(self) -> frozenset[str]:
        return frozenset(access_key for access_key, _ in self._root())

    def key(self, access_key: str) -> User | None:
        return self._users.get(access_key)

    def keys_of(self, account: str, name: str) -> list[User]:
        """The keys of that user, by access key.  Those that clients made count only for the user they were made for."""
        entity = self.directory.find(UserEntity, account, name)
        if self._keys is None:
            self._keys = {}
            for user in self.users():
                self._keys.setdefault((user.account, user.identity or user.name.lower()), []).append(user)
        declared = [one for one in self._keys.get((account, name.lower()), ()) if not one.identity]
        made = [one for one in self._keys.get((account, entity.id), ()) if one.identity] if entity is not None else []
        return sorted((*declared, *made), key=lambda user: user.access_key)

    def users(self) -> list[User]:
        """All but root, by access key."""
        if self._ordered is None:
            self._ordered = [self._users[key] for key in sorted(self._users)]
        return list(self._ordered)

    def account_of(self, canonical: str) -> str | None:
        """The name for people of the account with that canonical id; None where there is none."""
        return self._accounts().get(canonical)

    def _accounts(self) -> dict[str, str]:
        if self._account_names is None:
            accounts = {TENANT_ACCOUNT, *self._display_names, *(user.account for user in self._users.values())}
            self._account_names = {canonical_id(account): self.display_name(account) for account in accounts}
        return self._account_names

    def display_name(self, account: str) -> str:
        """For people."""
        return self._display_names.get(account) or account_name(account)

    def declared_accounts(self) -> dict[str, str]:
        """Name → display name, of those that were declared."""
        return dict(sorted(self._display_names.items()))

    def account_with_id(self, number: str) -> str | None:
        """The name of the account that ARNs show so; None where there is none."""
        accounts = {TENANT_ACCOUNT, *self._display_names, *(user.account for user in self._users.values())}
        return next((account for account in accounts if account_id(account) == number), None)

    def policy(self, name: str) -> Policy | None:
        """A built-in policy, or one that was put.  A name nobody defined grants nothing."""
        known = self._policies.get(name)
        return self._builtin.get(name) or (known[1] if known is not None else None)

    def policy_names(self) -> list[str]:
        return sorted({*self._builtin, *self._policies})

    def managed_policy(self, name: str) -> Policy | None:
        """A policy of the store as the IAM API names it: AWS's names for what its clients attach are known, too."""
        return self.policy(name) or self._of_aws.get(name)

    def managed_names(self) -> list[str]:
        return sorted({*self._builtin, *self._policies, *self._of_aws})

    def managed_document(self, name: str) -> str | dict[str, object] | None:
        """Its text, or what it says; None where there is no such policy."""
        known = self._policies.get(name)
        return builtin_document(name) or (known[0].decode() if known is not None else None) or aws_document(name)

    def is_builtin(self, name: str) -> bool:
        return name in self._builtin

    # --- keeping up

    async def look_up(self, access_key: str) -> bool:
        """For a key this pod does not know: ask once; True if it is known now.  Raises Unavailable or
        TimeoutError if that cannot be said."""
        if access_key in self._users or not 1 <= len(access_key) <= MAX_ACCESS_KEY_LENGTH or "/" in access_key:
            return False
        if not access_key.isprintable():  # bytes that are no text: no document can be called so
            return False
        if not self._may_look():
            return False
        async with asyncio.timeout(LOOK_UP_TIMEOUT_SECONDS):
            await self._read_user(access_key)
        return access_key in self._users

    async def learn(self, error: S3Error) -> bool:
        """After a failure of `credentials`, or of a signature's check: whether asking again may end otherwise, because
        something was learnt.  Raises Unavailable or TimeoutError if that cannot be said."""
        if not isinstance(error, _Unknown):
            return error.code == "InvalidAccessKeyId" and await self.look_up(str(error.extra.get("AWSAccessKeyId", "")))
        if not error.documents or not self._may_look():
            return False
        async with asyncio.timeout(LOOK_UP_TIMEOUT_SECONDS):
            await self.announced(list(error.documents))
        return True

    def _may_look(self) -> bool:
        if self._take_allowance():
            return True
        if self.loaded:
            return False
        raise Unavailable("users are not loaded yet")

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
            elif name.startswith(ENTITY_PREFIX):
                await self._read_entity(name)
            elif name.startswith(ACCOUNT_PREFIX):
                await self._read_account(name.removeprefix(ACCOUNT_PREFIX))

    async def _read_user(self, access_key: str) -> None:
        """The user becomes known together with its policies: known without them, it would be refused what it may do
        (403, which no client repeats) by a pod that has just started.  The user is read again after its policies, so
        that what is taken over was current when the last call began."""
        read: set[str] = set()
        while True:
            document, is_news = await self._read_document(USER_PREFIX + access_key)
            user = self._decode(access_key, document.body) if document is not None else None
            missing = [name for name in self._behind(user) if name not in read] if user is not None else []
            if not missing:
                break
            await self.announced(missing)
            read.update(missing)
        if not is_news():
            return
        if user is not None:
            self._users[access_key] = user
        else:
            self._users.pop(access_key, None)

    def _behind(self, user: User) -> list[str]:
        """The documents that say what this user may do, as far as that is known: the policies that are not known yet,
        the user's own, and those of its groups."""
        names = [POLICY_PREFIX + name for name in user.policies if self.policy(name) is None]
        names.append(document_name(USER, user.account, user.name))
        entity = self._entity_of(user)
        return names + (list(self.directory.documents_behind(entity)) if entity is not None else [])

    async def _read_entity(self, name: str) -> None:
        document, is_news = await self._read_document(name)
        if is_news():
            self.directory.put(name, document.body if document is not None else None)

    async def _read_account(self, name: str) -> None:
        document, is_news = await self._read_document(ACCOUNT_PREFIX + name)
        if not is_news():
            return
        if document is not None:
            self._display_names[name] = _display_name(name, document.body)
        else:
            self._display_names.pop(name, None)

    async def _read_policy(self, name: str) -> None:
        document, is_news = await self._read_document(POLICY_PREFIX + name)
        if not is_news():
            return
        policy = _parse(name, document.body) if document is not None else None
        if policy is not None and document is not None:
            self._policies[name] = document.body, policy
        else:
            self._policies.pop(name, None)

    async def _read_document(self, name: str) -> tuple[Record | None, Callable[[], bool]]:
        """With what is to be asked, once, right before it is taken over: whether it may be."""
        turn = self._next_turn()
        reading = self._reading.setdefault(name, _Reading())
        reading.count += 1
        try:
            document = await self._objects.get_document(name)
        finally:
            reading.count -= 1
            if not reading.count:
                del self._reading[name]
        return document, lambda: self._is_news(name, turn, reading, document)

    def _is_news(self, name: str, turn: int, reading: _Reading, document: Record | None) -> bool:
        """If so, what is known of it changes; a listing under way may have come by it before."""
        if turn < max(reading.taken_turn, self._listed_turn):
            return False
        reading.taken_turn = turn
        for begun, news in self._listings.items():
            if turn > begun:
                news[name] = document.body if document is not None else None
        self._forget()
        return True

    def _next_turn(self) -> int:
        self._turns += 1
        return self._turns

    def _forget(self) -> None:
        self._credentials.clear()
        self._account_names = self._declared = self._ordered = self._keys = None

    def _decode(self, access_key: str, body: bytes) -> User | None:
        try:
            return self.secrets.user(access_key, body)
        except ValueError as error:
            log.error("user %s cannot be read and stays locked out: %s", access_key, error)
            return None

    async def reseal(self) -> Resealed:
        """Bring every user's secrets under the pod's own peer key; one that is changed meanwhile is left for the
        next time.  Raises Unavailable; what was done then stays done."""
        done = left = unreadable = 0
        for access_key, body in (await self._read_all(USER_PREFIX)).items():
            try:
                fresh = self.secrets.resealed(access_key, body)
                if fresh is not None:
                    await self._objects.put_document(USER_PREFIX + access_key, fresh, _still(body))
                    done += 1
            except ValueError:
                unreadable += 1
            except (_ChangedMeanwhile, Conflict):
                left += 1
        return Resealed(done, left, unreadable)

    async def refresh(self) -> None:
        """Read everything once.  Raises Unavailable; what was known then stays.

        What is read singly meanwhile counts in place of what was listed, and does not make the listing useless: clients
        bring such reads about all the time, with keys that nobody knows and with calls of IAM and STS."""
        mine = self._next_turn()
        news = self._listings[mine] = {}
        try:
            prefixes = (USER_PREFIX, POLICY_PREFIX, ENTITY_PREFIX, ACCOUNT_PREFIX)
            listed = [await self._read_all(prefix) for prefix in prefixes]
        finally:
            del self._listings[mine]
        if mine < self._listed_turn:
            return  # another began later, and has come to its end
        self._listed_turn = mine
        users, policies, entities, accounts = [
            _with_news(prefix, found, news) for prefix, found in zip(prefixes, listed, strict=True)
        ]
        self._users = self._open_all(users)
        self._policies = _read_anew(policies, self._policies, _parse)
        self.directory.replace({ENTITY_PREFIX + name: body for name, body in entities.items()})
        self._display_names = {name: _display_name(name, body) for name, body in accounts.items()}
        self._forget()
        self.loaded = True

    def _open_all(self, users: Mapping[str, bytes]) -> dict[str, User]:
        """What was opened with other peer keys is opened again."""
        keys = self.secrets.keys
        self._opened = _read_anew(users, self._opened if keys == self._opened_with else {}, self._decode)
        self._opened_with = keys
        return {name: user for name, (_, user) in self._opened.items()}

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
        retry_seconds = FIRST_RETRY_SECONDS
        told, told_at = "", 0.0
        while True:
            try:
                await self.refresh()
                told = ""
            except (ObjectError, TimeoutError) as error:
                now = self._clock.monotonic_seconds()
                if str(error) != told or now - told_at >= TOLD_AGAIN_SECONDS:
                    log.warning("users and policies could not be refreshed: %s", error)
                    told, told_at = str(error), now
            await self._clock.sleep(REFRESH_SECONDS if self.loaded else retry_seconds)
            retry_seconds = min(retry_seconds * 2, LAST_RETRY_SECONDS)


def _with_news(prefix: str, listed: dict[str, bytes], news: Mapping[str, bytes | None]) -> dict[str, bytes]:
    """Bodies by the names below the prefix, which `listed` is without."""
    read = {name.removeprefix(prefix): body for name, body in news.items() if name.startswith(prefix)}
    kept = {name: body for name, body in listed.items() if name not in read}
    return kept | {name: body for name, body in read.items() if body is not None}


def _read_anew(
    documents: Mapping[str, bytes], before: Mapping[str, tuple[bytes, T]], read: Callable[[str, bytes], T | None]
) -> dict[str, tuple[bytes, T]]:
    """What each says, with the document; what has not changed is not read again, what cannot be read is left out."""
    found: dict[str, tuple[bytes, T]] = {}
    for name, body in documents.items():
        known = before.get(name)
        if known is None or known[0] != body:
            value = read(name, body)
            if value is None:
                continue
            known = (body, value)
        found[name] = known
    return found


def _still(body: bytes) -> Condition:
    def check(current: Record | None) -> None:
        if current is None or current.body != body:
            raise _ChangedMeanwhile

    return check


def _display_name(name: str, body: bytes) -> str:
    try:
        return msgspec.json.decode(body, type=AccountDocument).display_name or name
    except msgspec.MsgspecError as error:
        log.error("account %s cannot be read and is shown by its name: %s", name, error)
        return name


def _parse(name: str, body: bytes) -> Policy | None:
    try:
        return parse_policy(body)
    except PolicyError as error:
        log.error("policy %s cannot be read and grants nothing: %s", name, error)
        return None
