"""Which buckets were deleted: documents `deleted-bucket/<id>`, written before the bucket's own document goes.

A write that failed may take effect after its bucket was deleted, and lie there for ever: nobody can name it any more.
The walk over buckets removes what it finds under an id that is *known* to have been deleted.  That no bucket of the
tenant has the id is not enough to go by: were a bucket's document lost, all that it holds would follow it.

An id is sixteen random bytes, given to one bucket, so a deleted one never comes back.  The document alone is no proof
(a delete may die after writing it, and the bucket live on): the id counts as deleted while no bucket has it, and once
`SETTLED_MS` have passed, in which everything that was under way in the bucket has died.  After `KEPT_MS` the document
goes; by then every drive that was away has come back or been replaced.
"""

from __future__ import annotations

import logging
from collections.abc import Collection

import msgspec

from holdfast_server.api.bucket_record import BucketRecord
from holdfast_server.api.services import Services
from holdfast_server.objects.healing import OPERATION_DEADLINE_SECONDS
from holdfast_server.objects.port import ObjectError

DOCUMENT_PREFIX = "deleted-bucket/"
SETTLED_MS = int(10 * OPERATION_DEADLINE_SECONDS * 1000)
KEPT_MS = 90 * 24 * 3600 * 1000
PAGE_SIZE = 1000

log = logging.getLogger(__name__)


class DeletedBucket(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    deleted_ms: int


async def remember_deleted(services: Services, bucket: BucketRecord) -> None:
    """To be done before the bucket's document is deleted.  Raises Unavailable."""
    entry = DeletedBucket(name=bucket.name, deleted_ms=services.clock.now_ms())
    await services.objects.put_document(DOCUMENT_PREFIX + bucket.id.hex(), msgspec.json.encode(entry))


async def deleted_for_good(services: Services, alive: Collection[bytes]) -> frozenset[bytes]:
    """Ids under which nothing is any more, whatever lies there.  `alive`: of all buckets, read before.

    Raises Unavailable.
    """
    now_ms = services.clock.now_ms()
    found: set[bytes] = set()
    after = ""
    while True:
        page = await services.objects.list_documents(DOCUMENT_PREFIX, after=after, limit=PAGE_SIZE)
        for listed in page.entries:
            bucket_id = _id_of(listed.key)
            try:
                entry = msgspec.json.decode(listed.record.body, type=DeletedBucket)
            except msgspec.MsgspecError:
                continue  # of a later release: left alone
            if bucket_id is None or bucket_id in alive or now_ms - entry.deleted_ms < SETTLED_MS:
                continue
            found.add(bucket_id)
            if now_ms - entry.deleted_ms >= KEPT_MS:
                await _forget(services, listed.key)
        if page.next_after is None:
            return frozenset(found)
        after = page.next_after


def _id_of(name: str) -> bytes | None:
    try:
        return bytes.fromhex(name.removeprefix(DOCUMENT_PREFIX))
    except ValueError:
        return None


async def _forget(services: Services, name: str) -> None:
    try:
        await services.objects.delete_document(name)
    except ObjectError as error:
        log.info("%s is kept for now: %s", name, error)
