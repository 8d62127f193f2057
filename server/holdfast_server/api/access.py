"""What counts for a decision, out of the records: the facts that `auth.access` decides over.

An object's grants and its owner are kept among its headers, where they differ from what goes without saying: the owner
is the bucket's account, and nobody is granted anything.  Policies rest as their text and are parsed once per text.

Not here: deciding; the operations on policies and grants.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Mapping

import msgspec

from holdfast_server.api.bucket_record import BucketRecord
from holdfast_server.api.stored_headers import ACL, object_tags
from holdfast_server.auth.access import BucketFacts, ObjectFacts
from holdfast_server.auth.policy import Policy, PolicyError, parse_policy
from holdfast_server.auth.principal import account_id, canonical_id
from holdfast_server.auth.publicness import is_public_policy
from holdfast_server.objects.record import Record
from holdfast_server.s3.acl import Grant, Grants, private
from holdfast_server.s3.errors import S3Error

log = logging.getLogger(__name__)

MAX_KEPT_POLICIES = 256

ENFORCED = "BucketOwnerEnforced"
PREFERRED = "BucketOwnerPreferred"
OBJECT_WRITER = "ObjectWriter"
OWNERSHIPS = (ENFORCED, PREFERRED, OBJECT_WRITER)

_DENY_ALL: dict[str, object] = {
    "Statement": {"Effect": "Deny", "Principal": "*", "Action": "s3:*", "Resource": "arn:aws:s3:::*"}
}


class ParsedPolicy(msgspec.Struct, frozen=True):
    policy: Policy
    public: bool


class PolicyShelf:
    """Parsed policies of buckets by their text; the least used go."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, str], ParsedPolicy] = OrderedDict()

    def parsed(self, bucket: str, text: str) -> ParsedPolicy:
        """One that cannot be read (a later release wrote it) denies everything rather than nothing."""
        found = self._kept.get((bucket, text))
        if found is None:
            try:
                policy = parse_policy(text, bucket)
            except PolicyError as error:
                log.error("the policy of bucket %s cannot be read and denies everything: %s", bucket, error)
                policy = parse_policy(_DENY_ALL, bucket)
            found = self._kept[bucket, text] = ParsedPolicy(policy, is_public_policy(policy))
            while len(self._kept) > MAX_KEPT_POLICIES:
                self._kept.popitem(last=False)
        self._kept.move_to_end((bucket, text))
        return found


def bucket_facts(bucket: BucketRecord, shelf: PolicyShelf) -> BucketFacts:
    in_force = bucket.ownership != ENFORCED
    block = bucket.public_access_block
    parsed = shelf.parsed(bucket.name, bucket.policy) if bucket.policy else None
    return BucketFacts(
        account=bucket.account,
        policy=parsed.policy if parsed is not None else None,
        policy_is_public=parsed is not None and parsed.public,
        grants_in_force=in_force,
        grants=bucket_grants(bucket) if in_force else (),
        ignores_public_grants=block is not None and block.ignore_public_acls,
        restricts_public_policy=block is not None and block.restrict_public_buckets,
    )


def bucket_grants(bucket: BucketRecord) -> Grants:
    if bucket.grants is None or bucket.ownership == ENFORCED:
        return private(canonical_id(bucket.account))
    return tuple(bucket.grants)


def check_expected_owner(expected: str | None, bucket: BucketRecord) -> None:
    """`x-amz-expected-bucket-owner`, or its like for a copy's source, is the number of an account.  Raises
    AccessDenied."""
    if expected is not None and expected != account_id(bucket.account):
        raise S3Error("AccessDenied")


class ObjectAcl(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept of an object's owner and grants."""

    owner: str
    """Its account."""
    grants: tuple[Grant, ...]


def object_acl(bucket: BucketRecord, headers: Mapping[str, str]) -> ObjectAcl:
    """Of an object with these headers.  With grants out of force everything is the bucket owner's."""
    text = headers.get(ACL)
    if text is None or bucket.ownership == ENFORCED:
        return ObjectAcl(owner=bucket.account, grants=private(canonical_id(bucket.account)))
    return msgspec.json.decode(text, type=ObjectAcl)


def with_acl(headers: Mapping[str, str], bucket: BucketRecord, acl: ObjectAcl) -> dict[str, str]:
    """The headers of an object with that owner and these grants."""
    kept = {name: value for name, value in headers.items() if name != ACL}
    if acl.owner == bucket.account and acl.grants == private(canonical_id(bucket.account)):
        return kept
    return {**kept, ACL: msgspec.json.encode(acl).decode()}


def object_facts(bucket: BucketRecord, record: Record) -> ObjectFacts:
    acl = object_acl(bucket, record.headers)
    return ObjectFacts(account=acl.owner, grants=acl.grants, tags=object_tags(record))
