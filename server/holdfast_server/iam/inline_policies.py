"""Inline policies of users, groups and roles: four operations for each kind, all alike."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import msgspec

from holdfast_server.auth.entities import GroupEntity, Holder, RoleEntity, UserEntity
from holdfast_server.iam.answers import Result
from holdfast_server.iam.call import IamCall
from holdfast_server.iam.errors import IamError
from holdfast_server.iam.pages import page_of
from holdfast_server.iam.policy_texts import (
    MAX_INLINE_SIZE,
    MAX_POLICY_NAME,
    check_identity_policy,
    check_inline_sizes,
    shown_text,
)

H = TypeVar("H", UserEntity, GroupEntity, RoleEntity)
Find = Callable[[IamCall, str], Awaitable[H]]
Handler = Callable[[IamCall], Awaitable[Result]]


def _policy_name(call: IamCall) -> str:
    return call.parameters.name("PolicyName", MAX_POLICY_NAME)


def _text(holder: Holder, name: str) -> str:
    if name not in holder.inline:
        raise IamError("NoSuchEntity", f"The {holder.kind} policy with name {name} cannot be found.")
    return holder.inline[name]


def handlers_of(kind: str, title: str, max_name: int, find: Find[H]) -> dict[str, Handler]:
    """`title` as in `PutUserPolicy`."""
    parameter = f"{title}Name"

    async def named(call: IamCall) -> H:
        return await find(call, call.parameters.name(parameter, max_name))

    async def put(call: IamCall) -> Result:
        name = _policy_name(call)
        text = check_identity_policy(call.parameters.text("PolicyDocument"), MAX_INLINE_SIZE[kind])
        holder = await named(call)

        def changed(old: H) -> H:
            inline = {**old.inline, name: text}
            check_inline_sizes(kind, inline)
            return msgspec.structs.replace(old, inline=inline)

        await call.change(holder, changed)
        return {}

    async def get(call: IamCall) -> Result:
        holder, name = await named(call), _policy_name(call)
        text = _text(holder, name)
        return {parameter: holder.name, "PolicyName": name, "PolicyDocument": shown_text(text)}

    async def list_all(call: IamCall) -> Result:
        holder = await named(call)
        return page_of(call.parameters, "PolicyNames", sorted(holder.inline), str, str)

    async def delete(call: IamCall) -> Result:
        holder, name = await named(call), _policy_name(call)

        def changed(old: H) -> H:
            _text(old, name)
            return msgspec.structs.replace(old, inline={k: v for k, v in old.inline.items() if k != name})

        await call.change(holder, changed)
        return {}

    return {
        f"Put{title}Policy": put,
        f"Get{title}Policy": get,
        f"List{title}Policies": list_all,
        f"Delete{title}Policy": delete,
    }
