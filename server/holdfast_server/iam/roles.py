"""Roles: who may assume one stands in its trust policy, what its sessions may do in its other policies."""

from __future__ import annotations

import re

import msgspec

from holdfast_server.auth.entities import ROLE, RoleEntity
from holdfast_server.iam.answers import Result, date
from holdfast_server.iam.attachments import require_no_policies
from holdfast_server.iam.call import IamCall
from holdfast_server.iam.errors import IamError
from holdfast_server.iam.pages import page_of
from holdfast_server.iam.policy_texts import check_trust_policy, shown_text
from holdfast_server.iam.tags import asked_tags, shown_tags

MAX_ROLE_NAME = 64
MIN_SESSION_SECONDS, MAX_SESSION_SECONDS = 3600, 43200
_DESCRIPTION = re.compile("[\t\n\r\x20-\x7e\xa1-\xff]*")


def described(text: str) -> str:
    if len(text) > 1000 or not _DESCRIPTION.fullmatch(text):
        raise IamError("ValidationError", "Description: at most 1000 printable characters of ISO 8859-1.")
    return text


def shown_role(role: RoleEntity, whole: bool = True) -> Result:
    return {
        "Path": role.path,
        "RoleName": role.name,
        "RoleId": role.id,
        "Arn": role.arn,
        "CreateDate": date(role.created_ms),
        "AssumeRolePolicyDocument": shown_text(role.trust),
        "Description": role.description or None,
        "MaxSessionDuration": role.max_session_seconds,
        "Tags": shown_tags(role.tags) if whole else None,
    }


async def _named(call: IamCall) -> RoleEntity:
    return await call.role(call.parameters.name("RoleName", 128))


def _seconds(call: IamCall, default: int) -> int:
    return call.parameters.number("MaxSessionDuration", default, MIN_SESSION_SECONDS, MAX_SESSION_SECONDS)


async def create_role(call: IamCall) -> Result:
    role = RoleEntity(
        id=call.new_id(ROLE),
        name=call.parameters.name("RoleName", MAX_ROLE_NAME),
        account=call.account,
        path=call.parameters.path(),
        created_ms=call.now_ms,
        trust=check_trust_policy(call.parameters.text("AssumeRolePolicyDocument")),
        description=described(call.parameters.text("Description", "")),
        max_session_seconds=_seconds(call, MIN_SESSION_SECONDS),
        tags=asked_tags(call),
    )
    return {"Role": shown_role(await call.create(role))}


async def get_role(call: IamCall) -> Result:
    return {"Role": shown_role(await _named(call))}


async def list_roles(call: IamCall) -> Result:
    prefix = call.parameters.path_prefix()
    everything = call.identities.directory.all_of(RoleEntity, call.account)
    found = [role for role in everything if role.path.startswith(prefix)]
    return page_of(
        call.parameters, "Roles", found, lambda role: role.name.lower(), lambda role: shown_role(role, whole=False)
    )


async def update_role(call: IamCall) -> Result:
    role = await _named(call)
    parameters = call.parameters
    await call.change(
        role,
        lambda old: msgspec.structs.replace(
            old,
            description=described(parameters.text("Description", old.description)),
            max_session_seconds=_seconds(call, old.max_session_seconds),
        ),
    )
    return {}


async def update_role_description(call: IamCall) -> Result:
    text = described(call.parameters.text("Description"))
    fresh = await call.change(await _named(call), lambda old: msgspec.structs.replace(old, description=text))
    return {"Role": shown_role(fresh)}


async def update_assume_role_policy(call: IamCall) -> Result:
    text = check_trust_policy(call.parameters.text("PolicyDocument"))
    await call.change(await _named(call), lambda old: msgspec.structs.replace(old, trust=text))
    return {}


async def delete_role(call: IamCall) -> Result:
    """Its sessions end with it."""
    await call.delete(await _named(call), lambda found: require_no_policies(call, found))
    return {}
