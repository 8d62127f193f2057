"""Whether the operator goes on with a pod, by what that shows: a handshake in memory."""

from __future__ import annotations

import ssl
from pathlib import Path

from holdfast_operator.observe.trust import Reach
from holdfast_operator.tls.values import KeyCertificate


def greets(reach: Reach, shown: KeyCertificate, folder: Path) -> bool:
    """`folder`: for the pod's files."""
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
