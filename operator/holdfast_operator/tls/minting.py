"""New authorities and certificates.  ECDSA on P-256: every client knows it, and a handshake costs a tenth of RSA's.

A certificate begins a few minutes before it is made, for clocks that lag, and never outlives its authority.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from ipaddress import ip_address

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from holdfast_operator.tls.values import CertificateMint, KeyCertificate, SubjectNames

CLOCK_LAG = timedelta(minutes=5)
_MAX_COMMON_NAME_SIZE = 64
_SIGNS_CERTIFICATES = x509.KeyUsage(
    digital_signature=True, key_cert_sign=True, crl_sign=True, content_commitment=False, key_encipherment=False,
    data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
)  # fmt: skip
_SIGNS_HANDSHAKES = x509.KeyUsage(
    digital_signature=True, key_cert_sign=False, crl_sign=False, content_commitment=False, key_encipherment=False,
    data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
)  # fmt: skip


def system_certificates() -> CertificateMint:
    return CertificateMint(authority=mint_authority, leaf=mint_leaf)


def mint_authority(common_name: str, now: datetime, lifetime: timedelta) -> KeyCertificate:
    """A root certificate that signs leaves and nothing below them."""
    key = ec.generate_private_key(ec.SECP256R1())
    # The moment is in the name, because verifiers find issuers by name: two of one tenant must differ.
    name = _name(f"{common_name[:40]} {now:%Y-%m-%dT%H:%M:%SZ}")
    certificate = (
        _builder(name, name, key, now, now + lifetime)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_SIGNS_CERTIFICATES, critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return _pem(certificate, key)


def mint_leaf(authority: KeyCertificate, names: SubjectNames, now: datetime, lifetime: timedelta) -> KeyCertificate:
    """A certificate for servers, and for pods that dial pods."""
    issuer = x509.load_pem_x509_certificate(authority.certificate.encode())
    issuer_key = serialization.load_pem_private_key(authority.key.encode(), password=None)
    assert isinstance(issuer_key, ec.EllipticCurvePrivateKey), "an authority of our own making"
    key = ec.generate_private_key(ec.SECP256R1())
    subjects: list[x509.GeneralName] = [x509.DNSName(name) for name in names.dns]
    subjects += [x509.IPAddress(ip_address(address)) for address in names.addresses]
    usages = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
    certificate = (
        _builder(_name(names.dns[0]), issuer.subject, key, now, min(now + lifetime, issuer.not_valid_after_utc))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(subjects), critical=False)
        .add_extension(_SIGNS_HANDSHAKES, critical=True)
        .add_extension(usages, critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
        .sign(issuer_key, hashes.SHA256())
    )
    return _pem(certificate, key)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, now: datetime, until: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_LAG)
        .not_valid_after(until)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name[:_MAX_COMMON_NAME_SIZE])])


def _pem(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> KeyCertificate:
    return KeyCertificate(
        certificate=certificate.public_bytes(serialization.Encoding.PEM).decode(),
        key=key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ).decode(),
    )
