"""Requests of the admin API about accounts, users and policies: what is valid, which documents change.

What is put here is *declared*: it belongs to no client, the IAM API shows it and leaves it alone.  Keys and users that
clients made through the IAM API are listed and can be removed here; nothing else of theirs is touched.
"""

from __future__ import annotations

import re

import msgspec

from holdfast_server.api.identities import MAX_DOCUMENTS, POLICY_PREFIX
from holdfast_server.api.services import DOCUMENTS_TOPIC, Services
from holdfast_server.api.user_documents import (
    ACCOUNT_PREFIX,
    USER_PREFIX,
    AccountDocument,
    UserDocument,
    encode_user,
)
from holdfast_server.auth.entities import UserEntity
from holdfast_server.auth.policy import PolicyError, parse_policy
from holdfast_server.auth.principal import ROOT_NAME, account_id, canonical_id
from holdfast_server.contract.admin import AccountInfo, AccountSpec, Resealed, UserInfo, UserSpec
from holdfast_server.contract.keys import (
    MAX_ACCESS_KEY_LENGTH,
    MAX_SECRET_KEY_LENGTH,
    MIN_ACCESS_KEY_LENGTH,
    MIN_SECRET_KEY_LENGTH,
)
from holdfast_server.s3.errors import S3Error

MAX_POLICIES_PER_USER = 64
MAX_FORMER_SECRETS = 8
MAX_NAME_LENGTH = 128
MAX_DISPLAY_NAME_LENGTH = 128
MAX_ACCOUNTS = 1000

_NAME = re.compile(r"[A-Za-z0-9_.@=+,-]+")


class IdentityRequests:
    def __init__(self, services: Services) -> None:
        self._services = services
        self._identities = services.identities

    # --- users

    async def list_users(self) -> list[UserInfo]:
        await self._identities.refresh()
        return [
            UserInfo(
                access_key=user.access_key,
                name=user.name,
                policies=list(user.policies),
                enabled=user.enabled,
                account=user.account,
                account_root=user.account_root,
                expires_ms=user.expires_ms,
                limited=bool(user.policy),
                by_clients=bool(user.identity),
            )
            for user in self._identities.users()
        ]

    async def reseal(self) -> Resealed:
        told = await self._identities.reseal()
        return Resealed(done=told.done, left=told.left, unreadable=told.unreadable)

    async def put_user(self, access_key: str, body: bytes) -> None:
        try:
            spec = msgspec.json.decode(body, type=UserSpec)
        except msgspec.MsgspecError as error:
            raise bad(str(error)) from error
        _check_user(access_key, spec, self._identities.root_access_keys)
        if self._identities.key(access_key) is None and len(self._identities.users()) >= MAX_DOCUMENTS:
            raise bad(f"accessKey: there are {MAX_DOCUMENTS} already, and no room for more")
        seal = self._identities.secrets.seal
        now_ms = self._services.clock.now_ms()
        document = UserDocument(
            secret=seal(access_key, spec.secret_key),
            former=[seal(access_key, former) for former in spec.former_secret_keys],
            name=spec.name,
            policies=spec.policies,
            enabled=spec.enabled,
            account=spec.account,
            account_root=spec.account_root,
            expires_ms=spec.expires_ms,
            policy=msgspec.json.encode(spec.policy).decode() if spec.policy is not None else "",
            changed_ms=now_ms,
        )
        await self._put(USER_PREFIX + access_key, encode_user(document))

    async def delete_user(self, access_key: str) -> None:
        """With the last key of a declared user goes what clients gave it, their keys for it among that."""
        key = self._identities.key(access_key)
        await self._delete(USER_PREFIX + access_key)
        if key is None or key.identity:
            return
        others = [one for one in self._identities.users() if (one.account, one.name) == (key.account, key.name)]
        if any(not one.identity for one in others):
            return
        entity = self._identities.directory.find(UserEntity, key.account, key.name)
        if entity is not None and entity.declared:
            for one in others:
                await self._delete(USER_PREFIX + one.access_key)
            await self._delete(entity.document_name)

    # --- policies

    async def policy_names(self) -> list[str]:
        await self._identities.refresh()
        return self._identities.policy_names()

    async def put_policy(self, name: str, body: bytes) -> None:
        if len(name) > MAX_NAME_LENGTH or not _NAME.fullmatch(name):
            raise bad(f"name: {name!r} must be 1 to {MAX_NAME_LENGTH} of A-Z a-z 0-9 _.@=+,-")
        self._refuse_builtin(name)
        try:
            parse_policy(body)
        except PolicyError as error:
            raise S3Error("MalformedPolicy", str(error)) from error
        await self._put(POLICY_PREFIX + name, body)

    async def delete_policy(self, name: str) -> None:
        self._refuse_builtin(name)
        await self._delete(POLICY_PREFIX + name)

    def _refuse_builtin(self, name: str) -> None:
        if self._identities.is_builtin(name):
            raise bad(f"name: {name!r} is built in and cannot be changed")

    # --- accounts

    async def list_accounts(self) -> list[AccountInfo]:
        await self._identities.refresh()
        declared = self._identities.declared_accounts()
        known = {"", *declared, *(user.account for user in self._identities.users())}
        return [
            AccountInfo(
                name=name,
                display_name=self._identities.display_name(name),
                id=account_id(name),
                canonical_id=canonical_id(name),
                declared=name in declared,
            )
            for name in sorted(known)
        ]

    async def put_account(self, name: str, body: bytes) -> None:
        try:
            spec = msgspec.json.decode(body, type=AccountSpec)
        except msgspec.MsgspecError as error:
            raise bad(str(error)) from error
        fault = account_fault(name)
        if fault or len(spec.display_name) > MAX_DISPLAY_NAME_LENGTH or not _is_printable(spec.display_name):
            raise bad(fault or f"displayName: at most {MAX_DISPLAY_NAME_LENGTH} printable characters")
        declared = self._identities.declared_accounts()
        if name not in declared and len(declared) >= MAX_ACCOUNTS:
            raise bad(f"name: there are {MAX_ACCOUNTS} accounts already, and no room for more")
        other = self._identities.account_with_id(account_id(name))
        if other is not None and other != name:
            raise bad(f"name: {name!r} would have the same number as account {other!r}")
        await self._put(ACCOUNT_PREFIX + name, msgspec.json.encode(AccountDocument(display_name=spec.display_name)))

    async def delete_account(self, name: str) -> None:
        """Its users and buckets stay; it is shown by its name again."""
        await self._delete(ACCOUNT_PREFIX + name)

    # --- documents

    async def _put(self, document_name: str, body: bytes) -> None:
        await self._services.objects.put_document(document_name, body)
        await self._tell(document_name)

    async def _delete(self, document_name: str) -> None:
        await self._services.objects.delete_document(document_name)
        await self._tell(document_name)

    async def _tell(self, document_name: str) -> None:
        await self._identities.announced([document_name])
        await self._services.announce(DOCUMENTS_TOPIC, [document_name])


def bad(message: str) -> S3Error:
    return S3Error("InvalidArgument", message)


def account_fault(name: str) -> str:
    """Empty where an account may be called so."""
    if len(name) > MAX_NAME_LENGTH or not _NAME.fullmatch(name) or name == ROOT_NAME:
        return f"account: must be at most {MAX_NAME_LENGTH} of A-Z a-z 0-9 _.@=+,- and not {ROOT_NAME!r}"
    return ""


def _is_printable(text: str) -> bool:
    return not text or text.isprintable()


def _check_user(access_key: str, spec: UserSpec, root_access_keys: frozenset[str]) -> None:
    """Raises InvalidArgument with every fault, each with its field."""
    faults = []
    if not MIN_ACCESS_KEY_LENGTH <= len(access_key) <= MAX_ACCESS_KEY_LENGTH or not _NAME.fullmatch(access_key):
        faults.append(f"accessKey: must be {MIN_ACCESS_KEY_LENGTH} to {MAX_ACCESS_KEY_LENGTH} of A-Z a-z 0-9 _.@=+,-")
    if access_key in root_access_keys:
        faults.append("accessKey: is the root user's")
    if len(spec.former_secret_keys) > MAX_FORMER_SECRETS:
        faults.append(f"formerSecretKeys: at most {MAX_FORMER_SECRETS}")
    sizes = [len(secret) for secret in (spec.secret_key, *spec.former_secret_keys)]
    if not all(MIN_SECRET_KEY_LENGTH <= size <= MAX_SECRET_KEY_LENGTH for size in sizes):
        faults.append(f"secretKey: must have {MIN_SECRET_KEY_LENGTH} to {MAX_SECRET_KEY_LENGTH} characters")
    if spec.name and (len(spec.name) > MAX_NAME_LENGTH or not _NAME.fullmatch(spec.name)):
        faults.append(f"name: must be at most {MAX_NAME_LENGTH} of A-Z a-z 0-9 _.@=+,-")
    if spec.account and (fault := account_fault(spec.account)):
        faults.append(fault)
    if spec.account_root and not spec.account:
        faults.append("accountRoot: is for users of an account")
    if len(spec.policies) > MAX_POLICIES_PER_USER:
        faults.append(f"policies: at most {MAX_POLICIES_PER_USER}")
    if spec.expires_ms < 0:
        faults.append("expiresMs: must not be negative")
    if spec.policy is not None:
        try:
            parse_policy(msgspec.json.encode(spec.policy))
        except PolicyError as error:
            faults.append(f"policy: {error}")
    if faults:
        raise bad("; ".join(faults))
