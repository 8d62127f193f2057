"""Access control lists of buckets and objects, and the ownership controls that put them in force.

With `BucketOwnerEnforced` there are none: everything is the bucket owner's, and asking for anything else is refused.
With `BucketOwnerPreferred`, `ObjectWriter`, or where no controls were ever set, lists count (`auth.access`).
"""

from __future__ import annotations

import msgspec

from holdfast_server.api.access import (
    ENFORCED,
    OBJECT_WRITER,
    OWNERSHIPS,
    ObjectAcl,
    bucket_grants,
    object_acl,
    with_acl,
)
from holdfast_server.api.bucket_record import BucketRecord
from holdfast_server.api.bucket_settings import change_bucket, current_bucket
from holdfast_server.api.call import Call, owner_element
from holdfast_server.api.new_object import refuse_acl, refuse_public
from holdfast_server.api.version_ids import amended, asked_version, present
from holdfast_server.auth.principal import canonical_id
from holdfast_server.objects.port import Record
from holdfast_server.s3.acl import (
    MAX_ACL_SIZE_BYTES,
    Grant,
    Grants,
    acl_of_headers,
    acl_xml,
    asks_for_acl,
    asks_for_more_than_private,
    parse_acl,
    private,
)
from holdfast_server.s3.documents_in import MAX_BUCKET_CONFIGURATION_SIZE_BYTES
from holdfast_server.s3.documents_out import document
from holdfast_server.s3.errors import S3Error
from holdfast_server.s3.request import Response
from holdfast_server.s3.xml_tree import parse


async def get_bucket_acl(call: Call) -> Response:
    bucket = await current_bucket(call)
    grants = bucket_grants(bucket)
    return call.xml(acl_xml(owner_element(bucket.account), grants, call.services.identities.account_of))


async def put_bucket_acl(call: Call) -> Response:
    body = await call.small_body(MAX_ACL_SIZE_BYTES)

    def change(bucket: BucketRecord) -> BucketRecord:
        grants = _asked_grants(call, body, bucket.account, bucket)
        return msgspec.structs.replace(bucket, grants=_kept(grants, bucket.account))

    await change_bucket(call, change)
    return Response(status=200)


def _kept(grants: Grants, account: str) -> list[Grant] | None:
    return None if grants == private(canonical_id(account)) else list(grants)


def grants_of_new_bucket(call: Call, ownership: str, account: str) -> list[Grant] | None:
    """What CreateBucket's headers ask for.  Raises S3Error."""
    owner = canonical_id(account)
    if ownership == ENFORCED:
        if asks_for_more_than_private(call.headers):
            raise S3Error("InvalidBucketAclWithObjectOwnership")
        return None
    grants = acl_of_headers(call.headers, owner, owner, call.services.identities.account_of)
    return None if grants is None else _kept(grants, account)


def _asked_grants(call: Call, body: bytes, account: str, bucket: BucketRecord) -> Grants:
    """Of headers or document, whichever there is.  `account` owns what the list is for."""
    owner, bucket_owner = canonical_id(account), canonical_id(bucket.account)
    find = call.services.identities.account_of
    if bucket.ownership == ENFORCED:
        refuse_acl(call.headers, bucket)
        if not asks_for_acl(call.headers) and parse_acl(body, bucket_owner, find) != private(bucket_owner):
            raise S3Error("AccessControlListNotSupported")
        return private(bucket_owner)
    grants = acl_of_headers(call.headers, owner, bucket_owner, find)
    if grants is not None and body.strip():
        raise S3Error("UnexpectedContent")
    if grants is None:
        if not body.strip():
            raise S3Error("MissingSecurityHeader", MissingHeaderName="x-amz-acl")
        grants = parse_acl(body, owner, find)
    refuse_public(bucket, grants)
    return grants


# --- objects


async def get_object_acl(call: Call) -> Response:
    version = asked_version(call.query)
    bucket = await call.bucket()
    record = present(await call.objects.head_object(bucket.id, call.key, version), bucket, call.key, version)
    acl = object_acl(bucket, record.headers)
    return call.xml(acl_xml(owner_element(acl.owner), acl.grants, call.services.identities.account_of))


async def put_object_acl(call: Call) -> Response:
    version = asked_version(call.query)
    body = await call.small_body(MAX_ACL_SIZE_BYTES)
    async with call.writing() as lease:
        bucket = lease.bucket

        def granted(record: Record) -> dict[str, str]:
            account = object_acl(bucket, record.headers).owner
            grants = _asked_grants(call, body, account, bucket)
            return with_acl(record.headers, bucket, ObjectAcl(owner=account, grants=grants))

        lease.confirm()
        await amended(call.objects, bucket, call.key, granted, version, call.verified.request.method)
    return Response(status=200)


# --- ownership controls


async def get_ownership_controls(call: Call) -> Response:
    bucket = await current_bucket(call)
    if not bucket.ownership:
        raise S3Error("OwnershipControlsNotFoundError", BucketName=bucket.name)
    rule = f"<Rule><ObjectOwnership>{bucket.ownership}</ObjectOwnership></Rule>"
    return call.xml(document("OwnershipControls", rule))


async def put_ownership_controls(call: Call) -> Response:
    root = parse(await call.small_body(MAX_BUCKET_CONFIGURATION_SIZE_BYTES), MAX_BUCKET_CONFIGURATION_SIZE_BYTES)
    rules = list(root.all("Rule"))
    ownership = rules[0].value("ObjectOwnership") if len(rules) == 1 else None
    if root.name != "OwnershipControls" or ownership not in OWNERSHIPS:
        raise S3Error("MalformedXML")

    def change(bucket: BucketRecord) -> BucketRecord:
        if ownership == ENFORCED and bucket.grants is not None:
            raise S3Error("InvalidBucketAclWithObjectOwnership")
        return msgspec.structs.replace(bucket, ownership=ownership, ownership_by_default=False)

    await change_bucket(call, change)
    return Response(status=200)


async def delete_ownership_controls(call: Call) -> Response:
    await change_bucket(call, lambda bucket: msgspec.structs.replace(bucket, ownership="", ownership_by_default=False))
    return Response(status=204)


def ownership_at_creation(configured: str) -> str:
    """What a bucket gets whose creator does not say: ObjectWriter is what a bucket without controls has."""
    return "" if configured == OBJECT_WRITER else configured


def ownership_of_new_bucket(asked: str | None, default: str) -> str:
    """What CreateBucket's `x-amz-object-ownership` asks for.  Raises InvalidArgument."""
    if asked is None:
        return default
    if asked not in OWNERSHIPS:
        raise S3Error("InvalidArgument", "Invalid x-amz-object-ownership header", ArgumentName="x-amz-object-ownership")
    return asked
