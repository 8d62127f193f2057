"""The one table of IAM's and STS's operations: routing, permissions, metrics' labels and the documents come from it.

A row's permission is its service and name (`iam:CreateUser`), on the resource that the row names.  A parameter that a
row does not list is refused: what is not honoured (a permissions boundary, session tags) must not look as if it were.
"""

from __future__ import annotations

import msgspec

IAM, STS = "iam", "sts"

ACCOUNT, USER, GROUP, ROLE, POLICY, NOTHING = "account", "user", "group", "role", "policy", "nothing"
"""What an operation is about: all of the account; the one named by UserName (the caller where absent), GroupName,
RoleName, PolicyName or PolicyArn; nothing (its handler decides)."""


class Operation(msgspec.Struct, frozen=True):
    name: str
    service: str
    about: str
    parameters: frozenset[str]
    """Of lists the name before `.member.`."""

    @property
    def action(self) -> str:
        return f"{self.service}:{self.name}"


_PAGE = "Marker MaxItems"
_ROWS: tuple[tuple[str, str, str], ...] = (
    ("CreateUser", USER, "UserName Path Tags"),
    ("GetUser", USER, "UserName"),
    ("ListUsers", ACCOUNT, "PathPrefix " + _PAGE),
    ("UpdateUser", USER, "UserName NewUserName NewPath"),
    ("DeleteUser", USER, "UserName"),
    ("TagUser", USER, "UserName Tags"),
    ("UntagUser", USER, "UserName TagKeys"),
    ("ListUserTags", USER, "UserName " + _PAGE),
    ("CreateAccessKey", USER, "UserName"),
    ("ListAccessKeys", USER, "UserName " + _PAGE),
    ("UpdateAccessKey", USER, "UserName AccessKeyId Status"),
    ("DeleteAccessKey", USER, "UserName AccessKeyId"),
    ("PutUserPolicy", USER, "UserName PolicyName PolicyDocument"),
    ("GetUserPolicy", USER, "UserName PolicyName"),
    ("ListUserPolicies", USER, "UserName " + _PAGE),
    ("DeleteUserPolicy", USER, "UserName PolicyName"),
    ("AttachUserPolicy", USER, "UserName PolicyArn"),
    ("DetachUserPolicy", USER, "UserName PolicyArn"),
    ("ListAttachedUserPolicies", USER, "UserName PathPrefix " + _PAGE),
    ("ListGroupsForUser", USER, "UserName " + _PAGE),
    ("CreateGroup", GROUP, "GroupName Path"),
    ("GetGroup", GROUP, "GroupName " + _PAGE),
    ("ListGroups", ACCOUNT, "PathPrefix " + _PAGE),
    ("UpdateGroup", GROUP, "GroupName NewGroupName NewPath"),
    ("DeleteGroup", GROUP, "GroupName"),
    ("AddUserToGroup", GROUP, "GroupName UserName"),
    ("RemoveUserFromGroup", GROUP, "GroupName UserName"),
    ("PutGroupPolicy", GROUP, "GroupName PolicyName PolicyDocument"),
    ("GetGroupPolicy", GROUP, "GroupName PolicyName"),
    ("ListGroupPolicies", GROUP, "GroupName " + _PAGE),
    ("DeleteGroupPolicy", GROUP, "GroupName PolicyName"),
    ("AttachGroupPolicy", GROUP, "GroupName PolicyArn"),
    ("DetachGroupPolicy", GROUP, "GroupName PolicyArn"),
    ("ListAttachedGroupPolicies", GROUP, "GroupName PathPrefix " + _PAGE),
    ("CreateRole", ROLE, "RoleName Path AssumeRolePolicyDocument Description MaxSessionDuration Tags"),
    ("GetRole", ROLE, "RoleName"),
    ("ListRoles", ACCOUNT, "PathPrefix " + _PAGE),
    ("UpdateRole", ROLE, "RoleName Description MaxSessionDuration"),
    ("UpdateRoleDescription", ROLE, "RoleName Description"),
    ("UpdateAssumeRolePolicy", ROLE, "RoleName PolicyDocument"),
    ("DeleteRole", ROLE, "RoleName"),
    ("TagRole", ROLE, "RoleName Tags"),
    ("UntagRole", ROLE, "RoleName TagKeys"),
    ("ListRoleTags", ROLE, "RoleName " + _PAGE),
    ("PutRolePolicy", ROLE, "RoleName PolicyName PolicyDocument"),
    ("GetRolePolicy", ROLE, "RoleName PolicyName"),
    ("ListRolePolicies", ROLE, "RoleName " + _PAGE),
    ("DeleteRolePolicy", ROLE, "RoleName PolicyName"),
    ("AttachRolePolicy", ROLE, "RoleName PolicyArn"),
    ("DetachRolePolicy", ROLE, "RoleName PolicyArn"),
    ("ListAttachedRolePolicies", ROLE, "RoleName PathPrefix " + _PAGE),
    ("CreatePolicy", POLICY, "PolicyName Path PolicyDocument Description Tags"),
    ("GetPolicy", POLICY, "PolicyArn"),
    ("ListPolicies", ACCOUNT, "Scope OnlyAttached PathPrefix PolicyUsageFilter " + _PAGE),
    ("DeletePolicy", POLICY, "PolicyArn"),
    ("CreatePolicyVersion", POLICY, "PolicyArn PolicyDocument SetAsDefault"),
    ("GetPolicyVersion", POLICY, "PolicyArn VersionId"),
    ("ListPolicyVersions", POLICY, "PolicyArn " + _PAGE),
    ("SetDefaultPolicyVersion", POLICY, "PolicyArn VersionId"),
    ("DeletePolicyVersion", POLICY, "PolicyArn VersionId"),
    ("ListEntitiesForPolicy", POLICY, "PolicyArn EntityFilter PathPrefix " + _PAGE),
    ("GetAccountSummary", ACCOUNT, ""),
    ("ListAccountAliases", ACCOUNT, _PAGE),
    ("ListOpenIDConnectProviders", ACCOUNT, ""),
    ("GetLoginProfile", USER, "UserName"),
    ("DeleteLoginProfile", USER, "UserName"),
    ("ListMFADevices", USER, "UserName " + _PAGE),
    ("ListVirtualMFADevices", ACCOUNT, "AssignmentStatus " + _PAGE),
    ("ListSSHPublicKeys", USER, "UserName " + _PAGE),
    ("ListSigningCertificates", USER, "UserName " + _PAGE),
    ("ListServiceSpecificCredentials", USER, "UserName " + _PAGE),
    ("ListInstanceProfilesForRole", ROLE, "RoleName " + _PAGE),
)
_STS_ROWS: tuple[tuple[str, str], ...] = (
    ("AssumeRole", "RoleArn RoleSessionName DurationSeconds Policy PolicyArns ExternalId"),
    ("GetSessionToken", "DurationSeconds"),
    ("GetCallerIdentity", ""),
)

OPERATIONS: dict[str, Operation] = {
    **{name: Operation(name, IAM, about, frozenset(names.split())) for name, about, names in _ROWS},
    **{name: Operation(name, STS, NOTHING, frozenset(names.split())) for name, names in _STS_ROWS},
}
"""By name; no two services share one."""
