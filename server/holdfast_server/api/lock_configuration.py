"""A bucket's object lock: GetObjectLockConfiguration, PutObjectLockConfiguration.

Locking is switched on once, with the bucket or later, and never off; the bucket keeps versions from then on, and can
never suspend that.  Switching it on later has an order, as beginning to keep versions has (`versioning`): every pod
must understand locks and be reachable; the document then says PREPARING, in a format that older releases refuse; it
says ENABLED once no pod writes by what it said before (rule 12: one could write over a version that is `null`).  An
attempt that dies in between is taken up by the next.
"""

from __future__ import annotations

import msgspec

from holdfast_server.api.bucket_record import ENABLED, LOCKED_FORMAT, PREPARING, BucketRecord, raised
from holdfast_server.api.bucket_settings import change_bucket, current_bucket
from holdfast_server.api.buckets import let_go
from holdfast_server.api.buckets_cache import BucketGone
from holdfast_server.api.call import Call
from holdfast_server.api.object_lock import require_every_pod
from holdfast_server.s3.errors import S3Error
from holdfast_server.s3.lock_documents import MAX_LOCK_SIZE_BYTES, lock_configuration_xml, parse_lock_configuration
from holdfast_server.s3.request import Response


async def get_object_lock_configuration(call: Call) -> Response:
    bucket = await current_bucket(call)
    if bucket.object_lock != ENABLED:
        raise S3Error("ObjectLockConfigurationNotFoundError", BucketName=bucket.name)
    return call.xml(lock_configuration_xml(bucket.default_retention))


async def put_object_lock_configuration(call: Call) -> Response:
    default = parse_lock_configuration(await call.small_body(MAX_LOCK_SIZE_BYTES))
    bucket = await current_bucket(call)
    if bucket.object_lock != ENABLED:
        await _switch_on(call, bucket)

    def configured(now: BucketRecord) -> BucketRecord:
        if now.id != bucket.id or not now.object_lock:
            raise BucketGone(now.name)
        return msgspec.structs.replace(now, object_lock=ENABLED, default_retention=default)

    await change_bucket(call, configured)
    return Response(status=200)


async def _switch_on(call: Call, bucket: BucketRecord) -> None:
    """Afterwards no pod writes into the bucket that does not know of it."""
    require_every_pod(call)

    def preparing(now: BucketRecord) -> BucketRecord:
        if now.id != bucket.id:
            raise BucketGone(now.name)
        if now.versioning != ENABLED:
            raise S3Error(
                "InvalidBucketState", "Versioning must be 'Enabled' on the bucket to apply a Object Lock configuration"
            )
        if now.object_lock:
            return now
        return msgspec.structs.replace(raised(now, LOCKED_FORMAT), object_lock=PREPARING)

    prepared = await change_bucket(call, preparing)
    if prepared.object_lock == PREPARING:
        await let_go(call.services, prepared)
