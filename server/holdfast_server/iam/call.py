"""One call of IAM or STS on its way: who asks, with what, and the entities of its account.

Single entities are read from the drives before they are answered or changed, so that a change made through another pod
is seen; lists are answered from memory, which peers' announcements and a periodic reading keep up to date.

A change is a conditional write of one document: of two that meet, one is done anew on what the other left.  It is
acknowledged when it is committed, this pod knows it and every reachable pod was told.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from holdfast_server.api.identities import PAGE_SIZE, Identities
from holdfast_server.api.services import DOCUMENTS_TOPIC, Services
from holdfast_server.api.user_documents import USER_PREFIX, User, UserDocument
from holdfast_server.auth.access import may_manage
from holdfast_server.auth.entities import (
    STORE_POLICY_PREFIX,
    Attached,
    Entity,
    EntityError,
    GroupEntity,
    PolicyEntity,
    RoleEntity,
    UserEntity,
    declared_user_id,
    decode_entity,
    document_name,
    encode_entity,
    new_id,
    policy_arn_parts,
)
from holdfast_server.auth.principal import Principal, account_id
from holdfast_server.auth.request_values import global_values
from holdfast_server.auth.verified import Identity
from holdfast_server.iam.errors import IamError, no_such
from holdfast_server.iam.parameters import Parameters
from holdfast_server.objects.port import Condition, Conflict, Record
from holdfast_server.s3.request import Request

MAX_ENTITIES = 10_000
"""Of all accounts."""
MAX_SIZE_BYTES = 32 << 20
MAX_ENTITIES_PER_ACCOUNT = 2_000
MAX_SIZE_BYTES_PER_ACCOUNT = 8 << 20
MAX_TRIES = 5
FEATURE_DOCUMENT = "feature/iam"
"""There once every pod knew what IAM's documents mean.  A pod of an earlier release would overlook a Deny in them."""
_ID_RANDOM_BYTES = 11

E = TypeVar("E", bound=Entity)


class _ChangedMeanwhile(Exception):
    pass


@dataclass(frozen=True, slots=True)
class IamCall:
    services: Services
    identity: Identity
    request: Request
    parameters: Parameters

    @property
    def principal(self) -> Principal:
        return self.identity.principal

    @property
    def account(self) -> str:
        return self.principal.account

    @property
    def identities(self) -> Identities:
        return self.services.identities

    @property
    def now_ms(self) -> int:
        return self.services.clock.now_ms()

    def values(self, **more: str) -> dict[str, tuple[str, ...]]:
        """Condition values; of `more` the names as in `iam__policyarn`."""
        own = {**global_values(self.request, self.principal), **{k.replace("__", ":"): v for k, v in more.items()}}
        return {name: (value,) for name, value in own.items()}

    def require(self, action: str, resource: str, **more: str) -> None:
        """Raises AccessDenied."""
        if not may_manage(self.principal, action, resource, lambda: self.values(**more)):
            raise IamError(
                "AccessDenied",
                f"User: {self.principal.arn} is not authorized to perform: {action} on resource: {resource}",
            )

    def new_id(self, kind: str) -> str:
        return new_id(kind, self.services.clock.random_bytes(_ID_RANDOM_BYTES))

    def arn_of(self, rest: str) -> str:
        return f"arn:aws:iam::{account_id(self.account)}:{rest}"

    # --- reading

    async def read(self, kind: type[E], name: str) -> E | None:
        """As it is now.  Raises Unavailable."""
        return await self.read_of(kind, self.account, name)

    async def read_of(self, kind: type[E], account: str, name: str) -> E | None:
        """The same, of any account."""
        await self.identities.announced([document_name(kind.kind, account, name)])
        return self.identities.directory.find(kind, account, name)

    async def group(self, name: str) -> GroupEntity:
        return _there(await self.read(GroupEntity, name), "group", name)

    async def role(self, name: str) -> RoleEntity:
        return _there(await self.read(RoleEntity, name), "role", name)

    async def user(self, name: str) -> UserEntity:
        """A declared user that has no document yet as if it had one.  The root of an account is no user by name."""
        found = await self.read(UserEntity, name)
        if found is None or found.declared:
            keys = self.declared_keys(name)
            if not keys or keys[0].account_root:
                raise no_such("user", name)
            found = found or self._undocumented(keys)
        return found

    def declared_keys(self, name: str) -> list[User]:
        return [key for key in self.identities.keys_of(self.account, name) if not key.identity]

    def _undocumented(self, keys: Sequence[User]) -> UserEntity:
        return UserEntity(
            id=declared_user_id(self.account, keys[0].name),
            name=keys[0].name,
            account=self.account,
            created_ms=min(key.created_ms for key in keys),
            declared=True,
        )

    async def caller(self) -> UserEntity:
        """The user who calls.  Raises ValidationError for who is none."""
        principal = self.principal
        if principal.is_root or principal.role is not None:
            raise IamError("ValidationError", "Must specify userName when calling with non-User credentials.")
        found = await self.read(UserEntity, principal.user_name)
        keys = self.declared_keys(principal.user_name)
        if found is None and not keys:
            raise no_such("user", principal.user_name)
        return found or self._undocumented(keys)

    async def policy(self, arn: str) -> PolicyEntity:
        """One of the account's own.  Raises NoSuchEntity."""
        name = policy_arn_parts(arn, self.account)
        found = await self.read(PolicyEntity, name) if name else None
        if found is None or found.arn != arn:
            raise IamError("NoSuchEntity", f"Policy {arn[:2048]!r} does not exist or is not attachable.")
        return found

    async def attachable(self, arn: str) -> Attached:
        """Raises NoSuchEntity."""
        if not arn.startswith(STORE_POLICY_PREFIX):
            return Attached(arn, (await self.policy(arn)).id)
        if self.identities.managed_policy(arn.removeprefix(STORE_POLICY_PREFIX)) is None:
            raise IamError("NoSuchEntity", f"Policy {arn[:2048]!r} does not exist or is not attachable.")
        return Attached(arn)

    def everybody(self) -> list[UserEntity]:
        """The account's users, declared ones too, but for its root; by name without regard to case."""
        directory = self.identities.directory
        found = {user.name.lower(): user for user in directory.all_of(UserEntity, self.account) if not user.declared}
        declared: dict[str, list[User]] = {}
        for key in self.identities.users():
            if key.account == self.account and not key.identity:
                declared.setdefault(key.name.lower(), []).append(key)
        for name, keys in declared.items():
            if not keys[0].account_root:
                found[name] = directory.find(UserEntity, self.account, name) or self._undocumented(keys)
        return [found[name] for name in sorted(found)]

    async def keys_made_for(self, user: UserEntity) -> list[str]:
        """Access keys that clients made for exactly this user, as they are now on the drives: also those that this pod
        was not told of.  Raises Unavailable."""
        found: list[str] = []
        after: str | None = ""
        while after is not None:
            page = await self.services.objects.list_documents(USER_PREFIX, after=after, limit=PAGE_SIZE)
            found += [entry.key.removeprefix(USER_PREFIX) for entry in page.entries if _is_for(entry.record, user)]
            after = page.next_after
        return found

    # --- changing

    async def create(self, entity: E) -> E:
        """Raises EntityAlreadyExists, LimitExceeded, ServiceUnavailable."""
        await self.ready()
        await self._clear(entity.document_name)
        self._check_room(len(encode_entity(entity)), 1)

        def absent(current: Record | None) -> None:
            if current is not None:
                raise IamError("EntityAlreadyExists", f"{entity.kind.title()} with name {entity.name} already exists.")

        await self._put(entity.document_name, encode_entity(entity), absent)
        await self.tell([entity.document_name])
        return entity

    async def change(self, entity: E, change: Callable[[E], E]) -> E:
        """`change` gets the entity as it is and returns what it shall be; it is pure, may raise to refuse and be called
        more than once.  Raises NoSuchEntity where it is gone, or another one by now; ConcurrentModification."""
        await self.ready()
        for _ in range(MAX_TRIES):
            document = await self.services.objects.get_document(entity.document_name)
            current = _decoded(document, entity)
            fresh = change(current)
            if document is not None and fresh == current:
                return fresh
            self._check_room(len(encode_entity(fresh)) - (len(document.body) if document is not None else 0), 0)
            try:
                await self._put(fresh.document_name, encode_entity(fresh), _still(document))
            except _ChangedMeanwhile:
                continue
            await self.tell([fresh.document_name])
            return fresh
        raise IamError("ConcurrentModification", "Others change it at the same time; try again.")

    async def rename(self, entity: E, change: Callable[[E], E]) -> E:
        """To another name: the new document first, then the old one goes.  `change` as for `change`; what is changed
        under the old name while that goes on is taken along.  Of a rename that dies between the new name counts; what
        it leaves under the old one goes when somebody wants that name (`_clear`), or with the entity.  Raises as
        `change`, and EntityAlreadyExists."""
        await self.ready()
        await self._clear(change(entity).document_name)
        fresh = entity
        for attempt in range(MAX_TRIES):
            document = await self.services.objects.get_document(entity.document_name)
            if document is None and attempt:
                break  # the same was asked of another pod, which has come to its end first
            fresh = change(_decoded(document, entity))
            await self._put(fresh.document_name, encode_entity(fresh), _free_for(fresh))
            try:
                await self.services.objects.delete_document(entity.document_name, _still(document))
                break
            except (_ChangedMeanwhile, Conflict):
                continue
        else:
            raise IamError("ConcurrentModification", "Others change it at the same time; try again.")
        await self.tell([entity.document_name, fresh.document_name])
        return fresh

    async def delete(self, entity: E, check: Callable[[E], None]) -> None:
        """`check` raises to refuse, and gets the entity as it is."""

        def allowed(current: Record | None) -> None:
            if current is not None:
                found = decode_entity(current.body)
                if found.id != entity.id:
                    raise no_such(entity.kind, entity.name)
                check(found)  # type: ignore[arg-type]

        for name in self.identities.directory.documents_of(entity):
            if name != entity.document_name:
                await self._clear(name)  # it would come back under that name
        try:
            await self.services.objects.delete_document(entity.document_name, allowed)
        except Conflict as error:
            raise IamError("ConcurrentModification", "Others change it at the same time; try again.") from error
        await self.tell([entity.document_name])

    async def _clear(self, name: str) -> None:
        """Take away what a rename that died has left there, if that is what is there.  Raises Unavailable."""
        objects = self.services.objects
        left = await objects.get_document(name)
        found = _entity_of(left)
        counts = self.identities.directory.by_id(type(found), found.id) if found is not None else None
        if left is None or found is None or counts is None or counts.document_name == name:
            return
        current = _entity_of(await objects.get_document(counts.document_name))
        if current is None or current.id != found.id or current.moves <= found.moves:
            return
        try:
            await objects.delete_document(name, _still(left))
        except (_ChangedMeanwhile, Conflict):
            return  # it is looked at once more by whoever puts or deletes there
        await self.tell([name])

    async def _put(self, name: str, body: bytes, condition: Condition) -> None:
        try:
            await self.services.objects.put_document(name, body, condition)
        except Conflict as error:
            raise IamError("ConcurrentModification", "Others change it at the same time; try again.") from error

    async def tell(self, documents: list[str]) -> None:
        await self.identities.announced(documents)
        await self.services.announce(DOCUMENTS_TOPIC, documents)

    def _check_room(self, more_bytes: int, more: int) -> None:
        directory = self.identities.directory
        count, size_bytes = directory.usage_of(self.account)
        if (
            (more and (len(directory) >= MAX_ENTITIES or count >= MAX_ENTITIES_PER_ACCOUNT))
            or directory.size_bytes + more_bytes > MAX_SIZE_BYTES
            or (more_bytes > 0 and size_bytes + more_bytes > MAX_SIZE_BYTES_PER_ACCOUNT)
        ):
            raise IamError("LimitExceeded", "Cannot exceed the quota of identities and policies.")

    async def ready(self) -> None:
        """Every pod knows what is written here.  Raises ServiceUnavailable."""
        objects = self.services.objects
        if self.identities.iam_begun or await objects.get_document(FEATURE_DOCUMENT) is not None:
            self.identities.iam_begun = True
            return
        if not self.services.every_pod_knows_iam():
            raise IamError(
                "ServiceUnavailable",
                "The first change of identities needs every pod reachable and of this release; try again later.",
            )
        await objects.put_document(FEATURE_DOCUMENT, b"{}")
        self.identities.iam_begun = True


def _is_for(key: Record, user: UserEntity) -> bool:
    """One that cannot be read, of a later release, is nobody's here."""
    try:
        return msgspec.json.decode(key.body, type=UserDocument).identity == user.id
    except msgspec.MsgspecError:
        return False


def _there(found: E | None, kind: str, name: str) -> E:
    if found is None:
        raise no_such(kind, name)
    return found


def _decoded(document: Record | None, entity: E) -> E:
    """What is there now, if it is still the same entity."""
    if document is None:
        if isinstance(entity, UserEntity) and entity.declared:
            return entity
        raise no_such(entity.kind, entity.name)
    try:
        found = decode_entity(document.body)
    except EntityError as error:
        raise IamError("ServiceFailure", f"The {entity.kind} cannot be read.") from error
    if found.id != entity.id or not isinstance(found, type(entity)):
        raise no_such(entity.kind, entity.name)
    return found


def _entity_of(document: Record | None) -> Entity | None:
    """None where there is none, or one that cannot be read."""
    try:
        return decode_entity(document.body) if document is not None else None
    except EntityError:
        return None


def _free_for(fresh: Entity) -> Condition:
    """The name is nobody's, or what an attempt before has left there."""

    def check(current: Record | None) -> None:
        if current is not None and decode_entity(current.body).id != fresh.id:
            raise IamError("EntityAlreadyExists", f"{fresh.kind.title()} with name {fresh.name} already exists.")

    return check


def _still(document: Record | None) -> Condition:
    def check(current: Record | None) -> None:
        if (current is None) != (document is None) or (
            current is not None and document is not None and current.body != document.body
        ):
            raise _ChangedMeanwhile

    return check
