"""STS: temporary credentials, and who it is that asks.

A session hangs on the access key it was asked for with (`api.session_tokens`).  Without a role's ARN, AssumeRole gives
a session of the caller itself, cut down by the session policy: what clients of MinIO ask for, which must send an ARN
and send one that is none of AWS's.
"""

from __future__ import annotations

import re

from holdfast_server.api.session_tokens import Session
from holdfast_server.auth.access import is_denied, may_assume
from holdfast_server.auth.entities import STORE_POLICY_PREFIX, Attached, PolicyEntity, RoleEntity, policy_arn_parts
from holdfast_server.auth.principal import account_id
from holdfast_server.iam.answers import Result, date
from holdfast_server.iam.call import IamCall
from holdfast_server.iam.errors import IamError
from holdfast_server.iam.policy_texts import MAX_SESSION_SIZE, check_identity_policy

MIN_SECONDS = 900
MAX_USER_SECONDS = 129_600
MAX_ROOT_SECONDS = 3600
MAX_CHAINED_SECONDS = 3600
DEFAULT_ROLE_SECONDS = 3600
DEFAULT_USER_SECONDS = 43_200
MAX_POLICY_ARNS = 10

_SESSION_NAME = re.compile(r"[A-Za-z0-9_+=,.@-]{2,64}")
_ROLE_ARN = re.compile(r"arn:aws:iam::([0-9]{12}):role(/[!-~]*?)([A-Za-z0-9_+=,.@-]{1,64})")


async def get_caller_identity(call: IamCall) -> Result:
    principal = call.principal
    number = account_id(principal.account)
    user_id = number if principal.everything_at_home and principal.role is None else principal.user_id
    return {"Arn": principal.arn, "UserId": user_id, "Account": number}


async def get_session_token(call: IamCall) -> Result:
    """May do what the user may, but call neither IAM nor STS (besides AssumeRole), as on AWS without MFA."""
    if call.principal.is_temporary:
        raise IamError("AccessDenied", "Cannot call GetSessionToken with session credentials")
    _not_denied(call, "sts:GetSessionToken")
    most = MAX_ROOT_SECONDS if call.principal.everything_at_home else MAX_USER_SECONDS
    seconds = call.parameters.number("DurationSeconds", min(most, DEFAULT_USER_SECONDS), MIN_SECONDS, MAX_USER_SECONDS)
    return {"Credentials": await _issue(call, min(seconds, most))}


async def assume_role(call: IamCall) -> Result:
    arn = call.parameters.text("RoleArn", "", 2048)
    if not arn.startswith("arn:aws:"):
        return await _own_session(call)
    session_name = _session_name(call, None)
    role = await _role(call, arn)
    values = {**call.values(), "sts:rolesessionname": (session_name,)}
    if call.parameters.has("ExternalId"):
        values["sts:externalid"] = (call.parameters.text("ExternalId", max_size=1224),)
    trust = call.identities.directory.trust(role.trust) if role is not None else None
    if role is None or trust is None or not may_assume(call.principal, trust, arn, role.account, lambda: values):
        raise IamError(
            "AccessDenied",
            f"User: {call.principal.arn} is not authorized to perform: sts:AssumeRole on resource: {arn!r}",
        )
    most = MAX_CHAINED_SECONDS if call.principal.is_temporary else role.max_session_seconds
    seconds = call.parameters.number("DurationSeconds", min(DEFAULT_ROLE_SECONDS, most), MIN_SECONDS, most)
    credentials = await _issue(call, seconds, role, session_name)
    told = f"arn:aws:sts::{account_id(role.account)}:assumed-role/{role.name}/{session_name}"
    return {"Credentials": credentials, "AssumedRoleUser": {"AssumedRoleId": f"{role.id}:{session_name}", "Arn": told}}


async def _own_session(call: IamCall) -> Result:
    principal = call.principal
    if principal.is_temporary:
        raise IamError("AccessDenied", "Cannot call AssumeRole without a role with session credentials")
    _not_denied(call, "sts:AssumeRole")
    name = _session_name(call, "session")
    most = MAX_ROOT_SECONDS if principal.everything_at_home else DEFAULT_USER_SECONDS
    asked = call.parameters.number("DurationSeconds", DEFAULT_ROLE_SECONDS, MIN_SECONDS, DEFAULT_USER_SECONDS)
    seconds = min(asked, most)
    user = {"AssumedRoleId": f"{principal.user_id}:{name}", "Arn": principal.arn}
    return {"Credentials": await _issue(call, seconds), "AssumedRoleUser": user}


def _not_denied(call: IamCall, action: str) -> None:
    if is_denied(call.principal, action, "*", call.values):
        raise IamError("AccessDenied", f"User: {call.principal.arn} is not authorized to perform: {action}")


def _session_name(call: IamCall, default: str | None) -> str:
    name = call.parameters.text("RoleSessionName", default)
    if not _SESSION_NAME.fullmatch(name):
        raise IamError("ValidationError", "RoleSessionName: must have 2 to 64 alphanumeric characters or +=,.@_-")
    return name


async def _role(call: IamCall, arn: str) -> RoleEntity | None:
    """Of any account."""
    match = _ROLE_ARN.fullmatch(arn)
    account = call.identities.account_with_id(match[1]) if match else None
    if match is None or account is None:
        return None
    name = arn.rpartition("/")[2]
    role = await call.read_of(RoleEntity, account, name)
    return role if role is not None and role.arn == arn else None


async def _issue(call: IamCall, seconds: int, role: RoleEntity | None = None, session_name: str = "") -> Result:
    await call.ready()
    identities, now_ms = call.identities, call.now_ms
    account = role.account if role is not None else call.account
    policy = call.parameters.text("Policy", "")
    if policy:
        check_identity_policy(policy, MAX_SESSION_SIZE)
    arns = await _session_policies(call, account)
    parent, mark = identities.hold_of(call.principal.access_key, call.identity.session_token, call.identity.proved_with)
    session = Session(
        secret=identities.tokens.new_secret(),
        issued_ms=now_ms,
        expires_ms=now_ms + seconds * 1000,
        parent=parent,
        parent_mark=mark,
        kind="user" if role is None else "role",
        account=account,
        role_name=role.name if role is not None else "",
        role_id=role.id if role is not None else "",
        session_name=session_name,
        policy=policy,
        policy_arns=arns,
    )
    issued = identities.tokens.issue(session)
    return {
        "AccessKeyId": issued.access_key,
        "SecretAccessKey": issued.secret_key,
        "SessionToken": issued.token,
        "Expiration": date(issued.expires_ms),
    }


async def _session_policies(call: IamCall, account: str) -> list[Attached]:
    """Managed policies of the session's account.  Raises MalformedPolicyDocument where there is no such policy."""
    members = call.parameters.members("PolicyArns")
    if len(members) > MAX_POLICY_ARNS:
        raise IamError("ValidationError", f"PolicyArns: at most {MAX_POLICY_ARNS} are allowed.")
    found = []
    for member in members:
        arn = member.get("arn", "")
        if arn.startswith(STORE_POLICY_PREFIX):
            known = call.identities.managed_policy(arn.removeprefix(STORE_POLICY_PREFIX)) is not None
            attached = Attached(arn) if known else None
        else:
            name = policy_arn_parts(arn, account)
            policy = await call.read_of(PolicyEntity, account, name) if name else None
            attached = Attached(arn, policy.id) if policy is not None and policy.arn == arn else None
        if attached is None:
            raise IamError("MalformedPolicyDocument", f"PolicyArns: {arn[:2048]!r} is no policy of the account.")
        found.append(attached)
    return found
