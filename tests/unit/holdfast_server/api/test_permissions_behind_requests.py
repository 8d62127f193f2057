"""Permissions that a request needs beside that of its operation, and what policies see of it: users made through IAM,
boto3 against the whole API, over objects in memory."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import requests
from botocore.exceptions import ClientError

from holdfast_server.testing.boto import client_of, refusal
from holdfast_server.testing.memory_services import Endpoint, memory_services, served

MINE, OTHER = "mine", "other"
Statement = dict[str, Any]


def allow(*actions: str, bucket: str = "*", key: str = "", **more: Any) -> Statement:
    resource = f"arn:aws:s3:::{bucket}" + (f"/{key}" if key else "")
    return {"Effect": "Allow", "Action": [f"s3:{action}" for action in actions], "Resource": resource, **more}


def deny(*actions: str, **more: Any) -> Statement:
    return {**allow(*actions, **more), "Effect": "Deny"}


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with served(memory_services()) as found:
        yield found


@pytest.fixture
def root(endpoint: Endpoint) -> Any:
    client = client_of(endpoint)
    for name in (MINE, OTHER):
        client.create_bucket(Bucket=name)
    return client


@pytest.fixture
def user(endpoint: Endpoint, root: Any) -> Callable[..., Any]:
    """Makes a user with these statements; its client."""
    iam = client_of(endpoint, service="iam")
    names = iter(f"user-{number}" for number in range(100))

    def make(*statements: Statement) -> Any:
        name = next(names)
        iam.create_user(UserName=name)
        iam.put_user_policy(UserName=name, PolicyName="p", PolicyDocument=json.dumps({"Statement": list(statements)}))
        key = iam.create_access_key(UserName=name)["AccessKey"]
        return client_of(endpoint, key["AccessKeyId"], key["SecretAccessKey"])

    return make


# -------------------------------------------------------------------- copies


def test_that_a_source_is_not_there_is_told_to_who_may_list_where_it_would_be(user: Callable[..., Any]) -> None:
    copying = allow("GetObject", "PutObject", key="*")
    asked = {"Bucket": MINE, "Key": "k", "CopySource": {"Bucket": OTHER, "Key": "absent"}}
    lists_source = user(copying, allow("ListBucket", bucket=OTHER))
    lists_target = user(copying, allow("ListBucket", bucket=MINE))
    assert refusal(lists_source.copy_object, **asked) == "NoSuchKey"
    assert refusal(lists_target.copy_object, **asked) == "AccessDenied"
    for client, code in ((lists_source, "NoSuchKey"), (lists_target, "AccessDenied")):
        upload = client.create_multipart_upload(Bucket=MINE, Key="k")["UploadId"]
        assert refusal(client.upload_part_copy, **asked, UploadId=upload, PartNumber=1) == code


def test_tags_of_a_version_take_the_permission_to_read_those_of_versions(root: Any, user: Callable[..., Any]) -> None:
    root.put_bucket_versioning(Bucket=OTHER, VersioningConfiguration={"Status": "Enabled"})
    version = root.put_object(Bucket=OTHER, Key="k", Body=b"x", Tagging="a=1")["VersionId"]
    asked = {"Bucket": MINE, "Key": "k", "CopySource": {"Bucket": OTHER, "Key": "k", "VersionId": version}}
    copying = allow("GetObjectVersion", "PutObject", "PutObjectTagging", key="*")
    assert refusal(user(copying, allow("GetObjectTagging", key="*")).copy_object, **asked) == "AccessDenied"
    user(copying, allow("GetObjectVersionTagging", key="*")).copy_object(**asked)
    assert root.get_object_tagging(Bucket=MINE, Key="k")["TagSet"] == [{"Key": "a", "Value": "1"}]


# -------------------------------------------------------------------- conditions


def test_who_asks_whether_an_etag_is_right_may_read_the_object(root: Any, user: Callable[..., Any]) -> None:
    """It is the MD5 of what the client may not read."""
    etag = root.put_object(Bucket=MINE, Key="k", Body=b"secret")["ETag"]
    writing = allow("PutObject", "DeleteObject", "DeleteObjectVersion", key="*"), allow("ListBucket")
    writes, reads = user(*writing), user(*writing, allow("GetObject", key="*"))
    asked = {"Bucket": MINE, "Key": "k"}
    for wrong in (etag, '"0"', f"*, {etag}"):
        assert refusal(writes.put_object, **asked, IfMatch=wrong) == "AccessDenied"
        assert refusal(writes.delete_object, **asked, IfMatch=wrong) == "AccessDenied"
        assert refusal(writes.copy_object, **asked, CopySource="other/x", IfMatch=wrong) == "AccessDenied"
    assert refusal(writes.put_object, **asked, IfNoneMatch=etag) == "AccessDenied"
    upload = writes.create_multipart_upload(**asked)["UploadId"]
    part = writes.upload_part(**asked, UploadId=upload, PartNumber=1, Body=b"x")["ETag"]
    parts = {"UploadId": upload, "MultipartUpload": {"Parts": [{"PartNumber": 1, "ETag": part}]}}
    assert refusal(writes.complete_multipart_upload, **asked, **parts, IfMatch=etag) == "AccessDenied"
    objects = {"Objects": [{"Key": "k", "ETag": etag}]}
    assert writes.delete_objects(Bucket=MINE, Delete=objects)["Errors"][0]["Code"] == "AccessDenied"
    assert root.get_object(**asked)["Body"].read() == b"secret"
    assert refusal(writes.put_object, **asked, IfNoneMatch="*") == "PreconditionFailed"
    writes.put_object(**asked, Body=b"public", IfMatch="*")
    etag = reads.put_object(**asked, Body=b"new", IfMatch=root.head_object(**asked)["ETag"])["ETag"]
    assert "Errors" not in reads.delete_objects(Bucket=MINE, Delete={"Objects": [{"Key": "k", "ETag": etag}]})


def test_a_policy_can_ask_for_conditions_of_every_key_that_is_deleted(root: Any) -> None:
    unconditional = {"Null": {"s3:if-match": "true"}}
    statement = {**deny("DeleteObject", bucket=MINE, key="*", Condition=unconditional), "Principal": "*"}
    root.put_bucket_policy(Bucket=MINE, Policy=json.dumps({"Statement": statement}))
    etags = {key: root.put_object(Bucket=MINE, Key=key)["ETag"] for key in ("a", "b")}
    entries = [{"Key": "a", "ETag": etags["a"]}, {"Key": "b"}]

    def with_header(request: Any, **_: Any) -> None:
        request.headers["If-Match"] = etags["b"]

    root.meta.events.register("before-sign.s3.DeleteObjects", with_header)
    answer = root.delete_objects(Bucket=MINE, Delete={"Objects": entries})
    assert [one["Key"] for one in answer["Deleted"]] == ["a"]
    assert [(one["Key"], one["Code"]) for one in answer["Errors"]] == [("b", "AccessDenied")]


def test_a_policy_can_ask_for_conditions_of_what_makes_objects_and_not_of_parts(root: Any) -> None:
    """As AWS's guide has it ("Enforce conditional writes")."""
    unconditional = {"Null": {"s3:if-none-match": "true"}, "Bool": {"s3:ObjectCreationOperation": "true"}}
    statement = {**deny("PutObject", bucket=MINE, key="*", Condition=unconditional), "Principal": "*"}
    root.put_bucket_policy(Bucket=MINE, Policy=json.dumps({"Statement": statement}))
    asked = {"Bucket": MINE, "Key": "k"}
    root.put_object(Bucket=OTHER, Key="k")
    assert refusal(root.put_object, **asked) == "AccessDenied"
    assert refusal(root.copy_object, **asked, CopySource="other/k") == "AccessDenied"
    upload = root.create_multipart_upload(**asked)["UploadId"]
    part = root.upload_part(**asked, UploadId=upload, PartNumber=1, Body=b"x")["ETag"]
    root.upload_part_copy(**asked, UploadId=upload, PartNumber=2, CopySource="other/k")
    parts = {"UploadId": upload, "MultipartUpload": {"Parts": [{"PartNumber": 1, "ETag": part}]}}
    assert refusal(root.complete_multipart_upload, **asked, **parts) == "AccessDenied"
    root.complete_multipart_upload(**asked, **parts, IfNoneMatch="*")
    root.put_object(Bucket=MINE, Key="another", IfNoneMatch="*")


# -------------------------------------------------------------------- signatures


def post_version_2(endpoint: Endpoint) -> int:
    expires = f"{datetime.now(UTC) + timedelta(hours=1):%Y-%m-%dT%H:%M:%SZ}"
    document = {"expiration": expires, "conditions": [{"bucket": MINE}, ["starts-with", "$key", ""]]}
    policy = base64.b64encode(json.dumps(document).encode())
    signature = base64.b64encode(hmac.digest(endpoint.secret_key.encode(), policy, hashlib.sha1)).decode()
    fields = {"key": "k", "AWSAccessKeyId": endpoint.access_key, "policy": policy.decode(), "signature": signature}
    return requests.post(f"{endpoint.url}/{MINE}", data=fields, files={"file": b"x"}, timeout=30).status_code


def post_version_4(endpoint: Endpoint) -> int:
    form = client_of(endpoint, signature_version="s3v4").generate_presigned_post(MINE, "k", ExpiresIn=600)
    return requests.post(form["url"], data=form["fields"], files={"file": b"x"}, timeout=30).status_code


def test_a_policy_can_refuse_forms_of_version_2(endpoint: Endpoint, root: Any) -> None:
    assert post_version_2(endpoint) == 204
    old = {"StringEquals": {"s3:signatureversion": "AWS"}}
    statement = {**deny("*", bucket=MINE, key="*", Condition=old), "Principal": "*"}
    root.put_bucket_policy(Bucket=MINE, Policy=json.dumps({"Statement": statement}))
    assert post_version_2(endpoint) == 403
    assert post_version_4(endpoint) == 204


def test_a_policy_can_bound_the_age_of_links_and_forms(endpoint: Endpoint, root: Any) -> None:
    """In milliseconds; of version 2 it is always 0."""
    root.put_object(Bucket=MINE, Key="k", Body=b"x")
    asked = {"Bucket": MINE, "Key": "k"}
    link, old_link = (
        client_of(endpoint, signature_version=version).generate_presigned_url("get_object", asked)
        for version in ("s3v4", "s3")
    )

    def allowed_with(condition: dict[str, Any]) -> list[int]:
        statement = {**deny("*", bucket=MINE, key="*", Condition=condition), "Principal": "*"}
        root.put_bucket_policy(Bucket=MINE, Policy=json.dumps({"Statement": statement}))
        root.head_object(Bucket=MINE, Key="k")  # neither a link nor a form
        found = [requests.get(url, timeout=30).status_code for url in (link, old_link)]
        return [*found, post_version_4(endpoint), post_version_2(endpoint)]

    assert allowed_with({"NumericGreaterThan": {"s3:signatureAge": "600000"}}) == [200, 200, 204, 204]
    assert allowed_with({"NumericGreaterThan": {"s3:signatureAge": "-1"}}) == [403, 403, 403, 403]
    assert allowed_with({"NumericEquals": {"s3:signatureAge": "0"}})[1::2] == [403, 403]


# -------------------------------------------------------------------- buckets


def test_grants_and_ownership_of_a_new_bucket_take_their_permissions(user: Callable[..., Any]) -> None:
    creates = user(allow("CreateBucket"))
    owned = {"ObjectOwnership": "ObjectWriter"}
    assert refusal(creates.create_bucket, Bucket="new", **owned) == "AccessDenied"
    creates.create_bucket(Bucket="private", ACL="private")
    owns = user(allow("CreateBucket", "PutBucketOwnershipControls"))
    assert refusal(owns.create_bucket, Bucket="new", ACL="public-read", **owned) == "AccessDenied"
    everybody = 'uri="http://acs.amazonaws.com/groups/global/AllUsers"'
    assert refusal(owns.create_bucket, Bucket="new", GrantRead=everybody, **owned) == "AccessDenied"
    owns.create_bucket(Bucket="owned", **owned)
    grants = user(allow("CreateBucket", "PutBucketOwnershipControls", "PutBucketAcl"))
    grants.create_bucket(Bucket="public", ACL="public-read", **owned)


def test_a_session_is_shown_no_bucket_that_its_policy_does_not_let_it_list(endpoint: Endpoint, root: Any) -> None:
    iam = client_of(endpoint, service="iam")
    iam.create_user(UserName="ann")
    statement = allow("CreateBucket", "ListBucket", "GetObject", key="*"), allow("CreateBucket")
    iam.put_user_policy(UserName="ann", PolicyName="p", PolicyDocument=json.dumps({"Statement": statement}))
    key = iam.create_access_key(UserName="ann")["AccessKey"]
    keys = key["AccessKeyId"], key["SecretAccessKey"]
    client_of(endpoint, *keys).create_bucket(Bucket="anns")
    assert [bucket["Name"] for bucket in client_of(endpoint, *keys).list_buckets()["Buckets"]] == ["anns"]

    def session_with(*statements: Statement) -> Any:
        asked = {"RoleArn": "anything", "RoleSessionName": "session"}
        policy = json.dumps({"Statement": statements})
        sts = client_of(endpoint, *keys, service="sts", parameter_validation=False)
        made = sts.assume_role(**asked, Policy=policy)["Credentials"]
        return client_of(endpoint, made["AccessKeyId"], made["SecretAccessKey"], session_token=made["SessionToken"])

    assert refusal(session_with(allow("GetObject", key="*")).list_buckets) == "AccessDenied"
    assert [one["Name"] for one in session_with(allow("*")).list_buckets()["Buckets"]] == ["anns"]


# -------------------------------------------------------------------- what answers say


def test_how_many_tags_there_are_is_told_to_who_may_read_them(root: Any, user: Callable[..., Any]) -> None:
    root.put_bucket_versioning(Bucket=MINE, VersioningConfiguration={"Status": "Enabled"})
    version = root.put_object(Bucket=MINE, Key="k", Tagging="a=1&b=2")["VersionId"]
    reads = user(allow("GetObject", "GetObjectVersion", key="*"))
    of_current, of_versions = (
        user(allow("GetObject", "GetObjectVersion", action, key="*"))
        for action in ("GetObjectTagging", "GetObjectVersionTagging")
    )
    told = [
        [client.head_object(Bucket=MINE, Key="k", **named).get("TagCount") for named in ({}, {"VersionId": version})]
        for client in (root, reads, of_current, of_versions)
    ]
    assert told == [[2, 2], [None, None], [2, None], [None, 2]]
    assert "TagCount" not in reads.get_object(Bucket=MINE, Key="k")


def test_who_may_list_is_told_of_an_absent_version_what_readers_are_told(root: Any, user: Callable[..., Any]) -> None:
    root.put_bucket_versioning(Bucket=MINE, VersioningConfiguration={"Status": "Enabled"})
    root.put_object(Bucket=MINE, Key="k")
    asked = {"Bucket": MINE, "Key": "k", "VersionId": "null"}
    assert (
        refusal(user(allow("ListBucket")).get_object, **asked) == refusal(root.get_object, **asked) == "NoSuchVersion"
    )


def test_a_delete_of_many_does_not_tell_which_are_missing_to_who_may_not_list(user: Callable[..., Any]) -> None:
    absent = {"Objects": [{"Key": "absent", "ETag": "*"}]}
    blind, lists = user(allow("DeleteObject", key="*")), user(allow("DeleteObject", key="*"), allow("ListBucket"))
    codes = [client.delete_objects(Bucket=MINE, Delete=absent)["Errors"][0]["Code"] for client in (blind, lists)]
    assert codes == ["AccessDenied", "NoSuchKey"]


# ------------------------------------------------------------------- regions


def test_where_a_bucket_is_is_told_to_who_may_not_see_it(endpoint: Endpoint, user: Callable[..., Any]) -> None:
    """The SDKs' own look-ups of a region (`GetBucketRegion` of Go, OpenDAL, Arrow) read it off a refusal."""
    reader = user(allow("GetObject", key="*"))
    with pytest.raises(ClientError) as error:
        reader.head_bucket(Bucket=MINE)
    assert error.value.response["ResponseMetadata"]["HTTPHeaders"]["x-amz-bucket-region"] == "us-east-1"
    unsigned = requests.head(f"{endpoint.url}/{MINE}", timeout=10)
    assert (unsigned.status_code, unsigned.headers["x-amz-bucket-region"]) == (403, "us-east-1")
    absent = requests.head(f"{endpoint.url}/absent-bucket", timeout=10)
    assert (absent.status_code, "x-amz-bucket-region" in absent.headers) == (404, False)
