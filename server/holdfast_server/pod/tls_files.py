"""Certificates from mounted files, read again when they change: renewal and the change to TLS need no restart.

The files are read once a second with the configuration.  What cannot be used (a key of another certificate, as when
one file was exchanged before the other; an authority that is no certificate) leaves what is in force, and is told in
health and, once, in the log.  A tenant that requires TLS and has no certificate yet serves nothing but probes.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from holdfast_server.contract.config import TlsConfig
from holdfast_server.contract.health import TlsHealth
from holdfast_server.pod.key_files import under_prefix
from holdfast_server.transport.listener import Admission
from holdfast_server.transport.tls import client_facing_context, peer_accepting_context, peer_dialling_context

log = logging.getLogger(__name__)

MAX_PEM_SIZE_BYTES = 1 << 20
"""What a Secret may hold."""
LOOKS = 3
"""At files that are exchanged meanwhile, before that is told as a fault."""


class Validity(NamedTuple):
    """Of a certificate, in seconds since 1970."""

    begins: int
    expires: int


class _InForce(NamedTuple):
    clients: ssl.SSLContext
    peers_accepting: ssl.SSLContext
    peers_dialling: ssl.SSLContext
    certificates: Mapping[str, Validity]
    """`clients` and `peers`."""

    @property
    def expires(self) -> int:
        """When the first of them ends."""
        return min(one.expires for one in self.certificates.values())


class _Found(NamedTuple):
    contents: tuple[bytes, ...]
    in_force: _InForce | None
    fault: str = ""


class CertificateUnusable(Exception):
    """The message names the field and the file."""


class NoCertificateYet(OSError):
    """A peer must be dialled with TLS, and there is nothing to do it with."""


class TlsStore:
    """What is in force, and what is to be done with it."""

    def __init__(self, root_prefix: Path | None = None) -> None:
        self._root_prefix = root_prefix
        self._config: TlsConfig | None = None
        self._contents: tuple[bytes, ...] = ()
        self._in_force: _InForce | None = None
        self.fault = ""

    async def refresh(self, config: TlsConfig | None) -> None:
        """Look at the files once, and go by this configuration from now on."""
        if config is None:
            self.look(None)  # no files, so no thread: a hand-over is a tenth of what a pod at rest does
            return
        self._take(config, await asyncio.to_thread(self._attempt, config))

    def look(self, config: TlsConfig | None) -> None:
        """The same before the loop runs."""
        self._take(config, self._attempt(config))

    def _attempt(self, config: TlsConfig | None) -> _Found:
        """What the files give; changes nothing."""
        if config is None:
            return _Found((), None)
        try:
            return _Found(*self._load_settled(config))
        except CertificateUnusable as error:
            return _Found(self._contents, self._in_force, str(error))

    def _load_settled(self, config: TlsConfig) -> tuple[tuple[bytes, ...], _InForce]:
        """What is found is that of one moment: a kubelet exchanges all files at once, and may do so between the reading
        of one and of the next, so that a fault counts only in files that have stayed."""
        contents = self._read_all(config)
        for _ in range(LOOKS):
            if contents == self._contents and self._in_force is not None:
                return contents, self._in_force
            fault: CertificateUnusable | None = None
            try:
                fresh = self._load(config, contents)
            except CertificateUnusable as error:
                fault = error
            read, contents = contents, self._read_all(config)
            if contents != read:
                continue
            if fault is not None:
                raise fault
            return contents, fresh
        raise CertificateUnusable("tls: the files were exchanged while they were read")

    def _take(self, config: TlsConfig | None, found: _Found) -> None:
        if found.fault and found.fault != self.fault:
            log.error("certificates not taken over", extra={"reason": found.fault})
        if found.in_force is not None and found.in_force is not self._in_force:
            log.info("certificates taken over", extra={"expires": found.in_force.expires})
        self._config = config
        self._contents, self._in_force, self.fault = found

    def _read_all(self, config: TlsConfig) -> tuple[bytes, ...]:
        return tuple(_read(field, self._path(path)) for field, path in _files(config))

    def _path(self, path: str) -> Path:
        return under_prefix(path, self._root_prefix)

    def _load(self, config: TlsConfig, contents: tuple[bytes, ...]) -> _InForce:
        # Not at the start of a pod without TLS, of which it would be a twentieth.
        from cryptography import x509

        certificates = {}
        for (field, path), content in zip(_files(config), contents, strict=True):
            if field.endswith("keyFile"):
                continue
            try:
                chain = x509.load_pem_x509_certificates(content)
            except (ValueError, x509.InvalidVersion) as error:
                raise CertificateUnusable(f"{field}: {path}: no certificate in PEM form") from error
            if field.endswith("certificateFile"):
                begins, ends = chain[0].not_valid_before_utc, chain[0].not_valid_after_utc
                validity = Validity(int(begins.timestamp()), int(ends.timestamp()))
                certificates["peers" if "peers" in field else "clients"] = validity
        own, peers = config, config.peers
        try:
            clients = client_facing_context(self._path(own.certificate_file), self._path(own.key_file))
        except (OSError, ValueError) as error:
            raise CertificateUnusable(f"tls.certificateFile: {own.certificate_file}: {_reason(error)}") from error
        pair = self._path(peers.certificate_file), self._path(peers.key_file), self._path(peers.ca_file)
        try:
            accepting, dialling = peer_accepting_context(*pair), peer_dialling_context(*pair)
        except (OSError, ValueError) as error:
            raise CertificateUnusable(
                f"tls.peers.certificateFile: {peers.certificate_file}: {_reason(error)}"
            ) from error
        return _InForce(clients, accepting, dialling, certificates)

    # --- what the listeners and diallers ask, for each connection
    def for_clients(self) -> Admission:
        """Who may come in to the S3 port.  Connections without TLS always may: probes come without, and the front
        end refuses the rest (`refuses_plaintext`) in words that the client understands."""
        return Admission(tls=lambda: self._in_force.clients if self._in_force is not None else None)

    def for_peers(self) -> Admission:
        return Admission(
            tls=lambda: self._in_force.peers_accepting if self._in_force is not None else None,
            plain=lambda: self._config is None or self._config.stage != "Required",
        )

    def refuses_plaintext(self) -> bool:
        """Whether clients without TLS are turned away."""
        config = self._config
        return config is not None and config.stage == "Required" and config.plaintext == "Refused"

    def dials_with_tls(self) -> bool:
        return self._config is not None and self._config.stage != "Offered"

    def for_dialling(self) -> ssl.SSLContext | None:
        """None to dial without TLS.  Raises NoCertificateYet."""
        if not self.dials_with_tls():
            return None
        if self._in_force is None:
            raise NoCertificateYet(f"no certificate to dial with: {self.fault or 'none was read yet'}")
        return self._in_force.peers_dialling

    # --- what is told
    @property
    def lacks_certificate(self) -> bool:
        """TLS is required and there is none, so that nobody can be served."""
        return self._config is not None and self._config.stage == "Required" and self._in_force is None

    def certificates(self) -> Mapping[str, Validity]:
        """Of those in force, `clients` and `peers`; empty without."""
        return {} if self._in_force is None else self._in_force.certificates

    def health(self, dialled: Iterable[bool]) -> TlsHealth:
        """`dialled`: of each connection to a peer that is up, whether it has TLS."""
        if self._config is None or self._in_force is None:
            return TlsHealth(message=self.fault)
        secure = list(dialled)
        stage: str = self._config.stage
        if stage == "Offered" and any(secure):
            stage = "Used"
        elif stage != "Offered" and not all(secure):
            stage = "Offered"
        return TlsHealth(stage=stage, expires=self._in_force.expires, message=self.fault)


def _files(config: TlsConfig) -> list[tuple[str, str]]:
    return [
        ("tls.certificateFile", config.certificate_file),
        ("tls.keyFile", config.key_file),
        ("tls.peers.certificateFile", config.peers.certificate_file),
        ("tls.peers.keyFile", config.peers.key_file),
        ("tls.peers.caFile", config.peers.ca_file),
    ]


def _read(field: str, path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_PEM_SIZE_BYTES + 1)
    except OSError as error:
        raise CertificateUnusable(f"{field}: {path}: {error.strerror}") from error
    if len(content) > MAX_PEM_SIZE_BYTES:
        raise CertificateUnusable(f"{field}: {path}: larger than {MAX_PEM_SIZE_BYTES} bytes")
    return content


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLError) and error.reason == "KEY_VALUES_MISMATCH":
        return "the key is not of this certificate"
    return str(error)
