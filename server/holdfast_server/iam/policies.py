"""Managed policies: the account's own, with versions, and those of the store, which everybody sees and nobody changes
here (built in, declared by the Tenant, or put with `holdfast admin policy`)."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator

import msgspec

from holdfast_server.auth.entities import (
    POLICY,
    STORE_POLICY_PREFIX,
    Entity,
    GroupEntity,
    Holder,
    PolicyEntity,
    PolicyVersion,
    RoleEntity,
    UserEntity,
)
from holdfast_server.iam.answers import Result, date
from holdfast_server.iam.attachments import declared_policies
from holdfast_server.iam.call import IamCall
from holdfast_server.iam.errors import IamError
from holdfast_server.iam.pages import page_of
from holdfast_server.iam.policy_texts import MAX_MANAGED_SIZE, MAX_POLICY_NAME, check_identity_policy, shown_text
from holdfast_server.iam.roles import described
from holdfast_server.iam.tags import checked_tags, shown_tags

MAX_VERSIONS = 5


def _arn(call: IamCall) -> str:
    return call.parameters.text("PolicyArn", max_size=2048)


async def _own(call: IamCall) -> PolicyEntity:
    """To be changed.  Raises AccessDenied for one of the store's, as AWS does for its own."""
    arn = _arn(call)
    if arn.startswith(STORE_POLICY_PREFIX):
        raise IamError("AccessDenied", f"Policy {arn!r} belongs to no account and is not changed here.")
    return await call.policy(arn)


def _holders(call: IamCall) -> Iterator[Holder]:
    yield from call.everybody()
    yield from call.identities.directory.all_of(GroupEntity, call.account)
    yield from call.identities.directory.all_of(RoleEntity, call.account)


def _holds(call: IamCall, holder: Holder, arn: str) -> bool:
    return any(one.arn == arn for one in (*holder.attached, *declared_policies(call, holder)))


def _holders_of(call: IamCall, arn: str) -> list[Holder]:
    return [holder for holder in _holders(call) if _holds(call, holder, arn)]


def _attachments(call: IamCall) -> Counter[str]:
    """To how many entities each policy is attached, by its ARN; looked up once, whoever shows many policies."""
    found: Counter[str] = Counter()
    for holder in _holders(call):
        found.update({one.arn for one in (*holder.attached, *declared_policies(call, holder))})
    return found


def _shown(policy: PolicyEntity, attachments: Counter[str], with_tags: bool = False) -> Result:
    return {
        "PolicyName": policy.name,
        "PolicyId": policy.id,
        "Arn": policy.arn,
        "Path": policy.path,
        "DefaultVersionId": f"v{policy.default}",
        "AttachmentCount": attachments[policy.arn],
        "PermissionsBoundaryUsageCount": 0,
        "IsAttachable": True,
        "Description": policy.description or None,
        "CreateDate": date(policy.created_ms),
        "UpdateDate": date(policy.changed_ms),
        "Tags": shown_tags(policy.tags) if with_tags else None,
    }


def _shown_of_store(name: str, attachments: Counter[str]) -> Result:
    arn = STORE_POLICY_PREFIX + name
    return {
        "PolicyName": name,
        "PolicyId": arn,
        "Arn": arn,
        "Path": "/",
        "DefaultVersionId": "v1",
        "AttachmentCount": attachments[arn],
        "PermissionsBoundaryUsageCount": 0,
        "IsAttachable": True,
        "CreateDate": date(0),
        "UpdateDate": date(0),
    }


def _store_text(call: IamCall) -> str | None:
    """Of the store's policy that is asked for; None where it is one of an account."""
    arn = _arn(call)
    if not arn.startswith(STORE_POLICY_PREFIX):
        return None
    document = call.identities.managed_document(arn.removeprefix(STORE_POLICY_PREFIX))
    if document is None:
        raise IamError("NoSuchEntity", f"Policy {arn!r} was not found.")
    return document if isinstance(document, str) else json.dumps(document)


async def create_policy(call: IamCall) -> Result:
    now_ms = call.now_ms
    text = check_identity_policy(call.parameters.text("PolicyDocument"), MAX_MANAGED_SIZE)
    policy = PolicyEntity(
        id=call.new_id(POLICY),
        name=call.parameters.name("PolicyName", MAX_POLICY_NAME),
        account=call.account,
        path=call.parameters.path(),
        created_ms=now_ms,
        changed_ms=now_ms,
        description=described(call.parameters.text("Description", "")),
        versions=[PolicyVersion(number=1, text=text, created_ms=now_ms)],
        tags=checked_tags(call.parameters.tags()),
    )
    created = await call.create(policy)
    return {"Policy": _shown(created, _attachments(call), with_tags=True)}


async def get_policy(call: IamCall) -> Result:
    if _store_text(call) is not None:
        return {"Policy": _shown_of_store(_arn(call).removeprefix(STORE_POLICY_PREFIX), _attachments(call))}
    policy = await call.policy(_arn(call))
    return {"Policy": _shown(policy, _attachments(call), with_tags=True)}


async def list_policies(call: IamCall) -> Result:
    parameters = call.parameters
    scope = parameters.choice("Scope", ("All", "AWS", "Local"), "All")
    parameters.choice("PolicyUsageFilter", ("PermissionsPolicy",), "")
    prefix, attached = parameters.path_prefix(), parameters.flag("OnlyAttached")
    attachments = _attachments(call)
    rows: list[Result] = []
    if scope != "AWS":
        own = call.identities.directory.all_of(PolicyEntity, call.account)
        rows += [_shown(policy, attachments) for policy in own if policy.path.startswith(prefix)]
    if scope != "Local" and prefix == "/":
        rows += [_shown_of_store(name, attachments) for name in call.identities.managed_names()]
    rows = [row for row in rows if not attached or row["AttachmentCount"]]
    rows.sort(key=_row_key)
    return page_of(parameters, "Policies", rows, _row_key, lambda row: row)


def _row_key(row: Result) -> str:
    return f"{str(row['PolicyName']).lower()} {row['Arn']}"


async def delete_policy(call: IamCall) -> Result:
    policy = await _own(call)
    if _holders_of(call, policy.arn):
        raise IamError("DeleteConflict", "Cannot delete a policy attached to entities.")
    await call.delete(policy, _one_version)
    return {}


def _one_version(policy: PolicyEntity) -> None:
    if len(policy.versions) > 1:
        raise IamError("DeleteConflict", "This policy has more than one version; delete the others first.")


def _shown_version(policy: PolicyEntity, version: PolicyVersion, with_text: bool = False) -> Result:
    return {
        "Document": shown_text(version.text) if with_text else None,
        "VersionId": version.id,
        "IsDefaultVersion": version.number == policy.default,
        "CreateDate": date(version.created_ms),
    }


def _version(call: IamCall, policy: PolicyEntity) -> PolicyVersion:
    asked = call.parameters.text("VersionId", max_size=32)
    for version in policy.versions:
        if version.id == asked:
            return version
    raise IamError("NoSuchEntity", f"Policy {policy.arn} version {asked!r} does not exist.")


async def create_policy_version(call: IamCall) -> Result:
    text = check_identity_policy(call.parameters.text("PolicyDocument"), MAX_MANAGED_SIZE)
    in_force, now_ms = call.parameters.flag("SetAsDefault"), call.now_ms

    def changed(old: PolicyEntity) -> PolicyEntity:
        if len(old.versions) >= MAX_VERSIONS:
            raise IamError("LimitExceeded", f"A policy can have at most {MAX_VERSIONS} versions.")
        return msgspec.structs.replace(
            old,
            versions=[*old.versions, PolicyVersion(number=old.next_number, text=text, created_ms=now_ms)],
            default=old.next_number if in_force else old.default,
            next_number=old.next_number + 1,
            changed_ms=now_ms,
        )

    fresh = await call.change(await _own(call), changed)
    return {"PolicyVersion": _shown_version(fresh, fresh.versions[-1])}


async def get_policy_version(call: IamCall) -> Result:
    text = _store_text(call)
    if text is not None:
        if call.parameters.text("VersionId") != "v1":
            raise IamError("NoSuchEntity", "A policy of the store has the version v1 alone.")
        told = {"Document": shown_text(text), "VersionId": "v1", "IsDefaultVersion": True, "CreateDate": date(0)}
        return {"PolicyVersion": told}
    policy = await call.policy(_arn(call))
    return {"PolicyVersion": _shown_version(policy, _version(call, policy), with_text=True)}


async def list_policy_versions(call: IamCall) -> Result:
    if _store_text(call) is not None:
        return {
            "Versions": [{"VersionId": "v1", "IsDefaultVersion": True, "CreateDate": date(0)}],
            "IsTruncated": False,
        }
    policy = await call.policy(_arn(call))
    return page_of(
        call.parameters,
        "Versions",
        policy.versions,
        lambda version: f"{version.number:010}",
        lambda version: _shown_version(policy, version),
    )


async def set_default_policy_version(call: IamCall) -> Result:
    now_ms = call.now_ms
    await call.change(
        await _own(call),
        lambda old: msgspec.structs.replace(old, default=_version(call, old).number, changed_ms=now_ms),
    )
    return {}


async def delete_policy_version(call: IamCall) -> Result:
    def changed(old: PolicyEntity) -> PolicyEntity:
        version = _version(call, old)
        if version.number == old.default:
            raise IamError("DeleteConflict", "Cannot delete the default version of a policy.")
        return msgspec.structs.replace(old, versions=[one for one in old.versions if one is not version])

    await call.change(await _own(call), changed)
    return {}


async def list_entities_for_policy(call: IamCall) -> Result:
    """All on one page, as many as an account may have."""
    _store_text(call)
    wanted = call.parameters.choice("EntityFilter", ("User", "Group", "Role"), "")
    prefix = call.parameters.path_prefix()
    found: list[Entity] = [
        holder
        for holder in _holders_of(call, _arn(call))
        if holder.path.startswith(prefix) and holder.kind.title() == (wanted or holder.kind.title())
    ]

    def rows(kind: str) -> list[dict[str, str]]:
        title = kind.title()
        return [{f"{title}Name": one.name, f"{title}Id": one.id} for one in found if one.kind == kind]

    return {
        "PolicyUsers": rows(UserEntity.kind),
        "PolicyGroups": rows(GroupEntity.kind),
        "PolicyRoles": rows(RoleEntity.kind),
        "IsTruncated": False,
    }
