"""Sealing small secrets with the tenant's peer keys: AES-256-GCM under a key that HKDF-SHA256 derives for one purpose.

Each sealed text is bound to a context (an access key) that is authenticated with it, so that nothing sealed for one is
accepted for another.  While the peer key changes, what was sealed with any that the pod knows can be opened; new texts
are sealed with the pod's own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from holdfast_server.clock.port import Clock

_NONCE_SIZE_BYTES = 12

PeerKeys = Callable[[], Sequence[bytes]]
"""All that the pod knows now, its own first."""


class Sealer:
    """Of one purpose."""

    def __init__(self, purpose: bytes, peer_keys: PeerKeys, clock: Clock) -> None:
        self._purpose = purpose
        self._peer_keys = peer_keys
        self._ciphers: dict[bytes, AESGCM] = {}
        self._clock = clock

    @property
    def keys(self) -> frozenset[bytes]:
        """All that open what was sealed."""
        return frozenset(self._peer_keys())

    def _known(self) -> list[AESGCM]:
        """A cipher for each peer key, in their order."""
        keys = self._peer_keys()
        if set(self._ciphers) != set(keys):
            self._ciphers = {key: self._ciphers.get(key) or self._cipher_of(key) for key in keys}
        return [self._ciphers[key] for key in keys]

    def _cipher_of(self, peer_key: bytes) -> AESGCM:
        return AESGCM(HKDF(algorithm=SHA256(), length=32, salt=None, info=self._purpose).derive(peer_key))

    def seal(self, context: str, plain: bytes) -> bytes:
        nonce = self._clock.random_bytes(_NONCE_SIZE_BYTES)
        return nonce + self._known()[0].encrypt(nonce, plain, context.encode())

    def open(self, context: str, sealed: bytes) -> tuple[int, bytes]:
        """Which of the peer keys opens it (0: the pod's own), and what was sealed.  Raises ValueError if it was sealed
        with another key, for another context, or was tampered with."""
        nonce, text = sealed[:_NONCE_SIZE_BYTES], sealed[_NONCE_SIZE_BYTES:]
        for index, cipher in enumerate(self._known()):
            try:
                return index, cipher.decrypt(nonce, text, context.encode())
            except (InvalidTag, ValueError):
                continue
        raise ValueError("sealed with another peer key, or for another user")
