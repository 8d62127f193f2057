"""Tags: what S3 allows, and that what is kept is what was given."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast_server.s3.errors import S3Error
from holdfast_server.s3.tags import (
    MAX_BUCKET_TAGS,
    MAX_OBJECT_TAGS,
    check_tags,
    decode_tags,
    encode_tags,
    parse_tagging,
    parse_tagging_header,
    tagging_xml,
)

TEXT = st.text("aé日 +-=._:/@&%", min_size=1, max_size=20)


def xml(*pairs: tuple[str, str]) -> bytes:
    rows = "".join(f"<Tag><Key>{key}</Key><Value>{value}</Value></Tag>" for key, value in pairs)
    return f"<Tagging><TagSet>{rows}</TagSet></Tagging>".encode()


@given(st.dictionaries(TEXT, TEXT, max_size=10))
def test_kept_tags_are_read_back(tags: dict[str, str]) -> None:
    assert decode_tags(encode_tags(tags)) == tags


@given(st.dictionaries(st.text("aé日 +-=._:/@", min_size=1, max_size=128), st.text("aé +-", max_size=256), max_size=10))
def test_a_document_reads_back_in_its_order(tags: dict[str, str]) -> None:
    assert list(parse_tagging(tagging_xml(tags), MAX_OBJECT_TAGS).items()) == list(tags.items())


def test_the_header_is_form_encoded() -> None:
    assert parse_tagging_header("a=1&b%20c=%C3%A9+x&empty=&bare") == {"a": "1", "b c": "é x", "empty": "", "bare": ""}
    assert parse_tagging_header("") == parse_tagging_header("&&") == {}
    assert parse_tagging_header("a=1&") == {"a": "1"}


@pytest.mark.parametrize("header", ["a=1&a=2", "a=%zz", "a=%ff"])
def test_a_malformed_header_is_named(header: str) -> None:
    with pytest.raises(S3Error) as told:
        parse_tagging_header(header)
    assert (told.value.code, told.value.extra["ArgumentName"]) == ("InvalidArgument", "x-amz-tagging")


@pytest.mark.parametrize(
    "pairs",
    [
        [("", "v")],
        [("k" * 129, "v")],
        [("k", "v" * 257)],
        [("aws:x", "v")],
        [("AWS:x", "v")],
        [("k;", "v")],
        [("k", "v\n")],
        [("k", "<")],
        [("k", "1"), ("k", "2")],
        [(str(number), "v") for number in range(11)],
    ],
)
def test_tags_s3_does_not_allow_are_refused(pairs: list[tuple[str, str]]) -> None:
    with pytest.raises(S3Error) as told:
        check_tags(pairs, MAX_OBJECT_TAGS)
    assert told.value.code == "InvalidTag"


def test_a_bucket_has_fifty() -> None:
    pairs = [(str(number), "v") for number in range(50)]
    assert len(check_tags(pairs, MAX_BUCKET_TAGS)) == 50
    with pytest.raises(S3Error):
        check_tags([*pairs, ("more", "v")], MAX_BUCKET_TAGS)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<Tagging/>",
        b"<TagSet/>",
        b"<Tagging><TagSet/><TagSet/></Tagging>",
        b"<Tagging><TagSet><Tag><Key>a</Key></Tag></TagSet></Tagging>",
        b"<Tagging><TagSet><Tog><Key>a</Key><Value>b</Value></Tog></TagSet></Tagging>",
        b"<Tagging><TagSet><Tag><Key><x/></Key><Value>b</Value></Tag></TagSet></Tagging>",
    ],
)
def test_a_document_that_is_none_is_malformed(body: bytes) -> None:
    with pytest.raises(S3Error) as told:
        parse_tagging(body, MAX_OBJECT_TAGS)
    assert told.value.code == "MalformedXML"


def test_an_empty_set_takes_the_tags_away() -> None:
    assert parse_tagging(xml(), MAX_OBJECT_TAGS) == {}
