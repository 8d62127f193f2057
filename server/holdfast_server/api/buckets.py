"""ListBuckets, CreateBucket, HeadBucket, DeleteBucket, GetBucketLocation.

Deleting follows rule 12 of the quorum protocol: mark the document `deleting` (conditionally, with a mark of
this attempt), make every pod let go of the bucket, look whether it is empty, and only then remove the document,
or take the mark back.  Between mark and decision writes are told to try again.  A pod that dies in between
leaves the mark; whoever meets one older than `STALE_MARK_MS` takes it back, which makes that attempt's own
last step fail, for it is conditional on the mark.
"""

from __future__ import annotations

import asyncio
import logging

import msgspec

from holdfast_server.api import bucket_record
from holdfast_server.api.bucket_record import ACTIVE, DELETING, BucketRecord, document_name, raised
from holdfast_server.api.bucket_settings import change_bucket
from holdfast_server.api.buckets_cache import LEASE_SECONDS, BucketBusy, BucketGone
from holdfast_server.api.call import Call, owner_element
from holdfast_server.api.deleted_buckets import remember_deleted
from holdfast_server.api.grants import grants_of_new_bucket, ownership_of_new_bucket
from holdfast_server.api.identities import owner_id
from holdfast_server.api.object_lock import asks_for_locking, with_locking
from holdfast_server.api.services import DOCUMENTS_TOPIC, Services
from holdfast_server.auth.access import is_denied, is_within_limits, resource_arn
from holdfast_server.auth.principal import ANONYMOUS, account_id
from holdfast_server.auth.request_values import condition_values
from holdfast_server.contract import names
from holdfast_server.objects.port import Condition, Missing, ObjectError, Record
from holdfast_server.objects.record import BUCKET_ID_SIZE_BYTES
from holdfast_server.s3.acl import asks_for_more_than_private
from holdfast_server.s3.documents_in import MAX_NEW_BUCKET_SIZE_BYTES, parse_create_bucket
from holdfast_server.s3.documents_out import list_buckets_xml, location_xml
from holdfast_server.s3.errors import S3Error
from holdfast_server.s3.names import (
    NAMESPACE_HEADER,
    check_bucket_namespace,
    check_new_bucket_name,
    decode_token,
    encode_token,
    parse_bucket_count,
)
from holdfast_server.s3.request import Response

log = logging.getLogger(__name__)

STALE_MARK_MS = 120_000
"""Longer than any delete may take: lease, operations' deadline, fence and a listing."""
FENCE_TIMEOUT_SECONDS = 30.0
MARK_SIZE_BYTES = 16
PAGE_SIZE = 1000
UNMARK_TIMEOUT_SECONDS = 10.0
REGION_HEADER = "x-amz-bucket-region"
LIST_ACTION = "s3:ListAllMyBuckets"


async def list_buckets(call: Call) -> Response:
    """Root sees every bucket; a user those of its account: all of them where it may list them all, else those that it
    made or may list.  Who may list none is refused, and who is denied to list them."""
    principal = call.verified.principal
    if principal.is_anonymous:
        return call.xml(list_buckets_xml(owner_element(ANONYMOUS.user_name), []))
    owners = (owner_id(principal), principal.access_key)
    all_of_account = call.may(LIST_ACTION, "")
    own_values = condition_values(call.verified, account_id(principal.account))
    if is_denied(principal, LIST_ACTION, resource_arn(""), lambda: own_values):
        raise S3Error("AccessDenied")
    sees_own = is_within_limits(principal, LIST_ACTION, resource_arn(""), lambda: own_values)
    region = call.query.get("bucket-region", "")
    prefix, token = call.query.get("prefix", ""), call.query.get("continuation-token", "")
    after = decode_token(token) if token else ""
    at_most = parse_bucket_count(call.query)
    shown = [
        (bucket.name, bucket.created_ms)
        for bucket in await all_buckets(call.services, prefix)
        if bucket.name > after
        and region in ("", bucket.region)
        and (
            principal.is_root
            or (
                bucket.account == principal.account
                and (all_of_account or (sees_own and bucket.owner in owners) or call.may_in(bucket, "s3:ListBucket"))
            )
        )
    ]
    if not shown and not all_of_account:
        raise S3Error("AccessDenied")
    next_token = encode_token(shown[at_most - 1][0]) if len(shown) > at_most else ""
    page = shown[:at_most]
    return call.xml(
        list_buckets_xml(owner_element(principal.account), page, call.services.told().region, prefix, next_token)
    )


async def all_buckets(services: Services, prefix: str = "") -> list[BucketRecord]:
    """Of every account, those that a later release wrote among them (`decode_listed`).  Raises Unavailable."""
    found: list[BucketRecord] = []
    after = ""
    while True:
        page = await services.objects.list_documents(document_name(prefix), after=after, limit=PAGE_SIZE)
        found += [bucket_record.decode_listed(entry.record.body) for entry in page.entries]
        if page.next_after is None:
            return found
        after = page.next_after


async def create_bucket(call: Call) -> Response:
    name = check_new_bucket_name(call.bucket_name)
    services = call.services
    locking = asks_for_locking(call)
    told = services.told()
    asked = parse_create_bucket(await call.small_body(MAX_NEW_BUCKET_SIZE_BYTES))
    _check_location(asked.location, told.region)
    if asked.tags:
        call.require("s3:TagResource", name)
    account = call.verified.principal.account
    check_bucket_namespace(name, call.headers.get(NAMESPACE_HEADER), account_id(account), told.region)
    asked_ownership = call.headers.get("x-amz-object-ownership")
    if asked_ownership is not None:
        call.require("s3:PutBucketOwnershipControls", name)
    if asks_for_more_than_private(call.headers):
        call.require("s3:PutBucketAcl", name)
    ownership = ownership_of_new_bucket(asked_ownership, told.object_ownership)
    record = BucketRecord(
        id=services.clock.random_bytes(BUCKET_ID_SIZE_BYTES),
        name=name,
        owner=owner_id(call.verified.principal),
        account=account,
        ownership=ownership,
        ownership_by_default=asked_ownership is None,
        grants=grants_of_new_bucket(call, ownership, account),
        tags=asked.tags,
        region=told.region,
        created_ms=services.clock.now_ms(),
    )
    if locking:
        record = with_locking(record)

    def absent(current: Record | None) -> None:
        if current is not None:
            _refuse_existing(bucket_record.decode(current.body), record, asked_ownership is not None)

    try:
        await services.objects.put_document(document_name(name), bucket_record.encode(record), absent)
        await _changed(services, name)
    except _AlreadyThere:
        pass
    return Response(status=200, headers={"location": f"/{name}"})


class _AlreadyThere(Exception):
    """What is asked for exists as it is asked for."""


def _refuse_existing(existing: BucketRecord, asked: BucketRecord, asks_for_ownership: bool) -> None:
    """In the region us-east-1 S3 answers 200 to an owner who creates a bucket again, in all others 409.  There it also
    takes the grants back to those of a new bucket, or makes them what is asked for.  Here they are left alone: who
    asks for what the bucket is not is told that it exists, for by BucketAlreadyOwnedByYou clients take theirs as
    done."""
    if existing.deleting:
        raise BucketBusy(existing.name)
    if existing.account != asked.account:
        raise S3Error("BucketAlreadyExists", BucketName=existing.name)
    as_asked = (asked.grants is None or existing.grants == asked.grants) and (
        not asks_for_ownership or existing.ownership == asked.ownership
    )
    as_asked = as_asked and (not asked.object_lock or bool(existing.object_lock))
    as_asked = as_asked and (not asked.tags or existing.tags == asked.tags)
    if asked.region == names.DEFAULT_REGION:
        if not as_asked:
            raise S3Error("BucketAlreadyExists", BucketName=existing.name)
        if existing.grants == asked.grants:
            raise _AlreadyThere
    raise S3Error("BucketAlreadyOwnedByYou", BucketName=existing.name)


def _check_location(location: str, region: str) -> None:
    if location and location != region:
        raise S3Error(
            "IllegalLocationConstraintException",
            f"The {location} location constraint is incompatible for the region specific endpoint this request was "
            f"sent to, which is {region}.",
        )


async def head_bucket(call: Call) -> Response:
    bucket = await call.bucket()
    return Response(status=200, headers={**region_headers(bucket), "content-type": "application/xml"})


def region_headers(bucket: BucketRecord) -> dict[str, str]:
    return {REGION_HEADER: bucket.region}


async def get_bucket_location(call: Call) -> Response:
    bucket = await call.bucket()
    return call.xml(location_xml(bucket.region))


# --- deleting


async def delete_bucket(call: Call) -> Response:
    services = call.services
    marked = await _mark(call)
    try:
        await let_go(services, marked)
        if not await _is_empty(services, marked):
            raise S3Error("BucketNotEmpty", BucketName=marked.name)
        await _abort_uploads(services, marked.id)
        await remember_deleted(services, marked)
        await services.objects.delete_document(document_name(marked.name), _still(marked))
    except Exception:
        await _unmark_quietly(services, marked)
        raise
    await _changed(services, marked.name)
    return Response(status=204)


async def _mark(call: Call) -> BucketRecord:
    """Raises BucketGone, BucketBusy, Unavailable."""
    services, name = call.services, call.bucket_name
    services.buckets.forget(name)
    bucket = await call.bucket()
    now_ms = services.clock.now_ms()
    marked = msgspec.structs.replace(
        bucket, state=DELETING, mark=services.clock.random_bytes(MARK_SIZE_BYTES), marked_ms=now_ms
    )

    def markable(current: Record | None) -> None:
        existing = bucket_record.decode(current.body) if current is not None else None
        if existing is None or existing.id != bucket.id:
            raise BucketGone(name)
        if _settings(existing) != _settings(bucket):
            raise BucketBusy(name)  # changed since it was read; what the mark writes back must be what there was
        if existing.deleting and not _is_stale(existing, now_ms):
            raise BucketBusy(name)

    await services.objects.put_document(document_name(name), bucket_record.encode(marked), markable)
    await _changed(services, name)
    return marked


def _settings(bucket: BucketRecord) -> BucketRecord:
    """The record without what deleting changes of it."""
    return msgspec.structs.replace(bucket, state=ACTIVE, mark=b"", marked_ms=0)


def _is_stale(bucket: BucketRecord, now_ms: int) -> bool:
    return bucket.deleting and now_ms - bucket.marked_ms > STALE_MARK_MS


async def let_go(services: Services, marked: BucketRecord) -> None:
    """Afterwards no pod commits into the bucket without having read its document as it is now."""
    marked_at = services.clock.monotonic_seconds()
    async with asyncio.timeout(FENCE_TIMEOUT_SECONDS):
        await services.buckets.fence(marked.id)
    if not await services.fence_bucket_everywhere(marked.id):
        # A pod that does not answer may still hold a lease from before the mark, and have begun to commit under it.
        waited_seconds = services.clock.monotonic_seconds() - marked_at
        await services.clock.sleep(max(0.0, LEASE_SECONDS + services.limits.operation_seconds - waited_seconds))


async def raise_format(call: Call, bucket: BucketRecord, format_: int) -> None:
    """Afterwards no pod of a release that does not know this format of a bucket's document reads from the bucket, nor
    writes into it.  Raises as `change_bucket`."""

    def raised_now(now: BucketRecord) -> BucketRecord:
        if now.id != bucket.id:
            raise BucketGone(now.name)
        return raised(now, format_)

    await let_go(call.services, await change_bucket(call, raised_now))


async def _is_empty(services: Services, bucket: BucketRecord) -> bool:
    """Of versions and delete markers, too."""
    if bucket.versioning:
        return not (await services.objects.list_versions(bucket.id, limit=1)).entries
    return not (await services.objects.list_objects(bucket.id, limit=1)).entries


async def _abort_uploads(services: Services, bucket_id: bytes) -> None:
    """Unfinished uploads do not keep a bucket; their parts go with it."""
    more = True
    while more:
        uploads, _, more = await services.objects.list_uploads(bucket_id, limit=PAGE_SIZE)
        for upload in uploads:
            try:
                await services.objects.abort_upload(bucket_id, upload.key, upload.upload_id)
            except Missing:
                continue


def _still(marked: BucketRecord) -> Condition:
    def check(current: Record | None) -> None:
        existing = bucket_record.decode(current.body) if current is not None else None
        if existing is None or existing.id != marked.id or existing.mark != marked.mark:
            raise BucketBusy(marked.name)

    return check


async def _unmark_quietly(services: Services, marked: BucketRecord) -> None:
    """If this fails too, the mark grows stale and somebody else takes it back."""
    try:
        async with asyncio.timeout(UNMARK_TIMEOUT_SECONDS):
            await _unmark(services, marked)
    except (ObjectError, BucketBusy, TimeoutError) as error:
        log.warning("bucket %s stays marked for a while: %s", marked.name, error)


async def _unmark(services: Services, marked: BucketRecord) -> None:
    active = msgspec.structs.replace(marked, state=ACTIVE, mark=b"", marked_ms=0)
    await services.objects.put_document(document_name(marked.name), bucket_record.encode(active), _still(marked))
    await _changed(services, marked.name)


async def recover_stale_mark(services: Services, name: str) -> None:
    """For a write that met a bucket being deleted: take back the mark of an attempt that died."""
    bucket = await services.buckets.get(name)
    if _is_stale(bucket, services.clock.now_ms()):
        await _unmark_quietly(services, bucket)


async def _changed(services: Services, name: str) -> None:
    services.buckets.forget(name)
    await services.announce(DOCUMENTS_TOPIC, [document_name(name)])
