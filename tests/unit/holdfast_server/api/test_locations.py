"""Where answers say that an object is: an address at which it really is, in either style."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import requests

from holdfast_server.testing.boto import client_of
from holdfast_server.testing.memory_services import Endpoint, memory_services, served

DOMAIN = "s3.test"


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with served(memory_services(domains=(DOMAIN,))) as found:
        yield found


def host_style(request: Any, **_: Any) -> None:
    """As SDKs address a bucket by its Host."""
    request.headers["Host"] = f"b01.{DOMAIN}"
    request.url = request.url.replace("/b01/", "/", 1)


@pytest.mark.parametrize("by_host", [False, True])
def test_a_completed_upload_is_where_its_location_says(endpoint: Endpoint, by_host: bool) -> None:
    s3 = client_of(endpoint)
    s3.create_bucket(Bucket="b01")
    if by_host:
        s3.meta.events.register("before-sign.s3", host_style)
    asked = {"Bucket": "b01", "Key": "a/ü"}
    upload = s3.create_multipart_upload(**asked)["UploadId"]
    part = s3.upload_part(**asked, UploadId=upload, PartNumber=1, Body=b"x")["ETag"]
    parts = {"Parts": [{"PartNumber": 1, "ETag": part}]}
    location = s3.complete_multipart_upload(**asked, UploadId=upload, MultipartUpload=parts)["Location"]
    expected = f"http://b01.{DOMAIN}/" if by_host else f"{endpoint.url}/b01/"
    assert location == f"{expected}a/%C3%BC"


@pytest.mark.parametrize("by_host", [False, True])
def test_a_form_is_told_where_its_file_is(endpoint: Endpoint, by_host: bool) -> None:
    s3 = client_of(endpoint)
    s3.create_bucket(Bucket="b01")
    form = s3.generate_presigned_post("b01", "k", Fields={"success_action_status": "201"}, Conditions=[
        {"success_action_status": "201"},
    ])  # fmt: skip
    url, host = (f"{endpoint.url}/", f"b01.{DOMAIN}") if by_host else (form["url"], f"{endpoint.host}:{endpoint.port}")
    answer = requests.post(url, data=form["fields"], files={"file": b"x"}, headers={"Host": host}, timeout=30)
    expected = f"http://b01.{DOMAIN}/k" if by_host else f"{endpoint.url}/b01/k"
    assert (answer.status_code, answer.headers["location"]) == (201, expected)
    assert f"<Location>{expected}</Location>" in answer.text
