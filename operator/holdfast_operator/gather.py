"""Reads the tenant's keys from its Secrets, and makes the first ones, once.

The Secret `<t>-peer` has the record of all keys (`key_book`) and the ledger; `<t>-peer-copy` says the same, written
before it, so that either can be deleted or spoilt by mistake and is made again from the other.  If both are gone and
the tenant has ever been more than an idea (claims, StatefulSets, its ConfigMap), nothing is minted: another id and an
empty ledger would orphan the data.  The first record is made with a plain create: if the Secret is there after all, the
create fails and the pass is run again, so that a key in use is never replaced.

All of it is one list: what follows from the record is written over the versions that were read with it, so that a pass
that was overtaken changes nothing (`apply`).

What other Secrets say is compared with the record, never believed blindly: one that is missing, incomplete or not ours
is a fault with its name, and the keys of the record stay in force.  Only what is needed to begin at all (the first
root pair) ends the pass.  Not here: what follows from a difference (`key_changes`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import yaml

from holdfast_operator import labels
from holdfast_operator.credentials import ACCESS_KEY_FORM, ACCESS_KEY_WORDS, KeyPair, PeerIdentity
from holdfast_operator.desired import paths
from holdfast_operator.desired import secrets as secret_manifests
from holdfast_operator.desired.secret_data import decoded
from holdfast_operator.key_book import KeyBook, KeyBookError, KeyHistory, PeerKeys, decode_book
from holdfast_operator.kube.port import CLAIM, CONFIG_MAP, SECRET, STATEFUL_SET, KubeClient, Manifest
from holdfast_operator.ledger import Ledger, LedgerError, decode_ledger, ledger_of_config
from holdfast_operator.tenant.spec import TenantSpec
from holdfast_operator.tenant_keys import CredentialsFault
from holdfast_server.contract import config
from holdfast_server.contract.keys import (
    MAX_SECRET_KEY_LENGTH,
    MIN_ACCESS_KEY_LENGTH,
    MIN_PEER_KEY_SIZE_BYTES,
    MIN_SECRET_KEY_LENGTH,
)


@dataclass(frozen=True, slots=True)
class KeyMint:
    """Where new keys come from; in tests, from a counter."""

    key_pair: Callable[[], KeyPair]
    peer_identity: Callable[[], PeerIdentity]
    encryption_key: Callable[[], str]
    """Thirty-two bytes, base64."""


@dataclass(frozen=True, slots=True)
class Gathered:
    """What the Secrets say."""

    tenant_id: str
    ledger: Ledger
    book: KeyBook
    root: KeyPair | None
    """As its Secret has it; None where that is missing or faulty."""
    users: Mapping[str, KeyPair]
    """Of those whose Secret is there and sound."""
    peer_key: str
    """As the Secret has it."""
    wishes: tuple[Manifest, ...] = ()
    """Secrets whose annotation asks for new keys."""
    faults: Mapping[str, CredentialsFault] = field(default_factory=dict)
    """Name of the Secret → what is wrong with it; such a Secret is left as it is."""
    restored: tuple[str, ...] = ()
    """Names of Secrets that are gone and are written again."""
    secrets: Mapping[str, Manifest] = field(default_factory=dict)
    """The tenant's own Secrets as they were read, by name: the versions that what follows from them is written over."""

    def asks_for_new(self, secret_name: str) -> bool:
        return any(secret["metadata"]["name"] == secret_name for secret in self.wishes)


async def gather_credentials(
    kube: KubeClient, tenant: TenantSpec, mint: KeyMint, direct: KubeClient | None = None
) -> Gathered:
    """`direct`: asked for what must not be an old view, where `kube` may have one.

    Raises CredentialsFault, or KubeError if the API server cannot be asked."""
    return await _Gathering(kube, tenant, mint, direct or kube).run()


class _Gathering:
    def __init__(self, kube: KubeClient, tenant: TenantSpec, mint: KeyMint, direct: KubeClient) -> None:
        self._kube, self._tenant, self._mint, self._direct = kube, tenant, mint, direct
        self._own: dict[str, Manifest] = {}
        """The Secrets that carry the tenant's labels: one list, whatever the number of users."""
        self._wishes: list[Manifest] = []
        self._faults: dict[str, CredentialsFault] = {}
        self._restored: list[str] = []

    async def run(self) -> Gathered:
        tenant = self._tenant
        for secret in await self._kube.list_objects(SECRET, tenant.namespace, labels.tenant_labels(tenant.name)):
            self._own[secret["metadata"]["name"]] = secret
        peer_name, root_name = labels.peer_secret_name(tenant.name), labels.root_secret_name(tenant.name)
        peer = await self._peer_secret()
        known = peer is not None and secret_manifests.BOOK_KEY in (peer.get("data") or {})
        root = await self._pair(tenant.root_secret_name, root_name, known=known)
        if peer is None:
            return await self._begin(root, await self._users({}))
        values = decoded(peer)
        peer_key = values.get(secret_manifests.PEER_KEY, "").strip()
        tenant_id, ledger = await self._identity(peer_name, values)
        book = self._book(peer_name, values, root, peer_key)
        if book.tenant_uid != tenant.uid:
            book = KeyBook(revision=book.revision, tenant_uid=tenant.uid, root=book.root, peer=book.peer)
        users = await self._users(book.users)
        return Gathered(
            tenant_id=tenant_id,
            ledger=ledger,
            book=book,
            root=root,
            users=users,
            peer_key=peer_key if len(peer_key) >= MIN_PEER_KEY_SIZE_BYTES else book.peer.own,
            wishes=tuple(self._wishes),
            faults=self._faults,
            restored=tuple(self._restored),
            secrets=self._own,
        )

    async def _users(self, known: Mapping[str, KeyHistory]) -> dict[str, KeyPair]:
        users = {}
        for user in self._tenant.users:
            own = labels.user_secret_name(self._tenant.name, user.name)
            pair = await self._pair(user.secret_name, own, known=user.name in known)
            if pair is not None:
                users[user.name] = pair
        return users

    async def _begin(self, root: KeyPair | None, users: Mapping[str, KeyPair]) -> Gathered:
        """The tenant's first keys."""
        tenant = self._tenant
        if root is None:
            root = self._first_root()
        identity = self._mint.peer_identity()
        book = KeyBook(tenant_uid=tenant.uid, root=KeyHistory(current=root), peer=PeerKeys(own=identity.peer_key))
        manifest = secret_manifests.render_peer_secret(tenant, identity.tenant_id, book, Ledger())
        manifest["metadata"].pop("ownerReferences", None)
        self._own[manifest["metadata"]["name"]] = await self._kube.create(manifest)
        return Gathered(
            identity.tenant_id,
            Ledger(),
            book,
            root,
            users,
            identity.peer_key,
            faults=self._faults,
            secrets=self._own,
        )

    def _first_root(self) -> KeyPair:
        """Raises CredentialsFault where it was to be given."""
        name = self._tenant.root_secret_name or labels.root_secret_name(self._tenant.name)
        if name in self._faults:
            raise self._faults[name]
        return self._mint.key_pair()

    # --- the peer Secret
    async def _peer_secret(self) -> Manifest | None:
        """None for a tenant that has nothing yet.  Raises CredentialsFault where it had."""
        tenant = self._tenant
        name, copy_name = labels.peer_secret_name(tenant.name), labels.peer_copy_secret_name(tenant.name)
        peer = await self._own_secret(name)
        copy = await self._own_secret(copy_name)
        if peer is not None and copy is not None and not _is_whole(peer) and _is_whole(copy):
            # Somebody has emptied or mistyped it.
            self._restored.append(name)
            return copy
        if peer is not None:
            if copy is None and secret_manifests.BOOK_KEY in (peer.get("data") or {}):
                self._restored.append(copy_name)
            if labels.wants_new_keys(peer):
                self._wishes.append(peer)
            return peer
        if copy is not None:
            self._restored.append(name)
            return copy
        await self._refuse_to_begin_again(name)
        return None

    async def _refuse_to_begin_again(self, name: str) -> None:
        tenant = self._tenant
        claims = await self._direct.list_objects(CLAIM, tenant.namespace, labels.pod_labels(tenant.name))
        sets = await self._direct.list_objects(STATEFUL_SET, tenant.namespace, labels.tenant_labels(tenant.name))
        if claims or sets:
            raise CredentialsFault(
                "PeerSecretLost",
                f"Secrets {name} and {name}-copy are gone, which have the id and the keys of data that are here "
                f"({len(claims)} claims). Nothing is made anew: that would orphan the data. Pods go on, but "
                f"one that ends cannot start: end none. Put {name} back from a backup; without one, as "
                f"docs/operations.md says under 'Lost Secrets'",
            )

    async def _identity(self, name: str, values: Mapping[str, str]) -> tuple[str, Ledger]:
        """Id and ledger; where the Secret was put back with nothing but keys, those that the pods are told."""
        if secret_manifests.LEDGER_KEY not in values:
            served = await self._served_config()
            if served is not None:
                return served.tenant.id, ledger_of_config(served)
        tenant_id = _required(values, name, secret_manifests.TENANT_ID_KEY, 1)
        try:
            return tenant_id, decode_ledger(_required(values, name, secret_manifests.LEDGER_KEY, 1).encode())
        except LedgerError as error:
            raise CredentialsFault("LedgerUnreadable", f"Secret {name}: {error}") from error

    async def _served_config(self) -> config.ServerConfig | None:
        """What the pods of this tenant work with; None if that cannot be told for certain."""
        tenant = self._tenant
        found = await self._kube.get(CONFIG_MAP, tenant.namespace, labels.config_map_name(tenant.name))
        if found is None or not labels.is_labelled_for(found, tenant.name):
            return None
        try:
            return config.from_builtins(yaml.safe_load((found.get("data") or {}).get(paths.CONFIG_KEY, "")))
        except (yaml.YAMLError, config.ConfigError):
            return None

    def _book(self, name: str, values: Mapping[str, str], root: KeyPair | None, peer_key: str) -> KeyBook:
        text = values.get(secret_manifests.BOOK_KEY)
        if text is not None:
            try:
                return decode_book(text.encode())
            except KeyBookError as error:
                raise CredentialsFault("KeysUnreadable", f"Secret {name}: {error}") from error
        if len(peer_key) < MIN_PEER_KEY_SIZE_BYTES:
            raise _incomplete(name, secret_manifests.PEER_KEY, MIN_PEER_KEY_SIZE_BYTES)
        if root is None:
            # Pods are told root keys by this Secret alone; others than they had would lock everybody out.
            root = self._pair_in(name, values)
        return KeyBook(tenant_uid=self._tenant.uid, root=KeyHistory(current=root), peer=PeerKeys(own=peer_key))

    def _pair_in(self, name: str, values: Mapping[str, str]) -> KeyPair:
        fault = self._faults.get(self._tenant.root_secret_name or labels.root_secret_name(self._tenant.name))
        if fault is not None:
            raise fault
        return KeyPair(
            _required(values, name, secret_manifests.ACCESS_KEY, MIN_ACCESS_KEY_LENGTH),
            _required(values, name, secret_manifests.SECRET_KEY, MIN_SECRET_KEY_LENGTH),
        )

    # --- the others
    async def _pair(self, given_name: str | None, own_name: str, *, known: bool) -> KeyPair | None:
        """What the Secret has; None where it is missing or faulty, which is noted."""
        name = given_name or own_name
        try:
            if given_name is not None:
                secret = await self._kube.get(SECRET, self._tenant.namespace, given_name)
                if secret is None:
                    raise CredentialsFault(
                        "SecretMissing",
                        f"Secret {given_name} does not exist, which a secretRef of the spec names: make it, with "
                        f"accessKey and secretKey{'; until then the former keys stay valid' if known else ''}",
                    )
                return _pair_of(secret)
            secret = await self._own_secret(own_name)
            if secret is None:
                if known:
                    self._restored.append(own_name)
                return None
            pair = _pair_of(secret)
        except CredentialsFault as fault:
            self._faults[name] = fault
            return None
        if labels.wants_new_keys(secret):
            self._wishes.append(secret)
        return pair

    async def _own_secret(self, name: str) -> Manifest | None:
        """Raises CredentialsFault for one of somebody else's, or of a former Tenant's that is about to go with it."""
        secret = self._own.get(name)
        if secret is None:
            # Not among those that carry our labels; it may still exist without them.
            secret = await self._kube.get(SECRET, self._tenant.namespace, name)
        if secret is None:
            return None
        if not labels.is_labelled_for(secret, self._tenant.name):
            raise CredentialsFault("SecretNotOurs", labels.strange_secret_words(name, self._tenant.name))
        self._own[name] = secret
        former = labels.other_controller(secret, self._tenant.uid)
        if former:
            # What it says must not be taken up: its data go too, or its users' keys are to end.
            raise CredentialsFault(
                "SecretNotOurs",
                f"Secret {name} still belongs to {former}; it goes with that, and is waited for",
            )
        return secret


def _is_whole(peer: Manifest) -> bool:
    """Whether it says all that it is for, in a form that can be read."""
    values = decoded(peer)
    try:
        decode_ledger(values[secret_manifests.LEDGER_KEY].encode())
        decode_book(values[secret_manifests.BOOK_KEY].encode())
    except (KeyError, LedgerError, KeyBookError):
        return False
    return bool(values.get(secret_manifests.TENANT_ID_KEY, "").strip())


def _pair_of(secret: Manifest) -> KeyPair:
    name, values = secret["metadata"]["name"], decoded(secret)
    access_key = _required(values, name, secret_manifests.ACCESS_KEY, MIN_ACCESS_KEY_LENGTH)
    if not ACCESS_KEY_FORM.fullmatch(access_key):
        message = f"Secret {name}: {secret_manifests.ACCESS_KEY} {ACCESS_KEY_WORDS}"
        raise CredentialsFault("SecretInvalid", message)
    secret_key = _required(values, name, secret_manifests.SECRET_KEY, MIN_SECRET_KEY_LENGTH)
    if len(secret_key) > MAX_SECRET_KEY_LENGTH:
        # The store takes no user's that is longer; root's are held to the same.
        message = f"Secret {name}: {secret_manifests.SECRET_KEY} may have {MAX_SECRET_KEY_LENGTH} characters at most"
        raise CredentialsFault("SecretInvalid", message)
    return KeyPair(access_key, secret_key)


def _required(values: Mapping[str, str], secret_name: str, key: str, min_size: int) -> str:
    if key not in values:
        raise CredentialsFault("SecretIncomplete", f"Secret {secret_name} lacks {key}")
    value = values[key].strip()
    if len(value) < min_size:
        raise _incomplete(secret_name, key, min_size)
    return value


def _incomplete(secret_name: str, key: str, min_size: int) -> CredentialsFault:
    return CredentialsFault("SecretIncomplete", f"Secret {secret_name}: {key} needs at least {min_size} characters")
