"""Users of the caller's account.  One that was declared is shown with the others; it is not renamed or deleted here,
for whoever declared it would bring it back."""

from __future__ import annotations

import msgspec

from holdfast_server.api.user_documents import USER_PREFIX, UserDocument, encode_user
from holdfast_server.auth.entities import USER, UserEntity
from holdfast_server.auth.principal import account_id
from holdfast_server.iam.answers import Result, date
from holdfast_server.iam.attachments import require_no_policies
from holdfast_server.iam.call import IamCall
from holdfast_server.iam.errors import IamError
from holdfast_server.iam.pages import page_of
from holdfast_server.iam.tags import asked_tags, shown_tags

MAX_USER_NAME = 64


async def named_user(call: IamCall) -> UserEntity:
    """The one that `UserName` names; the caller where it names none."""
    if not call.parameters.has("UserName"):
        return await call.caller()
    return await call.user(call.parameters.name("UserName", 128))


def shown_user(user: UserEntity, with_tags: bool = False) -> Result:
    return {
        "Path": user.path,
        "UserName": user.name,
        "UserId": user.id,
        "Arn": user.arn,
        "CreateDate": date(user.created_ms),
        "Tags": shown_tags(user.tags) if with_tags else None,
    }


async def create_user(call: IamCall) -> Result:
    name = call.parameters.name("UserName", MAX_USER_NAME)
    if call.declared_keys(name):
        raise IamError("EntityAlreadyExists", f"User with name {name} already exists.")
    user = UserEntity(
        id=call.new_id(USER),
        name=name,
        account=call.account,
        path=call.parameters.path(),
        created_ms=call.now_ms,
        tags=asked_tags(call),
    )
    return {"User": shown_user(await call.create(user), with_tags=True)}


async def get_user(call: IamCall) -> Result:
    principal = call.principal
    if not call.parameters.has("UserName") and principal.everything_at_home and principal.role is None:
        number = account_id(principal.account)
        return {"User": {"Path": "/", "UserId": number, "Arn": principal.arn, "CreateDate": date(0)}}
    return {"User": shown_user(await named_user(call), with_tags=True)}


async def list_users(call: IamCall) -> Result:
    prefix = call.parameters.path_prefix()
    found = [user for user in call.everybody() if user.path.startswith(prefix)]
    return page_of(call.parameters, "Users", found, lambda user: user.name.lower(), shown_user)


async def update_user(call: IamCall) -> Result:
    user = await call.user(call.parameters.name("UserName", 128))
    path = call.parameters.path("NewPath", user.path)
    name = call.parameters.name("NewUserName", MAX_USER_NAME, user.name)
    if user.declared and (path, name) != (user.path, user.name):
        raise _declared(user)
    if (path, name) != (user.path, user.name):
        call.require("iam:UpdateUser", call.arn_of(f"user{path}{name}"))
    if name.lower() == user.name.lower():
        await call.change(user, lambda old: msgspec.structs.replace(old, path=path, name=name))
        return {}
    if call.declared_keys(name):
        raise IamError("EntityAlreadyExists", f"User with name {name} already exists.")
    keys = [key.access_key for key in call.identities.keys_of(call.account, user.name)]
    await call.rename(user, lambda old: msgspec.structs.replace(old, name=name, path=path, moves=old.moves + 1))
    for access_key in keys:
        await _rename_key(call, access_key, name)
    return {}


async def _rename_key(call: IamCall, access_key: str, name: str) -> None:
    """So that a pod which does not know the key yet finds its user at once."""
    document = await call.services.objects.get_document(USER_PREFIX + access_key)
    if document is None:
        return
    key = msgspec.json.decode(document.body, type=UserDocument)
    body, before = encode_user(msgspec.structs.replace(key, name=name)), document.body

    def unchanged(current: object) -> None:
        if getattr(current, "body", None) != before:
            raise IamError("ConcurrentModification", "Others change it at the same time; try again.")

    await call.services.objects.put_document(USER_PREFIX + access_key, body, unchanged)
    await call.tell([USER_PREFIX + access_key])


async def delete_user(call: IamCall) -> Result:
    """A key that is made meanwhile goes with its user: the one who made it looks for the user afterwards, we for keys.
    Whichever of the two comes later sees what the other did."""
    user = await call.user(call.parameters.name("UserName", 128))
    if user.declared:
        raise _declared(user)
    if await call.keys_made_for(user):
        raise IamError("DeleteConflict", "Cannot delete entity, must delete access keys first.")
    await call.delete(user, lambda found: _require_nothing_left(call, found))
    for access_key in await call.keys_made_for(user):
        await call.services.objects.delete_document(USER_PREFIX + access_key)
        await call.tell([USER_PREFIX + access_key])
    return {}


def _require_nothing_left(call: IamCall, user: UserEntity) -> None:
    """Groups that were deleted while the user came into them keep it as little as such policies do."""
    if call.identities.directory.groups_of(user):
        raise IamError("DeleteConflict", "Cannot delete entity, must remove users from group first.")
    require_no_policies(call, user)


def _declared(user: UserEntity) -> IamError:
    return IamError(
        "UnmodifiableEntity", f"User {user.name} was declared by the Tenant or an administrator; change it there."
    )
