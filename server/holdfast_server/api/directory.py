"""The entities of the IAM API as this pod knows them, in memory: by document, by unique id, by account.

Filled by `identities`, which reads the documents; asked without waiting.  Also what policies an entity has in the end:
its inline ones, the attached ones, and for a user those of its groups.  A text is parsed once; one that cannot be read
(a later release wrote it) grants nothing and denies everything, so that no Deny in it is lost.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

from holdfast_server.auth.entities import (
    POLICY,
    STORE_POLICY_PREFIX,
    Attached,
    Entity,
    EntityError,
    GroupEntity,
    Holder,
    PolicyEntity,
    UserEntity,
    decode_entity,
    document_name,
    policy_arn_parts,
)
from holdfast_server.auth.policy import Policy, PolicyError, parse_policy, parse_trust_policy

log = logging.getLogger(__name__)

MAX_PARSED_SIZE = 4 << 20
"""Of the texts whose parsed form is kept."""
_DENY_ALL: dict[str, object] = {"Statement": {"Effect": "Deny", "Action": "*", "Resource": "*"}}

E = TypeVar("E", bound=Entity)


class Directory:
    def __init__(self, store_policy: Callable[[str], Policy | None]) -> None:
        """`store_policy`: a policy that belongs to no account, by its name."""
        self._store_policy = store_policy
        self._entities: dict[str, Entity] = {}
        self._by_id: dict[str, Entity] = {}
        self._unreadable: set[str] = set()
        self._sizes: dict[str, int] = {}
        self._parsed: dict[tuple[bool, str], Policy] = {}
        self._parsed_size = 0

    # --- filling

    def replace(self, bodies: Mapping[str, bytes]) -> None:
        """All of them, by document name."""
        decoded = {name: _decode(name, body) for name, body in bodies.items()}
        self._entities = {name: entity for name, entity in decoded.items() if entity is not None}
        self._unreadable = {name for name, entity in decoded.items() if entity is None}
        self._sizes = {name: len(body) for name, body in bodies.items()}
        self._index()

    def put(self, name: str, body: bytes | None) -> None:
        entity = _decode(name, body) if body is not None else None
        if entity is None:
            self._entities.pop(name, None)
        else:
            self._entities[name] = entity
        if entity is None and body is not None:
            self._unreadable.add(name)
        else:
            self._unreadable.discard(name)
        self._sizes.pop(name, None)
        if body is not None:
            self._sizes[name] = len(body)
        self._index()

    def _index(self) -> None:
        by_id: dict[str, Entity] = {}
        for entity in self._entities.values():
            known = by_id.get(entity.id)
            if known is None or known.moves < entity.moves:
                by_id[entity.id] = entity
        self._by_id = by_id

    # --- asking

    @property
    def size_bytes(self) -> int:
        """Of all documents."""
        return sum(self._sizes.values())

    def usage_of(self, account: str) -> tuple[int, int]:
        """How many documents an account has, and their bytes."""
        own = [name for name, entity in self._entities.items() if entity.account == account]
        return len(own), sum(self._sizes[name] for name in own)

    def __len__(self) -> int:
        return len(self._entities)

    def is_unreadable(self, kind: str, account: str, name: str) -> bool:
        """There is a document of that name, of which nothing can be said."""
        return bool(self._unreadable) and document_name(kind, account, name) in self._unreadable

    def find(self, kind: type[E], account: str, name: str) -> E | None:
        entity = self._entities.get(document_name(kind.kind, account, name))
        if isinstance(entity, kind) and self._by_id.get(entity.id) is entity:
            return entity
        return None

    def by_id(self, kind: type[E], unique_id: str) -> E | None:
        entity = self._by_id.get(unique_id)
        return entity if isinstance(entity, kind) else None

    def documents_of(self, entity: Entity) -> list[str]:
        """Names of all documents with its id: its own, and what renames that died have left."""
        return [name for name, one in self._entities.items() if one.id == entity.id]

    def all_of(self, kind: type[E], account: str) -> list[E]:
        """Ordered by name without regard to case."""
        found = [one for one in self._by_id.values() if isinstance(one, kind) and one.account == account]
        return sorted(found, key=lambda one: one.name.lower())

    def groups_of(self, user: UserEntity) -> list[GroupEntity]:
        found = [self.by_id(GroupEntity, member.id) for member in user.groups]
        return [group for group in found if group is not None and group.account == user.account]

    def attached_policy(self, attached: Attached, account: str) -> PolicyEntity | None:
        """An account's policy that is attached; None for the store's, and for what is gone."""
        policy = self.by_id(PolicyEntity, attached.id) if attached.id else None
        return policy if policy is not None and policy.account == account else None

    def documents_behind(self, user: UserEntity) -> Iterator[str]:
        """Names of the documents that its policies come from."""
        for member in user.groups:
            yield document_name("group", user.account, member.name)
        for holder in self._holders(user):
            yield from self.attached_documents(holder)

    def attached_documents(self, holder: Holder) -> Iterator[str]:
        for attached in holder.attached:
            name = policy_arn_parts(attached.arn, holder.account) if attached.id else None
            if name:
                yield document_name(POLICY, holder.account, name)

    # --- policies

    def policies_of_user(self, user: UserEntity) -> list[Policy]:
        return [policy for holder in self._holders(user) for policy in self.policies_of(holder)]

    def _holders(self, user: UserEntity) -> list[Holder]:
        return [user, *self.groups_of(user)]

    def policies_of(self, holder: Holder) -> list[Policy]:
        inline = [self.parsed(holder.inline[name]) for name in sorted(holder.inline)]
        return inline + [
            policy for one in holder.attached if (policy := self.policy_of(one, holder.account)) is not None
        ]

    def policy_of(self, attached: Attached, account: str) -> Policy | None:
        """None where it is gone."""
        if not attached.id:
            return self._store_policy(attached.arn.removeprefix(STORE_POLICY_PREFIX))
        policy = self.attached_policy(attached, account)
        return self.parsed(policy.text) if policy is not None else None

    def parsed(self, text: str) -> Policy:
        return self._parse(False, text)

    def trust(self, text: str) -> Policy:
        """Of a role."""
        return self._parse(True, text)

    def _parse(self, trust: bool, text: str) -> Policy:
        found = self._parsed.get((trust, text))
        if found is None:
            try:
                found = parse_trust_policy(text) if trust else parse_policy(text)
            except PolicyError as error:
                log.error("a policy cannot be read and denies everything: %s", error)
                found = parse_policy(_DENY_ALL)
            while self._parsed and self._parsed_size + len(text) > MAX_PARSED_SIZE:
                oldest = next(iter(self._parsed))
                self._parsed_size -= len(oldest[1])
                del self._parsed[oldest]
            self._parsed[trust, text] = found
            self._parsed_size += len(text)
        return found


def _decode(name: str, body: bytes) -> Entity | None:
    try:
        entity = decode_entity(body)
    except EntityError as error:
        log.error("%s cannot be read and counts for nothing: %s", name, error)
        return None
    if entity.document_name != name:
        log.error("%s speaks of %s and counts for nothing", name, entity.document_name)
        return None
    return entity
