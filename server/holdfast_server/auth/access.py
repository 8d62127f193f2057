"""Whether a request may do what it asks: the one evaluator, over everything that speaks about it.

Asked are the asker's own policies, what limits it (session policies, the policy of its access key), the bucket's
policy, and the grants of bucket and object.  Order of authority, as AWS documents it:

1. A Deny in any policy wins, and so does a limit that does not allow.  Not even root passes a Deny, but for the
   bucket's policy itself: who owns the bucket can always take back a policy that locks everybody out.
2. Within an account an Allow of either side is enough: the user's policies, or the bucket's where it names the user
   (or everybody).  Where it names the account, the user's policies must allow it, too.
3. Across accounts both sides must agree: the user's policies, and the bucket's policy or a grant.  Nobody speaks for
   an anonymous asker, so the bucket's side decides alone.
4. An object that another account owns (only where grants are in force) is not the bucket owner's to read: neither the
   bucket's policy nor its account's users count for it, its own grants do.

Root is the store's and in every account; the root of an account may do everything in its own.  IAM's and STS's
actions are decided here too: within the asker's account by its own policies alone, for a role by these and its trust
policy as for a bucket.  Actions on the store itself (`admin:…`) are allowed by policies that its administrators gave,
never by those that an account gave itself through the IAM API.  The public access block takes away what is given to
everybody.
Pure; what the facts are is found in `api.access`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import msgspec

from holdfast_server.auth.conditions import Values
from holdfast_server.auth.policy import ALLOW, DENY, S3_ARN_PREFIX, Policy, Question
from holdfast_server.auth.principal import TENANT_ACCOUNT, Principal, account_id, canonical_id
from holdfast_server.auth.request_values import condition_values
from holdfast_server.auth.verified import VerifiedRequest
from holdfast_server.s3.acl import ALL_USERS, AUTHENTICATED_USERS, READ, READ_ACP, WRITE, WRITE_ACP, Grants, permits
from holdfast_server.s3.errors import S3Error

_ON_BUCKET = {
    "s3:ListBucket": READ,
    "s3:ListBucketVersions": READ,
    "s3:ListBucketMultipartUploads": READ,
    "s3:PutObject": WRITE,
    "s3:DeleteObject": WRITE,
    "s3:DeleteObjectVersion": WRITE,
    "s3:AbortMultipartUpload": WRITE,
    "s3:GetBucketAcl": READ_ACP,
    "s3:PutBucketAcl": WRITE_ACP,
}
"""action → the permission on the bucket that allows it."""
_ON_OBJECT = {
    "s3:GetObject": READ,
    "s3:GetObjectVersion": READ,
    "s3:GetObjectAcl": READ_ACP,
    "s3:GetObjectVersionAcl": READ_ACP,
    "s3:PutObjectAcl": WRITE_ACP,
    "s3:PutObjectVersionAcl": WRITE_ACP,
}
"""action → the permission on the object that allows it."""
_OF_OBJECTS = frozenset(_ON_OBJECT) | {
    "s3:GetObjectTagging",
    "s3:GetObjectVersionTagging",
    "s3:PutObjectTagging",
    "s3:PutObjectVersionTagging",
    "s3:DeleteObjectTagging",
    "s3:DeleteObjectVersionTagging",
    "s3:GetObjectAttributes",
    "s3:GetObjectVersionAttributes",
}
"""Actions on an object that is there, for which its owner and its tags count."""
_ACTIONS_ON_POLICY = frozenset({"s3:GetBucketPolicy", "s3:PutBucketPolicy", "s3:DeleteBucketPolicy"})


class BucketFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What counts of a bucket."""

    account: str = TENANT_ACCOUNT
    policy: Policy | None = None
    policy_is_public: bool = False
    grants_in_force: bool = False
    """Its ownership controls allow access control lists."""
    grants: Grants = ()
    ignores_public_grants: bool = False
    restricts_public_policy: bool = False

    @property
    def shared(self) -> bool:
        """Whether others than its account may write into it."""
        return self.policy is not None or len(self.grants) > 1


class ObjectFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What counts of an object."""

    account: str
    grants: Grants = ()
    tags: Mapping[str, str] = {}


def looks_at_object(principal: Principal, action: str, bucket: BucketFacts) -> bool:
    """Whether the decision needs the object's facts, which cost a look-up."""
    if action not in _OF_OBJECTS:
        return False
    if any(
        policy.asks_object_tags for policy in (*principal.all_policies, *([bucket.policy] if bucket.policy else []))
    ):
        return True
    outsider = not principal.is_root and (principal.is_anonymous or principal.account != bucket.account)
    return bucket.grants_in_force and (outsider or bucket.shared)


def resource_arn(bucket: str, key: str = "") -> str:
    """The resource policies speak about; the bare prefix for the service."""
    return f"{S3_ARN_PREFIX}{bucket}/{key}" if key else S3_ARN_PREFIX + bucket


def is_allowed(
    verified: VerifiedRequest,
    action: str,
    bucket: str,
    key: str = "",
    facts: BucketFacts | None = None,
    thing: ObjectFacts | None = None,
    extra: Values | None = None,
) -> bool:
    """Whether the sender may do `action` (`s3:ListBucket`) there.

    `facts` of that bucket; None where there is none yet.  `thing`: the object, where `looks_at_object` and it exists.
    `extra`: condition values beside the request's own, which they replace.
    """
    principal = verified.principal
    cached: list[Values] = []

    def values() -> Values:
        if not cached:
            account = facts.account if facts is not None else principal.account
            own = condition_values(verified, account_id(account), thing.tags if thing is not None else None)
            cached.append({**own, **(extra or {})})
        return cached[0]

    # Only a bucket's policy names principals.
    names = principal.names(facts.account) if facts is not None and facts.policy is not None else ()
    question = Question(action=action, resource=resource_arn(bucket, key), principal_names=names, values=values)
    own = _own_side(principal, question)
    if own == DENY:
        return False
    own_side = own == ALLOW
    if facts is None:
        return own_side and not principal.is_anonymous
    at_home = not principal.is_anonymous and (principal.is_root or principal.account == facts.account)
    of_policy = facts.policy.decide(question) if facts.policy is not None else None
    owner = principal.is_root or (principal.is_account_root and at_home)
    if of_policy == DENY and not (owner and action in _ACTIONS_ON_POLICY):
        return False
    if of_policy == ALLOW and at_home and not own_side and not _names_itself(principal, facts, question):
        of_policy = None
    if of_policy == ALLOW and facts.policy_is_public and facts.restricts_public_policy and not at_home:
        of_policy = None
    if thing is not None and thing.account != facts.account and action in _OF_OBJECTS and not principal.is_root:
        owned = not principal.is_anonymous and principal.account == thing.account
        return (own_side or principal.is_anonymous) and (owned or _granted(principal, action, facts, thing))
    if at_home and (own_side or of_policy == ALLOW):
        return True
    if not (own_side or principal.is_anonymous):
        return False
    return of_policy == ALLOW or _granted(principal, action, facts, thing)


def _names_itself(principal: Principal, facts: BucketFacts, question: Question) -> bool:
    """Whether the bucket's policy allows it to the asker, and not just to its account."""
    own = msgspec.structs.replace(question, principal_names=principal.own_names(facts.account))
    return facts.policy is not None and facts.policy.decide(own) == ALLOW


def _own_side(principal: Principal, question: Question) -> str | None:
    """What the asker's own policies say; DENY also where a limit does not allow it."""
    if any(_decision(layer, question) != ALLOW for layer in principal.limits):
        return DENY
    if principal.everything_at_home:
        return ALLOW
    return _decision((*principal.policies, *principal.client_policies), question)


def _decision(policies: Sequence[Policy], question: Question) -> str | None:
    decisions = [policy.decide(question) for policy in policies]
    if DENY in decisions:
        return DENY
    return ALLOW if ALLOW in decisions else None


def may_administer(principal: Principal, action: str) -> bool:
    """Whether the sender may do an action on the store itself (`admin:ServerInfo`)."""
    if principal.role is not None:
        return False
    question = Question(action=action, resource=S3_ARN_PREFIX, values=dict)
    if _own_side(principal, question) != ALLOW:
        return False
    return principal.is_root or _decision(principal.policies, question) == ALLOW


def may_manage(principal: Principal, action: str, resource: str, values: Callable[[], Values]) -> bool:
    """Whether the sender may do an action of IAM or STS on something of its own account.

    `resource`: its ARN; the caller vouches that it is of the sender's account, and asks nothing for anonymous.
    """
    return _own_side(principal, Question(action=action, resource=resource, values=values)) == ALLOW


def is_within_limits(principal: Principal, action: str, resource: str, values: Callable[[], Values]) -> bool:
    """Whether nothing that limits the sender (a session's policy, that of its key) keeps it from what its own side
    need not allow."""
    question = Question(action=action, resource=resource, values=values)
    return all(_decision(layer, question) == ALLOW for layer in principal.limits)


def is_denied(principal: Principal, action: str, resource: str, values: Callable[[], Values]) -> bool:
    """Whether a policy or a limit of the sender's speaks against what otherwise everybody may."""
    question = Question(action=action, resource=resource, values=values)
    return DENY in [policy.decide(question) for policy in principal.all_policies]


def may_assume(principal: Principal, trust: Policy, role: str, role_account: str, values: Callable[[], Values]) -> bool:
    """Whether the sender may assume the role with that ARN, of that account.

    Within the account it is enough that the trust policy names the sender itself; from another account, or where the
    trust policy names the account, the sender's own policies must allow it too.
    """
    action = "sts:AssumeRole"
    own = _own_side(principal, Question(action=action, resource=role, values=values))
    question = Question(action=action, resource=role, principal_names=principal.names(role_account), values=values)
    if own == DENY or trust.decide(question) != ALLOW:
        return False
    if own == ALLOW:
        return True
    itself = msgspec.structs.replace(question, principal_names=principal.own_names(role_account))
    return principal.account == role_account and trust.decide(itself) == ALLOW


def _granted(principal: Principal, action: str, facts: BucketFacts, thing: ObjectFacts | None) -> bool:
    """Whether a grant allows it to this asker."""
    if not facts.grants_in_force:
        return False
    grantees: list[str] = []
    if not principal.is_anonymous:
        grantees.append(canonical_id(principal.account))
    if not facts.ignores_public_grants:
        grantees.append(ALL_USERS)
        if not principal.is_anonymous:
            grantees.append(AUTHENTICATED_USERS)
    if action in _ON_BUCKET:
        return permits(facts.grants, _ON_BUCKET[action], grantees)
    return thing is not None and action in _ON_OBJECT and permits(thing.grants, _ON_OBJECT[action], grantees)


def authorize(
    verified: VerifiedRequest,
    bucket: str,
    key: str = "",
    facts: BucketFacts | None = None,
    thing: ObjectFacts | None = None,
    action: str | None = None,
    extra: Values | None = None,
) -> None:
    """Raises AccessDenied unless the sender may do the operation's action (or `action`) there."""
    wanted = verified.operation.action_for(verified.query) if action is None else action
    if not is_allowed(verified, wanted, bucket, key, facts, thing, extra):
        raise S3Error("AccessDenied")
