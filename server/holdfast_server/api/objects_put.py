"""PutObject."""

from __future__ import annotations

from holdfast_server.api.bucket_record import BucketRecord
from holdfast_server.api.call import Call
from holdfast_server.api.encryption import seal_of_new_object
from holdfast_server.api.lifecycle import expiry_of
from holdfast_server.api.new_object import new_object_headers
from holdfast_server.api.payload_body import WireBody
from holdfast_server.api.redundancy import redundancy_of
from holdfast_server.api.stored_headers import checksum_headers
from holdfast_server.api.version_ids import refuse_version, written_headers
from holdfast_server.objects.port import Condition, Record
from holdfast_server.s3.conditions import WriteCondition, parse_write_condition
from holdfast_server.s3.headers import quote_etag
from holdfast_server.s3.payload import payload_of
from holdfast_server.s3.request import Response


async def write_condition(call: Call, bucket: BucketRecord) -> Condition | None:
    """What the request's head demands of the current version, as the object layer takes it.  Raises AccessDenied: who
    asks whether an ETag is right must be allowed to read the object."""
    wanted = parse_write_condition(call.headers)
    if wanted is None:
        return None
    if wanted.names_etags:
        await call.require_reading(bucket, call.key)
    return _object_condition(wanted)


def _object_condition(wanted: WriteCondition) -> Condition:

    def check(current: Record | None) -> None:
        wanted.check(current.etag if current is not None and current.live else None)

    return check


async def put_object(call: Call) -> Response:
    refuse_version(call.query)
    async with call.writing() as lease:
        headers = new_object_headers(call, lease.bucket)
        condition = await write_condition(call, lease.bucket)
        payload = payload_of(call.headers, call.context, with_md5=not lease.bucket.has_opaque_etags)
        seal, sealed = await seal_of_new_object(call, lease.bucket)
        redundancy = await redundancy_of(call, lease.bucket, headers)
        body = WireBody(payload, call.body, lease, headers, seal=seal)
        if condition is not None:
            # Refuse before the body is sent; the object layer asks again when it counts.
            condition(await call.objects.head_object(lease.bucket.id, call.key))
        await call.ticket.stream(payload.max_size_bytes)
        record = await call.objects.put_object(lease.bucket.id, call.key, body, condition, seal, redundancy)
    headers = {"etag": quote_etag(record.etag), **checksum_headers(record.checksums), **written_headers(record)}
    headers.update({**expiry_of(lease.bucket, call.key, record), **sealed})
    return Response(status=200, headers=headers)
