"""Forms: read alike however they are cut, bounded, and held against their policy."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast_server.s3.errors import S3Error
from holdfast_server.s3.post_form import (
    MAX_FIELDS_SIZE_BYTES,
    FormReader,
    check_form,
    parse_form_claim,
    parse_form_policy,
)

BOUNDARY = "x-y_z"
TYPE = f"multipart/form-data; boundary={BOUNDARY}"
NOW_MS = 1_700_000_000_000


def form(fields: dict[str, str], data: bytes, after: str = "", preamble: str = "") -> bytes:
    parts = [f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{n}"\r\n\r\n{v}\r\n' for n, v in fields.items()]
    head = f'--{BOUNDARY}\r\ncontent-disposition: form-data; name="file"; filename="f.txt"\r\nX: y\r\n\r\n'
    return f"{preamble}{''.join(parts)}{head}".encode() + data + f"\r\n--{BOUNDARY}{after}--\r\n".encode()


def read(body: bytes, cuts: list[int]) -> tuple[dict[str, str], bytes, bool]:
    reader, taken, start = FormReader(TYPE), b"", 0
    for end in [*sorted(cut % (len(body) + 1) for cut in cuts), len(body)]:
        taken += reader.feed(body[start:end])
        start = end
    return reader.fields, taken, reader.ended


@given(
    st.dictionaries(st.sampled_from(["key", "acl", "x-amz-meta-a", "policy"]), st.text("ab é-\r\n", max_size=9)),
    st.binary(max_size=60) | st.just(f"\r\n--{BOUNDARY[:-1]}".encode() * 3) | st.just(b"\r\n\r\n--"),
    st.lists(st.integers(0, 10_000), max_size=8),
)
def test_a_form_is_read_alike_however_it_is_cut(fields: dict[str, str], data: bytes, cuts: list[int]) -> None:
    assert read(form(fields, data), cuts) == (fields, data, True)


def test_a_form_is_read_byte_by_byte() -> None:
    body = form({"key": "k"}, b"data\r\n--x", preamble="preamble\r\n")
    assert read(body, list(range(len(body)))) == ({"key": "k"}, b"data\r\n--x", True)


def test_what_follows_the_file_is_passed_over() -> None:
    body = form({"key": "k"}, b"1") + form({"key": "other"}, b"2")
    assert read(body, []) == ({"key": "k"}, b"1", True)
    assert read(form({}, b"cut")[:-20], [])[2] is False


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (form({"a": "x" * MAX_FIELDS_SIZE_BYTES}, b"")[:-40], "MaxPostPreDataLengthExceededError"),
        (form({f"a{n}": "" for n in range(300)}, b""), "MaxPostPreDataLengthExceededError"),
        (f"--{BOUNDARY}--\r\n".encode(), "InvalidArgument"),
        (f"--{BOUNDARY}\r\nx: y\r\n\r\n1\r\n--{BOUNDARY}--".encode(), "MalformedPOSTRequest"),
        (b"y" * (MAX_FIELDS_SIZE_BYTES + 10), "MalformedPOSTRequest"),
        (form({}, b"")[:30] + b"\xff\xfe\r\n\r\n", "MalformedPOSTRequest"),
    ],
)
def test_a_body_that_is_no_form_is_refused(body: bytes, code: str) -> None:
    with pytest.raises(S3Error) as told:
        read(body, list(range(0, len(body), 5000)))
    assert told.value.code == code


@pytest.mark.parametrize("content_type", ["", "text/plain", "multipart/form-data", "multipart/mixed; boundary=x"])
def test_another_type_of_body_is_refused(content_type: str) -> None:
    with pytest.raises(S3Error):
        FormReader(content_type)


def encoded(expiration: object = "2023-11-14T23:00:00Z", conditions: object = (), **more: object) -> str:
    return base64.b64encode(json.dumps({"expiration": expiration, "conditions": conditions, **more}).encode()).decode()


@pytest.mark.parametrize(
    "text",
    [
        "no base64 !",
        base64.b64encode(b"[]").decode(),
        encoded("Tomorrow"),
        encoded("2023-11-14T23:00:00"),
        encoded(None),
        encoded(conditions=None),
        encoded(conditions=[{}]),
        encoded(conditions=[{"a": "1", "b": "2"}]),
        encoded(conditions=[["eq", "key", "no dollar"]]),
        encoded(conditions=[["like", "$key", "a"]]),
        encoded(conditions=[["content-length-range", 0]]),
        encoded(conditions=[["content-length-range", -1, 5]]),
        encoded(conditions=[["content-length-range", 5, 1]]),
        base64.b64encode(b'{"Expiration": "2023-11-14T23:00:00Z", "conditions": []}').decode(),
    ],
)
def test_a_policy_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(S3Error) as told:
        parse_form_policy(text)
    assert told.value.code == "InvalidPolicyDocument"


CONDITIONS = [{"Bucket": "b"}, ["starts-with", "$key", "up/"], {"acl": "private"}, ["content-length-range", 1, 9]]


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"key": "up/k", "acl": "private"}, ""),
        ({"key": "up/k", "acl": "private", "x-ignore-me": "1", "x-amz-checksum-crc32": "x", "signature": "s"}, ""),
        ({"key": "down/k", "acl": "private"}, "Policy Condition failed"),
        ({"key": "up/k", "acl": "public-read"}, "Policy Condition failed"),
        ({"key": "up/k"}, "Policy Condition failed"),
        ({"key": "up/k", "acl": "private", "tagging": "x"}, "Extra input fields: tagging"),
    ],
)
def test_a_form_is_held_against_its_policy(fields: dict[str, str], fault: str) -> None:
    policy = parse_form_policy(encoded(conditions=CONDITIONS))
    assert policy.size_range == (1, 9)
    if not fault:
        check_form(policy, fields, "b", NOW_MS)
        return
    with pytest.raises(S3Error, match=fault):
        check_form(policy, fields, "b", NOW_MS)


def test_a_policy_ends_and_is_for_one_bucket() -> None:
    policy = parse_form_policy(encoded(conditions=CONDITIONS))
    fields = {"key": "up/k", "acl": "private"}
    with pytest.raises(S3Error, match="expired"):
        check_form(policy, fields, "b", NOW_MS + 3600_000)
    with pytest.raises(S3Error, match="Condition failed"):
        check_form(policy, fields, "other", NOW_MS)


@pytest.mark.parametrize("name", ["policy", "awsaccesskeyid", "signature"])
def test_half_a_signature_is_none(name: str) -> None:
    whole = {"policy": "p", "awsaccesskeyid": "a", "signature": "s"}
    assert parse_form_claim(whole) is not None
    assert parse_form_claim({"key": "k"}) is None
    with pytest.raises(S3Error):
        parse_form_claim({key: value for key, value in whole.items() if key != name})
