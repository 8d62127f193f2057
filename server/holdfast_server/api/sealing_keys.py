"""What handlers are given to encrypt and decrypt with: the key ring of this pod, and what the other pods have of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from holdfast_server.sealing.ring import KeyRing


@dataclass(frozen=True, kw_only=True)
class SealingKeys:
    ring: Callable[[], KeyRing] = lambda: KeyRing({})
    """As the files are now; empty where none are given: then there is SSE-C only."""
    is_awaited: Callable[[], bool] = lambda: False
    """Whether the tenant has keys, and this pod none: as where it was started while their Secret was gone."""
    is_everywhere: Callable[[bytes], bool] = lambda _: True
    """Whether every reachable pod has the key with this fingerprint."""
    every_pod_seals: Callable[[], bool] = lambda: True
    """Whether every pod of the tenant is reachable and of a release that knows of encryption."""
    customer_keys_over_plaintext: Callable[[], bool] = lambda: False
    """Whether keys of clients are taken over connections without TLS: where something in front of the pods ends TLS,
    and for tests."""
