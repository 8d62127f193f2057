"""TLS contexts from PEM files: 1.2 and newer, one for each role a pod has.

A context is made anew from its files and never changed afterwards, so that a connection keeps the certificate it began
with and a broken pair of files leaves the context in force as it is.  Raises OSError (`ssl.SSLError` is one).

Not here: when files are read again (`pod.tls_files`), and who must use TLS (the configuration).
"""

from __future__ import annotations

import ssl
from pathlib import Path

HANDSHAKE_SECONDS = 10.0
"""A client that takes longer is let go."""


def client_facing_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """For the S3 listener: shows the certificate, asks for none."""
    context = _modern(ssl.PROTOCOL_TLS_SERVER)
    _load(context, certificate, key)
    context.set_alpn_protocols(["http/1.1"])
    return context


def peer_accepting_context(certificate: Path, key: Path, authority: Path) -> ssl.SSLContext:
    """For the peers' listener: the other end must show a certificate of the tenant's authority.

    Its name is not looked at: addresses are reused and resolve back to nothing, and which pod it is the handshake
    proves (`peers.handshake`)."""
    context = _modern(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_REQUIRED
    _load(context, certificate, key)
    context.load_verify_locations(authority)
    return context


def peer_dialling_context(certificate: Path, key: Path, authority: Path) -> ssl.SSLContext:
    """For dialling a peer: its certificate must be of the tenant's authority and bear the name that was dialled."""
    context = _modern(ssl.PROTOCOL_TLS_CLIENT)
    _load(context, certificate, key)
    context.load_verify_locations(authority)
    return context


def _load(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    def refuse() -> str:
        # Without this the library asks whoever sits at the terminal, and waits.
        raise OSError("the key has a password")

    context.load_cert_chain(certificate, key, refuse)


def _modern(protocol: int) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # A renegotiation lets the other end choose when this one pays for a handshake.
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    return context
