"""When lifecycle rules are due: calendars, versions, markers, uploads; and what holds for any rules and versions."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast_server.s3.expiry import (
    Calendar,
    Due,
    Facts,
    Why,
    abort_headers,
    due_versions,
    expiration_header,
    expires_at,
    may_be_due,
    upload_ends_at,
)
from holdfast_server.s3.lifecycle import DAY_MS, LifecycleRule, Terms

NOON = 100 * DAY_MS + DAY_MS // 2
REAL = Calendar()
HOUR_MS = DAY_MS // 24


def rule(id: str = "r", *, enabled: bool = True, filter: Terms | None = None, **actions: int | bool) -> LifecycleRule:
    return LifecycleRule(id=id, enabled=enabled, filter=filter or Terms(), **actions)  # type: ignore[arg-type]


def due(rules: Sequence[LifecycleRule], versions: Sequence[Facts], now_ms: int) -> list[tuple[int, Why]]:
    return [(one.place, one.why) for one in due_versions(rules, "k", versions, now_ms, REAL)]


def test_a_day_ends_at_the_next_midnight_after_its_hours() -> None:
    assert REAL.after(NOON, 1) == 102 * DAY_MS
    assert REAL.after(100 * DAY_MS, 1) == 101 * DAY_MS, "what was written at midnight is a day old at midnight"
    assert REAL.after(100 * DAY_MS + 1, 1) == 102 * DAY_MS


def test_a_test_s_day_is_not_rounded() -> None:
    assert Calendar(10_000).after(NOON + 7, 3) == NOON + 30_007


def test_a_current_version_expires_and_not_a_moment_earlier() -> None:
    rules = [rule(days=1)]
    assert due(rules, [Facts(NOON)], 102 * DAY_MS - 1) == []
    assert due(rules, [Facts(NOON)], 102 * DAY_MS) == [(0, Why.EXPIRED)]


def test_what_lasts_longer_than_the_calendar_is_told_to_end_with_it() -> None:
    """Days may be any number that S3 takes; who read or wrote such an object was told 500."""
    rules = [rule(days=2**31 - 1, abort_days=2**31 - 1)]
    told = expiration_header(rules, "k", Facts(NOON)) | abort_headers(rules, "k", NOON)
    end = "Fri, 31 Dec 9999 00:00:00 GMT"
    assert told == {
        "x-amz-expiration": f'expiry-date="{end}", rule-id="r"', "x-amz-abort-date": end, "x-amz-abort-rule-id": "r",
    }  # fmt: skip


def test_the_earliest_of_several_rules_counts() -> None:
    rules = [rule("late", days=9), rule("soon", days=2), rule("off", days=1, enabled=False)]
    assert expires_at(rules, "k", Facts(NOON), REAL) == (103 * DAY_MS, "soon")


def test_a_date_holds_for_what_is_written_after_it_too() -> None:
    assert due([rule(date_ms=50 * DAY_MS)], [Facts(NOON)], NOON) == [(0, Why.EXPIRED)]
    assert due([rule(date_ms=150 * DAY_MS)], [Facts(NOON)], NOON) == []


def test_a_version_s_days_count_from_its_being_replaced() -> None:
    versions = [Facts(NOON + 5 * DAY_MS), Facts(NOON), Facts(NOON - 50 * DAY_MS)]
    assert due([rule(noncurrent_days=2)], versions, NOON + 5 * DAY_MS) == [(2, Why.NONCURRENT)]
    assert due([rule(noncurrent_days=2)], versions, NOON + 8 * DAY_MS) == [(2, Why.NONCURRENT), (1, Why.NONCURRENT)]


def test_the_newest_of_those_replaced_are_kept() -> None:
    versions = [Facts(NOON - age * HOUR_MS) for age in range(6)]
    found = due([rule(noncurrent_days=1, newer_versions=3)], versions, NOON + 9 * DAY_MS)
    assert [place for place, _ in found] == [5, 4]


def test_a_marker_stays_while_it_hides_something() -> None:
    marker = Facts(NOON, marker=True)
    rules = [rule(expired_marker=True), rule("d", days=1)]
    assert due(rules, [marker, Facts(NOON - DAY_MS)], NOON + 9 * DAY_MS) == []
    assert due(rules, [marker], NOON + 1) == [(0, Why.MARKER)]
    assert due([rule(expired_marker=False)], [marker], NOON + 9 * DAY_MS) == []


def test_days_remove_a_lone_marker_that_is_old_enough_itself() -> None:
    marker = Facts(NOON, marker=True)
    assert due([rule(days=1)], [marker], NOON + DAY_MS) == []
    assert due([rule(days=1)], [marker], NOON + 2 * DAY_MS) == [(0, Why.MARKER)]


def test_what_names_content_does_not_apply_to_markers() -> None:
    only_large = Terms(larger_than_bytes=0)
    marker = Facts(NOON, marker=True)
    assert due([rule(days=1, filter=only_large)], [marker], NOON + 9 * DAY_MS) == []
    versions = [Facts(NOON), marker, Facts(NOON, 1)]
    assert due([rule(noncurrent_days=1, filter=only_large)], versions, NOON + 9 * DAY_MS) == [(2, Why.NONCURRENT)]


def test_an_upload_ends_by_the_first_rule_that_names_its_key() -> None:
    rules = [rule("a", abort_days=3), rule("b", abort_days=2, filter=Terms(prefix="k")), rule("c", days=1)]
    assert upload_ends_at(rules, "key", NOON, REAL) == (103 * DAY_MS, "b")
    assert upload_ends_at(rules, "other", NOON, REAL) == (104 * DAY_MS, "a")
    assert upload_ends_at([rule(days=1)], "key", NOON, REAL) is None


def test_headers_say_when_and_why() -> None:
    rules = [rule('a "rule"', days=1, abort_days=1)]
    header = 'expiry-date="Mon, 13 Apr 1970 00:00:00 GMT", rule-id="a%20%22rule%22"'
    assert expiration_header(rules, "k", Facts(NOON)) == {"x-amz-expiration": header}
    assert abort_headers(rules, "k", NOON) == {
        "x-amz-abort-date": "Mon, 13 Apr 1970 00:00:00 GMT",
        "x-amz-abort-rule-id": "a%20%22rule%22",
    }
    assert expiration_header([], "k", Facts(NOON)) == abort_headers([rule(days=1)], "k", NOON) == {}


# --- for any rules and versions

_days = st.none() | st.integers(1, 5)
_terms = st.builds(
    Terms,
    prefix=st.none() | st.sampled_from(["", "k", "x"]),
    tags=st.sampled_from([{}, {"a": "1"}]),
    larger_than_bytes=st.none() | st.integers(0, 3),
)
_rules = st.lists(
    st.builds(
        LifecycleRule,
        id=st.sampled_from("abc"),
        enabled=st.booleans(),
        filter=_terms,
        days=_days,
        date_ms=st.none() | st.integers(98, 108).map(lambda day: day * DAY_MS),
        expired_marker=st.none() | st.booleans(),
        noncurrent_days=_days,
        newer_versions=st.none() | st.integers(1, 3),
    ),
    max_size=3,
)
_versions = st.lists(
    st.builds(
        Facts,
        st.integers(99 * DAY_MS, 104 * DAY_MS),
        st.integers(0, 5),
        st.booleans(),
        st.sampled_from([{}, {"a": "1"}, {"a": "1", "b": "2"}]),
    ),
    max_size=5,
).map(lambda found: sorted(found, key=lambda one: -one.modified_ms))
_moments = st.integers(98 * DAY_MS, 112 * DAY_MS)


@given(_rules, _versions, _moments, st.integers(0, 3 * DAY_MS))
def test_what_is_due_stays_due(rules: list[LifecycleRule], versions: list[Facts], now_ms: int, later_ms: int) -> None:
    at = {(one.place, one.why) for one in due_versions(rules, "k", versions, now_ms, REAL)}
    assert at <= {(one.place, one.why) for one in due_versions(rules, "k", versions, now_ms + later_ms, REAL)}


@given(_rules, _versions, _moments)
def test_nothing_is_due_before_its_time(rules: list[LifecycleRule], versions: list[Facts], now_ms: int) -> None:
    for one in due_versions(rules, "k", versions, now_ms, REAL):
        assert one.since_ms <= now_ms
        assert one in due_versions(rules, "k", versions, max(one.since_ms, 0), REAL), "at that very moment"
        if one.since_ms % DAY_MS == 0 and one.why is not Why.MARKER:
            earlier = due_versions(rules, "k", versions, one.since_ms - 1, REAL)
            assert one not in earlier


@given(_rules, _versions, _moments)
def test_the_first_look_misses_nothing(rules: list[LifecycleRule], versions: list[Facts], now_ms: int) -> None:
    found = due_versions(rules, "k", versions, now_ms, REAL)
    for one in found:
        assert may_be_due(rules, "k", versions[one.place], one.place == 0, now_ms, REAL)


@given(_rules, _versions, _moments)
def test_only_what_rules_name_is_due(rules: list[LifecycleRule], versions: list[Facts], now_ms: int) -> None:
    found = due_versions(rules, "k", versions, now_ms, REAL)
    by_id = {one.id: [rule for rule in rules if rule.id == one.id and rule.enabled] for one in rules}
    places = [one.place for one in found]
    assert places == sorted(set(places), reverse=True), "each once, the oldest first"
    for one in found:
        version = versions[one.place]
        named = [
            rule
            for rule in by_id[one.rule]
            if (rule.names_bare("k") if version.marker else rule.names("k", version.size_bytes, lambda: version.tags))  # noqa: B023
        ]
        assert named
        assert (one.place > 0) == (one.why is Why.NONCURRENT)
        if one.why is Why.MARKER:
            assert version.marker
            assert len(versions) == 1
        if one.why is Why.EXPIRED:
            assert not version.marker


@given(_versions, _moments)
def test_without_rules_nothing_is_due(versions: list[Facts], now_ms: int) -> None:
    assert due_versions([], "k", versions, now_ms, REAL) == []


@pytest.mark.parametrize("days", [1, 2, 30])
def test_a_version_lasts_its_days_and_at_most_one_more(days: int) -> None:
    for moment in range(100 * DAY_MS, 101 * DAY_MS, HOUR_MS):
        lasts = REAL.after(moment, days) - moment
        assert days * DAY_MS <= lasts < (days + 1) * DAY_MS


def test_a_due_entry_says_since_when() -> None:
    assert due_versions([rule(days=1)], "k", [Facts(NOON)], NOON + 9 * DAY_MS, REAL) == [
        Due(0, Why.EXPIRED, "r", 102 * DAY_MS)
    ]
