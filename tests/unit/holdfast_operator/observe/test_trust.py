"""Which pods the operator speaks to: those that show what they were given."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from holdfast_operator.observe.trust import Reaches
from holdfast_operator.testing.handshakes import greets
from holdfast_operator.tls.minting import mint_authority, mint_leaf
from holdfast_operator.tls.values import KeyCertificate, SubjectNames

NAME = "logs.loki.svc.cluster.local"
LIFETIME = timedelta(days=2)
BEGINS = datetime.now(UTC) - timedelta(days=1)


def authority() -> KeyCertificate:
    return mint_authority("a company", BEGINS, LIFETIME)


def leaf(signed_by: KeyCertificate, name: str = NAME) -> KeyCertificate:
    return mint_leaf(signed_by, SubjectNames((name,)), BEGINS, LIFETIME)


@pytest.mark.parametrize("told", ["whole chain", "leaf alone"])
def test_pods_are_known_by_what_they_were_given_without_a_ca_crt(told: str, tmp_path: Path) -> None:
    """As `kubectl create secret tls` makes Secrets, with a certificate of an authority that no system knows."""
    company = authority()
    given = leaf(company)
    if told == "whole chain":
        given = KeyCertificate(given.certificate + company.certificate, given.key)
    reach = Reaches().with_tls("", given.certificate, NAME)
    assert greets(reach, given, tmp_path)
    assert not greets(reach, leaf(authority()), tmp_path), "of somebody else"


def test_a_ca_crt_vouches_for_what_pods_show_before_and_after_a_renewal(tmp_path: Path) -> None:
    company = authority()
    before, after = leaf(company), leaf(company)
    reach = Reaches().with_tls(company.certificate, after.certificate, NAME)
    assert greets(reach, before, tmp_path)
    assert greets(reach, after, tmp_path)
    assert not greets(reach, leaf(company, "other.loki.svc"), tmp_path), "of another Service"


def test_what_is_known_is_made_once() -> None:
    company = authority()
    given = leaf(company)
    reaches = Reaches()
    reach = reaches.with_tls("", given.certificate, NAME)
    assert reaches.with_tls("", given.certificate, NAME) is reach
    assert reaches.with_tls("", leaf(company).certificate, NAME) is not reach
