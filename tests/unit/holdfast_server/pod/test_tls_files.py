"""Files that cannot be used leave in force what is, and are told; nothing in them ends the pod's look at them."""

from __future__ import annotations

import base64
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from holdfast_server.contract.config import CertificateFiles, TlsConfig
from holdfast_server.pod import tls_files
from holdfast_server.pod.tls_files import TlsStore
from holdfast_server.transport.tls import client_facing_context


def write_pair(folder: Path, name: str) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key())
    builder = builder.serial_number(7).not_valid_before(now).not_valid_after(now + timedelta(days=1))
    pem = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    (folder / f"{name}.crt").write_bytes(pem)
    (folder / f"{name}.key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


def of_version_seven(pem: bytes) -> bytes:
    der = x509.load_pem_x509_certificate(pem).public_bytes(serialization.Encoding.DER)
    der = der.replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x07", 1)
    return b"-----BEGIN CERTIFICATE-----\n" + base64.encodebytes(der) + b"-----END CERTIFICATE-----\n"


def written(folder: Path) -> TlsConfig:
    write_pair(folder, "tls")
    write_pair(folder, "peer")
    return TlsConfig(
        certificate_file=str(folder / "tls.crt"),
        key_file=str(folder / "tls.key"),
        peers=CertificateFiles(
            certificate_file=str(folder / "peer.crt"),
            key_file=str(folder / "peer.key"),
            ca_file=str(folder / "peer.crt"),
        ),
        stage="Required",
    )


@pytest.mark.parametrize("broken", ["nonsense", "version", "latin"])
async def test_what_cannot_be_used_leaves_what_is_in_force(tmp_path: Path, broken: str) -> None:
    config = written(tmp_path)
    store = TlsStore()
    await store.refresh(config)
    assert (store.fault, store.lacks_certificate) == ("", False)
    good = (tmp_path / "tls.crt").read_bytes()
    content = {"nonsense": b"nonsense", "version": of_version_seven(good), "latin": b"\xff\xfe"}[broken]
    (tmp_path / "tls.crt").write_bytes(content)
    await store.refresh(config)
    assert store.fault.startswith("tls.certificateFile")
    assert not store.lacks_certificate


@pytest.mark.parametrize("mixed", [False, True], ids=["after-the-load", "between-certificate-and-key"])
async def test_files_exchanged_during_a_look_are_looked_at_again_and_no_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, mixed: bool
) -> None:
    config = written(tmp_path)
    store = TlsStore()
    await store.refresh(config)
    write_pair(tmp_path, "tls")
    loaded = []

    def load(certificate: Path, key: Path) -> ssl.SSLContext:
        context = client_facing_context(certificate, key)
        loaded.append(certificate.read_bytes())
        if len(loaded) == 1:
            write_pair(tmp_path, "tls")
            if mixed:
                raise ValueError("key values mismatch")
        return context

    monkeypatch.setattr(tls_files, "client_facing_context", load)
    await store.refresh(config)
    assert store.fault == ""
    assert loaded[-1] == (tmp_path / "tls.crt").read_bytes()
    assert "not taken over" not in caplog.text
    await store.refresh(config)
    assert len(loaded) == 2, "and not again while they stay"


async def test_files_that_never_stay_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = written(tmp_path)
    store = TlsStore()

    def load(certificate: Path, key: Path) -> ssl.SSLContext:
        context = client_facing_context(certificate, key)
        write_pair(tmp_path, "tls")
        return context

    monkeypatch.setattr(tls_files, "client_facing_context", load)
    await store.refresh(config)
    assert store.fault == "tls: the files were exchanged while they were read"
    assert store.lacks_certificate
