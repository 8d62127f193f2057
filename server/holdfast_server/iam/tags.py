"""Tags of users and roles.  Policies see them as `aws:PrincipalTag/…`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

import msgspec

from holdfast_server.auth.entities import RoleEntity, UserEntity
from holdfast_server.iam.answers import Result
from holdfast_server.iam.call import IamCall
from holdfast_server.iam.errors import IamError
from holdfast_server.iam.pages import page_of
from holdfast_server.iam.parameters import MAX_TAGS

T = TypeVar("T", UserEntity, RoleEntity)


def checked_tags(tags: dict[str, str]) -> dict[str, str]:
    if len(tags) > MAX_TAGS:
        raise IamError("LimitExceeded", f"At most {MAX_TAGS} tags are allowed.")
    return tags


def asked_tags(call: IamCall) -> dict[str, str]:
    """Of a user or role, whose tags have names without regard to case, as `aws:PrincipalTag/…` has to."""
    tags = checked_tags(call.parameters.tags())
    if len({key.lower() for key in tags}) != len(tags):
        raise IamError("InvalidInput", "Duplicate tag keys found. Please note that Tag keys are case insensitive.")
    return tags


def _without(tags: dict[str, str], gone: Iterable[str]) -> dict[str, str]:
    lowered = {key.lower() for key in gone}
    return {key: value for key, value in tags.items() if key.lower() not in lowered}


def shown_tags(tags: dict[str, str]) -> list[dict[str, str]] | None:
    return [{"Key": key, "Value": tags[key]} for key in sorted(tags)] or None


async def _tag(call: IamCall, entity: T) -> Result:
    more = asked_tags(call)

    def tagged(old: T) -> T:
        return msgspec.structs.replace(old, tags=checked_tags({**_without(old.tags, more), **more}))

    await call.change(entity, tagged)
    return {}


async def _untag(call: IamCall, entity: T) -> Result:
    gone = {member.get("", "") for member in call.parameters.members("TagKeys")}
    await call.change(entity, lambda old: msgspec.structs.replace(old, tags=_without(old.tags, gone)))
    return {}


def _list(call: IamCall, entity: UserEntity | RoleEntity) -> Result:
    rows = sorted(entity.tags.items())
    return page_of(call.parameters, "Tags", rows, lambda row: row[0], lambda row: {"Key": row[0], "Value": row[1]})


async def tag_user(call: IamCall) -> Result:
    return await _tag(call, await call.user(call.parameters.name("UserName", 64)))


async def untag_user(call: IamCall) -> Result:
    return await _untag(call, await call.user(call.parameters.name("UserName", 64)))


async def list_user_tags(call: IamCall) -> Result:
    return _list(call, await call.user(call.parameters.name("UserName", 64)))


async def tag_role(call: IamCall) -> Result:
    return await _tag(call, await call.role(call.parameters.name("RoleName", 64)))


async def untag_role(call: IamCall) -> Result:
    return await _untag(call, await call.role(call.parameters.name("RoleName", 64)))


async def list_role_tags(call: IamCall) -> Result:
    return _list(call, await call.role(call.parameters.name("RoleName", 64)))
