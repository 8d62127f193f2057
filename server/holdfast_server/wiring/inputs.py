"""What a storage pod is told, and by whom: the files of a tenant, or a command line.

Both are one type to the rest of the wiring: a configuration and keys in force, what is wrong with their latest
versions, and where each volume lies.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from holdfast_server.contract.config import ConfigError, EncryptionConfig, Listen, ServerConfig
from holdfast_server.drives.identity import IdentityError, read_identity
from holdfast_server.pod import standalone
from holdfast_server.pod.config_file import ConfigFile
from holdfast_server.pod.key_files import Keys, KeyStore, check_root, under_prefix
from holdfast_server.pod.key_ring import KeyRingStore
from holdfast_server.pod.membership import Membership, Volume, check_pools, check_successor, find_membership
from holdfast_server.pod.tls_files import TlsStore


class PodInputs(Protocol):
    """Everything a pod is told."""

    membership: Membership
    tls: TlsStore
    ring: KeyRingStore
    has_peers: bool
    """Whether there can be other pods: a pod by hand has none and listens to none."""

    @property
    def config(self) -> ServerConfig: ...

    @property
    def keys(self) -> Keys: ...

    @property
    def faults(self) -> list[str]:
        """Why the latest configuration or keys are not in force; for health."""

    async def refresh(self) -> None:
        """Look at the files once; a new configuration that can be used is `config` then."""

    def drive_path(self, volume: Volume) -> Path: ...

    def locate(self, path: str) -> Path:
        """Where a path of the configuration is on this machine."""


class TenantInputs:
    """A pod of a tenant: `holdfast server --config FILE --pod NAME`."""

    has_peers = True

    def __init__(self, config_path: Path, pod: str, root_prefix: Path | None) -> None:
        """Raises ConfigError."""
        self._root_prefix = root_prefix
        self._file = ConfigFile(config_path)
        self.membership = find_membership(self._file.current, pod)
        self._key_store = KeyStore(self._file.current.keys, root_prefix)
        self._config = self._file.current
        self.tls = TlsStore(root_prefix)
        self.tls.look(self._config.tls)
        self.ring = KeyRingStore(self._config.encryption, root_prefix)
        self._frozen_fault = ""

    @property
    def config(self) -> ServerConfig:
        return self._config

    @property
    def keys(self) -> Keys:
        return self._key_store.current

    @property
    def faults(self) -> list[str]:
        faults = (self._file.fault, self._frozen_fault, self._key_store.fault, self.tls.fault, self.ring.fault)
        return [fault for fault in faults if fault]

    async def refresh(self) -> None:
        await self._key_store.refresh(self._config.keys)
        fresh = await self._file.changed()
        if fresh is not None:
            self._take_over(fresh)
        await self.tls.refresh(self._config.tls)
        await self.ring.refresh(self._config.encryption)

    def _take_over(self, fresh: ServerConfig) -> None:
        try:
            membership = check_successor(self.membership, fresh)
            check_pools(self._config, fresh)
        except ConfigError as error:
            self._frozen_fault = str(error)
            return
        self._frozen_fault = ""
        self.membership, self._config = membership, fresh

    def drive_path(self, volume: Volume) -> Path:
        return under_prefix(volume.path, self._root_prefix)

    def locate(self, path: str) -> Path:
        return under_prefix(path, self._root_prefix)


class StandaloneInputs:
    """A pod by hand: `holdfast server PATH…`."""

    has_peers = False

    def __init__(
        self,
        patterns: Sequence[str],
        root_user: str,
        root_password: str,
        listen: Listen,
        new_tenant_id: str,
        encryption: EncryptionConfig | None = None,
    ) -> None:
        """`new_tenant_id` is taken where no drive has an identity yet.  Raises ConfigError."""
        self.tls = TlsStore()
        faults = check_root(root_user, root_password, "HOLDFAST_ROOT_USER", "HOLDFAST_ROOT_PASSWORD")
        if faults:
            raise ConfigError("\n".join(faults))
        self._paths = [Path(path) for path in standalone.expand_paths(patterns)]
        tenant_id = find_tenant(self._paths) or new_tenant_id
        made = standalone.make_config(tenant_id, len(self._paths), listen)
        self.config = msgspec.structs.replace(made, encryption=encryption)
        self.ring = KeyRingStore(encryption)
        if self.ring.fault:
            raise ConfigError(self.ring.fault)  # somebody is there to read it, unlike where a pod is restarted
        if not any(path.is_dir() for path in self._paths):
            # One that is missing may be a mount that comes back; all of them are a slip of the hand.
            named = ", ".join(str(path) for path in self._paths[:4]) + (", …" if len(self._paths) > 4 else "")
            raise ConfigError(f"none of these is a folder: {named}; a drive's folder is not made for you: mkdir first")
        self.membership = find_membership(self.config, standalone.POD)
        # Nobody dials this pod; the key only seals users' secrets, which rest beside the tenant id on the drives.
        self.keys = Keys(root_user, root_password, hashlib.sha256(f"standalone {tenant_id}".encode()).digest())

    @property
    def faults(self) -> list[str]:
        return [self.ring.fault] if self.ring.fault else []

    async def refresh(self) -> None:
        await self.ring.refresh(self.config.encryption)

    def drive_path(self, volume: Volume) -> Path:
        return self._paths[volume.number]

    def locate(self, path: str) -> Path:
        return Path(path)


def find_tenant(paths: Sequence[Path]) -> str:
    """The tenant whose drives these are; empty if all are blank.  Raises ConfigError where they are of several."""
    tenants: dict[str, Path] = {}
    for path in paths:
        try:
            identity = read_identity(path)
        except (IdentityError, OSError):
            continue  # opening the drive will say what is wrong with it
        if identity is not None:
            tenants.setdefault(identity.tenant, path)
    if len(tenants) > 1:
        named = ", ".join(f"{path} ({tenant})" for tenant, path in tenants.items())
        raise ConfigError(f"these drives belong to different tenants: {named}")
    return next(iter(tenants), "")
