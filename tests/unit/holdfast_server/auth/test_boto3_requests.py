"""Requests exactly as boto3 puts them on the wire: verified, routed and their bodies decoded.

boto3 builds and signs each request in full; its sending is intercepted, so no server is needed.
"""

import hashlib
import io
from urllib.parse import urlsplit

import boto3
import pytest
from botocore.awsrequest import AWSResponse
from botocore.config import Config

from holdfast_server.auth.principal import Credentials, Principal
from holdfast_server.auth.verified import Authenticator
from holdfast_server.s3.payload import payload_of, verify_small_body
from holdfast_server.s3.request import Request, fold_headers
from holdfast_server.s3.sigv4 import parse_timestamp

KEYS = {"AKID": Credentials(secret_key="secret", principal=Principal(access_key="AKID", user_name="u"))}
KEY = "fake/a b/1:2=3+4%/é"
BODY = bytes(range(256)) * 1000


class Wire:
    """A boto3 client whose requests end here."""

    def __init__(self, endpoint: str, **config) -> None:
        self.sent = None
        self.client = boto3.client(
            "s3",
            endpoint_url=endpoint,
            region_name="us-east-1",
            aws_access_key_id="AKID",
            aws_secret_access_key="secret",
            config=Config(retries={"max_attempts": 1}, **config),
        )
        self.client.meta.events.register("before-send.s3", self._intercept)

    def _intercept(self, request, **_):
        self.sent = request
        raw = io.BytesIO(b"")
        raw.stream = lambda **_: [b""]
        return AWSResponse(request.url, 200, {}, raw)

    def verify(self):
        """The verified request, and its body as on the wire."""
        sent = self.sent
        url = urlsplit(sent.url)
        body = sent.body.read() if hasattr(sent.body, "read") else sent.body or b""
        items = [(name, v.decode() if isinstance(v, bytes) else v) for name, v in sent.headers.items()]
        headers = fold_headers(items)
        headers.setdefault("host", url.netloc)
        headers.setdefault("content-length", str(len(body)))
        now_ms = parse_timestamp(headers["x-amz-date"])
        request = Request(
            method=sent.method,
            raw_path=url.path,
            raw_query=url.query,
            headers=headers,
            remote="",
            received_ms=now_ms,
            secure=url.scheme == "https",
        )
        return Authenticator(lambda key, _: KEYS.get(key)).authenticate(request, now_ms), bytes(body)


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:9000", "https://127.0.0.1:9000"])
@pytest.mark.parametrize("algorithm", ["CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256"])
@pytest.mark.parametrize("stream", [False, True])
def test_put_object_in_every_payload_mode(endpoint, algorithm, stream):
    wire = Wire(endpoint, s3={"addressing_style": "path"})
    body = io.BytesIO(BODY) if stream else BODY
    wire.client.put_object(Bucket="b", Key=KEY, Body=body, ChecksumAlgorithm=algorithm, Metadata={"a": "b  c"})
    verified, raw = wire.verify()
    assert (verified.operation.name, verified.bucket, verified.key) == ("PutObject", "b", KEY)
    payload = payload_of(verified.headers, verified.context)
    received = b""
    for start in range(0, len(raw), 9999):
        for view in payload.decode(raw[start : start + 9999]):
            payload.update(view)
            received += view
    result = payload.finish()
    assert received == BODY
    assert result.checksum_algorithm == algorithm
    assert result.md5_hex == hashlib.md5(BODY).hexdigest()


def test_both_framed_and_plain_bodies_were_seen():
    modes = set()
    for endpoint in ("http://127.0.0.1:9000", "https://127.0.0.1:9000"):
        wire = Wire(endpoint)
        wire.client.put_object(Bucket="b", Key="k", Body=io.BytesIO(BODY))
        modes.add(wire.verify()[0].context.payload_hash)
    assert "STREAMING-UNSIGNED-PAYLOAD-TRAILER" in modes
    assert hashlib.sha256(BODY).hexdigest() in modes


CALLS = [
    ("ListBuckets", lambda c: c.list_buckets()),
    ("CreateBucket", lambda c: c.create_bucket(Bucket="b")),
    ("HeadBucket", lambda c: c.head_bucket(Bucket="b")),
    ("DeleteBucket", lambda c: c.delete_bucket(Bucket="b")),
    ("GetBucketLocation", lambda c: c.get_bucket_location(Bucket="b")),
    ("GetBucketVersioning", lambda c: c.get_bucket_versioning(Bucket="b")),
    ("ListObjects", lambda c: c.list_objects(Bucket="b", Prefix="a b+c", Delimiter="/")),
    ("ListObjectsV2", lambda c: c.list_objects_v2(Bucket="b", Prefix=KEY, ContinuationToken="x=/+", FetchOwner=True)),
    ("GetObject", lambda c: c.get_object(Bucket="b", Key=KEY, Range="bytes=0-1", IfNoneMatch='"x"')),
    ("HeadObject", lambda c: c.head_object(Bucket="b", Key=KEY, VersionId="null")),
    ("DeleteObject", lambda c: c.delete_object(Bucket="b", Key=KEY)),
    ("CopyObject", lambda c: c.copy_object(Bucket="b", Key=KEY, CopySource={"Bucket": "c", "Key": KEY})),
    ("CreateMultipartUpload", lambda c: c.create_multipart_upload(Bucket="b", Key=KEY)),
    ("UploadPart", lambda c: c.upload_part(Bucket="b", Key=KEY, PartNumber=1, UploadId="u", Body=b"x")),
    ("AbortMultipartUpload", lambda c: c.abort_multipart_upload(Bucket="b", Key=KEY, UploadId="u")),
    ("ListParts", lambda c: c.list_parts(Bucket="b", Key=KEY, UploadId="u")),
    ("ListMultipartUploads", lambda c: c.list_multipart_uploads(Bucket="b")),
    (
        "UploadPartCopy",
        lambda c: c.upload_part_copy(Bucket="b", Key=KEY, PartNumber=1, UploadId="u", CopySource=f"c/{KEY}"),
    ),
    ("PutBucketTagging", lambda c: c.put_bucket_tagging(Bucket="b", Tagging={"TagSet": []})),
]


@pytest.mark.parametrize(("name", "call"), CALLS, ids=[name for name, _ in CALLS])
def test_calls_of_boto3_are_verified_and_routed(name, call):
    wire = Wire("http://127.0.0.1:9000", parameter_validation=False)
    try:
        call(wire.client)
    except Exception:
        # The empty answer is no answer to some calls; only the request counts.
        assert wire.sent is not None
    assert wire.verify()[0].operation.name == name


def test_documents_of_boto3_are_verified_and_read():
    from holdfast_server.s3.documents_in import parse_complete, parse_delete

    wire = Wire("http://127.0.0.1:9000")
    wire.client.delete_objects(Bucket="b", Delete={"Objects": [{"Key": KEY}], "Quiet": True})
    verified, raw = wire.verify()
    assert verified.operation.name == "DeleteObjects"
    body = verify_small_body(verified.headers, verified.context, raw, 10_000)
    assert [entry.key for entry in parse_delete(body).entries] == [KEY]
    wire.client.complete_multipart_upload(
        Bucket="b", Key=KEY, UploadId="u", MultipartUpload={"Parts": [{"ETag": '"abc"', "PartNumber": 1}]}
    )
    verified, raw = wire.verify()
    assert verified.operation.name == "CompleteMultipartUpload"
    parts = parse_complete(verify_small_body(verified.headers, verified.context, raw, 10_000))
    assert [(part.number, part.etag) for part in parts] == [(1, "abc")]
