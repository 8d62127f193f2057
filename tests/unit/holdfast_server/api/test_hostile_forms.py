"""What a form may not do: its fields are free text, where a request's path and headers are not."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from typing import Any

import pytest

from holdfast_server.testing.boto import client_of
from holdfast_server.testing.memory_services import Endpoint, memory_services, served

BUCKET = "b01"


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with served(memory_services()) as endpoint:
        yield endpoint


@pytest.fixture
def s3(endpoint: Endpoint) -> Any:
    s3 = client_of(endpoint, attempts=2)
    s3.create_bucket(Bucket=BUCKET)
    return s3


def posted(endpoint: Endpoint, fields: dict[str, str], file_name: str = 'filename="f"') -> tuple[int, str]:
    """Status and S3 code."""
    parts = [f'--line\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{fields[name]}\r\n' for name in fields]
    file = f'--line\r\nContent-Disposition: form-data; name="file"; {file_name}\r\n\r\nx\r\n--line--\r\n'
    connection = http.client.HTTPConnection(endpoint.host, endpoint.port, timeout=30)
    head = {"content-type": "multipart/form-data; boundary=line"}
    connection.request("POST", f"/{BUCKET}", ("".join(parts) + file).encode(), head)
    answer = connection.getresponse()
    body = answer.read().decode()
    connection.close()
    return answer.status, body.partition("<Code>")[2].partition("</Code>")[0]


def test_a_key_is_one_that_can_be_asked_for_listed_and_deleted(s3: Any, endpoint: Endpoint) -> None:
    """With a NUL in it no request could name it, no XML show it, and its bucket could never be emptied."""
    assert posted(endpoint, s3.generate_presigned_post(BUCKET, "a\0b")["fields"]) == (400, "InvalidArgument")
    by_name = s3.generate_presigned_post(BUCKET, "up/${filename}")["fields"]
    assert posted(endpoint, by_name, 'filename="a\0b"') == (400, "InvalidArgument")
    half_a_pair = "filename*=unicode_escape''%5Cud800"
    assert posted(endpoint, by_name, half_a_pair) == (400, "InvalidArgument")
    assert s3.list_objects_v2(Bucket=BUCKET)["KeyCount"] == 0
    s3.delete_bucket(Bucket=BUCKET)


@pytest.mark.parametrize("name", ["a b", "a: b", "a\nset-cookie", "ü"])
def test_metadata_is_not_named_what_would_break_the_answer_of_who_reads_it(
    s3: Any, endpoint: Endpoint, name: str
) -> None:
    field = {f"x-amz-meta-{name}": "v"}
    form = s3.generate_presigned_post(BUCKET, "k", field, [field])["fields"]
    assert posted(endpoint, form) == (400, "InvalidArgument")
