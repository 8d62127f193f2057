"""Every operation of the S3 API, as botocore's service model describes it, is found by its request."""

import functools

import botocore.session
import pytest

from holdfast_server.s3.errors import S3Error
from holdfast_server.s3.operations import OPERATIONS, match

SELECTING = {"UploadId": "uploadId", "PartNumber": "partNumber"}
# The same request under an older name, or one that S3 tells apart by its endpoint only.
RENAMED = {
    "GetBucketLifecycle": "GetBucketLifecycleConfiguration",
    "GetBucketNotification": "GetBucketNotificationConfiguration",
    "PutBucketLifecycle": "PutBucketLifecycleConfiguration",
    "PutBucketNotification": "PutBucketNotificationConfiguration",
    "ListDirectoryBuckets": "ListBuckets",
    "WriteGetObjectResponse": "PostObject",
}
IMPLEMENTED = {
    "ListBuckets",
    "CreateBucket",
    "HeadBucket",
    "DeleteBucket",
    "GetBucketLocation",
    "ListObjects",
    "ListObjectsV2",
    "PutObject",
    "GetObject",
    "HeadObject",
    "DeleteObject",
    "DeleteObjects",
    "CopyObject",
    "CreateMultipartUpload",
    "UploadPart",
    "UploadPartCopy",
    "CompleteMultipartUpload",
    "AbortMultipartUpload",
    "ListParts",
    "ListMultipartUploads",
}


@functools.cache
def _model():
    return botocore.session.get_session().get_service_model("s3")


def _described(name: str):
    """Method, level, query and headers of a request with its required members only."""
    operation = _model().operation_model(name)
    path, _, query = operation.http["requestUri"].partition("?")
    parameters = {part.partition("=")[0]: part.partition("=")[2] for part in query.split("&") if part}
    headers = {}
    for member, shape in operation.input_shape.members.items() if operation.input_shape else ():
        if member in operation.input_shape.required_members:
            if shape.serialization.get("location") == "querystring":
                parameters[shape.serialization["name"]] = "1"
            if shape.serialization.get("location") == "header":
                headers[shape.serialization["name"].lower()] = "1"
    level = "object" if "{Key+}" in path else "service" if path == "/" else "bucket"
    return operation.http["method"], level, parameters, headers


@pytest.mark.parametrize("name", _model().operation_names)
def test_every_operation_of_the_api_is_told_apart(name):
    method, level, query, headers = _described(name)
    if name == "WriteGetObjectResponse":
        assert match(method, level, query, headers).name == name
    else:
        assert match(method, level, {**query, "x-id": name}, headers).name == RENAMED.get(name, name)


def test_the_table_names_every_operation_of_the_api():
    names = {operation.name for operation in OPERATIONS}
    assert set(_model().operation_names) - names <= set(RENAMED)


def test_what_is_implemented():
    implemented = {operation.name for operation in OPERATIONS if operation.implemented}
    assert implemented >= IMPLEMENTED


@pytest.mark.parametrize(
    ("method", "level", "query"),
    [
        ("PUT", "service", {}),
        ("PATCH", "object", {}),
        ("POST", "object", {}),
        ("PUT", "object", {"uploadId": "x"}),
        ("PUT", "object", {"lifecycle": ""}),
        ("PUT", "bucket", {"uploads": ""}),
        ("DELETE", "object", {"acl": ""}),
        ("DELETE", "bucket", {"versioning": ""}),
    ],
)
def test_a_change_that_nobody_knows_is_not_taken_for_a_plain_one(method, level, query):
    with pytest.raises(S3Error) as caught:
        match(method, level, query, {})
    assert caught.value.status == 405


def test_parameters_without_meaning_select_nothing():
    assert match("PUT", "object", {"x-id": "PutObject", "foo": ""}, {}).name == "PutObject"
    assert match("GET", "object", {"partNumber": "1"}, {}).name == "GetObject"
    assert match("GET", "bucket", {"list-type": "1", "prefix": ""}, {}).name == "ListObjects"
    assert match("DELETE", "object", {"versionId": "null"}, {}).name == "DeleteObject"


def test_a_version_asks_for_its_own_permission():
    operation = match("GET", "object", {}, {})
    assert operation.action_for({}) == "s3:GetObject"
    assert operation.action_for({"versionId": "1"}) == "s3:GetObjectVersion"
