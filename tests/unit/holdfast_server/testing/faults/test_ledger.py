"""The judge of the fault tests must itself be right: what it allows, and what it must not."""

import pytest

from holdfast_server.testing.faults.ledger import ABSENT, Ledger, PromiseBroken, Version, make_body, version_of

KEY = "k"


def version(seed: int) -> Version:
    return version_of(seed, make_body(seed, 10))


@pytest.fixture
def ledger() -> Ledger:
    ledger = Ledger()
    ledger.acknowledge(KEY, version(1))
    return ledger


def test_only_what_was_acknowledged_last_may_be_seen(ledger: Ledger) -> None:
    ledger.observe(KEY, version(1).etag, "here")
    ledger.acknowledge(KEY, version(2))
    with pytest.raises(PromiseBroken, match="gone already"):
        ledger.observe(KEY, version(1).etag, "here")
    with pytest.raises(PromiseBroken):
        ledger.observe(KEY, ABSENT, "here")


def test_an_undecided_write_may_show_now_or_later_and_then_stays(ledger: Ledger) -> None:
    ledger.leave_undecided(KEY, version(2), "503")
    ledger.observe(KEY, version(1).etag, "here")
    ledger.observe(KEY, version(2).etag, "here")
    assert ledger.took_effect_late == 1
    with pytest.raises(PromiseBroken):
        ledger.observe(KEY, version(1).etag, "here")


def test_an_undecided_write_takes_effect_once(ledger: Ledger) -> None:
    ledger.leave_undecided(KEY, version(2), "503")
    ledger.observe(KEY, version(2).etag, "here")
    ledger.acknowledge(KEY, version(3))
    with pytest.raises(PromiseBroken):
        ledger.observe(KEY, version(2).etag, "here")


def test_an_undecided_delete_may_show_as_absence_once(ledger: Ledger) -> None:
    ledger.leave_undecided(KEY, None, "no answer")
    ledger.observe(KEY, ABSENT, "here")
    ledger.acknowledge(KEY, version(2))
    with pytest.raises(PromiseBroken):
        ledger.observe(KEY, ABSENT, "here")


def test_when_nothing_can_happen_any_more_only_the_settled_version_is_right(ledger: Ledger) -> None:
    ledger.leave_undecided(KEY, version(2), "503")
    assert ledger.close_undecided() == 1
    ledger.observe(KEY, version(1).etag, "here")
    with pytest.raises(PromiseBroken):
        ledger.observe(KEY, version(2).etag, "here")


def test_other_bytes_under_the_right_etag_are_noticed(ledger: Ledger) -> None:
    good = version(1)
    ledger.check_content(KEY, good.etag, good.sha256, good.size_bytes, "here")
    with pytest.raises(PromiseBroken):
        ledger.check_content(KEY, good.etag, version(2).sha256, good.size_bytes, "here")


def test_what_nobody_sent_is_noticed(ledger: Ledger) -> None:
    with pytest.raises(PromiseBroken, match="never sent"):
        ledger.observe(KEY, "0" * 32, "here")


def test_the_etag_of_an_upload_is_that_of_its_parts() -> None:
    body = make_body(1, 25)
    assert version_of(1, body, 10).etag.endswith("-3")
    assert version_of(1, body, 10).sha256 == version_of(1, body).sha256
