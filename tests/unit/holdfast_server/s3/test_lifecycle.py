"""The document of a lifecycle configuration: what is taken, what is refused and how, what comes back."""

from __future__ import annotations

import itertools

import pytest

from holdfast_server.s3.errors import S3Error
from holdfast_server.s3.lifecycle import (
    LifecycleRule,
    Terms,
    lifecycle_xml,
    parse_lifecycle,
    parse_minimum_size,
)

DAYS = "<Expiration><Days>3</Days></Expiration>"
ABORT = "<AbortIncompleteMultipartUpload><DaysAfterInitiation>2</DaysAfterInitiation></AbortIncompleteMultipartUpload>"
MARKER = "<Expiration><ExpiredObjectDeleteMarker>true</ExpiredObjectDeleteMarker></Expiration>"
LARGER = "<ObjectSizeGreaterThan>5</ObjectSizeGreaterThan>"
TAG = "<Tag><Key>a</Key><Value>1</Value></Tag>"


def rule(content: str = DAYS, *, filter: str = "<Filter/>", status: str = "Enabled", id: str = "<ID>r</ID>") -> str:
    return f"<Rule>{id}{filter}<Status>{status}</Status>{content}</Rule>"


def parsed(*rules: str) -> list[LifecycleRule]:
    numbers = itertools.count()
    document = f'<LifecycleConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/">{"".join(rules)}'
    return parse_lifecycle(f"{document}</LifecycleConfiguration>".encode(), lambda: f"new-{next(numbers)}")


def noncurrent(content: str) -> str:
    return f"<NoncurrentVersionExpiration>{content}</NoncurrentVersionExpiration>"


def all_versions(said: str) -> str:
    return f"<Expiration><Days>3</Days><ExpiredObjectAllVersions>{said}</ExpiredObjectAllVersions></Expiration>"


def test_a_rule_is_read_and_written_as_it_was_put() -> None:
    text = rule(
        DAYS + noncurrent("<NoncurrentDays>4</NoncurrentDays><NewerNoncurrentVersions>2</NewerNoncurrentVersions>"),
        filter=f"<Filter><And><Prefix>p &amp;</Prefix>{TAG}{LARGER}</And></Filter>",
    )
    (found,) = parsed(text)
    assert found == LifecycleRule(
        id="r",
        enabled=True,
        filter=Terms(),
        all_of=Terms(prefix="p &", tags={"a": "1"}, larger_than_bytes=5),
        days=3,
        noncurrent_days=4,
        newer_versions=2,
    )
    assert parse_lifecycle(lifecycle_xml([found]), str) == [found]


def test_the_old_form_keeps_its_prefix_beside_the_rule() -> None:
    (found,) = parsed(rule(filter="<Prefix>logs/</Prefix>", status="Disabled"))
    assert (found.prefix, found.filter, found.enabled) == ("logs/", None, False)
    assert b"<Prefix>logs/</Prefix><Status>Disabled" in lifecycle_xml([found])
    assert b"Filter" not in lifecycle_xml([found])


def test_dates_are_midnights() -> None:
    (found,) = parsed(rule("<Expiration><Date>2030-01-01T00:00:00.000Z</Date></Expiration>"))
    assert found.date_ms == 1893456000000
    assert parse_lifecycle(lifecycle_xml([found]), str) == [found]


def test_a_rule_without_an_id_gets_one() -> None:
    assert [one.id for one in parsed(rule(id=""), rule(id="<ID/>"))] == ["new-0", "new-1"]


def test_what_a_filter_names_beside_each_other_must_all_hold() -> None:
    (found,) = parsed(rule(filter=f"<Filter><Prefix>p</Prefix>{TAG}<And><Prefix>pq</Prefix></And></Filter>"))
    assert found.names("pqr", 1, lambda: {"a": "1", "b": "2"})
    assert not found.names("pr", 1, lambda: {"a": "1"})
    assert not found.names("pqr", 1, lambda: {"a": "2"})


@pytest.mark.parametrize(
    ("size", "named"), [(5, False), (6, True), (9, True), (10, False)], ids=["at", "above", "below", "at the top"]
)
def test_sizes_are_bounds_outside_the_range(size: int, named: bool) -> None:
    sizes = "<ObjectSizeGreaterThan>5</ObjectSizeGreaterThan><ObjectSizeLessThan>10</ObjectSizeLessThan>"
    (found,) = parsed(rule(filter=f"<Filter><And>{sizes}</And></Filter>"))
    assert found.names("k", size, dict) is named


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (rule(status="enabled"), "MalformedXML"),
        (rule(filter=""), "MalformedXML"),
        (rule(filter="<Prefix/><Filter/>"), "MalformedXML"),
        (rule(filter="<Filter><And/></Filter>"), "MalformedXML"),
        (rule(filter=f"<Filter>{TAG}{TAG}</Filter>"), "MalformedXML"),
        (rule(filter=f"<Filter><And>{TAG}{TAG}</And></Filter>"), "InvalidRequest"),
        (rule(filter="<Filter><ObjectSizeGreaterThan>x</ObjectSizeGreaterThan></Filter>"), "MalformedXML"),
        (rule(filter="<Filter><ObjectSizeGreaterThan>-1</ObjectSizeGreaterThan></Filter>"), "InvalidRequest"),
        (rule(filter="<Filter><ObjectSizeLessThan>0</ObjectSizeLessThan></Filter>"), "InvalidRequest"),
        (rule(filter=f"<Filter><Prefix>{'x' * 1025}</Prefix></Filter>"), "InvalidRequest"),
        (rule(id=f"<ID>{'x' * 256}</ID>"), "InvalidArgument"),
        (rule() + rule(), "InvalidArgument"),
        (rule(""), "InvalidRequest"),
        (rule("<Expiration/>"), "MalformedXML"),
        (rule("<Expiration><Days>1</Days><Date>2030-01-01</Date></Expiration>"), "MalformedXML"),
        (rule("<Expiration><Days>0</Days></Expiration>"), "InvalidArgument"),
        (rule("<Expiration><Days>-3</Days></Expiration>"), "InvalidArgument"),
        (rule("<Expiration><Days>2147483648</Days></Expiration>"), "InvalidArgument"),
        (rule("<Expiration><Days>1.5</Days></Expiration>"), "MalformedXML"),
        (rule("<Expiration><Date>2030-01-01T12:00:00Z</Date></Expiration>"), "InvalidArgument"),
        (rule("<Expiration><Date>tomorrow</Date></Expiration>"), "InvalidArgument"),
        (rule("<Expiration><Date>9999-12-31T01:00:00-23:00</Date></Expiration>"), "InvalidArgument"),
        (rule("<Expiration><Date>1066-10-14T00:00:00Z</Date></Expiration>"), "InvalidArgument"),
        (rule("<Expiration><ExpiredObjectDeleteMarker>yes</ExpiredObjectDeleteMarker></Expiration>"), "MalformedXML"),
        (rule(MARKER, filter=f"<Filter>{TAG}</Filter>"), "InvalidRequest"),
        (rule(ABORT, filter=f"<Filter>{TAG}</Filter>"), "InvalidRequest"),
        (rule(noncurrent("")), "MalformedXML"),
        (rule(noncurrent("<NoncurrentDays>0</NoncurrentDays>")), "InvalidArgument"),
        (rule(noncurrent("<NewerNoncurrentVersions>1</NewerNoncurrentVersions>")), "MalformedXML"),
        (
            rule(noncurrent("<NoncurrentDays>1</NoncurrentDays><NewerNoncurrentVersions>0</NewerNoncurrentVersions>")),
            "InvalidArgument",
        ),
        (
            rule(
                noncurrent("<NoncurrentDays>1</NoncurrentDays><NewerNoncurrentVersions>1</NewerNoncurrentVersions>"),
                filter="<Prefix/>",
            ),
            "InvalidRequest",
        ),
        (rule("<Transition><Days>1</Days><StorageClass>GLACIER</StorageClass></Transition>"), "NotImplemented"),
        (rule(DAYS + "<NoncurrentVersionTransition/>"), "NotImplemented"),
        (rule("<Transition><Date>20220927T01:00:00Z</Date></Transition>"), "InvalidArgument"),
        (rule(all_versions("true")), "NotImplemented"),
        (rule("<AllVersionsExpiration><Days>1</Days></AllVersionsExpiration>"), "NotImplemented"),
        (rule(DAYS + "<DelMarkerExpiration><Days>1</Days></DelMarkerExpiration>"), "NotImplemented"),
        ("", "MalformedXML"),
        (rule(id="") * 1001, "MalformedXML"),
    ],
)
def test_a_mistake_is_refused_with_its_code(text: str, code: str) -> None:
    with pytest.raises(S3Error) as refusal:
        parsed(text)
    assert refusal.value.code == code


def test_minios_own_actions_may_be_said_to_be_off() -> None:
    assert parsed(rule(all_versions("false"))) == parsed(rule(DAYS))


def test_a_document_of_another_kind_is_refused() -> None:
    with pytest.raises(S3Error, match="MalformedXML"):
        parse_lifecycle(b"<CORSConfiguration/>", str)


def test_the_least_size_of_transitions_is_one_of_two() -> None:
    assert parse_minimum_size(None) == "all_storage_classes_128K"
    assert parse_minimum_size("varies_by_storage_class") == "varies_by_storage_class"
    with pytest.raises(S3Error, match="InvalidRequest"):
        parse_minimum_size("none")
