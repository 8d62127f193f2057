"""What can be asked about the caller's account as a whole."""

from __future__ import annotations

from holdfast_server.auth.entities import GroupEntity, PolicyEntity, RoleEntity
from holdfast_server.iam.access_keys import MAX_KEYS_PER_USER
from holdfast_server.iam.answers import Entries, Result
from holdfast_server.iam.attachments import MAX_ATTACHED
from holdfast_server.iam.call import MAX_ENTITIES_PER_ACCOUNT, IamCall
from holdfast_server.iam.groups import MAX_GROUPS_PER_USER
from holdfast_server.iam.policies import MAX_VERSIONS
from holdfast_server.iam.policy_texts import MAX_INLINE_SIZE, MAX_MANAGED_SIZE, MAX_TRUST_SIZE


async def get_account_summary(call: IamCall) -> Result:
    directory, account = call.identities.directory, call.account
    told = {
        "Users": len(call.everybody()),
        "UsersQuota": MAX_ENTITIES_PER_ACCOUNT,
        "Groups": len(directory.all_of(GroupEntity, account)),
        "GroupsQuota": MAX_ENTITIES_PER_ACCOUNT,
        "Roles": len(directory.all_of(RoleEntity, account)),
        "RolesQuota": MAX_ENTITIES_PER_ACCOUNT,
        "Policies": len(directory.all_of(PolicyEntity, account)),
        "PoliciesQuota": MAX_ENTITIES_PER_ACCOUNT,
        "AccessKeysPerUserQuota": MAX_KEYS_PER_USER,
        "GroupsPerUserQuota": MAX_GROUPS_PER_USER,
        "AttachedPoliciesPerUserQuota": MAX_ATTACHED,
        "AttachedPoliciesPerGroupQuota": MAX_ATTACHED,
        "AttachedPoliciesPerRoleQuota": MAX_ATTACHED,
        "VersionsPerPolicyQuota": MAX_VERSIONS,
        "PolicySizeQuota": MAX_MANAGED_SIZE,
        "UserPolicySizeQuota": MAX_INLINE_SIZE["user"],
        "GroupPolicySizeQuota": MAX_INLINE_SIZE["group"],
        "RolePolicySizeQuota": MAX_INLINE_SIZE["role"],
        "AssumeRolePolicySizeQuota": MAX_TRUST_SIZE,
    }
    return {"SummaryMap": Entries(told)}


async def list_account_aliases(call: IamCall) -> Result:
    """There are none."""
    return {"AccountAliases": [], "IsTruncated": False}


async def list_open_id_connect_providers(call: IamCall) -> Result:
    """There are none, and none can be made."""
    return {"OpenIDConnectProviderList": []}
