"""boto3 on what S3 can do beside storing bytes: tags, CORS, policies, grants, forms.

Like `test_s3_clients`, over the API in memory and over four erasure-coded pods; on pods, what was changed through one
is asked of another.
"""

from __future__ import annotations

import http.client
import json
import uuid
from functools import partial
from urllib.parse import urlsplit

import boto3
import pytest
from botocore import UNSIGNED
from botocore.config import Config

from holdfast_server.admin.client import AdminClient
from holdfast_server.auth.principal import account_id, canonical_id
from holdfast_server.contract.admin import UserSpec
from holdfast_server.s3.acl import ALL_USERS
from holdfast_server.s3.signing import KeyPair
from holdfast_server.testing import boto
from holdfast_server.testing.boto import refusal
from holdfast_server.testing.memory_services import Endpoint

MIB = 1 << 20
SECRET = "secret-of-others"


client_of = partial(boto.client_of, attempts=4)


@pytest.fixture(scope="module")
def s3(endpoints: list[Endpoint]):
    return client_of(endpoints[0])


@pytest.fixture(scope="module")
def elsewhere(endpoints: list[Endpoint]):
    return client_of(endpoints[-1])


def refused(code: str, call, **arguments: object) -> None:
    assert refusal(call, **arguments) == code


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
    answer = s3.put_bucket_tagging(Bucket=bucket, Tagging=tag_set(team="one", cost="2"))
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 200
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


# --- who may what: accounts, policies, grants


@pytest.fixture(scope="module")
def others(endpoints: list[Endpoint]):
    """Clients of other accounts, both with the policy readwrite, and of nobody."""
    first = endpoints[0]
    admin = AdminClient(first.url, KeyPair(first.access_key, first.secret_key))
    clients = []
    for name in ("anna", "bert"):
        admin.put_user(f"{name}key", UserSpec(secret_key=SECRET, name=name, policies=["readwrite"], account=name))
        clients.append(client_of(endpoints[0], f"{name}key", SECRET))
    nobody = boto3.client(
        "s3",
        endpoint_url=endpoints[-1].url,
        region_name="us-east-1",
        config=Config(s3={"addressing_style": "path"}, signature_version=UNSIGNED),
    )
    return (*clients, nobody)


def statement(effect: str, action: object, bucket: str, principal: object = "*", **more: object) -> dict[str, object]:
    resources = [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"]
    return {"Effect": effect, "Principal": principal, "Action": action, "Resource": resources, **more}


def policy(*statements: dict[str, object]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


def put_policy(s3, bucket: str, *statements: dict[str, object]) -> None:
    s3.put_bucket_policy(Bucket=bucket, Policy=policy(*statements))


def test_a_policy_lets_in_and_keeps_out_and_deny_wins(s3, others, bucket: str) -> None:
    anna, bert, nobody = others
    s3.put_object(Bucket=bucket, Key="open/k", Body=b"x")
    for client in (anna, nobody):
        refused("AccessDenied", client.get_object, Bucket=bucket, Key="open/k")
        refused("AccessDenied", client.list_objects_v2, Bucket=bucket)
    arn = f"arn:aws:iam::{account_id('anna')}:user/anna"
    put_policy(s3, bucket, statement("Allow", ["s3:GetObject", "s3:ListBucket"], bucket, {"AWS": arn}))
    assert anna.get_object(Bucket=bucket, Key="open/k")["Body"].read() == b"x"
    refused("NoSuchKey", anna.get_object, Bucket=bucket, Key="absent")
    refused("AccessDenied", anna.put_object, Bucket=bucket, Key="k", Body=b"")
    refused("AccessDenied", bert.get_object, Bucket=bucket, Key="open/k")
    refused("AccessDenied", nobody.get_object, Bucket=bucket, Key="open/k")
    put_policy(s3, bucket, statement("Allow", "s3:GetObject", bucket), statement("Deny", "s3:*", bucket, {"AWS": arn}))
    assert nobody.get_object(Bucket=bucket, Key="open/k")["Body"].read() == b"x"
    refused("AccessDenied", nobody.get_object, Bucket=bucket, Key="absent")
    refused("AccessDenied", anna.get_object, Bucket=bucket, Key="open/k")
    assert s3.get_bucket_policy_status(Bucket=bucket)["PolicyStatus"] == {"IsPublic": True}
    # Root is kept out too, but for the policy itself.
    put_policy(s3, bucket, statement("Deny", "s3:*", bucket))
    refused("AccessDenied", s3.get_object, Bucket=bucket, Key="open/k")
    assert json.loads(s3.get_bucket_policy(Bucket=bucket)["Policy"])["Statement"][0]["Effect"] == "Deny"
    s3.delete_bucket_policy(Bucket=bucket)
    assert s3.get_object(Bucket=bucket, Key="open/k")["Body"].read() == b"x"
    refused("NoSuchBucketPolicy", s3.get_bucket_policy, Bucket=bucket)


def test_conditions_see_the_request_and_the_objects_tags(s3, others, bucket: str) -> None:
    anna = others[0]
    s3.put_object(Bucket=bucket, Key="a", Body=b"a", Tagging="security=public")
    s3.put_object(Bucket=bucket, Key="b", Body=b"b", Tagging="security=private")
    tagged = {"StringEquals": {"s3:ExistingObjectTag/security": "public"}}
    listed = {"StringLike": {"s3:prefix": "pub/*"}}
    canned = {"StringEquals": {"s3:x-amz-storage-class": "REDUCED_REDUNDANCY"}}
    put_policy(
        s3,
        bucket,
        statement("Allow", "s3:GetObject", bucket, Condition=tagged),
        statement("Allow", "s3:ListBucket", bucket, Condition=listed),
        statement("Allow", "s3:PutObject", bucket, Condition=canned),
    )
    assert anna.get_object(Bucket=bucket, Key="a")["Body"].read() == b"a"
    refused("AccessDenied", anna.get_object, Bucket=bucket, Key="b")
    assert anna.list_objects_v2(Bucket=bucket, Prefix="pub/")["KeyCount"] == 0
    refused("AccessDenied", anna.list_objects_v2, Bucket=bucket)
    refused("NoSuchKey", anna.get_object, Bucket=bucket, Key="pub/absent")
    refused("AccessDenied", anna.get_object, Bucket=bucket, Key="absent")
    anna.put_object(Bucket=bucket, Key="c", Body=b"c", StorageClass="REDUCED_REDUNDANCY")
    refused("AccessDenied", anna.put_object, Bucket=bucket, Key="c", Body=b"c")
    source = {"Bucket": bucket, "Key": "b"}
    anna.create_bucket(Bucket=f"anna-{bucket}")
    refused("AccessDenied", anna.copy_object, Bucket=f"anna-{bucket}", Key="b", CopySource=source)


@pytest.mark.parametrize(
    "statements",
    [
        [],
        [{"Effect": "Allow"}],
        [{"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::elsewhere/*"}],
        [{"Effect": "Allow", "NotPrincipal": "*", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::{}/*"}],
        [{"Effect": "Allow", "Principal": {"AWS": "no principal"}, "Action": "s3:*", "Resource": "arn:aws:s3:::{}/*"}],
    ],
)
def test_a_malformed_policy_is_refused(s3, bucket: str, statements: list[dict[str, object]]) -> None:
    text = json.dumps({"Version": "2012-10-17", "Statement": statements}).replace("{}", bucket)
    refused("MalformedPolicy", s3.put_bucket_policy, Bucket=bucket, Policy=text)
    refused("MalformedPolicy", s3.put_bucket_policy, Bucket=bucket, Policy="no policy")
    refused("NoSuchBucketPolicy", s3.get_bucket_policy, Bucket=bucket)


def test_the_public_access_block_takes_back_what_everybody_is_given(s3, others, bucket: str) -> None:
    nobody = others[2]
    refused("NoSuchPublicAccessBlockConfiguration", s3.get_public_access_block, Bucket=bucket)
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    put_policy(s3, bucket, statement("Allow", "s3:GetObject", bucket))
    assert nobody.get_object(Bucket=bucket, Key="k")["Body"].read() == b"x"
    block = {"BlockPublicPolicy": True, "RestrictPublicBuckets": True}
    s3.put_public_access_block(Bucket=bucket, PublicAccessBlockConfiguration=block)
    off = {"BlockPublicAcls": False, "IgnorePublicAcls": False}
    assert s3.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"] == {**off, **block}
    refused("AccessDenied", nobody.get_object, Bucket=bucket, Key="k")
    again = policy(statement("Allow", "s3:*", bucket))
    refused("AccessDenied", s3.put_bucket_policy, Bucket=bucket, Policy=again)
    s3.delete_public_access_block(Bucket=bucket)
    assert nobody.get_object(Bucket=bucket, Key="k")["Body"].read() == b"x"


def test_a_new_bucket_takes_no_grants(s3, bucket: str) -> None:
    rules = s3.get_bucket_ownership_controls(Bucket=bucket)["OwnershipControls"]["Rules"]
    assert rules == [{"ObjectOwnership": "BucketOwnerEnforced"}]
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", ACL="private")
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", ACL="bucket-owner-full-control")
    refused("AccessControlListNotSupported", s3.put_object, Bucket=bucket, Key="k", Body=b"y", ACL="public-read")
    refused("AccessControlListNotSupported", s3.put_object_acl, Bucket=bucket, Key="k", ACL="public-read")
    refused("AccessControlListNotSupported", s3.put_bucket_acl, Bucket=bucket, ACL="public-read")
    for canned in ("private", "bucket-owner-full-control"):
        both = {"Bucket": bucket, "ACL": canned, "GrantRead": 'uri="http://acs.amazonaws.com/groups/global/AllUsers"'}
        refused("AccessControlListNotSupported", s3.put_object, Key="k", Body=b"y", **both)
        refused("AccessControlListNotSupported", s3.create_multipart_upload, Key="k", **both)
        refused("AccessControlListNotSupported", s3.put_object_acl, Key="k", **both)
        refused("AccessControlListNotSupported", s3.put_bucket_acl, **both)
        refused("InvalidBucketAclWithObjectOwnership", s3.create_bucket, **{**both, "Bucket": f"{bucket}-2"})
    assert [grant["Permission"] for grant in s3.get_bucket_acl(Bucket=bucket)["Grants"]] == ["FULL_CONTROL"]
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"x"


def test_grants_let_others_in_and_objects_belong_to_who_wrote_them(endpoints, others) -> None:
    anna, bert, nobody = others
    bucket = f"test-{uuid.uuid4().hex[:16]}"
    anna.create_bucket(Bucket=bucket, ObjectOwnership="ObjectWriter")
    anna.put_object(Bucket=bucket, Key="k", Body=b"x")
    refused("AccessDenied", bert.get_object, Bucket=bucket, Key="k")
    anna.put_object_acl(Bucket=bucket, Key="k", ACL="public-read")
    assert nobody.get_object(Bucket=bucket, Key="k")["Body"].read() == b"x"
    refused("AccessDenied", nobody.list_objects_v2, Bucket=bucket)
    anna.put_bucket_acl(Bucket=bucket, ACL="public-read-write")
    assert nobody.list_objects_v2(Bucket=bucket)["KeyCount"] == 1
    berts = client_of(endpoints[-1], "bertkey", SECRET)
    berts.put_object(Bucket=bucket, Key="of-bert", Body=b"b")
    assert berts.get_object_acl(Bucket=bucket, Key="of-bert")["Owner"]["DisplayName"] == "bert"
    refused("AccessDenied", anna.get_object, Bucket=bucket, Key="of-bert")
    grant = f'id="{canonical_id("anna")}"'
    berts.put_object_acl(Bucket=bucket, Key="of-bert", GrantRead=grant, GrantFullControl=f'id="{canonical_id("bert")}"')
    assert anna.get_object(Bucket=bucket, Key="of-bert")["Body"].read() == b"b"
    refused("AccessDenied", anna.get_object_acl, Bucket=bucket, Key="of-bert")
    unknown = f'id="{"0" * 64}"'
    refused("InvalidArgument", berts.put_object_acl, Bucket=bucket, Key="of-bert", GrantRead=unknown)
    acl = berts.get_object_acl(Bucket=bucket, Key="of-bert")
    asked = {"Owner": acl["Owner"], "Grants": acl["Grants"]}
    berts.put_object_acl(Bucket=bucket, Key="of-bert", AccessControlPolicy=asked)
    assert berts.get_object_acl(Bucket=bucket, Key="of-bert")["Grants"] == acl["Grants"]
    block = {"IgnorePublicAcls": True}
    anna.put_public_access_block(Bucket=bucket, PublicAccessBlockConfiguration=block)
    refused("AccessDenied", nobody.get_object, Bucket=bucket, Key="k")
    refused("AccessDenied", berts.put_object, Bucket=bucket, Key="more", Body=b"b")
    controls = {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]}
    refused("InvalidBucketAclWithObjectOwnership", anna.put_bucket_ownership_controls, Bucket=bucket,
            OwnershipControls=controls)  # fmt: skip
    anna.put_bucket_acl(Bucket=bucket, ACL="private")
    anna.put_bucket_ownership_controls(Bucket=bucket, OwnershipControls=controls)
    assert anna.get_object(Bucket=bucket, Key="of-bert")["Body"].read() == b"b"
    refused("AccessDenied", berts.get_object, Bucket=bucket, Key="of-bert")


def test_a_deny_on_granting_holds_for_writers_from_elsewhere(others) -> None:
    anna, bert, _ = others
    bucket = f"test-{uuid.uuid4().hex[:16]}"
    anna.create_bucket(Bucket=bucket, ObjectOwnership="ObjectWriter")
    put_policy(anna, bucket, statement("Allow", "s3:PutObject", bucket), statement("Deny", "s3:PutObjectAcl", bucket))
    bert.put_object(Bucket=bucket, Key="k", Body=b"x", ACL="private")
    refused("AccessDenied", bert.put_object, Bucket=bucket, Key="k", Body=b"y", ACL="public-read")
    refused("AccessDenied", bert.put_object, Bucket=bucket, Key="k", Body=b"y", GrantRead=f'uri="{ALL_USERS}"')
    assert bert.get_object(Bucket=bucket, Key="k")["Body"].read() == b"x"


def test_nobody_chooses_the_headers_of_a_public_object(s3, others, bucket: str) -> None:
    nobody = others[2]
    s3.put_object(Bucket=bucket, Key="k", Body=b"<script>", ContentType="text/plain")
    put_policy(s3, bucket, statement("Allow", ["s3:GetObject", "s3:DeleteObject"], bucket))
    assert nobody.get_object(Bucket=bucket, Key="k")["ContentType"] == "text/plain"
    refused("InvalidRequest", nobody.get_object, Bucket=bucket, Key="k", ResponseContentType="text/html")
    assert s3.get_object(Bucket=bucket, Key="k", ResponseContentType="text/html")["ContentType"] == "text/html"
    wanted = {"Objects": [{"Key": "k"}]}
    assert [one["Key"] for one in nobody.delete_objects(Bucket=bucket, Delete=wanted)["Deleted"]] == ["k"]
    s3.delete_bucket_policy(Bucket=bucket)
    refused("AccessDenied", nobody.delete_objects, Bucket=bucket, Delete=wanted)


def test_a_copys_source_is_of_whom_it_should_be(s3, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    copy = {"Bucket": bucket, "Key": "c", "CopySource": {"Bucket": bucket, "Key": "k"}}
    refused("AccessDenied", s3.copy_object, ExpectedSourceBucketOwner="123456789012", **copy)
    s3.copy_object(ExpectedSourceBucketOwner=account_id(""), ExpectedBucketOwner=account_id(""), **copy)


def test_accounts_do_not_see_each_others_buckets(s3, others) -> None:
    anna, bert, nobody = others
    bucket = f"test-{uuid.uuid4().hex[:16]}"
    anna.create_bucket(Bucket=bucket)
    listed = anna.list_buckets()
    assert (bucket in [one["Name"] for one in listed["Buckets"]], listed["Owner"]["DisplayName"]) == (True, "anna")
    assert bucket not in [one["Name"] for one in bert.list_buckets()["Buckets"]]
    assert bucket in [one["Name"] for one in s3.list_buckets()["Buckets"]]
    assert nobody.list_buckets()["Buckets"] == []
    refused("BucketAlreadyExists", bert.create_bucket, Bucket=bucket)
    refused("403", bert.head_bucket, Bucket=bucket)
    refused("AccessDenied", bert.delete_bucket, Bucket=bucket)
    refused("NoSuchBucket", nobody.list_objects_v2, Bucket=f"{bucket}-no")
    refused("AccessDenied", anna.list_objects_v2, Bucket=bucket, ExpectedBucketOwner=account_id("bert"))
    assert anna.list_objects_v2(Bucket=bucket, ExpectedBucketOwner=account_id("anna"))["KeyCount"] == 0


# --- forms


def post(endpoint: Endpoint, bucket: str, fields: dict[str, str], data: bytes) -> tuple[int, dict[str, str], bytes]:
    boundary = "-----------------------------9051914041544843365972754266"
    parts = [f'--{boundary}\r\nContent-Disposition: form-data; name="{n}"\r\n\r\n{v}\r\n' for n, v in fields.items()]
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="a b.txt"\r\n'
    body = "".join([*parts, head, "Content-Type: text/plain\r\n\r\n"]).encode() + data
    body += f"\r\n--{boundary}--\r\n".encode()
    connection = http.client.HTTPConnection(endpoint.host, endpoint.port, timeout=60)
    try:
        connection.request("POST", f"/{bucket}", body, {"content-type": f"multipart/form-data; boundary={boundary}"})
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()


@pytest.mark.parametrize("size_bytes", [0, 11, 3 * MIB])
def test_a_signed_form_stores_its_file(endpoints, s3, elsewhere, bucket: str, size_bytes: int) -> None:
    data = (b"\r\n--not-the-boundary" * (size_bytes // 20 + 1))[:size_bytes]
    conditions = [
        ["starts-with", "$Content-Type", "text/"],
        {"x-amz-meta-m": "1"},
        ["content-length-range", 0, 4 * MIB],
    ]
    conditions.append({"success_action_status": "201"})
    fields = {"Content-Type": "text/plain", "x-amz-meta-m": "1", "success_action_status": "201"}
    form = s3.generate_presigned_post(bucket, "up/${filename}", fields, [*conditions])
    status, headers, body = post(endpoints[-1], bucket, form["fields"], data)
    assert (status, b"<Key>up/a b.txt</Key>" in body) == (201, True), body
    stored = elsewhere.get_object(Bucket=bucket, Key="up/a b.txt")
    assert (stored["Body"].read(), stored["ContentType"], stored["Metadata"]) == (data, "text/plain", {"m": "1"})
    assert stored["ETag"] == headers["etag"]


@pytest.mark.parametrize(("version", "signature"), [("s3v4", "x-amz-signature"), ("s3", "signature")])
def test_a_form_that_is_not_as_its_policy_says_stores_nothing(
    endpoints, s3, bucket: str, version: str, signature: str
) -> None:
    signer = client_of(endpoints[0], signature_version=version)
    form = signer.generate_presigned_post(bucket, "k", {}, [["content-length-range", 2, 4]])["fields"]
    for fields, data, wanted in (
        ({**form, "key": "other"}, b"123", (403, b"AccessDenied")),
        ({**form, "x-amz-meta-more": "1"}, b"123", (403, b"AccessDenied")),
        ({**form, signature: "0" * 64}, b"123", (403, b"SignatureDoesNotMatch")),
        ({**form, "policy": form["policy"][:-8]}, b"123", (403, b"SignatureDoesNotMatch")),
        (form, b"12345", (400, b"EntityTooLarge")),
        (form, b"1", (400, b"EntityTooSmall")),
        ({"key": "k"}, b"123", (403, b"AccessDenied")),
        ({**form, "x-amz-checksum-crc32": "AAAAAA=="}, b"123", (400, b"BadDigest")),
        ({name: value for name, value in form.items() if name != "policy"}, b"123", (400, b"InvalidArgument")),
    ):
        status, _, body = post(endpoints[0], bucket, fields, data)
        assert (status, wanted[1] in body) == (wanted[0], True), body
    refused("NoSuchKey", s3.get_object, Bucket=bucket, Key="k")
    assert post(endpoints[0], bucket, form, b"123")[0] == 204
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"123"


# --- attributes


def test_the_attributes_of_an_object(s3, elsewhere, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", ChecksumAlgorithm="SHA256")
    everything = ["ETag", "Checksum", "ObjectParts", "StorageClass", "ObjectSize"]
    told = elsewhere.get_object_attributes(Bucket=bucket, Key="k", ObjectAttributes=everything)
    head = elsewhere.head_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")
    assert (f'"{told["ETag"]}"', told["ObjectSize"], told["StorageClass"]) == (head["ETag"], 1, "STANDARD")
    assert told["Checksum"] == {"ChecksumSHA256": head["ChecksumSHA256"], "ChecksumType": "FULL_OBJECT"}
    assert "ObjectParts" not in told
    upload = s3.create_multipart_upload(Bucket=bucket, Key="m", ChecksumAlgorithm="CRC32C")["UploadId"]
    parts = []
    for number, data in ((1, b"a" * (5 * MIB)), (2, b"b")):
        part = s3.upload_part(
            Bucket=bucket, Key="m", UploadId=upload, PartNumber=number, Body=data, ChecksumAlgorithm="CRC32C"
        )
        parts.append({"PartNumber": number, "ETag": part["ETag"], "ChecksumCRC32C": part["ChecksumCRC32C"]})
    s3.complete_multipart_upload(Bucket=bucket, Key="m", UploadId=upload, MultipartUpload={"Parts": parts})
    told = elsewhere.get_object_attributes(Bucket=bucket, Key="m", ObjectAttributes=["ObjectParts"], MaxParts=1)
    page = told["ObjectParts"]
    assert (page["TotalPartsCount"], page["IsTruncated"], page["NextPartNumberMarker"]) == (2, True, 1)
    assert page["Parts"] == [{"PartNumber": 1, "Size": 5 * MIB, "ChecksumCRC32C": parts[0]["ChecksumCRC32C"]}]
    second = elsewhere.get_object(Bucket=bucket, Key="m", PartNumber=2)
    assert (second["Body"].read(), second["ChecksumCRC32C"]) == (b"b", parts[1]["ChecksumCRC32C"])
    refused("InvalidArgument", s3.get_object_attributes, Bucket=bucket, Key="k", ObjectAttributes=["Colour"])
    refused("NoSuchKey", s3.get_object_attributes, Bucket=bucket, Key="absent", ObjectAttributes=["ETag"])
