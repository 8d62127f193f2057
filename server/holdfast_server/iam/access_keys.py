"""Access keys of users.  A declared key is shown, and left alone: whoever declared it would bring it back.

A key that is made while its user is deleted does not stay: whoever makes it looks for the user once the key is there.
Only if that pod dies in between is a document left over, which opens nothing, since its user's id is never given again;
`holdfast admin user` lists and removes it.
"""

from __future__ import annotations

import base64

import msgspec

from holdfast_server.api.identities import MAX_DOCUMENTS
from holdfast_server.api.user_documents import USER_PREFIX, User, UserDocument, encode_user
from holdfast_server.auth.entities import UserEntity
from holdfast_server.iam.answers import Result, date
from holdfast_server.iam.call import IamCall
from holdfast_server.iam.errors import IamError, no_such
from holdfast_server.iam.pages import page_of
from holdfast_server.iam.users import named_user
from holdfast_server.objects.port import Conflict, Record

MAX_KEYS_PER_USER = 8
_KEY_RANDOM_BYTES = 10
_SECRET_RANDOM_BYTES = 30
_ACTIVE, _INACTIVE = "Active", "Inactive"


async def create_access_key(call: IamCall) -> Result:
    """The secret is shown this once."""
    user = await named_user(call)
    keys = call.identities.keys_of(call.account, user.name)
    if len(keys) >= MAX_KEYS_PER_USER:
        raise IamError("LimitExceeded", f"Cannot exceed quota for AccessKeysPerUser: {MAX_KEYS_PER_USER}")
    if len(call.identities.users()) >= MAX_DOCUMENTS:
        raise IamError("LimitExceeded", "Cannot exceed the quota of access keys.")
    await _keep(call, user)
    random = call.services.clock.random_bytes
    access_key = "AKIA" + base64.b32encode(random(_KEY_RANDOM_BYTES)).decode()
    secret = base64.b64encode(random(_SECRET_RANDOM_BYTES)).decode()
    now_ms = call.now_ms
    document = UserDocument(
        secret=call.identities.secrets.seal(access_key, secret),
        name=user.name,
        account=user.account,
        # Never for one that clients made, though a root of the account be declared under its name.
        account_root=user.declared and any(key.account_root for key in keys),
        identity=user.id,
        changed_ms=now_ms,
        created_ms=now_ms,
    )

    def absent(current: Record | None) -> None:
        if current is not None:
            raise IamError("ServiceFailure", "The new key's name is taken; try again.")

    await call.services.objects.put_document(USER_PREFIX + access_key, encode_user(document), absent)
    await _unless_user_went(call, user, access_key)
    await call.tell([USER_PREFIX + access_key])
    told = {"UserName": user.name, "AccessKeyId": access_key, "Status": _ACTIVE, "SecretAccessKey": secret}
    return {"AccessKey": {**told, "CreateDate": date(now_ms)}}


async def _unless_user_went(call: IamCall, user: UserEntity, access_key: str) -> None:
    """Takes the key back where its user was deleted, or renamed, since it was looked for.  Raises NoSuchEntity."""
    found = await call.read(UserEntity, user.name)
    if found is None or found.id != user.id:
        await call.services.objects.delete_document(USER_PREFIX + access_key)
        raise no_such("user", user.name)


async def _keep(call: IamCall, user: UserEntity) -> None:
    """A user that was declared needs its document before a key can name it."""
    await call.ready()
    if user.declared:
        await call.change(user, lambda old: old)


def _shown(key: User, name: str) -> Result:
    status = _ACTIVE if key.enabled else _INACTIVE
    return {"UserName": name, "AccessKeyId": key.access_key, "Status": status, "CreateDate": date(key.created_ms)}


async def list_access_keys(call: IamCall) -> Result:
    user = await named_user(call)
    keys = call.identities.keys_of(call.account, user.name)
    return page_of(
        call.parameters,
        "AccessKeyMetadata",
        keys,
        lambda key: key.access_key,
        lambda key: _shown(key, user.name),
    )


async def _owned_key(call: IamCall, user: UserEntity) -> str:
    """Raises NoSuchEntity where the user has no such key; UnmodifiableEntity for a declared one."""
    access_key = call.parameters.text("AccessKeyId", max_size=128)
    await call.identities.announced([USER_PREFIX + access_key] if "/" not in access_key else [])
    for key in call.identities.keys_of(call.account, user.name):
        if key.access_key == access_key:
            if not key.identity:
                raise IamError(
                    "UnmodifiableEntity", "The key was declared by the Tenant or an administrator; change it there."
                )
            return access_key
    raise IamError("NoSuchEntity", f"The Access Key with id {access_key!r} cannot be found.")


async def update_access_key(call: IamCall) -> Result:
    status = call.parameters.choice("Status", (_ACTIVE, _INACTIVE))
    access_key = await _owned_key(call, await named_user(call))
    document = await call.services.objects.get_document(USER_PREFIX + access_key)
    if document is None:
        raise IamError("NoSuchEntity", f"The Access Key with id {access_key!r} cannot be found.")
    before = document.body
    key = msgspec.json.decode(before, type=UserDocument)
    fresh = msgspec.structs.replace(key, enabled=status == _ACTIVE, changed_ms=call.now_ms)

    def unchanged(current: Record | None) -> None:
        if current is None or current.body != before:
            raise IamError("ConcurrentModification", "Others change it at the same time; try again.")

    try:
        await call.services.objects.put_document(USER_PREFIX + access_key, encode_user(fresh), unchanged)
    except Conflict as error:
        raise IamError("ConcurrentModification", "Others change it at the same time; try again.") from error
    await call.tell([USER_PREFIX + access_key])
    return {}


async def delete_access_key(call: IamCall) -> Result:
    access_key = await _owned_key(call, await named_user(call))
    await call.services.objects.delete_document(USER_PREFIX + access_key)
    await call.tell([USER_PREFIX + access_key])
    return {}
