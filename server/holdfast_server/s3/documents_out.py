"""The XML documents of answers, one builder each; what they say is decided in `api/`.

Times are milliseconds since the epoch, ETags bare, sizes in bytes.  Builders join strings: a listing of 1,000
keys costs about a millisecond.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

import msgspec

from holdfast_server.s3.headers import iso_date
from holdfast_server.s3.names import encode_name
from holdfast_server.s3.xml_text import DECLARATION, NAMESPACE, escape, escape_all

XML_CONTENT_TYPE = "application/xml"
_NO_CHECKSUMS: Mapping[str, str] = MappingProxyType({})


class Owner(msgspec.Struct, frozen=True):
    """Whom a bucket or object belongs to: a canonical id and a name for people."""

    id: str
    display_name: str

    def xml(self, element: str = "Owner") -> str:
        return (
            f"<{element}><ID>{escape(self.id)}</ID><DisplayName>{escape(self.display_name)}</DisplayName></{element}>"
        )


class ListedObject(msgspec.Struct, frozen=True, gc=False):
    """One key of a listing."""

    key: str
    modified_ms: int
    etag: str
    size_bytes: int
    storage_class: str = "STANDARD"
    checksum_algorithm: str = ""
    checksum_type: str = ""
    owner: Owner | None = None
    """Where it is not the page's."""


class ListedPart(msgspec.Struct, frozen=True):
    """One part of an upload."""

    number: int
    modified_ms: int
    etag: str
    size_bytes: int
    checksum: str = ""
    """Base64; empty where the upload has none."""


class ListedUpload(msgspec.Struct, frozen=True):
    """One unfinished upload."""

    key: str
    upload_id: str
    initiated_ms: int
    storage_class: str = "STANDARD"
    checksum_algorithm: str = ""
    checksum_type: str = ""
    owner: Owner | None = None
    """Where it is not the bucket's."""


class ObjectPage(msgspec.Struct, frozen=True, kw_only=True):
    """What both versions of ListObjects have in common."""

    bucket: str
    prefix: str
    delimiter: str
    max_keys: int
    encoding_type: str
    objects: Sequence[ListedObject]
    common_prefixes: Sequence[str]
    is_truncated: bool
    owner: Owner | None = None
    """Shown with every key where given, but with those that have one of their own."""


def document(root: str, content: str) -> bytes:
    """A whole answer: its root element in S3's namespace around the content, which is XML already."""
    return f'{DECLARATION}<{root} xmlns="{NAMESPACE}">{content}</{root}>'.encode()


def _optional(element: str, value: str) -> str:
    return f"<{element}>{escape(value)}</{element}>" if value else ""


def _bool(value: bool) -> str:
    return "true" if value else "false"


def list_buckets_xml(
    owner: Owner, buckets: Iterable[tuple[str, int]], region: str = "", prefix: str = "", next_token: str = ""
) -> bytes:
    """ListBuckets; `buckets` are (name, creation time in ms), `next_token` is empty on the last page."""
    place = _optional("BucketRegion", region)
    rows = "".join(
        [
            f"<Bucket><Name>{escape(name)}</Name><CreationDate>{iso_date(created_ms)}</CreationDate>{place}</Bucket>"
            for name, created_ms in buckets
        ]
    )
    more = _optional("ContinuationToken", next_token) + _optional("Prefix", prefix)
    return document("ListAllMyBucketsResult", f"{owner.xml()}<Buckets>{rows}</Buckets>{more}")


def location_xml(region: str) -> bytes:
    """GetBucketLocation; us-east-1 is the empty element, as S3 has it."""
    return document("LocationConstraint", "" if region == "us-east-1" else escape(region))


def list_objects_v1_xml(page: ObjectPage, marker: str, next_marker: str) -> bytes:
    """ListObjects; `next_marker` counts only when the page is truncated."""
    encode = page.encoding_type
    more = ""
    if page.is_truncated and next_marker:
        more = f"<NextMarker>{escape(encode_name(next_marker, encode))}</NextMarker>"
    head = f"<Marker>{escape(encode_name(marker, encode))}</Marker>{more}"
    return document("ListBucketResult", _page_xml(page, head))


def list_objects_v2_xml(
    page: ObjectPage, continuation_token: str | None, next_token: str, start_after: str = ""
) -> bytes:
    """ListObjectsV2; tokens as on the wire, `next_token` counts only when the page is truncated."""
    head = f"<KeyCount>{len(page.objects) + len(page.common_prefixes)}</KeyCount>"
    if continuation_token is not None:
        head += f"<ContinuationToken>{escape(continuation_token)}</ContinuationToken>"
    if page.is_truncated:
        head += f"<NextContinuationToken>{escape(next_token)}</NextContinuationToken>"
    if start_after:
        head += f"<StartAfter>{escape(encode_name(start_after, page.encoding_type))}</StartAfter>"
    return document("ListBucketResult", _page_xml(page, head))


def _page_xml(page: ObjectPage, head: str) -> str:
    encode = page.encoding_type
    parts = [
        f"<Name>{escape(page.bucket)}</Name><Prefix>{escape(encode_name(page.prefix, encode))}</Prefix>",
        head,
        f"<MaxKeys>{page.max_keys}</MaxKeys>",
        _optional("Delimiter", encode_name(page.delimiter, encode)),
        _optional("EncodingType", encode),
        f"<IsTruncated>{_bool(page.is_truncated)}</IsTruncated>",
    ]
    owner = page.owner.xml() if page.owner is not None else ""
    # Keys written together share their second; formatting it is the dearest step of a row.
    seconds: dict[int, str] = {}
    checksums: dict[tuple[str, str], str] = {("", ""): ""}
    keys = escape_all([encode_name(listed.key, encode) if encode else listed.key for listed in page.objects])
    etags = escape_all([listed.etag for listed in page.objects])
    for listed, key, etag in zip(page.objects, keys, etags, strict=True):
        second, millisecond = divmod(listed.modified_ms, 1000)
        date = seconds.get(second)
        if date is None:
            date = seconds[second] = iso_date(second * 1000)[:-4]
        kind = (listed.checksum_algorithm, listed.checksum_type)
        checksum = checksums.get(kind)
        if checksum is None:
            checksum = checksums[kind] = _checksum_kind_xml(*kind)
        shown = owner if listed.owner is None or not owner else listed.owner.xml()
        parts.append(
            f"<Contents><Key>{key}</Key><LastModified>{date}{millisecond:03}Z</LastModified>"
            f"<ETag>&quot;{etag}&quot;</ETag>{checksum}<Size>{listed.size_bytes}</Size>{shown}"
            f"<StorageClass>{listed.storage_class}</StorageClass></Contents>"
        )
    parts += _prefixes_xml(page.common_prefixes, encode)
    return "".join(parts)


def _checksum_kind_xml(algorithm: str, kind: str) -> str:
    if not algorithm:
        return ""
    return f"<ChecksumAlgorithm>{algorithm}</ChecksumAlgorithm>{_optional('ChecksumType', kind)}"


def _prefixes_xml(prefixes: Sequence[str], encoding_type: str) -> list[str]:
    encoded = [encode_name(prefix, encoding_type) for prefix in prefixes] if encoding_type else prefixes
    return [f"<CommonPrefixes><Prefix>{prefix}</Prefix></CommonPrefixes>" for prefix in escape_all(encoded)]


def copy_object_xml(etag: str, modified_ms: int, checksums: Mapping[str, str] = _NO_CHECKSUMS) -> bytes:
    """CopyObject; `checksums` maps an element (`ChecksumCRC32`) to its base64, here and below."""
    return document("CopyObjectResult", _copied(etag, modified_ms, checksums))


def copy_part_xml(etag: str, modified_ms: int, checksums: Mapping[str, str] = _NO_CHECKSUMS) -> bytes:
    """UploadPartCopy."""
    return document("CopyPartResult", _copied(etag, modified_ms, checksums))


def _copied(etag: str, modified_ms: int, checksums: Mapping[str, str]) -> str:
    return (
        f"<LastModified>{iso_date(modified_ms)}</LastModified><ETag>&quot;{escape(etag)}&quot;</ETag>"
        f"{_checksums_xml(checksums)}"
    )


def _checksums_xml(checksums: Mapping[str, str]) -> str:
    return "".join([_optional(element, value) for element, value in checksums.items()])


def create_multipart_upload_xml(bucket: str, key: str, upload_id: str) -> bytes:
    """CreateMultipartUpload."""
    return document(
        "InitiateMultipartUploadResult",
        f"<Bucket>{escape(bucket)}</Bucket><Key>{escape(key)}</Key><UploadId>{escape(upload_id)}</UploadId>",
    )


def complete_multipart_upload_xml(
    location: str,
    bucket: str,
    key: str,
    etag: str,
    checksums: Mapping[str, str] = _NO_CHECKSUMS,
) -> bytes:
    """CompleteMultipartUpload."""
    return document(
        "CompleteMultipartUploadResult",
        f"<Location>{escape(location)}</Location><Bucket>{escape(bucket)}</Bucket><Key>{escape(key)}</Key>"
        f"<ETag>&quot;{escape(etag)}&quot;</ETag>{_checksums_xml(checksums)}",
    )


def list_parts_xml(
    *,
    bucket: str,
    key: str,
    upload: ListedUpload,
    owner: Owner,
    parts: Sequence[ListedPart],
    part_number_marker: int,
    max_parts: int,
    is_truncated: bool,
    encoding_type: str = "",
) -> bytes:
    """ListParts; the next marker is the last part shown."""
    checksum_element = f"Checksum{upload.checksum_algorithm}"
    rows = "".join(
        [
            f"<Part><PartNumber>{part.number}</PartNumber><LastModified>{iso_date(part.modified_ms)}</LastModified>"
            f"<ETag>&quot;{escape(part.etag)}&quot;</ETag><Size>{part.size_bytes}</Size>"
            f"{_optional(checksum_element, part.checksum)}</Part>"
            for part in parts
        ]
    )
    next_marker = parts[-1].number if parts else part_number_marker
    return document(
        "ListPartsResult",
        f"<Bucket>{escape(bucket)}</Bucket><Key>{escape(encode_name(key, encoding_type))}</Key>"
        f"<UploadId>{escape(upload.upload_id)}</UploadId>{_owners_xml(owner)}"
        f"<StorageClass>{upload.storage_class}</StorageClass>"
        f"<PartNumberMarker>{part_number_marker}</PartNumberMarker>"
        f"<NextPartNumberMarker>{next_marker}</NextPartNumberMarker><MaxParts>{max_parts}</MaxParts>"
        f"{_optional('EncodingType', encoding_type)}<IsTruncated>{_bool(is_truncated)}</IsTruncated>"
        f"{_optional('ChecksumAlgorithm', upload.checksum_algorithm)}"
        f"{_optional('ChecksumType', upload.checksum_type)}{rows}",
    )


def _owners_xml(owner: Owner) -> str:
    """Of an upload: it is shown as begun by the account that will own the object."""
    return f"{owner.xml('Initiator')}{owner.xml()}"


def list_multipart_uploads_xml(
    *,
    bucket: str,
    prefix: str,
    delimiter: str,
    key_marker: str,
    upload_id_marker: str,
    max_uploads: int,
    encoding_type: str,
    uploads: Sequence[ListedUpload],
    common_prefixes: Sequence[str],
    is_truncated: bool,
    next_key_marker: str,
    next_upload_id_marker: str,
    owner: Owner,
) -> bytes:
    """ListMultipartUploads; the next markers count only when the page is truncated."""
    rows = "".join(
        [
            f"<Upload><Key>{escape(encode_name(upload.key, encoding_type))}</Key>"
            f"<UploadId>{escape(upload.upload_id)}</UploadId>{_owners_xml(upload.owner or owner)}"
            f"<StorageClass>{upload.storage_class}</StorageClass><Initiated>{iso_date(upload.initiated_ms)}</Initiated>"
            f"{_optional('ChecksumAlgorithm', upload.checksum_algorithm)}"
            f"{_optional('ChecksumType', upload.checksum_type)}</Upload>"
            for upload in uploads
        ]
    )
    more = ""
    if is_truncated:
        more = (
            f"<NextKeyMarker>{escape(encode_name(next_key_marker, encoding_type))}</NextKeyMarker>"
            f"<NextUploadIdMarker>{escape(next_upload_id_marker)}</NextUploadIdMarker>"
        )
    return document(
        "ListMultipartUploadsResult",
        f"<Bucket>{escape(bucket)}</Bucket><KeyMarker>{escape(encode_name(key_marker, encoding_type))}</KeyMarker>"
        f"<UploadIdMarker>{escape(upload_id_marker)}</UploadIdMarker>{more}"
        f"<Prefix>{escape(encode_name(prefix, encoding_type))}</Prefix>"
        f"{_optional('Delimiter', encode_name(delimiter, encoding_type))}<MaxUploads>{max_uploads}</MaxUploads>"
        f"{_optional('EncodingType', encoding_type)}<IsTruncated>{_bool(is_truncated)}</IsTruncated>{rows}"
        + "".join(_prefixes_xml(common_prefixes, encoding_type)),
    )


class DeleteFailure(msgspec.Struct, frozen=True):
    """One key that DeleteObjects could not delete."""

    key: str
    code: str
    message: str
    version_id: str = ""


class DeletedObject(msgspec.Struct, frozen=True):
    """One key, or one version of it, that DeleteObjects deleted."""

    key: str
    version_id: str = ""
    """As it was asked for."""
    marker_version_id: str = ""
    """Of the delete marker that was made, or deleted."""


def delete_objects_xml(deleted: Iterable[DeletedObject], failed: Iterable[DeleteFailure], quiet: bool) -> bytes:
    """DeleteObjects; in quiet mode only failures are shown."""
    rows = []
    if not quiet:
        rows = [
            f"<Deleted><Key>{escape(one.key)}</Key>{_optional('VersionId', one.version_id)}"
            f"{'<DeleteMarker>true</DeleteMarker>' if one.marker_version_id else ''}"
            f"{_optional('DeleteMarkerVersionId', one.marker_version_id)}</Deleted>"
            for one in deleted
        ]
    rows += [
        f"<Error><Key>{escape(failure.key)}</Key>{_optional('VersionId', failure.version_id)}"
        f"<Code>{failure.code}</Code><Message>{escape(failure.message)}</Message></Error>"
        for failure in failed
    ]
    return document("DeleteResult", "".join(rows))


def versioning_xml(status: str = "") -> bytes:
    """GetBucketVersioning; empty where it was never switched on."""
    return document("VersioningConfiguration", _optional("Status", status))


def request_payment_xml() -> bytes:
    """GetBucketRequestPayment: the owner pays."""
    return document("RequestPaymentConfiguration", "<Payer>BucketOwner</Payer>")


def accelerate_xml() -> bytes:
    """GetBucketAccelerateConfiguration: never on."""
    return document("AccelerateConfiguration", "")


def logging_xml() -> bytes:
    """GetBucketLogging: off."""
    return document("BucketLoggingStatus", "")


def notification_xml() -> bytes:
    """GetBucketNotificationConfiguration: none."""
    return document("NotificationConfiguration", "")
