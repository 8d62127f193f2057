"""boto3 on what S3 can do beside storing bytes: tags, CORS, policies, grants, forms.

Like `test_s3_clients`, over the API in memory and over four erasure-coded pods; on pods, what was changed through one
is asked of another.
"""

from __future__ import annotations

import asyncio
import http.client
import uuid
from collections.abc import Iterator
from urllib.parse import urlsplit

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from holdfast_server.contract.names import S3_PORT
from holdfast_server.testing.memory_services import Endpoint, memory_services, served
from holdfast_server.testing.pods import PodProcesses

MIB = 1 << 20


@pytest.fixture(scope="module", params=["memory", "pods"])
def endpoints(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Endpoint]]:
    """Of one store; the first is the one that is asked, the last one is asked again."""
    if request.param == "memory":
        with served(memory_services()) as endpoint:
            yield [endpoint]
        return
    pods = PodProcesses(tmp_path_factory.mktemp("pods"), servers=4, volumes=1)
    try:
        asyncio.run(pods.start_all())
        yield [Endpoint(pods.address(i), S3_PORT, pods.access_key, pods.secret_key) for i in range(4)]
    finally:
        pods.stop()


def client_of(endpoint: Endpoint, access_key: str = "", secret_key: str = ""):
    return boto3.client(
        "s3",
        endpoint_url=endpoint.url,
        aws_access_key_id=access_key or endpoint.access_key,
        aws_secret_access_key=secret_key or endpoint.secret_key,
        region_name="us-east-1",
        config=Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 4, "mode": "standard"}),
    )


@pytest.fixture(scope="module")
def s3(endpoints: list[Endpoint]):
    return client_of(endpoints[0])


@pytest.fixture(scope="module")
def elsewhere(endpoints: list[Endpoint]):
    return client_of(endpoints[-1])


@pytest.fixture
def bucket(s3) -> str:
    name = f"test-{uuid.uuid4().hex[:16]}"
    s3.create_bucket(Bucket=name)
    return name


def code_of(raised: pytest.ExceptionInfo[ClientError]) -> str:
    return raised.value.response["Error"]["Code"]


def refused(code: str, call, **arguments: object) -> None:
    with pytest.raises(ClientError) as raised:
        call(**arguments)
    assert code_of(raised) == code


# --- tags


def tag_set(**tags: str) -> dict[str, object]:
    return {"TagSet": [{"Key": key, "Value": value} for key, value in tags.items()]}


@pytest.mark.parametrize("size_bytes", [0, 5, 2 * MIB])
def test_an_objects_tags_are_put_counted_replaced_and_taken_away(s3, elsewhere, bucket: str, size_bytes: int) -> None:
    body = b"x" * size_bytes
    s3.put_object(Bucket=bucket, Key="k", Body=body, Tagging="a=1&b%20c=2", Metadata={"m": "1"})
    put = elsewhere.head_object(Bucket=bucket, Key="k")
    assert put["TagCount"] == 2
    assert elsewhere.get_object_tagging(Bucket=bucket, Key="k")["TagSet"] == tag_set(**{"a": "1", "b c": "2"})["TagSet"]
    s3.put_object_tagging(Bucket=bucket, Key="k", Tagging=tag_set(ünï="日"))
    assert elsewhere.get_object_tagging(Bucket=bucket, Key="k")["TagSet"] == tag_set(ünï="日")["TagSet"]
    tagged = elsewhere.get_object(Bucket=bucket, Key="k")
    assert tagged["Body"].read() == body
    for kept in ("ETag", "LastModified", "Metadata", "ContentType"):
        assert tagged[kept] == put[kept]
    assert not any(name.startswith("x-holdfast") for name in tagged["ResponseMetadata"]["HTTPHeaders"])
    s3.delete_object_tagging(Bucket=bucket, Key="k")
    assert elsewhere.get_object_tagging(Bucket=bucket, Key="k")["TagSet"] == []
    assert "TagCount" not in elsewhere.head_object(Bucket=bucket, Key="k")


def test_tags_that_are_refused_change_nothing(s3, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Tagging="a=1")
    refused("InvalidTag", s3.put_object_tagging, Bucket=bucket, Key="k", Tagging=tag_set(**{"x" * 129: "v"}))
    many = tag_set(**{f"k{number}": "v" for number in range(11)})
    refused("InvalidTag", s3.put_object_tagging, Bucket=bucket, Key="k", Tagging=many)
    refused("InvalidArgument", s3.put_object, Bucket=bucket, Key="k", Body=b"new", Tagging="a=1&a=2")
    refused("NoSuchKey", s3.put_object_tagging, Bucket=bucket, Key="absent", Tagging=tag_set(a="1"))
    refused("NoSuchKey", s3.get_object_tagging, Bucket=bucket, Key="absent")
    refused("NoSuchKey", s3.delete_object_tagging, Bucket=bucket, Key="absent")
    refused("NoSuchBucket", s3.put_object_tagging, Bucket=f"{bucket}-no", Key="k", Tagging=tag_set(a="1"))
    assert s3.get_object_tagging(Bucket=bucket, Key="k")["TagSet"] == tag_set(a="1")["TagSet"]


def test_a_copy_takes_the_tags_along_or_gets_others(s3, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", Tagging="a=1", Metadata={"m": "1"})
    source = {"Bucket": bucket, "Key": "k"}
    s3.copy_object(Bucket=bucket, Key="same", CopySource=source)
    s3.copy_object(Bucket=bucket, Key="other", CopySource=source, TaggingDirective="REPLACE", Tagging="b=2")
    s3.copy_object(Bucket=bucket, Key="none", CopySource=source, TaggingDirective="REPLACE")
    s3.copy_object(Bucket=bucket, Key="meta", CopySource=source, MetadataDirective="REPLACE", Metadata={"n": "2"})
    found = {key: s3.get_object_tagging(Bucket=bucket, Key=key)["TagSet"] for key in ("same", "other", "none", "meta")}
    assert found == {
        "same": tag_set(a="1")["TagSet"],
        "other": tag_set(b="2")["TagSet"],
        "none": [],
        "meta": tag_set(a="1")["TagSet"],
    }
    assert s3.head_object(Bucket=bucket, Key="other")["Metadata"] == {"m": "1"}
    assert s3.head_object(Bucket=bucket, Key="meta")["Metadata"] == {"n": "2"}


def test_an_upload_gives_its_tags_to_the_object(s3, bucket: str) -> None:
    upload = s3.create_multipart_upload(Bucket=bucket, Key="k", Tagging="a=1")["UploadId"]
    part = s3.upload_part(Bucket=bucket, Key="k", UploadId=upload, PartNumber=1, Body=b"x")
    parts = [{"PartNumber": 1, "ETag": part["ETag"]}]
    s3.complete_multipart_upload(Bucket=bucket, Key="k", UploadId=upload, MultipartUpload={"Parts": parts})
    assert s3.get_object_tagging(Bucket=bucket, Key="k")["TagSet"] == tag_set(a="1")["TagSet"]
    s3.put_object_tagging(Bucket=bucket, Key="k", Tagging=tag_set(b="2"))
    assert s3.get_object(Bucket=bucket, Key="k", PartNumber=1)["Body"].read() == b"x"


def test_a_bucket_has_tags_of_its_own(s3, elsewhere, bucket: str) -> None:
    refused("NoSuchTagSet", s3.get_bucket_tagging, Bucket=bucket)
    s3.put_bucket_tagging(Bucket=bucket, Tagging=tag_set(team="one", cost="2"))
    assert elsewhere.get_bucket_tagging(Bucket=bucket)["TagSet"] == tag_set(team="one", cost="2")["TagSet"]
    refused("InvalidTag", s3.put_bucket_tagging, Bucket=bucket, Tagging=tag_set(**{"aws:x": "v"}))
    elsewhere.delete_bucket_tagging(Bucket=bucket)
    refused("NoSuchTagSet", s3.get_bucket_tagging, Bucket=bucket)
    refused("NoSuchBucket", s3.put_bucket_tagging, Bucket=f"{bucket}-no", Tagging=tag_set(a="1"))


def test_a_bucket_that_could_not_be_deleted_keeps_its_settings(s3, elsewhere, bucket: str) -> None:
    s3.put_bucket_tagging(Bucket=bucket, Tagging=tag_set(a="1"))
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    refused("BucketNotEmpty", elsewhere.delete_bucket, Bucket=bucket)
    assert s3.get_bucket_tagging(Bucket=bucket)["TagSet"] == tag_set(a="1")["TagSet"]


# --- CORS


def raw(endpoint: Endpoint, method: str, target: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
    """As a browser sends it: status, headers in lower case, body."""
    connection = http.client.HTTPConnection(endpoint.host, endpoint.port, timeout=60)
    try:
        connection.request(method, target, headers={name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def path_of(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.path}?{parts.query}"


RULES = [
    {
        "ID": "app",
        "AllowedOrigins": ["https://*.example.org"],
        "AllowedMethods": ["GET", "PUT"],
        "AllowedHeaders": ["x-amz-*", "Content-Type"],
        "ExposeHeaders": ["ETag"],
        "MaxAgeSeconds": 60,
    },
    {"AllowedOrigins": ["*"], "AllowedMethods": ["HEAD"]},
]


def test_cross_origin_rules_are_kept_shown_and_taken_away(s3, elsewhere, bucket: str) -> None:
    refused("NoSuchCORSConfiguration", s3.get_bucket_cors, Bucket=bucket)
    s3.put_bucket_cors(Bucket=bucket, CORSConfiguration={"CORSRules": RULES})
    assert elsewhere.get_bucket_cors(Bucket=bucket)["CORSRules"] == RULES
    bad = [{"AllowedOrigins": ["*"], "AllowedMethods": ["PATCH"]}]
    refused("InvalidRequest", s3.put_bucket_cors, Bucket=bucket, CORSConfiguration={"CORSRules": bad})
    assert elsewhere.get_bucket_cors(Bucket=bucket)["CORSRules"] == RULES
    elsewhere.delete_bucket_cors(Bucket=bucket)
    refused("NoSuchCORSConfiguration", s3.get_bucket_cors, Bucket=bucket)


def test_a_preflight_needs_no_signature_and_goes_by_the_rules(endpoints, s3, bucket: str) -> None:
    asked = {"Origin": "https://a.example.org", "Access_Control_Request_Method": "PUT"}
    status, _, body = raw(endpoints[-1], "OPTIONS", f"/{bucket}/k", **asked)
    assert (status, b"AccessForbidden" in body) == (403, True)
    s3.put_bucket_cors(Bucket=bucket, CORSConfiguration={"CORSRules": RULES})
    wanted = {**asked, "Access_Control_Request_Headers": "X-Amz-Date, content-type"}
    status, headers, body = raw(endpoints[-1], "OPTIONS", f"/{bucket}/k?X-Amz-Signature=1", **wanted)
    assert (status, body) == (200, b"")
    assert headers["access-control-allow-origin"] == "https://a.example.org"
    assert headers["access-control-allow-methods"] == "GET, PUT"
    assert headers["access-control-allow-headers"] == "x-amz-date, content-type"
    assert headers["access-control-expose-headers"] == "ETag"
    assert headers["access-control-max-age"] == "60"
    assert headers["access-control-allow-credentials"] == "true"
    assert "Origin" in headers["vary"]
    for other in (
        {**asked, "Origin": "https://example.com"},
        {**asked, "Access_Control_Request_Method": "DELETE"},
        {**asked, "Access_Control_Request_Headers": "authorization"},
    ):
        status, headers, _ = raw(endpoints[-1], "OPTIONS", f"/{bucket}/k", **other)
        assert status == 403
        assert "access-control-allow-origin" not in headers
    assert raw(endpoints[0], "OPTIONS", f"/{bucket}/k")[0] == 400
    assert raw(endpoints[0], "OPTIONS", f"/{bucket}-no/k", **asked)[0] == 404


def test_answers_and_errors_tell_a_browser_what_its_rule_says(endpoints, s3, elsewhere, bucket: str) -> None:
    s3.put_bucket_cors(Bucket=bucket, CORSConfiguration={"CORSRules": RULES})
    s3.put_object(Bucket=bucket, Key="k", Body=b"x" * MIB)
    origin = {"Origin": "https://a.example.org"}
    got = elsewhere.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "k"})
    status, headers, body = raw(endpoints[-1], "GET", path_of(got), **origin)
    assert (status, len(body)) == (200, MIB)
    assert headers["access-control-allow-origin"] == "https://a.example.org"
    assert headers["access-control-expose-headers"] == "ETag"
    status, headers, _ = raw(endpoints[-1], "GET", f"/{bucket}/k", **origin)
    assert (status, headers["access-control-allow-origin"]) == (403, "https://a.example.org")
    status, headers, _ = raw(endpoints[-1], "HEAD", f"/{bucket}/k", Origin="null")
    assert (status, headers["access-control-allow-origin"]) == (403, "*")
    assert "access-control-allow-credentials" not in headers
    status, headers, _ = raw(endpoints[-1], "GET", f"/{bucket}/k", Origin="https://other")
    assert (status, "access-control-allow-origin" in headers) == (403, False)
    assert "access-control-allow-origin" not in raw(endpoints[-1], "GET", path_of(got))[1]
