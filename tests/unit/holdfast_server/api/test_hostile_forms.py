"""What a form may not do: its fields are free text, where a request's path and headers are not."""

from __future__ import annotations

import base64
import hashlib
import http.client
import time
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


def posted(
    endpoint: Endpoint, fields: dict[str, str], file_name: str = 'filename="f"', boundary: str = "boundary=line"
) -> tuple[int, str]:
    """Status, and S3 code or where the browser is sent to."""
    parts = [f'--line\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{fields[name]}\r\n' for name in fields]
    file = f'--line\r\nContent-Disposition: form-data; name="file"; {file_name}\r\n\r\nx\r\n--line--\r\n'
    connection = http.client.HTTPConnection(endpoint.host, endpoint.port, timeout=30)
    head = {"content-type": f"multipart/form-data; {boundary}"}
    connection.request("POST", f"/{BUCKET}", ("".join(parts) + file).encode(), head)
    answer = connection.getresponse()
    body = answer.read().decode()
    connection.close()
    if answer.status == 303:
        return 303, answer.headers["location"]
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


@pytest.mark.parametrize("name", ["f.txt", "up/f.txt", "C:\\up\\f.txt", "C:\\up/a\\f.txt"])
def test_a_files_name_is_what_follows_its_path(s3: Any, endpoint: Endpoint, name: str) -> None:
    """In every field, and before the policy is asked."""
    disposition = {"Content-Disposition": "attachment; filename=${filename}", "x-amz-meta-name": "<${filename}>"}
    policy = [["starts-with", "$Content-Disposition", ""], {"x-amz-meta-name": "<f.txt>"}]
    form = s3.generate_presigned_post(BUCKET, "in/${filename}", disposition, policy)
    assert posted(endpoint, form["fields"], f'filename="{name}"') == (204, "")
    found = s3.head_object(Bucket=BUCKET, Key="in/f.txt")
    assert (found["ContentDisposition"], found["Metadata"]) == ("attachment; filename=f.txt", {"name": "<f.txt>"})


@pytest.mark.parametrize(("of", "answer"), [(b"x", (204, "")), (b"y", (400, "BadDigest"))])
def test_a_forms_md5_is_compared(s3: Any, endpoint: Endpoint, of: bytes, answer: tuple[int, str]) -> None:
    field = {"Content-MD5": base64.b64encode(hashlib.md5(of).digest()).decode()}
    form = s3.generate_presigned_post(BUCKET, "k", field, [field])["fields"]
    assert posted(endpoint, form) == answer
    assert s3.list_objects_v2(Bucket=BUCKET)["KeyCount"] == (answer[0] == 204)


def test_a_forms_md5_that_is_none_is_refused(s3: Any, endpoint: Endpoint) -> None:
    field = {"Content-MD5": "no base64"}
    assert posted(endpoint, s3.generate_presigned_post(BUCKET, "k", field, [field])["fields"]) == (400, "InvalidDigest")


@pytest.mark.parametrize(
    ("redirect", "answer"),
    [
        ("http://[x", (204, "")),
        ("javascript:alert(1)", (204, "")),
        (
            "http://x/a?b=c#d",
            (303, f"http://x/a?b=c&bucket={BUCKET}&key=k&etag=%229dd4e461268c8034f5c8564e155c67a6%22#d"),
        ),
    ],
)
def test_where_a_browser_cannot_go_it_is_not_sent(
    s3: Any, endpoint: Endpoint, redirect: str, answer: tuple[int, str]
) -> None:
    """The object is stored by then, so it is no failure either."""
    field = {"success_action_redirect": redirect}
    assert posted(endpoint, s3.generate_presigned_post(BUCKET, "k", field, [field])["fields"]) == answer
    assert s3.head_object(Bucket=BUCKET, Key="k")["ContentLength"] == 1


def test_a_forms_head_keeps_nobody_waiting(s3: Any, endpoint: Endpoint) -> None:
    """The time that Python's parser of such heads takes grows by the square of the semicolons in a quote: 60 kB of
    them, from anybody, kept a pod from everything for ten seconds."""
    began = time.monotonic()
    assert posted(endpoint, {}, 'filename="f"; x="' + ";" * 60_000) == (400, "MaxPostPreDataLengthExceededError")
    assert posted(endpoint, {}, 'filename="f"; x="' + ";" * 4_000) == (400, "MalformedPOSTRequest")
    assert posted(endpoint, {}, boundary='x="' + ";" * 15_000) == (400, "MalformedPOSTRequest")
    assert time.monotonic() - began < 2


def test_a_boundary_that_cannot_be_sent_is_no_failure_of_the_server(s3: Any, endpoint: Endpoint) -> None:
    half_a_pair = "boundary*=unicode_escape''%5Cud800"
    assert posted(endpoint, {}, boundary=half_a_pair) == (400, "MalformedPOSTRequest")
