"""When the tenant's own authority and its certificates are made anew.  Decided here, made by the mint.

* A certificate is renewed after two thirds of its lifetime, when the names it must vouch for change, and when its
  authority signs no more.
* The authority is renewed after two thirds of its own.  Its successor is trusted for HANDOVER before it signs anything:
  by then pods have long read it, and clients that are given the bundle with each start of theirs mostly too.  The
  predecessor stays in the bundle until it ends, since certificates it signed are in use.
* An authority whose Secret was lost is replaced at once.  What it signed is trusted on by those who still have its
  certificate, and is renewed only when the pods have had LOST_HANDOVER to learn of the new one.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from holdfast_operator.tls.reading import PairUnusable, check_pair, read_certificate, still_valid, without
from holdfast_operator.tls.values import (
    AUTHORITY_LIFETIME,
    LEAF_LIFETIME,
    Authority,
    CertificateMint,
    KeyCertificate,
    SubjectNames,
)

HANDOVER = timedelta(days=30)
LOST_HANDOVER = timedelta(minutes=10)
"""A kubelet shows a pod a changed Secret within two minutes."""


def current_authority(
    known: Authority | None, trusted_by_pods: str, name: str, now: datetime, mint: CertificateMint
) -> Authority:
    """The authority as it should be now; the same value where nothing is due.

    `trusted_by_pods` is the bundle they were last given, which outlives the loss of `known`.  Raises ValueError where
    a certificate of ours cannot be read.
    """
    if known is None:
        return Authority(mint.authority(name, now, AUTHORITY_LIFETIME), past=still_valid(trusted_by_pods, now))
    signing, coming = known.signing, known.coming
    past = still_valid(known.past, now)
    if coming is None and now >= read_certificate(signing.certificate).due:
        coming = mint.authority(name, now, AUTHORITY_LIFETIME)
    elif coming is not None and now >= read_certificate(coming.certificate).begins + HANDOVER:
        past = still_valid(signing.certificate + past, now)
        signing, coming = coming, None
    return Authority(signing, coming, without(past, [signing.certificate]))


def current_leaf(
    known: KeyCertificate | None, authority: Authority, names: SubjectNames, now: datetime, mint: CertificateMint
) -> KeyCertificate:
    """The certificate as it should be now; the same value where nothing is due."""
    if known is not None and not _is_due(known, authority, names, now):
        return known
    return mint.leaf(authority.signing, names, now, LEAF_LIFETIME)


def _is_due(known: KeyCertificate, authority: Authority, names: SubjectNames, now: datetime) -> bool:
    try:
        read = check_pair(known, (), authority.bundle, now)
    except PairUnusable:
        return True
    if (set(read.names.dns), set(read.names.addresses)) != (set(names.dns), set(names.addresses)) or now >= read.due:
        return True
    signing = read_certificate(authority.signing.certificate)
    return not read.signed_by(authority.signing.certificate) and now >= signing.begins + LOST_HANDOVER
