"""Certificates as values, in PEM.  Their `repr` never shows a key."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

AUTHORITY_LIFETIME = timedelta(days=5 * 365)
LEAF_LIFETIME = timedelta(days=90)


@dataclass(frozen=True, slots=True)
class KeyCertificate:
    certificate: str
    """With its chain, its own first."""
    key: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Authority:
    """What signs, and what may have signed something that is still in use."""

    signing: KeyCertificate
    coming: KeyCertificate | None = None
    """Already trusted by everybody who reads the bundle, so that it can sign soon."""
    past: str = ""
    """Certificates, without keys, of those that signed before."""

    @property
    def bundle(self) -> str:
        """What is to be trusted."""
        coming = self.coming.certificate if self.coming is not None else ""
        return self.signing.certificate + coming + self.past


@dataclass(frozen=True, slots=True)
class SubjectNames:
    """What a certificate vouches for."""

    dns: tuple[str, ...]
    addresses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CertificateMint:
    """Where keys come from."""

    authority: Callable[[str, datetime, timedelta], KeyCertificate]
    """(common name, now, lifetime)"""
    leaf: Callable[[KeyCertificate, SubjectNames, datetime, timedelta], KeyCertificate]
    """(authority, names, now, lifetime); never outlives the authority."""


@dataclass(frozen=True, slots=True)
class TenantTls:
    """What the pods are given, and what clients trust."""

    clients: KeyCertificate | None
    """None while there is none that can be used."""
    clients_authority: str
    """What verifies it; empty where that is the public authorities."""
    peers: KeyCertificate
    peers_authority: str
    authority: Authority | None
    """None where there is none that can be used, and the rest is as it was."""
    trouble: tuple[str, str] | None = None
    """Why it is not as it should be: reason and message of a condition."""
    expires: datetime | None = None
    """Of the clients' certificate."""

    def ended(self, now: datetime) -> bool:
        """Whether clients that verify can no longer connect."""
        return self.expires is not None and self.expires <= now


def joined(parts: Sequence[str]) -> str:
    """PEM texts one after the other, each ended by a newline."""
    return "".join(part if part.endswith("\n") else part + "\n" for part in parts if part.strip())
