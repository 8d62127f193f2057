"""The table of operations against its handlers, and the form in which requests and answers are written."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from holdfast_server.iam.answers import Entries, answer_xml, error_xml
from holdfast_server.iam.errors import IamError
from holdfast_server.iam.handler import missing_handlers
from holdfast_server.iam.operations import OPERATIONS
from holdfast_server.iam.parameters import parse_form
from holdfast_server.s3.operations import OPERATIONS as S3_OPERATIONS


def test_every_operation_has_a_handler_and_no_name_is_s3s() -> None:
    assert not missing_handlers()
    assert not set(OPERATIONS) & {row.name for row in S3_OPERATIONS}


def test_the_document_names_every_operation_and_no_other() -> None:
    text = (Path(__file__).parents[4] / "docs" / "s3-compatibility.md").read_text()
    told = text.partition("<!-- iam: begin -->")[2].partition("<!-- iam: end -->")[0]
    assert sorted(re.findall("`([A-Z][A-Za-z]+)`", told)) == sorted(OPERATIONS)


def test_forms_are_read_strictly() -> None:
    form = parse_form(
        b"Action=TagUser&Tags.member.2.Key=b&Tags.member.1.Key=a+b&Tags.member.1.Value=%C3%BC&Tags.member.2.Value="
    )
    assert form.action == "TagUser"
    assert form.tags() == {"a b": "ü", "b": ""}
    for body in (b"Action=A&Action=B", b"\xff", b"a=%ff", b"&".join([b"a%d=1" % n for n in range(400)])):
        with pytest.raises(IamError) as raised:
            parse_form(body)
        assert raised.value.code == "MalformedQueryString"
    for body in (b"Tags.member.1.Key=%00", b"Tags.member.1.Key=a&Tags.member.2.Key=a", b"Tags.member.1.Value=a"):
        with pytest.raises(IamError):
            parse_form(body).tags()


def test_answers_escape_what_they_hold() -> None:
    told = answer_xml(
        OPERATIONS["GetUser"], {"A": "<&>", "L": [{"X": 1}, {"X": True}], "N": None, "M": Entries({"k": 2})}, "ID"
    )
    assert b"<A>&lt;&amp;&gt;</A><L><member><X>1</X></member><member><X>true</X></member></L>" in told
    assert b"<M><entry><key>k</key><value>2</value></entry></M>" in told
    assert b"<N>" not in told
    assert b"<Message>&lt;x&gt;</Message>" in error_xml(IamError("NoSuchEntity", "<x>"), "sts", "ID")
