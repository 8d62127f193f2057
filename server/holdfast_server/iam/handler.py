"""Requests of IAM and STS: POST of a form to `/`, signed for the service `iam` or `sts`.

The body is read before the signature is checked, because the signature is over its hash; it is small, and waits for
memory like any document.  Every failure is answered in IAM's own form; nothing is raised.

Who may: root and the root of an account everything (in its own account), others what their policies allow, decided by
the one evaluator over the ARN of what the operation is about.  A session of a user calls no IAM, so that stolen
temporary credentials cannot make themselves permanent ones; a role's session may what the role may.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Mapping

from holdfast_server.api.admission import PARSED_FACTOR, Ticket
from holdfast_server.api.dispatch import UNKNOWN_OPERATION, IdentifyCall
from holdfast_server.api.failures import RETRY_AFTER_SECONDS, to_s3_error
from holdfast_server.api.services import IncomingBody, Services
from holdfast_server.auth.entities import STORE_POLICY_PREFIX, GroupEntity, RoleEntity, UserEntity
from holdfast_server.iam import (
    absent,
    access_keys,
    accounts,
    attachments,
    groups,
    inline_policies,
    policies,
    roles,
    sessions,
    tags,
    users,
)
from holdfast_server.iam.answers import XML_HEADERS, Result, answer_xml, error_xml
from holdfast_server.iam.call import IamCall
from holdfast_server.iam.errors import IamError, from_s3
from holdfast_server.iam.operations import ACCOUNT, GROUP, IAM, OPERATIONS, POLICY, ROLE, USER, Operation
from holdfast_server.iam.parameters import parse_form
from holdfast_server.s3.request import Request, Response

MAX_BODY_SIZE_BYTES = 256 * 1024

Handler = Callable[[IamCall], Awaitable[Result]]

HANDLERS: Mapping[str, Handler] = {
    "CreateUser": users.create_user,
    "GetUser": users.get_user,
    "ListUsers": users.list_users,
    "UpdateUser": users.update_user,
    "DeleteUser": users.delete_user,
    "TagUser": tags.tag_user,
    "UntagUser": tags.untag_user,
    "ListUserTags": tags.list_user_tags,
    "CreateAccessKey": access_keys.create_access_key,
    "ListAccessKeys": access_keys.list_access_keys,
    "UpdateAccessKey": access_keys.update_access_key,
    "DeleteAccessKey": access_keys.delete_access_key,
    "ListGroupsForUser": groups.list_groups_for_user,
    "CreateGroup": groups.create_group,
    "GetGroup": groups.get_group,
    "ListGroups": groups.list_groups,
    "UpdateGroup": groups.update_group,
    "DeleteGroup": groups.delete_group,
    "AddUserToGroup": groups.add_user_to_group,
    "RemoveUserFromGroup": groups.remove_user_from_group,
    "CreateRole": roles.create_role,
    "GetRole": roles.get_role,
    "ListRoles": roles.list_roles,
    "UpdateRole": roles.update_role,
    "UpdateRoleDescription": roles.update_role_description,
    "UpdateAssumeRolePolicy": roles.update_assume_role_policy,
    "DeleteRole": roles.delete_role,
    "TagRole": tags.tag_role,
    "UntagRole": tags.untag_role,
    "ListRoleTags": tags.list_role_tags,
    "CreatePolicy": policies.create_policy,
    "GetPolicy": policies.get_policy,
    "ListPolicies": policies.list_policies,
    "DeletePolicy": policies.delete_policy,
    "CreatePolicyVersion": policies.create_policy_version,
    "GetPolicyVersion": policies.get_policy_version,
    "ListPolicyVersions": policies.list_policy_versions,
    "SetDefaultPolicyVersion": policies.set_default_policy_version,
    "DeletePolicyVersion": policies.delete_policy_version,
    "ListEntitiesForPolicy": policies.list_entities_for_policy,
    **inline_policies.handlers_of("user", "User", 128, IamCall.user),
    **inline_policies.handlers_of("group", "Group", 128, IamCall.group),
    **inline_policies.handlers_of("role", "Role", 128, IamCall.role),
    **attachments.handlers_of("User", "UserPolicies", 128, IamCall.user),
    **attachments.handlers_of("Group", "GroupPolicies", 128, IamCall.group),
    **attachments.handlers_of("Role", "RolePolicies", 128, IamCall.role),
    "GetAccountSummary": accounts.get_account_summary,
    "ListAccountAliases": accounts.list_account_aliases,
    "ListOpenIDConnectProviders": accounts.list_open_id_connect_providers,
    "GetLoginProfile": absent.refuse_login_profile,
    "DeleteLoginProfile": absent.refuse_login_profile,
    "ListMFADevices": absent.list_mfa_devices,
    "ListVirtualMFADevices": absent.list_virtual_mfa_devices,
    "ListSSHPublicKeys": absent.list_ssh_public_keys,
    "ListSigningCertificates": absent.list_signing_certificates,
    "ListServiceSpecificCredentials": absent.list_service_specific_credentials,
    "ListInstanceProfilesForRole": absent.list_instance_profiles_for_role,
    "AssumeRole": sessions.assume_role,
    "GetSessionToken": sessions.get_session_token,
    "GetCallerIdentity": sessions.get_caller_identity,
}
"""Operation → handler; a test holds it against the table of operations."""


class IamApi:
    """Given to the dispatcher by the wiring."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def handle(
        self, identify: IdentifyCall, request: Request, body: IncomingBody, ticket: Ticket, request_id: str
    ) -> tuple[str, Response]:
        """The operation's name (for metrics), and the answer.  Raises nothing but CancelledError."""
        name, service = UNKNOWN_OPERATION, IAM
        try:
            form = await _read(body, ticket)
            parameters = parse_form(form)
            operation = OPERATIONS.get(parameters.action)
            if operation is None:
                raise IamError("InvalidAction", f"Could not find operation {parameters.action[:128]!r}.")
            name, service = operation.name, operation.service
            identity = await identify(service, hashlib.sha256(form).hexdigest())
            call = IamCall(self._services, identity, request, parameters)
            result = await self._answer(call, operation)
            return name, Response(status=200, headers=dict(XML_HEADERS), body=answer_xml(operation, result, request_id))
        except IamError as error:
            return name, _refusal(error, service, request_id)
        except Exception as error:
            return name, _refusal(from_s3(to_s3_error(error)), service, request_id)

    async def _answer(self, call: IamCall, operation: Operation) -> Result:
        call.parameters.check_known(operation.parameters)
        if operation.service == IAM:
            if call.principal.is_temporary and call.principal.role is None:
                raise IamError("AccessDenied", "Sessions of users cannot call IAM.")
            arn = call.parameters.text("PolicyArn", "")
            call.require(operation.action, _resource(call, operation), **({"iam__policyarn": arn} if arn else {}))
        return await HANDLERS[operation.name](call)


def _resource(call: IamCall, operation: Operation) -> str:
    """The ARN of what the operation is about.  What is not there (yet) is taken for what it would be."""
    about, parameters = operation.about, call.parameters
    if about == ACCOUNT:
        return call.arn_of("*")
    if about == USER and not parameters.has("UserName"):
        return call.principal.arn
    if about == POLICY and operation.name != "CreatePolicy":
        arn = parameters.text("PolicyArn", max_size=2048)
        if not arn.startswith((STORE_POLICY_PREFIX, call.arn_of("policy/"))):
            raise IamError("AccessDenied", f"{arn!r} is no policy of the caller's account.")
        return arn
    title = {USER: "User", GROUP: "Group", ROLE: "Role", POLICY: "Policy"}[about]
    name = parameters.name(f"{title}Name", 128)
    found = _known(call, about, name)
    if found is not None:
        return found.arn
    return call.arn_of(f"{about}{parameters.path()}{name}")


def _known(call: IamCall, about: str, name: str) -> UserEntity | GroupEntity | RoleEntity | None:
    directory = call.identities.directory
    if about == USER:
        return directory.find(UserEntity, call.account, name)
    if about == GROUP:
        return directory.find(GroupEntity, call.account, name)
    return directory.find(RoleEntity, call.account, name) if about == ROLE else None


async def _read(body: IncomingBody, ticket: Ticket) -> bytes:
    too_large = IamError("RequestEntityTooLarge", f"A request may have {MAX_BODY_SIZE_BYTES} bytes.")
    if body.size_bytes is not None and body.size_bytes > MAX_BODY_SIZE_BYTES:
        raise too_large
    await ticket.document(PARSED_FACTOR * (MAX_BODY_SIZE_BYTES if body.size_bytes is None else body.size_bytes))
    taken = bytearray()
    async for piece in body.pieces():
        taken += piece
        if len(taken) > MAX_BODY_SIZE_BYTES:
            raise too_large
    return bytes(taken)


def _refusal(error: IamError, service: str, request_id: str) -> Response:
    headers = dict(XML_HEADERS)
    if error.status == 503:
        headers["retry-after"] = str(RETRY_AFTER_SECONDS)
    return Response(status=error.status, headers=headers, body=error_xml(error, service, request_id))


def missing_handlers() -> set[str]:
    """Operations of the table that nobody here answers; empty, a test says."""
    return set(OPERATIONS) ^ set(HANDLERS)
