"""boto3 against a real HTTP endpoint: what every S3 client needs, in every payload mode.

`endpoint` is the only fixture that knows what is served: the API over the in-memory object layer, then four
erasure-coded pods as real processes.  The tests use nothing but its URL and root keys.
"""

from __future__ import annotations

import datetime
import hashlib
import http.client
import uuid
from contextlib import closing
from urllib.parse import urlsplit

import pytest
from botocore.exceptions import ClientError

from holdfast_server.testing.boto import client_of, code_of
from holdfast_server.testing.memory_services import Endpoint

MIB = 1 << 20
HARD_KEYS = [
    "with space",
    "colon:1a2b:3c",
    "equals=x/plus+plus",
    "percent%41%2Bliteral",
    "umlaut-äöü-日本語-🙂",
    "a//b/../c/./d",
    "-leading~tilde*star'quote\"",
    "k" * 1024,
]


@pytest.fixture(scope="module")
def endpoint(endpoints: list[Endpoint]) -> Endpoint:
    return endpoints[0]


@pytest.fixture(scope="module")
def s3(endpoint: Endpoint):
    with closing(client_of(endpoint)) as client:
        yield client


def pattern(size_bytes: int) -> bytes:
    block = hashlib.sha256(str(size_bytes).encode()).digest()
    return (block * (size_bytes // len(block) + 1))[:size_bytes]


# --- buckets


def test_buckets_are_created_found_listed_and_deleted(s3) -> None:
    name = f"test-{uuid.uuid4().hex[:16]}"
    s3.create_bucket(Bucket=name)
    assert s3.head_bucket(Bucket=name)["BucketRegion"] == "us-east-1"
    assert name in [entry["Name"] for entry in s3.list_buckets()["Buckets"]]
    assert s3.get_bucket_location(Bucket=name)["LocationConstraint"] is None
    s3.delete_bucket(Bucket=name)
    with pytest.raises(ClientError) as raised:
        s3.head_bucket(Bucket=name)
    assert code_of(raised) == "404"


def test_creating_a_bucket_twice_is_creating_it_once(s3, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    s3.create_bucket(Bucket=bucket)
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"x"
    with pytest.raises(ClientError) as raised:
        s3.create_bucket(Bucket=bucket, ObjectOwnership="ObjectWriter")
    assert code_of(raised) == "BucketAlreadyExists"


@pytest.mark.parametrize("name", ["health", "UPPER", "a.-b", "xn--abc"])
def test_bad_bucket_names_are_refused(s3, name: str) -> None:
    with pytest.raises(ClientError) as raised:
        s3.create_bucket(Bucket=name)
    assert code_of(raised) == "InvalidBucketName"


def test_a_bucket_with_objects_is_not_deleted(s3, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    with pytest.raises(ClientError) as raised:
        s3.delete_bucket(Bucket=bucket)
    assert code_of(raised) == "BucketNotEmpty"
    s3.put_object(Bucket=bucket, Key="k2", Body=b"still writable")


def test_a_bucket_made_again_does_not_show_old_objects(s3, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    s3.delete_object(Bucket=bucket, Key="k")
    s3.delete_bucket(Bucket=bucket)
    s3.create_bucket(Bucket=bucket)
    assert "Contents" not in s3.list_objects_v2(Bucket=bucket)


def test_absent_buckets_are_told(s3) -> None:
    for call in (
        lambda: s3.put_object(Bucket="absent-bucket", Key="k", Body=b"x"),
        lambda: s3.get_object(Bucket="absent-bucket", Key="k"),
        lambda: s3.list_objects_v2(Bucket="absent-bucket"),
    ):
        with pytest.raises(ClientError) as raised:
            call()
        assert code_of(raised) == "NoSuchBucket"


# --- objects in every payload mode


@pytest.mark.parametrize("size_bytes", [0, 1, 70_000, 3 * MIB + 17])
@pytest.mark.parametrize(
    "config",
    [
        {},
        {"request_checksum_calculation": "when_required"},
        {
            "request_checksum_calculation": "when_required",
            "s3": {"addressing_style": "path", "payload_signing_enabled": True},
        },
        {"s3": {"addressing_style": "path", "payload_signing_enabled": True}},
    ],
    ids=["default", "unsigned", "signed", "signed-crc"],
)
def test_objects_round_trip(endpoint: Endpoint, bucket: str, config: dict, size_bytes: int) -> None:
    data = pattern(size_bytes)
    with closing(client_of(endpoint, **config)) as s3:
        put = s3.put_object(Bucket=bucket, Key="k", Body=data, Metadata={"a": "b"}, ContentType="text/x-test")
        got = s3.get_object(Bucket=bucket, Key="k")
        assert got["Body"].read() == data
    assert put["ETag"] == f'"{hashlib.md5(data).hexdigest()}"'
    assert got["ContentLength"] == size_bytes
    assert got["Metadata"] == {"a": "b"}
    assert got["ContentType"] == "text/x-test"
    assert got["ETag"] == put["ETag"]


@pytest.mark.parametrize("algorithm", ["CRC32", "CRC32C", "SHA1", "SHA256", "CRC64NVME"])
@pytest.mark.parametrize("as_trailer", [False, True])
def test_checksums_come_back_as_sent(s3, bucket: str, algorithm: str, as_trailer: bool, tmp_path) -> None:
    data = pattern(200_000)
    path = tmp_path / "body"
    path.write_bytes(data)
    with path.open("rb") as file:
        put = s3.put_object(Bucket=bucket, Key="k", Body=file if as_trailer else data, ChecksumAlgorithm=algorithm)
    got = s3.get_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")
    assert got["Body"].read() == data
    assert got[f"Checksum{algorithm}"] == put[f"Checksum{algorithm}"]
    assert got["ChecksumType"] == "FULL_OBJECT"


@pytest.mark.parametrize("key", HARD_KEYS, ids=range(len(HARD_KEYS)))
def test_hard_keys_are_kept_byte_for_byte(s3, bucket: str, key: str) -> None:
    s3.put_object(Bucket=bucket, Key=key, Body=key.encode())
    assert s3.get_object(Bucket=bucket, Key=key)["Body"].read() == key.encode()
    assert [entry["Key"] for entry in s3.list_objects_v2(Bucket=bucket)["Contents"]] == [key]
    if len(key) < 1000:
        s3.copy_object(Bucket=bucket, Key="copy", CopySource={"Bucket": bucket, "Key": key})
        assert s3.get_object(Bucket=bucket, Key="copy")["Body"].read() == key.encode()
    s3.delete_object(Bucket=bucket, Key=key)
    with pytest.raises(ClientError) as raised:
        s3.get_object(Bucket=bucket, Key=key)
    assert code_of(raised) == "NoSuchKey"


def test_deleting_an_absent_key_is_no_error(s3, bucket: str) -> None:
    assert s3.delete_object(Bucket=bucket, Key="never")["ResponseMetadata"]["HTTPStatusCode"] == 204


def test_presigned_urls_work_for_get_and_put(endpoint: Endpoint, bucket: str) -> None:
    def send(method: str, url: str, body: bytes | None = None) -> tuple[int, bytes]:
        parts = urlsplit(url)
        connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=10)
        connection.request(method, f"{parts.path}?{parts.query}", body)
        response = connection.getresponse()
        answer = response.status, response.read()
        connection.close()
        return answer

    params = {"Bucket": bucket, "Key": "a key/ü"}
    with closing(client_of(endpoint, signature_version="s3v4")) as s3v4:
        urls = {verb: s3v4.generate_presigned_url(f"{verb}_object", Params=params) for verb in ("put", "get", "head")}
    assert send("PUT", urls["put"], b"presigned")[0] == 200
    assert send("GET", urls["get"]) == (200, b"presigned")
    assert send("HEAD", urls["head"]) == (200, b"")
    tampered = urls["get"].replace("a%20key", "b%20key")
    status, answer = send("GET", tampered)
    assert status == 403
    assert b"SignatureDoesNotMatch" in answer


# --- reading


def test_ranges_conditions_and_overrides(s3, bucket: str) -> None:
    data = pattern(100_000)
    etag = s3.put_object(Bucket=bucket, Key="k", Body=data)["ETag"]

    def get(**options: object):
        answer = s3.get_object(Bucket=bucket, Key="k", **options)
        return {**answer, "data": answer["Body"].read()}

    part = get(Range="bytes=10-19")
    assert part["data"] == data[10:20]
    assert part["ContentRange"] == "bytes 10-19/100000"
    assert part["ResponseMetadata"]["HTTPStatusCode"] == 206
    assert get(Range="bytes=-5")["data"] == data[-5:]
    assert get(Range="bytes=99999-")["data"] == data[-1:]
    assert get(IfMatch=etag)["ContentLength"] == 100_000
    for options, code in (
        ({"Range": "bytes=100000-"}, "InvalidRange"),
        ({"IfNoneMatch": etag}, "304"),
        ({"IfMatch": '"other"'}, "PreconditionFailed"),
        ({"IfModifiedSince": datetime.datetime.now(datetime.UTC)}, "304"),
        ({"VersionId": "abc"}, "InvalidArgument"),
        ({"PartNumber": 2}, "InvalidPartNumber"),
    ):
        with pytest.raises(ClientError) as raised:
            get(**options)
        assert code_of(raised) == code
    overridden = get(ResponseContentType="x/y", ResponseContentDisposition='attachment; filename="f"')
    assert overridden["ContentType"] == "x/y"
    assert overridden["ContentDisposition"] == 'attachment; filename="f"'
    head = s3.head_object(Bucket=bucket, Key="k")
    assert (head["ContentLength"], head["ETag"]) == (100_000, etag)
    assert s3.head_object(Bucket=bucket, Key="k", Range="bytes=0-9")["ContentLength"] == 10


def test_writes_only_if_absent_or_unchanged(s3, bucket: str) -> None:
    etag = s3.put_object(Bucket=bucket, Key="lock", Body=b"1", IfNoneMatch="*")["ETag"]
    for options in ({"IfNoneMatch": "*"}, {"IfMatch": '"0"'}):
        with pytest.raises(ClientError) as raised:
            s3.put_object(Bucket=bucket, Key="lock", Body=b"2", **options)
        assert code_of(raised) == "PreconditionFailed"
    s3.put_object(Bucket=bucket, Key="lock", Body=b"3", IfMatch=etag)
    assert s3.get_object(Bucket=bucket, Key="lock")["Body"].read() == b"3"


# --- copy


def test_copies_keep_or_replace_metadata(s3, bucket: str) -> None:
    source = {"Bucket": bucket, "Key": "from + here"}
    data = pattern(2 * MIB + 5)
    s3.put_object(Bucket=bucket, Key=source["Key"], Body=data, Metadata={"a": "1"}, ContentType="x/y")
    s3.copy_object(Bucket=bucket, Key="kept", CopySource=source)
    kept = s3.get_object(Bucket=bucket, Key="kept")
    assert (kept["Body"].read(), kept["Metadata"], kept["ContentType"]) == (data, {"a": "1"}, "x/y")
    s3.copy_object(Bucket=bucket, Key="new", CopySource=source, MetadataDirective="REPLACE", Metadata={"b": "2"})
    assert s3.head_object(Bucket=bucket, Key="new")["Metadata"] == {"b": "2"}
    with pytest.raises(ClientError) as raised:
        s3.copy_object(Bucket=bucket, Key=source["Key"], CopySource=source)
    assert code_of(raised) == "InvalidRequest"
    s3.copy_object(
        Bucket=bucket, Key=source["Key"], CopySource=source, MetadataDirective="REPLACE", Metadata={"c": "3"}
    )
    assert s3.get_object(**source)["Body"].read() == data
    with pytest.raises(ClientError) as raised:
        s3.copy_object(Bucket=bucket, Key="x", CopySource=source, CopySourceIfMatch='"no"')
    assert code_of(raised) == "PreconditionFailed"


# --- listing


def test_listing_pages_through_keys_and_prefixes(s3, bucket: str) -> None:
    keys = [f"a/{number:02}" for number in range(12)] + ["b", "c/x", "c/y", "d e", "ü"]
    for key in keys:
        s3.put_object(Bucket=bucket, Key=key, Body=b"1")
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, PaginationConfig={"PageSize": 5})
    assert [entry["Key"] for page in pages for entry in page.get("Contents", [])] == sorted(keys)
    for operation in ("list_objects_v2", "list_objects"):
        found, prefixes = [], []
        pages = s3.get_paginator(operation).paginate(Bucket=bucket, Delimiter="/", PaginationConfig={"PageSize": 2})
        for page in pages:
            found += [entry["Key"] for entry in page.get("Contents", [])]
            prefixes += [entry["Prefix"] for entry in page.get("CommonPrefixes", [])]
        assert (found, prefixes) == (["b", "d e", "ü"], ["a/", "c/"])
    under = s3.list_objects_v2(Bucket=bucket, Prefix="a/", StartAfter="a/09", FetchOwner=True)
    assert [entry["Key"] for entry in under["Contents"]] == ["a/10", "a/11"]
    assert under["Contents"][0]["Owner"]["DisplayName"]
    nothing = s3.list_objects_v2(Bucket=bucket, MaxKeys=0)
    assert (nothing["KeyCount"], nothing["IsTruncated"]) == (0, False)
    with pytest.raises(ClientError) as raised:
        s3.list_objects_v2(Bucket=bucket, ContinuationToken="no token!")
    assert code_of(raised) == "InvalidArgument"


def test_many_keys_are_deleted_at_once(s3, bucket: str) -> None:
    for number in range(20):
        s3.put_object(Bucket=bucket, Key=f"k{number}", Body=b"1")
    entries = [{"Key": f"k{number}"} for number in range(25)] + [{"Key": "versioned", "VersionId": "v1"}]
    answer = s3.delete_objects(Bucket=bucket, Delete={"Objects": entries})
    assert len(answer["Deleted"]) == 25
    assert [(failed["Key"], failed["Code"]) for failed in answer["Errors"]] == [("versioned", "InvalidArgument")]
    assert "Contents" not in s3.list_objects_v2(Bucket=bucket)
    assert "Deleted" not in s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "x"}], "Quiet": True})


# --- multipart


@pytest.mark.parametrize("algorithm", [None, "CRC32", "SHA256", "CRC64NVME"])
def test_multipart_uploads(s3, bucket: str, algorithm: str | None) -> None:
    parts = [pattern(5 * MIB), pattern(5 * MIB + 3), pattern(100)]
    checked = {"ChecksumAlgorithm": algorithm} if algorithm else {}
    upload = s3.create_multipart_upload(Bucket=bucket, Key="big", Metadata={"m": "1"}, **checked)["UploadId"]
    where = {"Bucket": bucket, "Key": "big", "UploadId": upload}
    sent = []
    for number, data in enumerate(parts, start=1):
        answer = s3.upload_part(**where, PartNumber=number, Body=data, **checked)
        fields = {name: value for name, value in answer.items() if name.startswith("Checksum")} if algorithm else {}
        sent.append({"PartNumber": number, "ETag": answer["ETag"].strip('"'), **fields})
    assert [part["PartNumber"] for part in s3.list_parts(**where, MaxParts=2)["Parts"]] == [1, 2]
    assert s3.list_multipart_uploads(Bucket=bucket)["Uploads"][0]["UploadId"] == upload
    done = s3.complete_multipart_upload(**where, MultipartUpload={"Parts": sent})
    digests = b"".join(hashlib.md5(data).digest() for data in parts)
    assert done["ETag"] == f'"{hashlib.md5(digests).hexdigest()}-3"'
    got = s3.get_object(Bucket=bucket, Key="big", ChecksumMode="ENABLED")
    assert got["Body"].read() == b"".join(parts)
    assert got["Metadata"] == {"m": "1"}
    assert s3.get_object(Bucket=bucket, Key="big", PartNumber=2)["Body"].read() == parts[1]
    assert s3.head_object(Bucket=bucket, Key="big", PartNumber=1)["PartsCount"] == 3
    assert "Uploads" not in s3.list_multipart_uploads(Bucket=bucket)
    again = s3.complete_multipart_upload(**where, MultipartUpload={"Parts": sent})
    assert again["ETag"] == done["ETag"]


def test_bad_completions_are_refused_and_change_nothing(s3, bucket: str) -> None:
    upload = s3.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]
    where = {"Bucket": bucket, "Key": "k", "UploadId": upload}
    etags = [s3.upload_part(**where, PartNumber=number, Body=b"small")["ETag"] for number in (1, 2)]
    for parts, code in (
        ([(1, etags[0]), (2, etags[1])], "EntityTooSmall"),
        ([(2, etags[1]), (1, etags[0])], "InvalidPartOrder"),
        ([(1, '"00000000000000000000000000000000"')], "InvalidPart"),
        ([(3, etags[0])], "InvalidPart"),
    ):
        with pytest.raises(ClientError) as raised:
            s3.complete_multipart_upload(
                **where, MultipartUpload={"Parts": [{"PartNumber": number, "ETag": etag} for number, etag in parts]}
            )
        assert code_of(raised) == code
    s3.abort_multipart_upload(**where)
    for call in (
        lambda: s3.abort_multipart_upload(**where),
        lambda: s3.list_parts(**where),
        lambda: s3.upload_part(**where, PartNumber=1, Body=b"x"),
        lambda: s3.complete_multipart_upload(**where, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": etags[0]}]}),
    ):
        with pytest.raises(ClientError) as raised:
            call()
        assert code_of(raised) == "NoSuchUpload"


def test_parts_are_copied_from_ranges(s3, bucket: str) -> None:
    data = pattern(6 * MIB)
    s3.put_object(Bucket=bucket, Key="source", Body=data)
    upload = s3.create_multipart_upload(Bucket=bucket, Key="target")["UploadId"]
    where = {"Bucket": bucket, "Key": "target", "UploadId": upload}
    source = {"Bucket": bucket, "Key": "source"}
    ranges = [(0, 5 * MIB - 1), (5 * MIB, 6 * MIB - 1)]
    parts = []
    for number, (first, last) in enumerate(ranges, start=1):
        answer = s3.upload_part_copy(
            **where, PartNumber=number, CopySource=source, CopySourceRange=f"bytes={first}-{last}"
        )
        parts.append({"PartNumber": number, "ETag": answer["CopyPartResult"]["ETag"]})
    s3.complete_multipart_upload(**where, MultipartUpload={"Parts": parts})
    assert s3.get_object(Bucket=bucket, Key="target")["Body"].read() == data


def test_high_level_transfers(s3, bucket: str, tmp_path) -> None:
    path = tmp_path / "file"
    path.write_bytes(pattern(20 * MIB + 1))
    s3.upload_file(str(path), bucket, "transferred")
    s3.download_file(bucket, "transferred", str(tmp_path / "back"))
    assert (tmp_path / "back").read_bytes() == path.read_bytes()


# --- what is off, and what is not there


def test_unconfigured_features_say_so(s3, bucket: str) -> None:
    assert s3.get_bucket_acl(Bucket=bucket)["Grants"][0]["Permission"] == "FULL_CONTROL"
    assert "Status" not in s3.get_bucket_versioning(Bucket=bucket)
    with pytest.raises(ClientError) as raised:
        s3.get_bucket_policy(Bucket=bucket)
    assert code_of(raised) == "NoSuchBucketPolicy"


def test_unimplemented_operations_change_nothing(s3, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"1")
    for call in (
        lambda: s3.put_bucket_replication(Bucket=bucket, ReplicationConfiguration={"Role": "r", "Rules": []}),
        lambda: s3.restore_object(Bucket=bucket, Key="k"),
        lambda: s3.put_object(Bucket=bucket, Key="k", Body=b"2", ServerSideEncryption="AES256"),
    ):
        with pytest.raises(ClientError) as raised:
            call()
        assert code_of(raised) == "NotImplemented"
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"1"


def test_the_first_version_of_listing_pages_by_keys(s3, bucket: str) -> None:
    for key in ("a", "d/1", "d/2", "e+ &", "ü"):
        s3.put_object(Bucket=bucket, Key=key, Body=b"x")
    shown, marker = [], ""
    while True:
        page = s3.list_objects(Bucket=bucket, Delimiter="/", MaxKeys=1, Marker=marker)
        shown += [entry["Key"] for entry in page.get("Contents", [])]
        shown += [entry["Prefix"] for entry in page.get("CommonPrefixes", [])]
        if not page["IsTruncated"]:
            break
        marker = page["NextMarker"]
    assert shown == ["a", "d/", "e+ &", "ü"]
    assert page["Contents"][0]["Owner"]["ID"] == s3.list_buckets()["Owner"]["ID"]


def test_open_uploads_are_paged_with_prefixes(s3, bucket: str) -> None:
    keys = ["a", "a", "d/1", "d/2", "e", "ü/x"]
    for key in keys:
        s3.create_multipart_upload(Bucket=bucket, Key=key)
    pages = s3.get_paginator("list_multipart_uploads").paginate(
        Bucket=bucket, Delimiter="/", PaginationConfig={"PageSize": 1, "MaxItems": 20}
    )
    found, prefixes = [], []
    for page in pages:
        found += [upload["Key"] for upload in page.get("Uploads", [])]
        prefixes += [entry["Prefix"] for entry in page.get("CommonPrefixes", [])]
    assert (found, prefixes) == (["a", "a", "e"], ["d/", "ü/"])
    s3.delete_bucket(Bucket=bucket)
