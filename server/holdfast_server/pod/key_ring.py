"""The tenant's encryption keys from a mounted folder, read again when they change (`contract.encryption_keys`).

Each file is a key; what begins with a dot is not looked at (a mounted Secret has its own there).  A folder that turns
unreadable, empty or wrong leaves the keys in force: objects are sealed under them.  Only keys that are taken out of a
folder in which others are left go out of force.  A pod starts without any, and says so: what is not encrypted can be
served.  Never logged; messages name files only.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from holdfast_server.contract.config import ConfigError, EncryptionConfig
from holdfast_server.contract.encryption_keys import (
    MAX_KEY_FILE_SIZE_BYTES,
    MAX_KEYS,
    EncryptionKeyError,
    decode_ring,
)
from holdfast_server.pod.key_files import under_prefix
from holdfast_server.sealing.ring import KeyRing

log = logging.getLogger(__name__)

_FIELD = "encryption.keysFolder"


def read_ring(folder: Path, shown: str) -> KeyRing:
    """The keys of a folder; `shown` is what messages call it.  Raises ConfigError with every fault."""
    files: dict[str, bytes] = {}
    try:
        paths = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
        for path in paths[: MAX_KEYS + 1]:
            with path.open("rb") as file:
                files[path.name] = file.read(MAX_KEY_FILE_SIZE_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{shown}: {error.strerror}") from error
    if not files:
        raise ConfigError(f"{shown}: there is no key in it")
    try:
        return KeyRing(decode_ring(files))
    except EncryptionKeyError as error:
        raise ConfigError("\n".join(f"{shown}: {line}" for line in str(error).splitlines())) from error


def _folder(config: EncryptionConfig | None) -> str:
    """Empty where there is none."""
    return config.keys_folder if config is not None else ""


class KeyRingStore:
    """The ring in force."""

    def __init__(self, config: EncryptionConfig | None, root_prefix: Path | None = None) -> None:
        self._root_prefix = root_prefix
        self.current = KeyRing({})
        self.fault = ""
        """Why the keys as their files are now are not in force."""
        try:
            self._take(self._read(config))
        except ConfigError as error:
            self._refuse(error)

    async def refresh(self, config: EncryptionConfig | None) -> None:
        """Look once."""
        if not _folder(config):
            self._take(self._read(config))  # no files, so no thread: a hand-over is a tenth of what a pod at rest does
            return
        try:
            fresh = await asyncio.to_thread(self._read, config)
            if fresh != self.current and fresh != await asyncio.to_thread(self._read, config):
                return  # the files are being exchanged
        except ConfigError as error:
            self._refuse(error)
            return
        self._take(fresh)

    def _read(self, config: EncryptionConfig | None) -> KeyRing:
        folder = _folder(config)
        return read_ring(under_prefix(folder, self._root_prefix), f"{_FIELD}: {folder}") if folder else KeyRing({})

    def _take(self, fresh: KeyRing) -> None:
        self.fault = ""
        if fresh != self.current:
            self.current = fresh
            log.info("encryption keys in force", extra={"keys": fresh.entries})

    def _refuse(self, error: ConfigError) -> None:
        if str(error) != self.fault:
            log.error("encryption keys not taken over", extra={"reason": str(error)})
        self.fault = str(error)
