"""What an object that a request writes remembers: headers, tags, owner and grants.

Shared by the families that write objects (put, copy, multipart, forms).
"""

from __future__ import annotations

from collections.abc import Mapping

from holdfast_server.api.access import ENFORCED, PREFERRED, ObjectAcl, with_acl
from holdfast_server.api.bucket_record import BucketRecord
from holdfast_server.api.call import Call
from holdfast_server.api.object_lock import lock_headers
from holdfast_server.api.stored_headers import TAGS, headers_to_keep
from holdfast_server.auth.access import ObjectFacts, authorize
from holdfast_server.auth.principal import Principal, canonical_id
from holdfast_server.auth.publicness import are_public
from holdfast_server.s3.acl import (
    BUCKET_OWNER_FULL_CONTROL,
    CANNED_HEADER,
    Grant,
    Grants,
    acl_of_headers,
    asks_for_acl,
    asks_for_more_than_private,
    names_grantees,
    private,
)
from holdfast_server.s3.errors import S3Error


def new_object_headers(call: Call, bucket: BucketRecord) -> dict[str, str]:
    """Raises S3Error: bad headers, grants that the bucket does not take, no permission to tag or to grant."""
    headers = headers_to_keep(call.headers)
    require_tagging(call, headers)
    headers = lock_headers(call, bucket, headers, call.verified.operation.name == "PutObject")
    return with_acl(headers, bucket, new_object_acl(call, bucket, call.headers))


def require_tagging(call: Call, headers: Mapping[str, str]) -> None:
    """Who writes an object with tags needs the permission to tag, too.  Raises AccessDenied."""
    if TAGS in headers:
        call.require("s3:PutObjectTagging", call.bucket_name, call.key)


def new_object_acl(call: Call, bucket: BucketRecord, headers: Mapping[str, str]) -> ObjectAcl:
    """Whose the object will be, and what others may do with it."""
    bucket_owner = canonical_id(bucket.account)
    if bucket.ownership == ENFORCED:
        refuse_acl(headers, bucket)
        return ObjectAcl(owner=bucket.account, grants=private(bucket_owner))
    account = _owner_of(call.verified.principal, bucket, headers)
    owner = canonical_id(account)
    _require_granting(call, account, headers)
    grants = acl_of_headers(headers, owner, bucket_owner, call.services.identities.account_of)
    if grants is None:
        grants = private(owner)
    refuse_public(bucket, grants)
    return ObjectAcl(owner=account, grants=grants)


def _require_granting(call: Call, account: str, headers: Mapping[str, str]) -> None:
    """Granting takes a permission of its own.  A writer from elsewhere has it for what it will own, unless it is
    denied.  Raises AccessDenied."""
    asker = call.verified.principal
    if not asks_for_more_than_private(headers) or asker.is_anonymous:
        return
    thing = ObjectFacts(account=account, grants=private(canonical_id(account)))
    authorize(call.verified, call.bucket_name, call.key, call.facts, thing, "s3:PutObjectAcl")


def _owner_of(writer: Principal, bucket: BucketRecord, headers: Mapping[str, str]) -> str:
    if writer.is_anonymous or writer.is_root:
        return bucket.account
    if bucket.ownership == PREFERRED and headers.get(CANNED_HEADER) == BUCKET_OWNER_FULL_CONTROL:
        return bucket.account
    return writer.account


def refuse_acl(headers: Mapping[str, str], bucket: BucketRecord) -> None:
    """With grants out of force a request may ask for what holds anyway, and for nothing else.

    Raises AccessControlListNotSupported."""
    if not asks_for_acl(headers):
        return
    if not names_grantees(headers):
        canned = headers[CANNED_HEADER]
        if canned == BUCKET_OWNER_FULL_CONTROL or (canned == "private" and bucket.ownership_by_default):
            return
    bucket_owner = canonical_id(bucket.account)
    try:
        grants = acl_of_headers(headers, bucket_owner, bucket_owner, lambda canonical: canonical)
    except S3Error as error:
        raise S3Error("AccessControlListNotSupported") from error
    if grants != (Grant(bucket_owner, "FULL_CONTROL"),) or CANNED_HEADER in headers:
        raise S3Error("AccessControlListNotSupported")


def refuse_public(bucket: BucketRecord, grants: Grants) -> None:
    """Raises AccessDenied where the public access block forbids what is granted."""
    block = bucket.public_access_block
    if block is not None and block.block_public_acls and are_public(grants):
        raise S3Error("AccessDenied")
