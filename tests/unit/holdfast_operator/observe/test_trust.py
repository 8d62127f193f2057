"""Which pods the operator speaks to: those that show what they were given."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from holdfast_operator.observe.trust import Reach, Reaches
from holdfast_operator.tls.minting import mint_authority, mint_leaf
from holdfast_operator.tls.values import KeyCertificate, SubjectNames

NAME = "logs.loki.svc.cluster.local"
LIFETIME = timedelta(days=2)
BEGINS = datetime.now(UTC) - timedelta(days=1)


def authority() -> KeyCertificate:
    return mint_authority("a company", BEGINS, LIFETIME)


def leaf(signed_by: KeyCertificate, name: str = NAME) -> KeyCertificate:
    return mint_leaf(signed_by, SubjectNames((name,)), BEGINS, LIFETIME)


def greets(reach: Reach, shown: KeyCertificate, folder: Path) -> bool:
    """Whether the operator goes on with a pod that shows this."""
    assert reach.context is not None
    (folder / "tls.crt").write_text(shown.certificate)
    (folder / "tls.key").write_text(shown.key)
    pods = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    pods.load_cert_chain(folder / "tls.crt", folder / "tls.key")
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    operator = reach.context.wrap_bio(back, there, server_hostname=reach.server_name)
    pod = pods.wrap_bio(there, back, server_side=True)
    for _ in range(8):
        for side in (operator, pod):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLCertVerificationError:
                return False
    return operator.version() is not None


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
