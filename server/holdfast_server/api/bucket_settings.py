"""Changing a bucket's settings, and reading them as they are now.

A setting is a field of the bucket's document.  A change reads the document, makes a new one and writes it on the
condition that nobody has written meanwhile, so that two settings changed at once are both kept; the pods are then told
to forget what they know (`buckets_cache`: without that news a pod may go by the old settings for `LEASE_SECONDS`).
Questions about settings are answered from the document itself, so that a client reads what it has just written through
any pod.

Not here: what a setting means (its own module each), marking a bucket for deletion (`buckets`).
"""

from __future__ import annotations

from collections.abc import Callable

from holdfast_server.api import bucket_record
from holdfast_server.api.bucket_record import BucketRecord, document_name
from holdfast_server.api.buckets_cache import BucketBusy, BucketGone
from holdfast_server.api.call import Call
from holdfast_server.api.services import DOCUMENTS_TOPIC, Services
from holdfast_server.objects.port import Conflict, Record

CHANGE_ATTEMPTS = 4
RETRY_PAUSE_SECONDS = 0.05

Change = Callable[[BucketRecord], BucketRecord]
"""The bucket as it is to be; may raise to refuse.  Pure, may be called more than once."""


class _Overtaken(Exception):
    """Somebody else has written the document."""


async def current_bucket(call: Call) -> BucketRecord:
    """The bucket as it is now.  Raises BucketGone, Unavailable."""
    return call.same(await named_bucket(call.services, call.bucket_name))


async def named_bucket(services: Services, name: str) -> BucketRecord:
    """Likewise."""
    document = await services.objects.get_document(document_name(name))
    if document is None:
        raise BucketGone(name)
    return bucket_record.decode(document.body)


async def change_bucket(call: Call, change: Change) -> BucketRecord:
    """The changed bucket.  Raises BucketGone, BucketBusy, Unavailable, Conflict, what `change` raises."""
    return await change_named_bucket(call.services, call.bucket_name, lambda bucket: change(call.same(bucket)))


async def change_named_bucket(services: Services, name: str, change: Change) -> BucketRecord:
    """Likewise."""
    for attempt in range(CHANGE_ATTEMPTS):
        if attempt:
            await services.clock.sleep(RETRY_PAUSE_SECONDS * 2**attempt)
        document = await services.objects.get_document(document_name(name))
        if document is None:
            raise BucketGone(name)
        bucket = bucket_record.decode(document.body)
        if bucket.deleting:
            raise BucketBusy(name)
        changed = change(bucket)
        if changed == bucket:
            return bucket
        try:
            await _write(services, changed, document)
        except _Overtaken:
            continue
        return changed
    raise Conflict(f"the settings of bucket {name} are being changed by others")


async def _write(services: Services, changed: BucketRecord, read: Record) -> None:
    def unchanged(current: Record | None) -> None:
        if current is None:
            raise BucketGone(changed.name)
        if current.body != read.body:
            raise _Overtaken

    try:
        await services.objects.put_document(document_name(changed.name), bucket_record.encode(changed), unchanged)
    finally:
        # Also when it is undecided: what is cached may be out of date then.
        services.buckets.forget(changed.name)
    await services.announce(DOCUMENTS_TOPIC, [document_name(changed.name)])
