"""botocore as an independent reader: every answer parses into what was meant."""

import functools
from datetime import UTC, datetime

import botocore.parsers
import botocore.session

from holdfast_server.s3 import documents_out
from holdfast_server.s3.acl import acl_xml, private
from holdfast_server.s3.documents_out import (
    DeletedObject,
    DeleteFailure,
    ListedObject,
    ListedPart,
    ListedUpload,
    ObjectPage,
    Owner,
)
from holdfast_server.s3.errors import S3Error, error_xml

OWNER = Owner("a" * 64, "root")
WHEN_MS = 1_763_676_000_123
WHEN = datetime(2025, 11, 20, 22, 0, 0, 123000, tzinfo=UTC)


@functools.cache
def _model():
    return botocore.session.get_session().get_service_model("s3")


def read(operation: str, body: bytes, status: int = 200):
    shape = _model().operation_model(operation).output_shape
    response = {"status_code": status, "headers": {}, "body": body}
    return botocore.parsers.create_parser("rest-xml").parse(response, shape)


def test_buckets():
    parsed = read("ListBuckets", documents_out.list_buckets_xml(OWNER, [("one", WHEN_MS)], "eu"))
    assert parsed["Buckets"] == [{"Name": "one", "CreationDate": WHEN, "BucketRegion": "eu"}]
    assert parsed["Owner"] == {"ID": OWNER.id, "DisplayName": "root"}
    # botocore itself reads the location from the whole body in a handler of its own; the root's text is it.
    assert b">eu<" in documents_out.location_xml("eu")


def test_listings():
    page = ObjectPage(
        bucket="b",
        prefix="p&",
        delimiter="/",
        max_keys=2,
        encoding_type="",
        objects=[ListedObject("p&<k>", WHEN_MS, "etag", 5, "STANDARD", "CRC32", "FULL_OBJECT")],
        common_prefixes=["p&a/"],
        is_truncated=True,
        owner=OWNER,
    )
    second = read("ListObjectsV2", documents_out.list_objects_v2_xml(page, "before", "after", "p&0"))
    listed = second["Contents"][0]
    assert (listed["Key"], listed["ETag"], listed["Size"], listed["LastModified"]) == ("p&<k>", '"etag"', 5, WHEN)
    assert (listed["ChecksumAlgorithm"], listed["ChecksumType"]) == (["CRC32"], "FULL_OBJECT")
    assert listed["Owner"]["ID"] == OWNER.id
    assert second["CommonPrefixes"] == [{"Prefix": "p&a/"}]
    assert (second["KeyCount"], second["MaxKeys"], second["IsTruncated"]) == (2, 2, True)
    assert (second["ContinuationToken"], second["NextContinuationToken"]) == ("before", "after")
    assert (second["StartAfter"], second["Prefix"], second["Delimiter"]) == ("p&0", "p&", "/")
    first = read("ListObjects", documents_out.list_objects_v1_xml(page, "m", "n"))
    assert (first["Marker"], first["NextMarker"], first["Contents"]) == ("m", "n", second["Contents"])


def test_multipart():
    upload = ListedUpload("k", "id", WHEN_MS, "STANDARD", "CRC32", "COMPOSITE")
    created = read("CreateMultipartUpload", documents_out.create_multipart_upload_xml("b", "k", "id"))
    assert (created["Bucket"], created["Key"], created["UploadId"]) == ("b", "k", "id")
    parts = read(
        "ListParts",
        documents_out.list_parts_xml(
            bucket="b",
            key="k",
            upload=upload,
            owner=OWNER,
            parts=[ListedPart(3, WHEN_MS, "e", 9, "AAAAAA==")],
            part_number_marker=2,
            max_parts=1,
            is_truncated=True,
        ),
    )
    assert parts["Parts"] == [
        {"PartNumber": 3, "LastModified": WHEN, "ETag": '"e"', "Size": 9, "ChecksumCRC32": "AAAAAA=="}
    ]
    assert (parts["PartNumberMarker"], parts["NextPartNumberMarker"], parts["IsTruncated"]) == (2, 3, True)
    uploads = read(
        "ListMultipartUploads",
        documents_out.list_multipart_uploads_xml(
            bucket="b",
            prefix="",
            delimiter="",
            key_marker="a",
            upload_id_marker="0",
            max_uploads=1,
            encoding_type="",
            uploads=[upload],
            common_prefixes=[],
            is_truncated=True,
            next_key_marker="k",
            next_upload_id_marker="id",
            owner=OWNER,
        ),
    )
    assert uploads["Uploads"][0]["Initiated"] == WHEN
    assert (uploads["NextKeyMarker"], uploads["NextUploadIdMarker"]) == ("k", "id")
    done = documents_out.complete_multipart_upload_xml("http://h/b/k", "b", "k", "e-1", {"ChecksumCRC32": "x-1"})
    completed = read("CompleteMultipartUpload", done)
    assert (completed["ETag"], completed["ChecksumCRC32"], completed["Location"]) == ('"e-1"', "x-1", "http://h/b/k")


def test_copies_deletes_and_the_rest():
    copied = read("CopyObject", documents_out.copy_object_xml("e", WHEN_MS))["CopyObjectResult"]
    assert (copied["ETag"], copied["LastModified"]) == ('"e"', WHEN)
    part = read("UploadPartCopy", documents_out.copy_part_xml("e", WHEN_MS, {"ChecksumSHA1": "x"}))["CopyPartResult"]
    assert part["ChecksumSHA1"] == "x"
    failure = DeleteFailure("q", "AccessDenied", "Access Denied", "v")
    deleted = read("DeleteObjects", documents_out.delete_objects_xml([DeletedObject("k")], [failure], quiet=False))
    assert deleted["Deleted"] == [{"Key": "k"}]
    assert deleted["Errors"] == [{"Key": "q", "VersionId": "v", "Code": "AccessDenied", "Message": "Access Denied"}]
    assert "Deleted" not in read(
        "DeleteObjects", documents_out.delete_objects_xml([DeletedObject("k")], [], quiet=True)
    )
    acl = read("GetBucketAcl", acl_xml(OWNER, private(OWNER.id), lambda owner: OWNER.display_name))
    assert acl["Grants"][0]["Permission"] == "FULL_CONTROL"
    assert acl["Grants"][0]["Grantee"]["Type"] == "CanonicalUser"
    assert read("GetBucketRequestPayment", documents_out.request_payment_xml())["Payer"] == "BucketOwner"
    assert "Status" not in read("GetBucketVersioning", documents_out.versioning_xml())


def test_errors():
    parsed = read("GetObject", error_xml(S3Error("NoSuchKey", Key="k"), "/b/k", "R1", "H1"), 404)
    assert parsed["Error"]["Code"] == "NoSuchKey"
    assert parsed["Error"]["Key"] == "k"
