"""Whether a bucket keeps versions: GetBucketVersioning, PutBucketVersioning; ListObjectVersions.

A bucket begins to keep versions once, and never goes back to keeping none; between Enabled and Suspended it may change
at any time.  Beginning has an order (docs/decisions/0009-versions.md): every pod of the tenant must understand versions
and be reachable; the bucket's document then says PREPARING, in a format that older releases refuse, and pods that read
that write as if versioning were suspended; once no pod can write by what the document said before (rule 12), it says
what was asked for.  An attempt that dies in between leaves PREPARING, which changes nothing for clients; the next one
goes on from there.

MFA delete does not exist here and is refused.
"""

from __future__ import annotations

import msgspec

from holdfast_server.api.bucket_record import ENABLED, PREPARING, SUSPENDED, VERSIONED_FORMAT, BucketRecord
from holdfast_server.api.bucket_settings import change_bucket, current_bucket
from holdfast_server.api.buckets import let_go
from holdfast_server.api.buckets_cache import BucketGone
from holdfast_server.api.call import Call, owner_element
from holdfast_server.api.listing import listed_object
from holdfast_server.api.version_ids import parse_version_id, version_id
from holdfast_server.objects.port import ListedVersion, VersionListing
from holdfast_server.s3.documents_in import MAX_BUCKET_CONFIGURATION_SIZE_BYTES, parse_versioning
from holdfast_server.s3.documents_out import versioning_xml
from holdfast_server.s3.errors import S3Error
from holdfast_server.s3.names import parse_count, parse_encoding_type
from holdfast_server.s3.request import Response
from holdfast_server.s3.version_documents import ListedObjectVersion, VersionPage, list_object_versions_xml

_LOCKED = "An Object Lock configuration is present on this bucket, so the versioning state cannot be changed."


async def get_bucket_versioning(call: Call) -> Response:
    bucket = await current_bucket(call)
    return call.xml(versioning_xml("" if bucket.versioning == PREPARING else bucket.versioning))


async def put_bucket_versioning(call: Call) -> Response:
    asked = parse_versioning(await call.small_body(MAX_BUCKET_CONFIGURATION_SIZE_BYTES))
    if asked.mfa_delete:
        raise S3Error("NotImplemented", "MFA delete is not implemented.")
    wanted = ENABLED if asked.enabled else SUSPENDED
    bucket = await current_bucket(call)
    if bucket.versioning in ("", PREPARING):
        await _prepare(call, bucket)

    def to_wanted(now: BucketRecord) -> BucketRecord:
        if now.id != bucket.id or not now.versioning:
            raise BucketGone(now.name)
        if now.object_lock and wanted != ENABLED:
            raise S3Error("InvalidBucketState", _LOCKED)
        return msgspec.structs.replace(now, versioning=wanted)

    await change_bucket(call, to_wanted)
    return Response(status=200)


async def _prepare(call: Call, bucket: BucketRecord) -> None:
    """Afterwards no pod writes into the bucket as if it kept no versions."""
    if not call.services.every_pod_keeps_versions():
        raise S3Error(
            "ServiceUnavailable",
            "Before the first bucket keeps versions, every pod must be reachable and run a release that knows of them.",
        )

    def preparing(now: BucketRecord) -> BucketRecord:
        if now.id != bucket.id:
            raise BucketGone(now.name)
        if now.versioning:
            return now
        return msgspec.structs.replace(now, versioning=PREPARING, format=max(now.format, VERSIONED_FORMAT))

    prepared = await change_bucket(call, preparing)
    if prepared.versioning == PREPARING:
        await let_go(call.services, prepared)


async def list_object_versions(call: Call) -> Response:
    query = call.query
    max_keys = parse_count(query)
    encoding_type = parse_encoding_type(query)
    prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
    key_marker, id_marker = query.get("key-marker", ""), query.get("version-id-marker", "")
    if id_marker and not key_marker:
        raise S3Error(
            "InvalidArgument",
            "A version-id marker cannot be specified without a key marker.",
            ArgumentName="version-id-marker",
            ArgumentValue=id_marker,
        )
    after_version = parse_version_id(id_marker, "version-id-marker") if id_marker else b""
    bucket = await call.bucket()
    await call.page(max_keys)
    listing = VersionListing([], [], False)
    if max_keys:
        listing = await call.objects.list_versions(
            bucket.id,
            prefix=prefix,
            delimiter=delimiter,
            after=key_marker,
            after_version=after_version,
            limit=max_keys,
        )
    next_key, next_id = _last_place(listing)
    return call.xml(
        list_object_versions_xml(
            VersionPage(
                bucket=call.bucket_name,
                prefix=prefix,
                delimiter=delimiter,
                key_marker=key_marker,
                version_id_marker=id_marker,
                max_keys=max_keys,
                encoding_type=encoding_type,
                versions=[_listed(entry, bucket) for entry in listing.entries],
                common_prefixes=listing.prefixes,
                is_truncated=listing.truncated,
                next_key_marker=next_key,
                next_version_id_marker=next_id,
                owner=owner_element(bucket.account),
            )
        )
    )


def _last_place(listing: VersionListing) -> tuple[str, str]:
    last = listing.entries[-1] if listing.entries else None
    if listing.prefixes and (last is None or listing.prefixes[-1].encode() > last.key.encode()):
        return listing.prefixes[-1], ""
    return (last.key, version_id(last.record)) if last is not None else ("", "")


def _listed(entry: ListedVersion, bucket: BucketRecord) -> ListedObjectVersion:
    record = entry.record
    shown = listed_object(entry.key, record, bucket)
    return ListedObjectVersion(shown, version_id(record), entry.latest, record.marker)
