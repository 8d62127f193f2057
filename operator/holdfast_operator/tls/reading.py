"""What a certificate says, and whether a pair of files is one that can be served.  Pure."""

from __future__ import annotations

import ssl
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from ipaddress import ip_address

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from holdfast_operator.tls.values import KeyCertificate, SubjectNames

_UNREADABLE = (
    ValueError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)
"""What the library raises for a certificate or key that it cannot make sense of; most of it is no ValueError."""


class PairUnusable(Exception):
    """`reason` is fit for a condition."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Read:
    """A certificate's own part of a chain."""

    names: SubjectNames
    begins: datetime
    expires: datetime
    certificate: x509.Certificate

    @property
    def due(self) -> datetime:
        """When it is to be renewed: after two thirds of its lifetime."""
        return self.begins + (self.expires - self.begins) * 2 / 3

    def signed_by(self, authority: str) -> bool:
        """Whether one of these certificates signed it."""
        return any(_signed(self.certificate, issuer) for issuer in read_chain(authority))


def read_chain(text: str) -> list[x509.Certificate]:
    """The certificates of a PEM text; none where there is none.  Raises ValueError."""
    try:
        return x509.load_pem_x509_certificates(text.encode()) if text.strip() else []
    except _UNREADABLE as error:
        raise ValueError(str(error)) from error


def authorities_of(text: str) -> bytes:
    """The certificates of a PEM text as `ssl` takes them, which wants nothing but ASCII in PEM: bundles name those who
    signed, in their own letters.  Raises ValueError."""
    return b"".join(one.public_bytes(serialization.Encoding.DER) for one in read_chain(text))


def read_certificate(text: str) -> Read:
    """Of the first certificate of a chain.  Raises ValueError."""
    chain = read_chain(text)
    if not chain:
        raise ValueError("no certificate")
    certificate = chain[0]
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        dns = tuple(name.lower() for name in names.get_values_for_type(x509.DNSName))
        addresses = tuple(str(address) for address in names.get_values_for_type(x509.IPAddress))
    except x509.ExtensionNotFound:
        dns, addresses = (), ()
    except _UNREADABLE as error:
        raise ValueError(str(error)) from error
    return Read(
        SubjectNames(dns, addresses), certificate.not_valid_before_utc, certificate.not_valid_after_utc, certificate
    )


def check_pair(pair: KeyCertificate, needed: Sequence[str], authority: str, now: datetime) -> Read:
    """Whether it can be shown to clients that dial the `needed` names.  Raises PairUnusable."""
    try:
        read = read_certificate(pair.certificate)
        certified = _public(read.certificate.public_key())
    except _UNREADABLE as error:
        raise PairUnusable("CertificateUnreadable", f"tls.crt holds no certificate in PEM form: {error}") from error
    try:
        key = serialization.load_pem_private_key(pair.key.encode(), password=None)
        own = _public(key.public_key())
    except TypeError as error:
        raise PairUnusable("KeyEncrypted", "tls.key has a password; give it without one") from error
    except _UNREADABLE as error:
        raise PairUnusable("KeyUnreadable", "tls.key holds no private key in PEM form") from error
    if own != certified:
        if any(_is_key_of(own, one) for one in read_chain(pair.certificate)[1:]):
            raise PairUnusable(
                "ChainOrder", "tls.crt must begin with the certificate of tls.key; those that signed it follow"
            )
        raise PairUnusable("KeyMismatch", "tls.key is not the key of tls.crt")
    if read.expires <= now:
        raise PairUnusable("CertificateExpired", f"the certificate ended at {read.expires:%Y-%m-%d %H:%M} UTC")
    if read.begins > now:
        raise PairUnusable("CertificateNotYetValid", f"the certificate begins at {read.begins:%Y-%m-%d %H:%M} UTC")
    missing = [name for name in needed if not covers(read.names, name)]
    if missing:
        raise PairUnusable("NamesMissing", f"the certificate does not vouch for {', '.join(missing)}")
    _check_authority(pair.certificate, authority)
    return read


def is_authority(certificate: x509.Certificate) -> bool:
    """Whether it may sign, with a key of the kind that the mint gives its authorities."""
    try:
        basic = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        return basic.ca and isinstance(certificate.public_key(), ec.EllipticCurvePublicKey)
    except (x509.ExtensionNotFound, *_UNREADABLE):
        return False


def covers(names: SubjectNames, wanted: str) -> bool:
    """Whether a client that dials `wanted` accepts the names.  A wildcard stands for one label, the first."""
    try:
        return str(ip_address(wanted)) in names.addresses
    except ValueError:
        pass
    wanted = wanted.lower()
    parent = wanted.partition(".")[2]
    return wanted in names.dns or (bool(parent) and f"*.{parent}" in names.dns)


def still_valid(text: str, now: datetime) -> str:
    """The certificates of a PEM text that have not ended, each once."""
    kept: dict[str, None] = {}
    try:
        chain = read_chain(text)
    except ValueError:
        return ""
    for certificate in chain:
        if certificate.not_valid_after_utc > now:
            kept[certificate.public_bytes(serialization.Encoding.PEM).decode()] = None
    return "".join(kept)


def without(text: str, others: Iterable[str]) -> str:
    """The certificates of a PEM text that are in none of the others."""
    known = {certificate for other in others for certificate in read_chain(other)}
    left = [certificate for certificate in read_chain(text) if certificate not in known]
    return "".join(certificate.public_bytes(serialization.Encoding.PEM).decode() for certificate in left)


def _check_authority(chain_text: str, authority: str) -> None:
    """Where ca.crt is given, the last certificate of the chain is signed by one in it.  Raises PairUnusable."""
    try:
        trusted = read_chain(authority)
        if trusted:
            ssl.create_default_context(cadata=authorities_of(authority))
    except (ValueError, ssl.SSLError) as error:
        raise PairUnusable("AuthorityUnreadable", f"ca.crt holds no certificate in PEM form: {error}") from error
    chain = read_chain(chain_text)
    if trusted and not any(one in trusted or any(_signed(one, issuer) for issuer in trusted) for one in chain):
        raise PairUnusable("AuthorityMismatch", "tls.crt was not signed by any certificate of ca.crt")


def _signed(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (TypeError, InvalidSignature, *_UNREADABLE):
        return False
    return True


def _is_key_of(public: bytes, certificate: x509.Certificate) -> bool:
    try:
        return public == _public(certificate.public_key())
    except _UNREADABLE:
        return False


def _public(key: object) -> bytes:
    encode = key.public_bytes  # type: ignore[attr-defined]
    return bytes(encode(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo))
