"""What ETags objects and parts get where their bucket has opaque ones, and what goes on as it was."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import http.client
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import msgspec
import pytest
import xxhash

from holdfast_server.api.bucket_record import OPAQUE, BucketRecord, decode, encode
from holdfast_server.api.etags import BodyEtag
from holdfast_server.api.sealing_keys import SealingKeys
from holdfast_server.api.services import Services
from holdfast_server.main import run
from holdfast_server.objects.record import INLINE_LIMIT_BYTES
from holdfast_server.s3.checksums import ALGORITHMS, multipart_etag
from holdfast_server.sealing.ring import KeyRing
from holdfast_server.testing.boto import client_of, refusal
from holdfast_server.testing.memory_services import ROOT_PASSWORD, ROOT_USER, Endpoint, memory_services, served

PLAIN, OPAQUE_BUCKET = "plain", "opaque"
SMALL = b"s" * INLINE_LIMIT_BYTES
LARGE = b"l" * (INLINE_LIMIT_BYTES + 1)
PART = b"p" * (5 << 20)


class Pods:
    """What the pods of the tenant are said to know."""

    def __init__(self) -> None:
        self.know = True


@pytest.fixture
def pods() -> Pods:
    return Pods()


@pytest.fixture
def services(pods: Pods) -> Services:
    sealing = SealingKeys(ring=lambda: KeyRing({"default.1": b"1" * 32}))
    return dataclasses.replace(memory_services(), sealing=sealing, every_pod_takes_opaque_etags=lambda: pods.know)


@pytest.fixture
def endpoint(services: Services) -> Iterator[Endpoint]:
    with served(services) as found:
        yield found


def admin(endpoint: Endpoint, *arguments: str) -> int:
    keys = {"AWS_ACCESS_KEY_ID": ROOT_USER, "AWS_SECRET_ACCESS_KEY": ROOT_PASSWORD}
    return run(["admin", "bucket", "etag", *arguments], {"AWS_ENDPOINT_URL_S3": endpoint.url, **keys})


@pytest.fixture
def s3(endpoint: Endpoint) -> Iterator[Any]:
    client = client_of(endpoint, attempts=2)
    client.create_bucket(Bucket=PLAIN)
    client.create_bucket(Bucket=OPAQUE_BUCKET)
    assert admin(endpoint, OPAQUE_BUCKET, "--set", "Opaque") == 0
    yield client
    client.close()


def md5(body: bytes) -> str:
    return f'"{hashlib.md5(body).hexdigest()}"'


def opaque(body: bytes) -> str:
    return f'"{xxhash.xxh3_128_hexdigest(body)}-1"'


def refused(ask: Any, **asked: Any) -> str:
    return refusal(ask, Bucket=OPAQUE_BUCKET, Key="k", **asked)


def complete(s3: Any, *parts: bytes, bucket: str = OPAQUE_BUCKET, **options: Any) -> tuple[list[str], str]:
    """ETags of the parts and of the object."""
    upload = s3.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]
    named = {"Bucket": bucket, "Key": "k", "UploadId": upload}
    etags = [s3.upload_part(**named, PartNumber=n, Body=body)["ETag"] for n, body in enumerate(parts, 1)]
    assert [part["ETag"] for part in s3.list_parts(**named)["Parts"]] == etags
    listed = [{"PartNumber": number, "ETag": etag} for number, etag in enumerate(etags, 1)]
    return etags, s3.complete_multipart_upload(**named, MultipartUpload={"Parts": listed}, **options)["ETag"]


def test_a_large_body_gets_an_opaque_etag_where_the_bucket_says_so_and_nowhere_else(s3: Any) -> None:
    for body, wanted in ((LARGE, opaque(LARGE)), (SMALL, md5(SMALL)), (b"", md5(b""))):
        etag = s3.put_object(Bucket=OPAQUE_BUCKET, Key="k", Body=body)["ETag"]
        assert etag == wanted
        got = s3.get_object(Bucket=OPAQUE_BUCKET, Key="k")
        assert (got["ETag"], got["Body"].read()) == (etag, body)
        assert s3.list_objects_v2(Bucket=OPAQUE_BUCKET)["Contents"][0]["ETag"] == etag
        told = s3.get_object_attributes(Bucket=OPAQUE_BUCKET, Key="k", ObjectAttributes=["ETag", "ObjectParts"])
        assert told["ETag"] == etag.strip('"')
        assert "ObjectParts" not in told
        assert s3.put_object(Bucket=PLAIN, Key="k", Body=body)["ETag"] == md5(body)


def test_the_form_is_that_of_an_object_of_one_part(s3: Any) -> None:
    etag = s3.put_object(Bucket=OPAQUE_BUCKET, Key="k", Body=LARGE)["ETag"]
    assert re.fullmatch('"[0-9a-f]{32}-1"', etag)
    assert s3.put_object(Bucket=OPAQUE_BUCKET, Key="other", Body=LARGE)["ETag"] == etag, "it tells the content"
    assert s3.put_object(Bucket=OPAQUE_BUCKET, Key="other", Body=LARGE + b"m")["ETag"] != etag


def test_no_byte_of_a_large_body_is_hashed_with_md5(s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[int] = []

    class Counting:
        def __init__(self) -> None:
            self._md5 = hashlib.md5()

        def update(self, data: bytes) -> None:
            hashed.append(len(data))
            self._md5.update(data)

        def digest(self) -> bytes:
            return self._md5.digest()

    monkeypatch.setitem(ALGORITHMS, "MD5", msgspec.structs.replace(ALGORITHMS["MD5"], new=Counting))
    s3.put_object(Bucket=OPAQUE_BUCKET, Key="k", Body=LARGE)
    complete(s3, PART, LARGE)
    s3.copy_object(Bucket=OPAQUE_BUCKET, Key="copy", CopySource=f"{OPAQUE_BUCKET}/k")
    assert hashed == []
    s3.put_object(Bucket=PLAIN, Key="k", Body=LARGE)
    assert sum(hashed) == len(LARGE)


def test_what_the_client_says_the_md5_is_gets_compared_and_is_the_etag(s3: Any) -> None:
    given = base64.b64encode(hashlib.md5(LARGE).digest()).decode()
    assert s3.put_object(Bucket=OPAQUE_BUCKET, Key="k", Body=LARGE, ContentMD5=given)["ETag"] == md5(LARGE)
    assert refused(s3.put_object, Body=LARGE + b"m", ContentMD5=given) == "BadDigest"
    assert s3.head_object(Bucket=OPAQUE_BUCKET, Key="k")["ETag"] == md5(LARGE)
    upload = s3.create_multipart_upload(Bucket=OPAQUE_BUCKET, Key="k")["UploadId"]
    named = {"UploadId": upload, "PartNumber": 1}
    told = s3.upload_part(Bucket=OPAQUE_BUCKET, Key="k", Body=LARGE, ContentMD5=given, **named)
    assert told["ETag"] == md5(LARGE)
    assert refused(s3.upload_part, Body=LARGE + b"m", ContentMD5=given, **named) == "BadDigest"


@pytest.mark.parametrize("algorithm", ["CRC32", "CRC64NVME", "SHA256"])
def test_other_checksums_are_compared_as_ever(s3: Any, algorithm: str) -> None:
    put = s3.put_object(Bucket=OPAQUE_BUCKET, Key="k", Body=LARGE, ChecksumAlgorithm=algorithm)
    assert put["ETag"] == opaque(LARGE)
    assert f"Checksum{algorithm}" in put
    sent = {f"Checksum{algorithm}": put[f"Checksum{algorithm}"]}
    assert refused(s3.put_object, Body=LARGE + b"m", **sent) == "BadDigest"


@pytest.mark.parametrize("piece_bytes", [1000, 1 << 20])
def test_in_whatever_pieces_a_body_comes_its_etag_is_the_same(piece_bytes: int) -> None:
    bucket = BucketRecord(id=b"b", name="b", owner="root", region="r", created_ms=1, etags=OPAQUE)
    for body, wanted in ((SMALL, md5(SMALL)), (LARGE, opaque(LARGE))):
        etag = BodyEtag(decode(encode(bucket)))
        for start in range(0, len(body), piece_bytes):
            etag.update(memoryview(body)[start : start + piece_bytes])
        assert f'"{etag.finish(None)}"' == wanted


def test_an_upload_is_completed_from_opaque_and_other_parts(s3: Any) -> None:
    parts, etag = complete(s3, PART, LARGE)
    assert parts == [opaque(PART), opaque(LARGE)]
    whole = hashlib.md5(bytes.fromhex(xxhash.xxh3_128_hexdigest(PART) + xxhash.xxh3_128_hexdigest(LARGE)))
    assert etag == f'"{whole.hexdigest()}-2"'
    assert s3.head_object(Bucket=OPAQUE_BUCKET, Key="k")["ETag"] == etag
    assert s3.get_object(Bucket=OPAQUE_BUCKET, Key="k")["Body"].read() == PART + LARGE
    parts, etag = complete(s3, PART, b"small")
    assert parts == [opaque(PART), md5(b"small")]
    assert etag.endswith('-2"')
    assert complete(s3, PART, LARGE, bucket=PLAIN)[0] == [md5(PART), md5(LARGE)]


def test_a_part_is_named_by_the_etag_it_got(s3: Any) -> None:
    upload = s3.create_multipart_upload(Bucket=OPAQUE_BUCKET, Key="k")["UploadId"]
    s3.upload_part(Bucket=OPAQUE_BUCKET, Key="k", UploadId=upload, PartNumber=1, Body=LARGE)
    for wrong in (md5(LARGE), opaque(LARGE).replace("-1", ""), opaque(LARGE).replace("-1", "-2")):
        parts = {"Parts": [{"PartNumber": 1, "ETag": wrong}]}
        assert refused(s3.complete_multipart_upload, UploadId=upload, MultipartUpload=parts) == "InvalidPart"


def test_the_setting_may_change_within_an_upload(s3: Any, endpoint: Endpoint) -> None:
    upload = s3.create_multipart_upload(Bucket=OPAQUE_BUCKET, Key="k")["UploadId"]
    named = {"Bucket": OPAQUE_BUCKET, "Key": "k", "UploadId": upload}
    first = s3.upload_part(**named, PartNumber=1, Body=PART)["ETag"]
    assert admin(endpoint, OPAQUE_BUCKET, "--set", "MD5") == 0
    second = s3.upload_part(**named, PartNumber=2, Body=LARGE)["ETag"]
    assert (first, second) == (opaque(PART), md5(LARGE))
    parts = [{"PartNumber": 1, "ETag": first}, {"PartNumber": 2, "ETag": second}]
    assert s3.complete_multipart_upload(**named, MultipartUpload={"Parts": parts})["ETag"].endswith('-2"')


def test_a_copy_has_the_etag_of_the_bucket_it_goes_to(s3: Any) -> None:
    for bucket in (PLAIN, OPAQUE_BUCKET):
        s3.put_object(Bucket=bucket, Key="k", Body=LARGE)
    for source, target, wanted in (
        (PLAIN, OPAQUE_BUCKET, opaque(LARGE)),
        (OPAQUE_BUCKET, PLAIN, md5(LARGE)),
        (OPAQUE_BUCKET, OPAQUE_BUCKET, opaque(LARGE)),
    ):
        copied = s3.copy_object(Bucket=target, Key="copy", CopySource=f"{source}/k")["CopyObjectResult"]["ETag"]
        assert copied == wanted == s3.head_object(Bucket=target, Key="copy")["ETag"]
        upload = s3.create_multipart_upload(Bucket=target, Key="parts")["UploadId"]
        named = {"Bucket": target, "Key": "parts", "UploadId": upload}
        part = s3.upload_part_copy(**named, PartNumber=1, CopySource=f"{source}/k")["CopyPartResult"]["ETag"]
        assert part == wanted
        s3.complete_multipart_upload(**named, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part}]})
        assert s3.get_object(Bucket=target, Key="parts")["Body"].read() == LARGE
    match = {"CopySourceIfMatch": opaque(LARGE)}
    s3.copy_object(Bucket=PLAIN, Key="copy", CopySource=f"{OPAQUE_BUCKET}/k", **match)
    assert refused(s3.copy_object, CopySource=f"{PLAIN}/k", **match) == "PreconditionFailed"


def test_conditions_go_by_opaque_etags(s3: Any) -> None:
    first = s3.put_object(Bucket=OPAQUE_BUCKET, Key="k", Body=LARGE)["ETag"]
    assert refused(s3.put_object, Body=b"", IfNoneMatch=first) == "PreconditionFailed"
    second = s3.put_object(Bucket=OPAQUE_BUCKET, Key="k", Body=LARGE + b"2", IfMatch=first)["ETag"]
    assert refused(s3.put_object, Body=b"", IfMatch=first) == "PreconditionFailed"
    assert refused(s3.get_object, IfNoneMatch=second) == "304"
    assert refused(s3.get_object, IfMatch=first) == "PreconditionFailed"
    assert s3.get_object(Bucket=OPAQUE_BUCKET, Key="k", IfMatch=second)["Body"].read() == LARGE + b"2"
    _, third = complete(s3, LARGE, IfMatch=second)
    assert refused(s3.delete_object, IfMatch=second) == "PreconditionFailed"
    s3.delete_object(Bucket=OPAQUE_BUCKET, Key="k", IfMatch=third)


def test_a_form_goes_by_the_bucket_too(s3: Any) -> None:
    for body, wanted in ((LARGE, opaque(LARGE)), (SMALL, md5(SMALL))):
        form = s3.generate_presigned_post(OPAQUE_BUCKET, "form", {"success_action_status": "204"},
                                          [{"success_action_status": "204"}])  # fmt: skip
        lines = [
            f'--frontier\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
            for name, value in form["fields"].items()
        ]
        head = "".join(lines) + '--frontier\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n'
        url = urlsplit(form["url"])
        connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=60)
        types = {"Content-Type": "multipart/form-data; boundary=frontier"}
        connection.request("POST", url.path, head.encode() + body + b"\r\n--frontier--\r\n", types)
        answer = connection.getresponse()
        assert (answer.status, answer.getheader("etag")) == (204, wanted)
        connection.close()


@pytest.mark.parametrize("algorithm", ["AES256", "aws:kms"])
def test_what_is_encrypted_keeps_its_form(s3: Any, algorithm: str) -> None:
    etag = s3.put_object(Bucket=OPAQUE_BUCKET, Key="k", Body=LARGE, ServerSideEncryption=algorithm)["ETag"]
    again = s3.put_object(Bucket=OPAQUE_BUCKET, Key="k", Body=LARGE, ServerSideEncryption=algorithm)["ETag"]
    assert re.fullmatch('"[0-9a-f]{32}-1"', etag)
    shown = algorithm == "AES256"
    assert (etag == opaque(LARGE), again == etag) == (shown, shown), "no digest of what only its key may open is shown"
    upload = s3.create_multipart_upload(Bucket=OPAQUE_BUCKET, Key="k", ServerSideEncryption=algorithm)["UploadId"]
    named = {"Bucket": OPAQUE_BUCKET, "Key": "k", "UploadId": upload}
    part = s3.upload_part(**named, PartNumber=1, Body=LARGE)["ETag"]
    assert re.fullmatch('"[0-9a-f]{32}-1"', part)
    s3.complete_multipart_upload(**named, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part}]})
    assert s3.get_object(Bucket=OPAQUE_BUCKET, Key="k")["Body"].read() == LARGE


def test_not_before_every_pod_completes_such_uploads(s3: Any, endpoint: Endpoint, pods: Pods) -> None:
    pods.know = False
    assert admin(endpoint, PLAIN, "--set", "Opaque") == 1
    assert s3.put_object(Bucket=PLAIN, Key="k", Body=LARGE)["ETag"] == md5(LARGE)
    assert admin(endpoint, OPAQUE_BUCKET, "--set", "Opaque") == 0, "it is so already"
    assert admin(endpoint, OPAQUE_BUCKET, "--set", "MD5") == 0
    assert s3.put_object(Bucket=OPAQUE_BUCKET, Key="k", Body=LARGE)["ETag"] == md5(LARGE)


def test_the_setting_is_shown(s3: Any, endpoint: Endpoint, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert admin(endpoint, PLAIN) == admin(endpoint, OPAQUE_BUCKET) == 0
    assert admin(endpoint, OPAQUE_BUCKET, "--json") == 0
    told = capsys.readouterr().out
    assert told.startswith("plain: MD5\nopaque: Opaque\n")
    assert '"etag": "Opaque"' in told
    assert admin(endpoint, "absent", "--set", "Opaque") == 1


def test_the_etag_of_parts_takes_the_digests_alone() -> None:
    digest = "0f" * 16
    assert multipart_etag([digest, f"{digest}-1"]) == multipart_etag([digest, digest])
