"""GetObjectAttributes: ETag, checksums, parts, size and storage class of an object, without its headers."""

from __future__ import annotations

from collections.abc import Mapping

from holdfast_server.api.call import Call
from holdfast_server.api.encryption import check_key
from holdfast_server.api.stored_headers import algorithm_of, checksum_elements, record_storage_class, validators
from holdfast_server.api.version_ids import asked_version, present, version_headers
from holdfast_server.objects.port import Record
from holdfast_server.s3.checksums import ALGORITHMS
from holdfast_server.s3.documents_out import document
from holdfast_server.s3.errors import S3Error
from holdfast_server.s3.names import parse_count, parse_part_number_marker
from holdfast_server.s3.request import Response
from holdfast_server.s3.xml_text import escape

WANTED_HEADER = "x-amz-object-attributes"
ATTRIBUTES = frozenset({"ETag", "Checksum", "ObjectParts", "StorageClass", "ObjectSize"})


async def get_object_attributes(call: Call) -> Response:
    """Raises InvalidArgument for an attribute that is none, InvalidRequest where none is asked for."""
    wanted = _wanted(call.headers)
    max_parts = parse_count({"max-parts": call.headers.get("x-amz-max-parts", "")}, "max-parts")
    marker = parse_part_number_marker({"part-number-marker": call.headers.get("x-amz-part-number-marker", "")})
    version = asked_version(call.query)
    bucket = await call.bucket()
    record = present(await call.objects.head_object(bucket.id, call.key, version), bucket, call.key, version)
    call.require_of(bucket, record, "s3:GetObject" if version is None else "s3:GetObjectVersion", call.key)
    check_key(call, bucket, record)
    parts = []
    if "ETag" in wanted:
        parts.append(f"<ETag>{escape(record.etag)}</ETag>")
    elements = checksum_elements(record.checksums)
    if "Checksum" in wanted and elements:
        rows = "".join(f"<{name}>{escape(value)}</{name}>" for name, value in elements.items())
        parts.append(f"<Checksum>{rows}</Checksum>")
    if "ObjectParts" in wanted and record.parts:
        parts.append(_parts_xml(record, max_parts, marker))
    if "StorageClass" in wanted:
        parts.append(f"<StorageClass>{record_storage_class(record)}</StorageClass>")
    if "ObjectSize" in wanted:
        parts.append(f"<ObjectSize>{record.size_bytes}</ObjectSize>")
    told = {"last-modified": validators(record)["last-modified"], **version_headers(record, bucket)}
    answer = call.xml(document("GetObjectAttributesResponse", "".join(parts)))
    answer.headers.update(told)
    return answer


def _wanted(headers: Mapping[str, str]) -> frozenset[str]:
    text = headers.get(WANTED_HEADER, "")
    wanted = frozenset(name.strip() for name in text.split(",") if name.strip())
    if not wanted:
        raise S3Error(
            "InvalidRequest",
            "The x-amz-object-attributes header specifying the attributes to be retrieved is either missing or empty",
        )
    if not wanted <= ATTRIBUTES:
        raise S3Error(
            "InvalidArgument", "Invalid attribute name specified.", ArgumentName=WANTED_HEADER, ArgumentValue=text
        )
    return wanted


def _parts_xml(record: Record, max_parts: int, marker: int) -> str:
    """A page of the parts, each with its own checksum where the object was put together with one."""
    following = [part for part in record.parts if part.number > marker]
    shown = following[:max_parts]
    algorithm = algorithm_of(record.checksums)
    element = ALGORITHMS[algorithm].element if algorithm else ""
    rows = "".join(
        f"<Part><PartNumber>{part.number}</PartNumber><Size>{part.size_bytes}</Size>"
        + (f"<{element}>{escape(part.checksum)}</{element}>" if element and part.checksum else "")
        + "</Part>"
        for part in shown
    )
    return (
        f"<ObjectParts><PartsCount>{len(record.parts)}</PartsCount><PartNumberMarker>{marker}</PartNumberMarker>"
        f"<NextPartNumberMarker>{shown[-1].number if shown else marker}</NextPartNumberMarker>"
        f"<MaxParts>{max_parts}</MaxParts><IsTruncated>{'true' if len(following) > len(shown) else 'false'}"
        f"</IsTruncated>{rows}</ObjectParts>"
    )
