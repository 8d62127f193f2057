"""Multipart uploads: create, part, complete, abort, list.  Copying into a part is in `objects_copy`."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import msgspec

from holdfast_server.api.access import object_acl
from holdfast_server.api.bucket_record import BucketRecord
from holdfast_server.api.call import Call, owner_element
from holdfast_server.api.encryption import check_completing, completed_headers, seal_of_new_object, seal_of_part
from holdfast_server.api.lifecycle import abort_of, expiry_of
from holdfast_server.api.listing import other_owner
from holdfast_server.api.new_object import new_object_headers
from holdfast_server.api.object_lock import require_part_integrity
from holdfast_server.api.objects_put import write_condition
from holdfast_server.api.payload_body import WireBody
from holdfast_server.api.redundancy import redundancy_of
from holdfast_server.api.stored_headers import (
    checksum_elements,
    checksum_headers,
    record_storage_class,
)
from holdfast_server.api.uploads import (
    UploadNotes,
    assembler,
    decode_upload_id,
    encode_upload_id,
    open_upload,
    upload_algorithm,
    upload_id_of,
    upload_notes,
)
from holdfast_server.api.version_ids import refuse_version, written_headers
from holdfast_server.objects.port import Attributes, PartRef, Record, UploadInfo
from holdfast_server.s3.checksums import (
    ALGORITHMS,
    COMPOSITE,
    FULL_OBJECT,
    Algorithm,
    decode_checksum,
    parse_upload_checksum,
    requested_checksum,
)
from holdfast_server.s3.documents_in import MAX_COMPLETE_SIZE_BYTES, parse_complete
from holdfast_server.s3.documents_out import (
    ListedPart,
    ListedUpload,
    complete_multipart_upload_xml,
    create_multipart_upload_xml,
    list_multipart_uploads_xml,
    list_parts_xml,
)
from holdfast_server.s3.errors import S3Error
from holdfast_server.s3.headers import parse_http_date, quote_etag
from holdfast_server.s3.names import (
    MAX_PART_SIZE_BYTES,
    parse_count,
    parse_encoding_type,
    parse_part_number,
    parse_part_number_marker,
)
from holdfast_server.s3.payload import payload_of
from holdfast_server.s3.request import Response
from holdfast_server.sealing.envelope import ties_key

INITIATED_HEADER = "x-amz-if-match-initiated-time"


async def create_multipart_upload(call: Call) -> Response:
    refuse_version(call.query)
    async with call.writing() as lease:
        headers = new_object_headers(call, lease.bucket)
        wanted = parse_upload_checksum(call.headers)
        notes = UploadNotes(wanted[0].name, wanted[1]) if wanted else UploadNotes()
        seal, sealed = await seal_of_new_object(call, lease.bucket)
        if seal is not None:
            notes = msgspec.structs.replace(notes, ties_key=ties_key(seal.key))
        redundancy = await redundancy_of(call, lease.bucket, headers)
        await lease.renew()
        lease.confirm()
        begun_ms = call.services.clock.now_ms()
        sealing = seal.sealing if seal is not None else None
        noted = msgspec.json.encode(notes)
        upload_id = await call.objects.create_upload(lease.bucket.id, call.key, headers, noted, sealing, redundancy)
    answer = call.xml(create_multipart_upload_xml(call.bucket_name, call.key, encode_upload_id(upload_id)))
    answer.headers.update({**abort_of(lease.bucket, call.key, begun_ms), **sealed})
    if wanted:
        answer.headers["x-amz-checksum-algorithm"] = notes.algorithm
        answer.headers["x-amz-checksum-type"] = notes.type
    return answer


async def upload_part(call: Call) -> Response:
    number = parse_part_number(call.query["partNumber"])
    upload_id = upload_id_of(call.query)
    async with call.writing() as lease:
        with_md5 = not lease.bucket.has_opaque_etags
        payload = payload_of(call.headers, call.context, with_md5=with_md5, max_size_bytes=MAX_PART_SIZE_BYTES)
        upload = await open_upload(call, lease.bucket, upload_id)
        require_part_integrity(call, lease.bucket, upload)
        seal, sealed = seal_of_part(call, lease.bucket, upload)
        body = WireBody(payload, call.body, lease, {}, _missing_algorithm(call, upload), seal)
        await call.ticket.stream(payload.max_size_bytes)
        record = await call.objects.put_part(lease.bucket.id, call.key, upload_id, number, body, seal)
    headers = {"etag": quote_etag(record.etag), **checksum_headers(record.checksums), **sealed}
    headers.pop("x-amz-checksum-type", None)
    return Response(status=200, headers=headers)


def _missing_algorithm(call: Call, upload: Record) -> Algorithm | None:
    """The upload's algorithm where the part came without any.  Raises InvalidRequest where it came with another."""
    wanted = upload_algorithm(upload)
    sent = requested_checksum(call.headers)
    if wanted is None or sent is None:
        return wanted
    if sent.algorithm is not wanted:
        raise S3Error(
            "InvalidRequest",
            f"Checksum Type mismatch occurred, expected checksum Type: {wanted.name.lower()}, "
            f"actual checksum Type: {sent.algorithm.name.lower()}",
        )
    return None


async def complete_multipart_upload(call: Call) -> Response:
    upload_id = upload_id_of(call.query)
    bucket = await call.bucket()
    document = await call.small_body(MAX_COMPLETE_SIZE_BYTES, checksum_is_the_objects=True)
    completed = await asyncio.to_thread(parse_complete, document)  # ten thousand parts take 100 ms and more
    parts = [PartRef(part.number, part.etag, part.checksums) for part in completed]
    await call.page(len(parts), len(document))
    assemble = assembler(_expected_checksums(call.headers), _expected_type(call.headers), _expected_size(call.headers))
    condition = await write_condition(call, bucket)
    async with call.writing() as lease:

        def assemble_under_lease(upload: Record, stored: object) -> Attributes:
            check_completing(call, bucket, upload)
            attributes = assemble(upload, stored)  # type: ignore[arg-type]
            lease.confirm()
            return msgspec.structs.replace(attributes, headers=lease.kept(attributes.headers), versioning=lease.keeps)

        await lease.renew()
        record = await call.objects.complete_upload(
            bucket.id, call.key, upload_id, parts, assemble_under_lease, condition
        )
    elements = checksum_elements(record.checksums)
    document_xml = complete_multipart_upload_xml(call.location, call.bucket_name, call.key, record.etag, elements)
    told = {**expiry_of(lease.bucket, call.key, record), **completed_headers(record.sealing)}
    return call.xml(document_xml, **written_headers(record), **told)


def _expected_checksums(headers: Mapping[str, str]) -> dict[str, str]:
    """The whole object's checksum in the head.  The request document has none of its own here: the header
    means the object.  Raises InvalidRequest."""
    found = {name: headers[row.header] for name, row in ALGORITHMS.items() if row.header in headers}
    if len(found) > 1:
        raise S3Error(
            "InvalidRequest", "Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed."
        )
    for name, text in found.items():
        decode_checksum(ALGORITHMS[name], text.partition("-")[0])
    return found


def _expected_type(headers: Mapping[str, str]) -> str:
    """`x-amz-checksum-type`, empty where there is none.  Raises InvalidRequest."""
    text = headers.get("x-amz-checksum-type", "").upper()
    if text not in ("", COMPOSITE, FULL_OBJECT):
        raise S3Error("InvalidRequest", "Value for x-amz-checksum-type header is invalid.")
    return text


def _expected_size(headers: Mapping[str, str]) -> int | None:
    text = headers.get("x-amz-mp-object-size")
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 19):
        raise S3Error("InvalidRequest", "Value for x-amz-mp-object-size header is invalid.")
    return int(text)


async def abort_multipart_upload(call: Call) -> Response:
    """`x-amz-if-match-initiated-time` is about what never changes of an upload, so looking first is enough."""
    upload_id = upload_id_of(call.query)
    text = call.headers.get(INITIATED_HEADER)
    initiated_ms = parse_http_date(text) if text else None
    if text and initiated_ms is None:
        raise S3Error("InvalidArgument", ArgumentName=INITIATED_HEADER, ArgumentValue=text)
    bucket = await call.bucket()
    if initiated_ms is not None:
        upload = await open_upload(call, bucket, upload_id)
        if upload.modified_ms // 1000 != initiated_ms // 1000:
            raise S3Error("PreconditionFailed", Condition=INITIATED_HEADER)
    await call.objects.abort_upload(bucket.id, call.key, upload_id)
    return Response(status=204)


async def list_parts(call: Call) -> Response:
    upload_id = upload_id_of(call.query)
    max_parts = parse_count(call.query, "max-parts")
    marker = parse_part_number_marker(call.query)
    encoding_type = parse_encoding_type(call.query)
    bucket = await call.bucket()
    upload = await open_upload(call, bucket, upload_id)
    await call.page(max_parts)
    found: list[tuple[int, Record]] = []
    truncated = False
    if max_parts:
        found, truncated = await call.objects.list_parts(bucket.id, call.key, upload_id, marker, max_parts)
    algorithm = upload_notes(upload).algorithm
    parts = [
        ListedPart(number, part.modified_ms, part.etag, part.size_bytes, part.checksums.get(algorithm, ""))
        for number, part in found
    ]
    return call.xml(
        list_parts_xml(
            bucket=call.bucket_name,
            key=call.key,
            upload=_listed(UploadInfo(call.key, upload_id, upload), bucket),
            owner=owner_element(object_acl(bucket, upload.headers).owner),
            parts=parts,
            part_number_marker=marker,
            max_parts=max_parts,
            is_truncated=truncated,
            encoding_type=encoding_type,
        ),
        **abort_of(bucket, call.key, upload.modified_ms),
    )


async def list_multipart_uploads(call: Call) -> Response:
    query = call.query
    prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
    key_marker = query.get("key-marker", "")
    upload_id_marker = query.get("upload-id-marker", "") if key_marker else ""
    max_uploads = parse_count(query, "max-uploads")
    encoding_type = parse_encoding_type(query)
    bucket = await call.bucket()
    after = (key_marker, _marked_upload(upload_id_marker) if upload_id_marker else b"")
    await call.page(max_uploads)
    uploads: list[UploadInfo] = []
    prefixes: list[str] = []
    truncated = False
    if max_uploads:
        uploads, prefixes, truncated = await call.objects.list_uploads(
            bucket.id, prefix=prefix, delimiter=delimiter, after=after, limit=max_uploads
        )
    next_key, next_upload = _last_place(uploads, prefixes)
    return call.xml(
        list_multipart_uploads_xml(
            bucket=call.bucket_name,
            prefix=prefix,
            delimiter=delimiter,
            key_marker=key_marker,
            upload_id_marker=upload_id_marker,
            max_uploads=max_uploads,
            encoding_type=encoding_type,
            uploads=[_listed(upload, bucket) for upload in uploads],
            common_prefixes=prefixes,
            is_truncated=truncated,
            next_key_marker=next_key,
            next_upload_id_marker=next_upload,
            owner=owner_element(bucket.account),
        )
    )


def _marked_upload(text: str) -> bytes:
    try:
        return decode_upload_id(text)
    except S3Error as error:
        raise S3Error(
            "InvalidArgument", "Invalid uploadId marker", ArgumentName="upload-id-marker", ArgumentValue=text
        ) from error


def _last_place(uploads: list[UploadInfo], prefixes: list[str]) -> tuple[str, str]:
    last_key = uploads[-1].key if uploads else ""
    if prefixes and prefixes[-1].encode() > last_key.encode():
        return prefixes[-1], ""
    return (last_key, encode_upload_id(uploads[-1].upload_id)) if uploads else ("", "")


def _listed(upload: UploadInfo, bucket: BucketRecord) -> ListedUpload:
    notes = upload_notes(upload.record)
    return ListedUpload(
        key=upload.key,
        upload_id=encode_upload_id(upload.upload_id),
        initiated_ms=upload.record.modified_ms,
        storage_class=record_storage_class(upload.record),
        checksum_algorithm=notes.algorithm,
        checksum_type=notes.type,
        owner=other_owner(bucket, upload.record),
    )
