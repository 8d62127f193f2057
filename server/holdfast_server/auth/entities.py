"""What the IAM API keeps: users, groups, roles and policies of accounts, one document each, and their bytes.

A document is named by kind, account and the entity's name in lower case (names are unique without regard to case, as
on AWS), so that making one twice is one conditional write.  What refers to another entity holds that entity's unique id
beside its name: deleted and made again under the same name, it is another one, and no old membership or attachment
comes back to life.

A user that was declared (by a Tenant, or with `holdfast admin user`) has its keys and policies in its key documents and
an entity only once clients gave it something; `declared` marks it.  Pure.

Not here: who may change them (`iam`), where they rest (`api.directory`).
"""

from __future__ import annotations

import base64
import hashlib
from typing import ClassVar

import msgspec

from holdfast_server.auth.principal import account_id

ENTITY_FORMAT = 1
"""Of the documents; fields are only ever appended, and a document of a later format is refused."""
ENTITY_PREFIX = "iam/"

USER, GROUP, ROLE, POLICY = "user", "group", "role", "policy"
STORE_POLICY_PREFIX = "arn:aws:iam::aws:policy/"
"""Of policies that belong to no account: built in, or put by who administers the store."""
_ID_SIZE = 17


class EntityError(ValueError):
    """A document that cannot be read."""


class Reference(msgspec.Struct, frozen=True):
    """Another entity of the same account."""

    name: str
    id: str


class Attached(msgspec.Struct, frozen=True):
    """A managed policy."""

    arn: str
    id: str = ""
    """Empty for one of the store's."""


class PolicyVersion(msgspec.Struct, frozen=True, kw_only=True):
    number: int
    text: str
    created_ms: int

    @property
    def id(self) -> str:
        return f"v{self.number}"


class _Entity(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind"):
    kind: ClassVar[str]

    id: str
    name: str
    account: str = ""
    path: str = "/"
    created_ms: int = 0
    moves: int = 0
    """How often it was renamed: of two documents with one id the one with more moves counts, the other is what a rename
    that died has left."""
    tags: dict[str, str] = {}
    format: int = ENTITY_FORMAT

    @property
    def arn(self) -> str:
        return f"arn:aws:iam::{account_id(self.account)}:{self.kind}{self.path}{self.name}"

    @property
    def document_name(self) -> str:
        return document_name(self.kind, self.account, self.name)


class _Holder(_Entity, frozen=True, kw_only=True):
    """Something that policies can be given to."""

    inline: dict[str, str] = {}
    """Name → document."""
    attached: list[Attached] = []


class UserEntity(_Holder, frozen=True, kw_only=True, tag="user"):
    kind = USER
    groups: list[Reference] = []
    declared: bool = False


class GroupEntity(_Holder, frozen=True, kw_only=True, tag="group"):
    kind = GROUP


class RoleEntity(_Holder, frozen=True, kw_only=True, tag="role"):
    kind = ROLE
    trust: str = ""
    description: str = ""
    max_session_seconds: int = 3600


class PolicyEntity(_Entity, frozen=True, kw_only=True, tag="policy"):
    kind = POLICY
    description: str = ""
    changed_ms: int = 0
    versions: list[PolicyVersion] = []
    """In the order in which they were made."""
    default: int = 1
    next_number: int = 2

    def version(self, number: int) -> PolicyVersion | None:
        return next((version for version in self.versions if version.number == number), None)

    @property
    def text(self) -> str:
        """Of the version in force."""
        version = self.version(self.default)
        assert version is not None
        return version.text


Entity = UserEntity | GroupEntity | RoleEntity | PolicyEntity
Holder = UserEntity | GroupEntity | RoleEntity


def document_name(kind: str, account: str, name: str) -> str:
    return f"{ENTITY_PREFIX}{kind}/{account_id(account)}/{name.lower()}"


def encode_entity(entity: Entity) -> bytes:
    return msgspec.json.encode(entity)


def decode_entity(body: bytes) -> Entity:
    """Raises EntityError."""
    try:
        entity: Entity = msgspec.json.decode(body, type=Entity)
    except msgspec.MsgspecError as error:
        raise EntityError(str(error)) from error
    if entity.format > ENTITY_FORMAT:
        raise EntityError(f"it has format {entity.format}, this server reads up to {ENTITY_FORMAT}")
    if isinstance(entity, PolicyEntity) and entity.version(entity.default) is None:
        raise EntityError("its default version is missing")
    return entity


def policy_arn_parts(arn: str, account: str) -> str | None:
    """The name of the policy of that account which the ARN names; None where it names none of that account's."""
    prefix = f"arn:aws:iam::{account_id(account)}:policy/"
    return arn.rpartition("/")[2] if arn.startswith(prefix) else None


def declared_user_id(account: str, name: str) -> str:
    """The unique id of a user that has no document of its own; the same as long as account and name are."""
    digest = hashlib.sha256(f"{account}/{name.lower()}".encode()).digest()
    return f"AIDA{base64.b32encode(digest).decode()[:_ID_SIZE]}"


_PREFIXES = {USER: "AIDA", GROUP: "AGPA", ROLE: "AROA", POLICY: "ANPA"}


def new_id(kind: str, randomness: bytes) -> str:
    """A unique id, from at least 11 random bytes."""
    return _PREFIXES[kind] + base64.b32encode(randomness).decode()[:_ID_SIZE]
