"""From what the Secrets say and what the pods work with to the keys of this pass.  Pure but for the mint it is given.

Two users never share an access key, and none has one of root's: the one that comes later is refused by name, and keeps
the keys it had.  A user that is refused, or whose Secret is faulty, holds up nobody else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec

from holdfast_operator import labels
from holdfast_operator.credentials import KeyPair
from holdfast_operator.gather import Gathered, KeyMint
from holdfast_operator.key_book import KeyBook, KeyHistory, with_revision
from holdfast_operator.key_changes import change_keys, change_peer_key
from holdfast_operator.ledger import Ledger
from holdfast_operator.tenant.spec import TenantSpec, UserSpec
from holdfast_operator.tenant_keys import CredentialsFault, TenantCredentials
from holdfast_server.contract.wording import first_of


@dataclass(frozen=True, slots=True)
class KeysSeen:
    """How far the keys of the record have got."""

    taken_everywhere: bool
    """Every pod works with the record's revision."""
    established: frozenset[KeyPair]
    """Users' pairs that the store certainly has."""
    resealed: bool
    """Nothing in the store needs a former peer key."""
    now: int
    """Unix seconds."""


def rotate_keys(gathered: Gathered, tenant: TenantSpec, seen: KeysSeen, mint: KeyMint) -> TenantCredentials:
    """The keys of this pass; `gathered.book` is what the pods and the store were given before."""
    before = gathered.book
    root_name = labels.root_secret_name(tenant.name)
    root = change_keys(
        before.root,
        given=gathered.root,
        wanted=tenant.root_secret_name is None and gathered.asks_for_new(root_name),
        valid_everywhere=seen.taken_everywhere,
        mint=mint.key_pair,
        now=seen.now,
        overlap_seconds=tenant.key_overlap_seconds,
        generated=tenant.root_secret_name is None,
    )
    peer = change_peer_key(
        before.peer,
        given=gathered.peer_key,
        wanted=gathered.asks_for_new(labels.peer_secret_name(tenant.name)),
        taken_everywhere=seen.taken_everywhere,
        resealed=seen.resealed,
        mint=lambda: mint.peer_identity().peer_key,
    )
    users, refusals = _Users(gathered, tenant, seen, mint).settle(root)
    after = msgspec.structs.replace(before, root=root, peer=peer, users=users)
    faults = (*gathered.faults.values(), *(CredentialsFault("AccessKeyNotUnique", text) for text in refusals.values()))
    missing = {
        user.name: str(fault)
        for user in tenant.users
        if (fault := gathered.faults.get(user.secret_name or labels.user_secret_name(tenant.name, user.name)))
    }
    refused = {labels.user_secret_name(tenant.name, name) for name in refusals}
    return TenantCredentials(
        tenant_id=gathered.tenant_id,
        ledger=gathered.ledger,
        book=with_revision(before, after),
        faults=faults,
        user_faults={**missing, **refusals},
        left_alone=frozenset(gathered.faults) | refused,
    )


class _Users:
    def __init__(self, gathered: Gathered, tenant: TenantSpec, seen: KeysSeen, mint: KeyMint) -> None:
        self._gathered, self._tenant, self._seen, self._mint = gathered, tenant, seen, mint

    def settle(self, root: KeyHistory) -> tuple[dict[str, KeyHistory], dict[str, str]]:
        """Every user's keys, and the refusals by user."""
        owners = {pair.access_key: "the root user" for pair in root.accepted}
        users: dict[str, KeyHistory] = {}
        refusals: dict[str, str] = {}
        for user in self._tenant.users:
            given = self._gathered.users.get(user.name)
            if given is not None and given.access_key in owners:
                refusals[user.name] = f"user {user.name!r} has the same access key as {owners[given.access_key]}"
                given = None
            history = self._history(user, given, refused=user.name in refusals)
            if history is None or any(pair.access_key in owners for pair in history.accepted):
                continue
            users[user.name] = history
            owners.update({pair.access_key: f"user {user.name!r}" for pair in history.accepted})
        return users, refusals

    def _history(self, user: UserSpec, given: KeyPair | None, *, refused: bool) -> KeyHistory | None:
        name = user.secret_name or labels.user_secret_name(self._tenant.name, user.name)
        history = self._gathered.book.users.get(user.name)
        if history is None:
            if given is None and (refused or user.secret_name is not None or name in self._gathered.faults):
                return None
            return KeyHistory(current=given or self._mint.key_pair())
        return change_keys(
            history,
            given=given,
            wanted=user.secret_name is None and self._gathered.asks_for_new(name),
            valid_everywhere=self._seen.established.issuperset(history.accepted),
            mint=self._mint.key_pair,
            now=self._seen.now,
            overlap_seconds=self._tenant.key_overlap_seconds,
            generated=user.secret_name is None,
        )


def describe_changes(book: KeyBook, behind: tuple[str, ...], overlap_seconds: int) -> str:
    """What is changing, for people; empty if nothing is.  `behind`: names of pods that do not work with it yet."""
    parts = [_describe("root", book.root, overlap_seconds)]
    parts += [_describe(f"user {name!r}", history, overlap_seconds) for name, history in book.users.items()]
    if book.peer.stage != "Settled":
        step = "made known to the pods" if book.peer.stage == "Known" else "taken up by the pods"
        parts.append(f"a new peer key is {step}")
    told = "; ".join(part for part in parts if part)
    waits = book.peer.stage != "Settled" or any(not former.replaced_at for former in book.root.former)
    if told and (waits or book.root.next) and behind:
        told += f"; waiting for {first_of(behind, 4)}"
    return told


def _describe(who: str, history: KeyHistory, overlap_seconds: int) -> str:
    if history.next is not None:
        return f"new keys of {who} are announced once they are valid everywhere"
    if not history.former:
        return ""
    if not all(former.replaced_at for former in history.former):
        return f"the former keys of {who} stay valid until the new ones are so everywhere"
    ends = max(former.replaced_at for former in history.former) + overlap_seconds
    return f"the former keys of {who} are valid until {datetime.fromtimestamp(ends, UTC):%Y-%m-%dT%H:%M:%SZ}"


def pods_behind(book: KeyBook, ledger: Ledger, revisions: Mapping[tuple[str, int], int]) -> tuple[tuple[str, int], ...]:
    """The pods (pool, ordinal) that do not say that they work with the record's revision."""
    return tuple(
        (record.name, ordinal)
        for record in ledger.pools
        for ordinal in range(record.servers)
        if revisions.get((record.name, ordinal)) != book.revision
    )


def is_on_record(book: KeyBook, tenant: TenantSpec, secret_name: str) -> bool:
    """Whether the new keys that this Secret's annotation asks for have been made."""
    if secret_name == labels.peer_secret_name(tenant.name):
        return book.peer.stage != "Settled"
    if secret_name == labels.root_secret_name(tenant.name):
        return book.root.next is not None
    return any(
        history.next is not None and labels.user_secret_name(tenant.name, name) == secret_name
        for name, history in book.users.items()
    )
