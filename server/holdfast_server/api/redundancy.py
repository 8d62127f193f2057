"""How much redundancy a write asks for: the class REDUCED_REDUNDANCY is stored with fewer parity shards.

A pod of an earlier release would judge such a version by its erasure set's own quorums, and take one that reached too
few drives for committed (docs/decisions/0014-reduced-redundancy.md).  So the first one of a bucket waits until every
pod is reachable and knows better; the bucket's document then has a format that earlier releases refuse.  Until then,
and as long as any pod that can be reached does not know better, these objects get all of the set's redundancy: no less
than was asked for.

Not here: which classes there are (`s3.headers`), how many parity shards (`contract.geometry`).
"""

from __future__ import annotations

from collections.abc import Mapping

from holdfast_server.api.bucket_record import REDUCED_FORMAT, BucketRecord
from holdfast_server.api.buckets import raise_format
from holdfast_server.api.call import Call
from holdfast_server.api.stored_headers import STORAGE_CLASS_HEADER
from holdfast_server.objects.port import Redundancy
from holdfast_server.s3.headers import REDUCED_REDUNDANCY


async def redundancy_of(call: Call, bucket: BucketRecord, headers: Mapping[str, str]) -> Redundancy:
    """Of an object that will keep these headers.  The lease on the bucket must be renewed afterwards.

    Raises BucketGone, BucketBusy, Unavailable, Conflict.
    """
    if headers.get(STORAGE_CLASS_HEADER) != REDUCED_REDUNDANCY:
        return Redundancy.FULL
    services = call.services
    if bucket.format >= REDUCED_FORMAT:
        return Redundancy.REDUCED if services.every_pod_in_reach_reduces() else Redundancy.FULL
    if not services.every_pod_reduces():
        return Redundancy.FULL
    await raise_format(call, bucket, REDUCED_FORMAT)
    return Redundancy.REDUCED
