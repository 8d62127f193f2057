"""Groups: what is given to a group is given to its users.  Who is in a group stands with each user, by the group's
id."""

from __future__ import annotations

import msgspec

from holdfast_server.auth.entities import GROUP, GroupEntity, Reference, UserEntity
from holdfast_server.iam.answers import Result, date
from holdfast_server.iam.attachments import require_no_policies
from holdfast_server.iam.call import IamCall
from holdfast_server.iam.errors import IamError
from holdfast_server.iam.pages import page_of
from holdfast_server.iam.users import named_user, shown_user

MAX_GROUPS_PER_USER = 10


def shown_group(group: GroupEntity) -> Result:
    return {
        "Path": group.path,
        "GroupName": group.name,
        "GroupId": group.id,
        "Arn": group.arn,
        "CreateDate": date(group.created_ms),
    }


async def _named(call: IamCall) -> GroupEntity:
    return await call.group(call.parameters.name("GroupName", 128))


def _members(call: IamCall, group: GroupEntity) -> list[UserEntity]:
    return [user for user in call.everybody() if any(one.id == group.id for one in user.groups)]


async def create_group(call: IamCall) -> Result:
    group = GroupEntity(
        id=call.new_id(GROUP),
        name=call.parameters.name("GroupName", 128),
        account=call.account,
        path=call.parameters.path(),
        created_ms=call.now_ms,
    )
    return {"Group": shown_group(await call.create(group))}


async def get_group(call: IamCall) -> Result:
    group = await _named(call)
    page = page_of(call.parameters, "Users", _members(call, group), lambda user: user.name.lower(), shown_user)
    return {"Group": shown_group(group), **page}


async def list_groups(call: IamCall) -> Result:
    prefix = call.parameters.path_prefix()
    everything = call.identities.directory.all_of(GroupEntity, call.account)
    found = [group for group in everything if group.path.startswith(prefix)]
    return page_of(call.parameters, "Groups", found, lambda group: group.name.lower(), shown_group)


async def update_group(call: IamCall) -> Result:
    group = await _named(call)
    path = call.parameters.path("NewPath", group.path)
    name = call.parameters.name("NewGroupName", 128, group.name)
    if (path, name) != (group.path, group.name):
        call.require("iam:UpdateGroup", call.arn_of(f"group{path}{name}"))
    if name.lower() == group.name.lower():
        await call.change(group, lambda old: msgspec.structs.replace(old, path=path, name=name))
    else:
        await call.rename(group, lambda old: msgspec.structs.replace(old, name=name, path=path, moves=old.moves + 1))
    return {}


async def delete_group(call: IamCall) -> Result:
    group = await _named(call)
    if _members(call, group):
        raise IamError("DeleteConflict", "Cannot delete entity, must remove users from group first.")
    await call.delete(group, lambda found: require_no_policies(call, found))
    return {}


async def add_user_to_group(call: IamCall) -> Result:
    group = await _named(call)
    user = await call.user(call.parameters.name("UserName", 128))

    def joined(old: UserEntity) -> UserEntity:
        there = {found.id for found in call.identities.directory.groups_of(old)}
        groups = [member for member in old.groups if member.id in there and member.id != group.id]
        if len(groups) >= MAX_GROUPS_PER_USER:
            raise IamError("LimitExceeded", f"Cannot exceed quota for GroupsPerUser: {MAX_GROUPS_PER_USER}")
        return msgspec.structs.replace(old, groups=[*groups, Reference(group.name, group.id)])

    if not any(member.id == group.id for member in user.groups):
        await call.change(user, joined)
    return {}


async def remove_user_from_group(call: IamCall) -> Result:
    group = await _named(call)
    user = await call.user(call.parameters.name("UserName", 128))
    if not any(member.id == group.id for member in user.groups):
        raise IamError("NoSuchEntity", f"User {user.name} is not in group {group.name}.")
    await call.change(
        user,
        lambda old: msgspec.structs.replace(old, groups=[one for one in old.groups if one.id != group.id]),
    )
    return {}


async def list_groups_for_user(call: IamCall) -> Result:
    user = await named_user(call)
    found = sorted(call.identities.directory.groups_of(user), key=lambda group: group.name.lower())
    return page_of(call.parameters, "Groups", found, lambda group: group.name.lower(), shown_group)
