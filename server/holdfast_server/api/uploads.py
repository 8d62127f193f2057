"""Multipart uploads: their public ids, what is remembered at their start, how parts become an object.

`assemble` is pure: it decides over stored parts and refuses or yields the object's attributes.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence

import msgspec

from holdfast_server.api.bucket_record import BucketRecord
from holdfast_server.api.call import Call
from holdfast_server.api.stored_headers import TYPE
from holdfast_server.objects.port import Assemble, Attributes, PartRef, Record
from holdfast_server.objects.sealed import ties_of
from holdfast_server.s3 import checksums
from holdfast_server.s3.checksums import ALGORITHMS, Algorithm
from holdfast_server.s3.errors import S3Error
from holdfast_server.s3.names import MAX_OBJECT_SIZE_BYTES, MIN_PART_SIZE_BYTES, parse_upload_id
from holdfast_server.sealing.envelope import Sealing, tie_parts

UPLOAD_ID_SIZE_BYTES = 16


class UploadNotes(msgspec.Struct, frozen=True):
    """Kept in the upload's record: the checksum its object will have.  Empty where none was asked for."""

    algorithm: str = ""
    type: str = ""
    ties_key: bytes = b""
    """Of one whose parts are sealed: what ties them together (`sealing.envelope`)."""


def encode_upload_id(upload_id: bytes) -> str:
    """URL-safe, opaque to clients."""
    return base64.urlsafe_b64encode(upload_id).decode().rstrip("=")


def decode_upload_id(text: str) -> bytes:
    """Raises NoSuchUpload."""
    try:
        upload_id = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except ValueError as error:
        raise S3Error("NoSuchUpload", UploadId=text) from error
    if len(upload_id) != UPLOAD_ID_SIZE_BYTES or encode_upload_id(upload_id) != text:
        raise S3Error("NoSuchUpload", UploadId=text)
    return upload_id


def upload_id_of(query: Mapping[str, str]) -> bytes:
    """`uploadId` of a request.  Raises NoSuchUpload."""
    return decode_upload_id(parse_upload_id(query))


def upload_notes(upload: Record) -> UploadNotes:
    return msgspec.json.decode(upload.body, type=UploadNotes) if upload.body else UploadNotes()


def upload_algorithm(upload: Record) -> Algorithm | None:
    name = upload_notes(upload).algorithm
    return ALGORITHMS.get(name) if name else None


async def open_upload(call: Call, bucket: BucketRecord, upload_id: bytes) -> Record:
    """The upload of this request's key.  Raises NoSuchUpload."""
    upload = await call.objects.get_upload(bucket.id, call.key, upload_id)
    if upload is None:
        raise S3Error("NoSuchUpload", UploadId=encode_upload_id(upload_id))
    return upload


def assembler(expected: Mapping[str, str], expected_type: str, object_size_bytes: int | None) -> Assemble:
    """What CompleteMultipartUpload decides once the stored parts are known.

    `expected` are the whole object's checksums as the client sent them (algorithm → base64), `expected_type` their
    type or empty, `object_size_bytes` the size it expects.
    """

    def assemble(upload: Record, parts: Sequence[tuple[PartRef, Record | None]]) -> Attributes:
        _check_asked(upload_notes(upload), expected, expected_type)
        algorithm = upload_notes(upload).algorithm
        stored = [_checked_part(ref, record, algorithm) for ref, record in parts]
        for (ref, _), record in zip(parts[:-1], stored[:-1], strict=True):
            if record.size_bytes < MIN_PART_SIZE_BYTES:
                raise S3Error(
                    "EntityTooSmall",
                    ProposedSize=record.size_bytes,
                    MinSizeAllowed=MIN_PART_SIZE_BYTES,
                    PartNumber=ref.number,
                    ETag=ref.etag,
                )
        size_bytes = sum(record.size_bytes for record in stored)
        if size_bytes > MAX_OBJECT_SIZE_BYTES:
            raise S3Error("EntityTooLarge", ProposedSize=size_bytes, MaxSizeAllowed=MAX_OBJECT_SIZE_BYTES)
        if object_size_bytes is not None and object_size_bytes != size_bytes:
            raise S3Error(
                "InvalidRequest", "The provided 'x-amz-mp-object-size' header does not match what was computed"
            )
        etag = checksums.multipart_etag([record.etag for record in stored])
        return Attributes(
            etag=etag,
            headers=upload.headers,
            checksums=_object_checksums(upload, stored, expected),
            sealing=_tied(upload, parts, stored),
        )

    return assemble


def _check_asked(notes: UploadNotes, expected: Mapping[str, str], expected_type: str) -> None:
    """Another checksum or type than the upload was begun with could not be compared, so it is refused.  Where it was
    begun with none the object has none, and what a client sends of one is passed over, as AWS does.  Raises
    InvalidRequest, BadDigest."""
    for name in expected:
        if notes.algorithm and name != notes.algorithm:
            raise S3Error(
                "InvalidRequest",
                f"Checksum Type mismatch occurred, expected checksum Type: {notes.algorithm.lower()}, "
                f"actual checksum Type: {name.lower()}",
            )
    if expected_type and expected_type != (notes.type or checksums.FULL_OBJECT):
        raise S3Error(
            "BadDigest",
            f"The x-amz-checksum-type you specified, {expected_type}, is not that of the upload: "
            f"{notes.type or checksums.FULL_OBJECT}.",
        )


def _tied(upload: Record, parts: Sequence[tuple[PartRef, object]], stored: Sequence[Record]) -> Sealing | None:
    """How the object is sealed, which says of which parts it is."""
    if upload.sealing is None:
        return None
    numbered = zip((ref.number for ref, _ in parts), stored, strict=True)
    return msgspec.structs.replace(upload.sealing, ties=tie_parts(upload_notes(upload).ties_key, ties_of(numbered)))


def _checked_part(ref: PartRef, record: Record | None, algorithm: str) -> Record:
    """Raises InvalidPart, and BadDigest for a checksum that a part of such an upload does not have."""
    if record is None or record.etag != ref.etag:
        raise S3Error("InvalidPart", PartNumber=ref.number, ETag=ref.etag)
    for name, value in ref.checksums.items():
        if algorithm and name not in record.checksums:
            raise S3Error(
                "BadDigest", f"The {name.lower()} you specified for part {ref.number} did not match what we received."
            )
        if name in record.checksums and record.checksums[name] != value:
            raise S3Error("InvalidPart", PartNumber=ref.number, ETag=ref.etag)
    return record


def _object_checksums(upload: Record, parts: Sequence[Record], expected: Mapping[str, str]) -> dict[str, str]:
    """The object's checksum out of its parts' ones.  Raises BadDigest, InvalidPart."""
    notes = upload_notes(upload)
    algorithm = ALGORITHMS.get(notes.algorithm)
    if algorithm is None:
        return {}
    digests: list[tuple[bytes, int]] = []
    for record in parts:
        text = record.checksums.get(algorithm.name)
        if text is None:
            raise S3Error("InvalidPart", "A part has no checksum of the algorithm the upload was begun with.")
        digests.append((base64.b64decode(text), record.size_bytes))
    whole = checksums.combine_parts(algorithm, notes.type, digests)
    sent = expected.get(algorithm.name)
    if sent is not None and sent not in (whole, whole.partition("-")[0]):
        raise S3Error("BadDigest", f"The {algorithm.name} you specified did not match the calculated checksum.")
    return {algorithm.name: whole, TYPE: notes.type}
