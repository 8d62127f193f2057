"""Managed policies attached to users, groups and roles: three operations for each kind, all alike.

Policies that a user was declared with are shown among the attached ones, and are not detached here.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec

from holdfast_server.auth.entities import STORE_POLICY_PREFIX, Attached, GroupEntity, Holder, RoleEntity, UserEntity
from holdfast_server.iam.answers import Result
from holdfast_server.iam.call import IamCall
from holdfast_server.iam.errors import IamError
from holdfast_server.iam.inline_policies import Find, Handler
from holdfast_server.iam.pages import page_of

MAX_ATTACHED = 20

H = TypeVar("H", UserEntity, GroupEntity, RoleEntity)


def attached_of(call: IamCall, holder: Holder) -> list[Attached]:
    """Those that are still there, declared ones too, by name."""
    directory = call.identities.directory
    found = {one.arn: one for one in holder.attached if not one.id or directory.attached_policy(one, call.account)}
    for attached in declared_policies(call, holder):
        found.setdefault(attached.arn, attached)
    return sorted(found.values(), key=lambda one: (one.arn.rpartition("/")[2].lower(), one.arn))


def declared_policies(call: IamCall, holder: Holder) -> list[Attached]:
    if not isinstance(holder, UserEntity) or not holder.declared:
        return []
    keys = call.declared_keys(holder.name)
    return [Attached(STORE_POLICY_PREFIX + name) for key in keys for name in key.policies]


def require_no_policies(call: IamCall, holder: Holder) -> None:
    """Of what is deleted; raises DeleteConflict.  A policy that was deleted while it was attached keeps nothing: no
    list shows it, so nobody would know what to detach."""
    if holder.inline:
        raise IamError("DeleteConflict", "Cannot delete entity, must delete policies first.")
    if attached_of(call, holder):
        raise IamError("DeleteConflict", "Cannot delete entity, must detach all policies first.")


def handlers_of(title: str, plural: str, max_name: int, find: Find[H]) -> dict[str, Handler]:
    async def named(call: IamCall) -> H:
        return await find(call, call.parameters.name(f"{title}Name", max_name))

    async def attach(call: IamCall) -> Result:
        holder = await named(call)
        attached = await call.attachable(call.parameters.text("PolicyArn", max_size=2048))

        def changed(old: H) -> H:
            kept: list[Attached] = [one for one in old.attached if one.arn != attached.arn]
            if len(kept) >= MAX_ATTACHED:
                raise IamError("LimitExceeded", f"Cannot exceed quota for PoliciesPer{title}: {MAX_ATTACHED}")
            return msgspec.structs.replace(old, attached=[*kept, attached])

        if attached not in declared_policies(call, holder):
            await call.change(holder, changed)
        return {}

    async def detach(call: IamCall) -> Result:
        arn = call.parameters.text("PolicyArn", max_size=2048)
        holder = await named(call)
        if all(one.arn != arn for one in holder.attached):
            if any(one.arn == arn for one in declared_policies(call, holder)):
                raise IamError(
                    "UnmodifiableEntity",
                    f"{title} {holder.name} was declared with it by the Tenant or an administrator; change it there.",
                )
            raise IamError("NoSuchEntity", f"Policy {arn!r} was not found.")
        await call.change(
            holder,
            lambda old: msgspec.structs.replace(old, attached=[one for one in old.attached if one.arn != arn]),
        )
        return {}

    async def list_all(call: IamCall) -> Result:
        holder = await named(call)
        prefix = call.parameters.path_prefix()
        found = [one for one in attached_of(call, holder) if _path(one.arn).startswith(prefix)]
        return page_of(
            call.parameters,
            "AttachedPolicies",
            found,
            lambda one: f"{one.arn.rpartition('/')[2].lower()} {one.arn}",
            lambda one: {"PolicyName": one.arn.rpartition("/")[2], "PolicyArn": one.arn},
        )

    return {
        f"Attach{title}Policy": attach,
        f"Detach{title}Policy": detach,
        f"ListAttached{plural}": list_all,
    }


def _path(arn: str) -> str:
    """Between `policy` and the name."""
    return arn.partition(":policy")[2].rpartition("/")[0] + "/"
