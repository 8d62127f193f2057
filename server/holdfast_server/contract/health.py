"""The JSON of `/health/ready` and `/health/cluster`: what a pod knows of itself and of its sets.

Read by probes (status code only), by the operator (the body) and by people.
"""

from __future__ import annotations

import msgspec

from holdfast_server.contract.healing import HealProgress


class _Struct(msgspec.Struct, frozen=True, rename="camel"):
    pass


class TlsHealth(_Struct, frozen=True, kw_only=True):
    """How far a pod uses TLS, as it is, not as it should be."""

    stage: str = "Off"
    """`Off`, or a stage of `contract.config.TlsStage`: `Used` once every connection to a peer has it."""
    expires: int = 0
    """When the first of the certificates in force ends, in seconds since 1970; 0 without one."""
    message: str = ""
    """Why the certificates as their files are now are not in force."""


class EncryptionHealth(_Struct, frozen=True, kw_only=True):
    """The encryption keys a pod has."""

    fingerprints: list[str] = []
    """Of each (`contract.encryption_keys`), hexadecimal, ordered."""
    message: str = ""
    """Why the keys as their files are now are not in force."""


class DriveHealth(_Struct, frozen=True, kw_only=True):
    pool: str
    set_index: int
    position: int
    ordinal: int
    volume: int
    state: str
    """`ok`, `healing`, `blank` (waiting for permission to format), `offline` (its pod is unreachable, or its
    disk does not answer) or `faulty` (set aside)."""
    message: str = ""
    total_bytes: int = 0
    available_bytes: int = 0
    used_bytes: int = 0
    full: bool = False
    """It serves, but takes no new data for want of room; `message` says more."""


class SetHealth(_Struct, frozen=True, kw_only=True):
    pool: str
    index: int
    set_size: int
    parity: int
    write_quorum: int
    online: int
    """Drives that answer; healing ones included."""
    healing: int
    writable: bool
    readable: bool


class PodHealth(_Struct, frozen=True, kw_only=True):
    """`/health/ready`: 200 when keys are loaded and drives are open, whatever the quorum; else 503."""

    ready: bool
    pod: str
    epoch: int
    version: str
    message: str = ""
    drives: list[DriveHealth] = []
    """This pod's own drives."""
    key_revision: int = 0
    """Of the keys it works with: `contract.keys`."""


class ClusterHealth(_Struct, frozen=True, kw_only=True):
    """`/health/cluster`: 200 when every set has its write quorum (with `?maintenance=true`: would still have
    it with this pod away); else 503.  `drives` are all drives of the tenant as this pod sees them."""

    healthy: bool
    epoch: int
    sets: list[SetHealth] = []
    drives: list[DriveHealth] = []
    repair_queue_length: int = 0
    """Of the pod that answers, over its drives."""
    healing: HealProgress = HealProgress()
    """Of the drives of the pod that answers.  Nothing in it names a bucket or a key: this needs no signature."""
    message: str = ""
    key_revision: int = 0
    """Of the keys that the pod works with: `contract.keys`."""
    tls: TlsHealth = TlsHealth()
    """Of the pod that answers."""
    encryption: EncryptionHealth = EncryptionHealth()
    """Of the pod that answers."""
