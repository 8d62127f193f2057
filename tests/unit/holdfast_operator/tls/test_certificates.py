"""What the mint makes is what verifiers accept; what is due is made anew, and nothing before."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from holdfast_operator.tenant.parse import parse_tenant
from holdfast_operator.tls.minting import mint_authority, mint_leaf, system_certificates
from holdfast_operator.tls.names import client_names, peer_names, required_names
from holdfast_operator.tls.reading import PairUnusable, check_pair, covers, read_certificate, read_chain
from holdfast_operator.tls.renewal import HANDOVER, LOST_HANDOVER, current_authority, current_leaf
from holdfast_operator.tls.values import AUTHORITY_LIFETIME, LEAF_LIFETIME, Authority, KeyCertificate, SubjectNames

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
DAY = timedelta(days=1)
MINT = system_certificates()
NAMES = SubjectNames(("logs.loki.svc", "*.logs.loki.svc"), ("10.0.0.7",))


def verify(leaf: KeyCertificate, bundle: str, name: str, at: datetime = NOW) -> None:
    """As a strict client does; raises VerificationError."""
    chain = read_chain(leaf.certificate)
    builder = PolicyBuilder().store(Store(read_chain(bundle))).time(at)
    builder.build_server_verifier(x509.DNSName(name)).verify(chain[0], chain[1:])


def tenant(**changes: object):  # type: ignore[no-untyped-def]
    from_conftest = {
        "metadata": {"name": "logs", "namespace": "loki", "uid": "u", "generation": 1},
        "spec": {
            "pools": [
                {
                    "name": "main", "servers": 4, "volumesPerServer": 1,
                    "volumeClaimTemplate": {"spec": {"resources": {"requests": {"storage": "1Gi"}}}},
                }
            ],
            **changes,
        },
    }  # fmt: skip
    parsed = parse_tenant(from_conftest)
    assert parsed.spec is not None, parsed.faults
    return parsed.spec


@pytest.mark.parametrize(
    "name",
    [
        "logs.loki", "logs.loki.svc", "logs.loki.svc.cluster.local", "bucket.logs.loki.svc.cluster.local",
        "bucket.logs.loki.svc", "logs-pool-main-3.logs-pods.loki.svc.cluster.local", "s3.example.com",
        "bucket.s3.example.com", "store.example.org", "any.wild.example.org",
    ],
)  # fmt: skip
def test_a_strict_client_accepts_every_name_of_the_store(name: str) -> None:
    tls = {"mode": "SelfSigned", "additionalNames": ["store.example.org", "*.wild.example.org", "192.0.2.1"]}
    spec = tenant(domains=["s3.example.com"], tls=tls)
    authority = mint_authority("logs", NOW, AUTHORITY_LIFETIME)
    leaf = mint_leaf(authority, client_names(spec, "cluster.local", ("10.96.0.9",)), NOW, LEAF_LIFETIME)
    verify(leaf, authority.certificate, name)
    names = read_certificate(leaf.certificate).names
    assert {"logs", "localhost"} <= set(names.dns)
    assert set(names.addresses) == {"10.96.0.9", "127.0.0.1", "::1", "192.0.2.1"}
    for stranger in ("other.loki.svc", "a.b.logs.loki.svc", "example.com"):
        with pytest.raises(VerificationError):
            verify(leaf, authority.certificate, stranger)
    with pytest.raises(VerificationError):
        verify(leaf, mint_authority("logs", NOW, AUTHORITY_LIFETIME).certificate, name)


def test_pods_are_vouched_for_among_themselves_and_nobody_else_is() -> None:
    authority = mint_authority("logs", NOW, AUTHORITY_LIFETIME)
    leaf = mint_leaf(authority, peer_names(tenant(), "cluster.local"), NOW, LEAF_LIFETIME)
    verify(leaf, authority.certificate, "logs-pool-main-0.logs-pods.loki.svc.cluster.local")
    with pytest.raises(VerificationError):
        verify(leaf, authority.certificate, "logs.loki.svc.cluster.local")


def test_a_certificate_is_renewed_after_two_thirds_of_its_life_and_not_before() -> None:
    authority = Authority(mint_authority("logs", NOW, AUTHORITY_LIFETIME))
    leaf = current_leaf(None, authority, NAMES, NOW, MINT)
    assert current_leaf(leaf, authority, NAMES, NOW + 59 * DAY, MINT) is leaf
    renewed = current_leaf(leaf, authority, NAMES, NOW + 61 * DAY, MINT)
    assert read_certificate(renewed.certificate).expires == NOW + (61 + 90) * DAY
    verify(renewed, authority.bundle, "logs.loki.svc", NOW + 61 * DAY)


def test_other_names_or_a_stranger_s_signature_call_for_another_certificate() -> None:
    authority = Authority(mint_authority("logs", NOW, AUTHORITY_LIFETIME))
    leaf = current_leaf(None, authority, NAMES, NOW, MINT)
    more = SubjectNames((*NAMES.dns, "s3.example.com"), NAMES.addresses)
    assert read_certificate(current_leaf(leaf, authority, more, NOW, MINT).certificate).names == more
    foreign = mint_leaf(mint_authority("x", NOW, AUTHORITY_LIFETIME), NAMES, NOW, LEAF_LIFETIME)
    assert current_leaf(foreign, authority, NAMES, NOW, MINT) is not foreign
    mixed = KeyCertificate(leaf.certificate, foreign.key)
    assert current_leaf(mixed, authority, NAMES, NOW, MINT) is not mixed


def test_an_authority_is_succeeded_by_one_that_everybody_trusted_before_it_signed() -> None:
    """Day by day over two lives of authorities: whoever reads the bundle once a week verifies every certificate."""
    authority = current_authority(None, "", "logs", NOW, MINT)
    leaf = current_leaf(None, authority, NAMES, NOW, MINT)
    first, sizes, bundle_last_read = authority.signing, set(), authority.bundle
    for day in range(0, 2 * 5 * 365, 7):
        at = NOW + day * DAY
        authority = current_authority(authority, "", "logs", at, MINT)
        leaf = current_leaf(leaf, authority, NAMES, at, MINT)
        verify(leaf, bundle_last_read, "logs.loki.svc", at)
        verify(leaf, authority.bundle, "logs.loki.svc", at)
        bundle_last_read = authority.bundle
        sizes.add(len(read_chain(authority.bundle)))
    assert authority.signing != first
    assert sizes == {1, 2}


def test_the_successor_signs_after_the_handover_only() -> None:
    start = current_authority(None, "", "logs", NOW, MINT)
    due = read_certificate(start.signing.certificate).due
    assert current_authority(start, "", "logs", due - DAY, MINT) == start
    announced = current_authority(start, "", "logs", due, MINT)
    assert announced.signing == start.signing
    assert announced.coming is not None
    assert current_authority(announced, "", "logs", due + HANDOVER - DAY, MINT) == announced
    handed_over = current_authority(announced, "", "logs", due + HANDOVER + DAY, MINT)
    assert (handed_over.signing, handed_over.coming) == (announced.coming, None)
    assert read_chain(handed_over.past) == read_chain(start.signing.certificate)


def test_a_lost_authority_is_replaced_and_what_it_signed_is_served_until_pods_know_the_new_one() -> None:
    lost = current_authority(None, "", "logs", NOW, MINT)
    leaf = current_leaf(None, lost, NAMES, NOW, MINT)
    later = NOW + 3 * DAY
    fresh = current_authority(None, lost.bundle, "logs", later, MINT)
    assert fresh.signing != lost.signing
    verify(leaf, fresh.bundle, "logs.loki.svc", later)
    assert current_leaf(leaf, fresh, NAMES, later, MINT) is leaf
    renewed = current_leaf(leaf, fresh, NAMES, later + LOST_HANDOVER, MINT)
    verify(renewed, fresh.signing.certificate, "logs.loki.svc", later + LOST_HANDOVER)


def refusal(pair: KeyCertificate, authority: str = "", at: datetime = NOW, needed: tuple[str, ...] = ()) -> str:
    with pytest.raises(PairUnusable) as caught:
        check_pair(pair, needed, authority, at)
    return caught.value.reason


def test_what_a_user_brings_is_refused_with_the_reason() -> None:
    authority = mint_authority("theirs", NOW, AUTHORITY_LIFETIME)
    spec = tenant(domains=["s3.example.com"])
    needed = required_names(spec, "cluster.local")
    assert needed == ("logs.loki.svc.cluster.local", "s3.example.com")
    good = mint_leaf(authority, SubjectNames(needed), NOW, LEAF_LIFETIME)
    other = mint_leaf(authority, SubjectNames(needed[:1]), NOW, LEAF_LIFETIME)
    assert check_pair(good, needed, authority.certificate, NOW).expires == NOW + LEAF_LIFETIME
    assert refusal(KeyCertificate("", good.key)) == "CertificateUnreadable"
    assert refusal(KeyCertificate(good.certificate, "nonsense")) == "KeyUnreadable"
    assert refusal(KeyCertificate(good.certificate, other.key)) == "KeyMismatch"
    assert refusal(good, at=NOW + LEAF_LIFETIME) == "CertificateExpired"
    assert refusal(good, at=NOW - DAY) == "CertificateNotYetValid"
    assert refusal(other, needed=needed) == "NamesMissing"
    assert refusal(good, "no certificate") == "AuthorityUnreadable"
    assert refusal(good, mint_authority("x", NOW, AUTHORITY_LIFETIME).certificate) == "AuthorityMismatch"


def test_keys_never_show_in_words() -> None:
    pair = mint_authority("logs", NOW, AUTHORITY_LIFETIME)
    assert "PRIVATE" not in repr(Authority(pair, pair))


def test_a_wildcard_stands_for_one_label() -> None:
    assert covers(NAMES, "a.logs.loki.svc")
    assert not covers(NAMES, "a.b.logs.loki.svc")
    assert covers(NAMES, "10.0.0.7")
    assert not covers(NAMES, "10.0.0.8")


def test_python_s_own_verifier_agrees() -> None:
    authority = mint_authority("logs", datetime.now(UTC), AUTHORITY_LIFETIME)
    context = ssl.create_default_context(cadata=authority.certificate)
    assert context.cert_store_stats()["x509_ca"] == 1
