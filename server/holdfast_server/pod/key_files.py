"""Keys from mounted files, read again when they change: rotation needs no restart.

Never logged; messages name the file and the field only.  A file that turns unreadable or wrong later leaves
the keys in force.  Beside its own keys a pod may be given further ones, which it accepts too (`contract.keys`).
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import NamedTuple

from holdfast_server.contract.config import ConfigError, KeyFiles
from holdfast_server.contract.keys import (
    MIN_ACCESS_KEY_LENGTH,
    MIN_PEER_KEY_SIZE_BYTES,
    MIN_SECRET_KEY_LENGTH,
    FurtherKeys,
    FurtherKeysError,
    decode_further_keys,
)

log = logging.getLogger(__name__)

_MAX_KEY_SIZE_BYTES = 4096
_MAX_FURTHER_KEYS_SIZE_BYTES = 64 * 1024


class Keys(NamedTuple):
    root_user: str
    root_password: str
    peer_key: bytes
    further: FurtherKeys = FurtherKeys()

    @property
    def root_pairs(self) -> tuple[tuple[str, str], ...]:
        """Access key and secret key of all that are root; the pod's own first."""
        return ((self.root_user, self.root_password), *((one.access_key, one.secret_key) for one in self.further.root))

    @property
    def peer_keys(self) -> tuple[bytes, ...]:
        """The pod's own first, which it proves itself with."""
        return (self.peer_key, *(key.encode() for key in self.further.peer))

    def __repr__(self) -> str:
        return "Keys(…)"


def check_root(user: str, password: str, user_field: str, password_field: str) -> list[str]:
    """The faults of root keys, each naming its field."""
    faults = []
    if not user:
        faults.append(f"{user_field}: not given; it is the access key, at least {MIN_ACCESS_KEY_LENGTH} characters")
    elif len(user) < MIN_ACCESS_KEY_LENGTH:
        faults.append(f"{user_field}: the root user needs at least {MIN_ACCESS_KEY_LENGTH} characters")
    if any(character in user for character in "/,=") or not user.isprintable() or user != user.strip():
        faults.append(f"{user_field}: the root user must not contain '/', ',', '=', control characters or outer blanks")
    if not password:
        faults.append(f"{password_field}: not given; it is the secret key, at least {MIN_SECRET_KEY_LENGTH} characters")
    elif len(password) < MIN_SECRET_KEY_LENGTH:
        faults.append(f"{password_field}: the root password needs at least {MIN_SECRET_KEY_LENGTH} characters")
    return faults


def read_keys(files: KeyFiles, root_prefix: Path | None = None) -> Keys:
    """Raises ConfigError with every fault."""
    faults: list[str] = []
    user = _read(files.root_user_file, "keys.rootUserFile", root_prefix, faults)
    password = _read(files.root_password_file, "keys.rootPasswordFile", root_prefix, faults)
    peer_key = _read(files.peer_key_file, "keys.peerKeyFile", root_prefix, faults)
    further = _read_further(files.further_keys_file, root_prefix, faults)
    if not faults:
        faults += check_root(
            user, password, f"keys.rootUserFile: {files.root_user_file}",
            f"keys.rootPasswordFile: {files.root_password_file}",
        )  # fmt: skip
        if len(peer_key.encode()) < MIN_PEER_KEY_SIZE_BYTES:
            faults.append(
                f"keys.peerKeyFile: {files.peer_key_file}: the peer key needs at least {MIN_PEER_KEY_SIZE_BYTES} bytes"
            )
    if faults:
        raise ConfigError("\n".join(faults))
    return Keys(user, password, peer_key.encode(), further)


def _read_further(path: str, root_prefix: Path | None, faults: list[str]) -> FurtherKeys:
    if not path:
        return FurtherKeys()
    field, noted = "keys.furtherKeysFile", len(faults)
    text = _read(path, field, root_prefix, faults, _MAX_FURTHER_KEYS_SIZE_BYTES)
    if len(faults) > noted:
        return FurtherKeys()
    try:
        further = decode_further_keys(text.encode())
    except FurtherKeysError as error:
        faults.append(f"{field}: {path}: {error}")
        return FurtherKeys()
    for index, pair in enumerate(further.root):
        where = f"{field}: {path}: root[{index}]"
        faults += check_root(pair.access_key, pair.secret_key, f"{where}.accessKey", f"{where}.secretKey")
    faults += [
        f"{field}: {path}: peer[{index}] needs at least {MIN_PEER_KEY_SIZE_BYTES} bytes"
        for index, key in enumerate(further.peer)
        if len(key.encode()) < MIN_PEER_KEY_SIZE_BYTES
    ]
    return further


def under_prefix(path: str, root_prefix: Path | None) -> Path:
    """A path of the configuration as this process sees it."""
    return Path(path) if root_prefix is None else root_prefix / path.lstrip("/")


class KeyStore:
    """The keys in force."""

    def __init__(self, files: KeyFiles, root_prefix: Path | None = None) -> None:
        """Raises ConfigError where they cannot be used at the start."""
        self._root_prefix = root_prefix
        self.current = read_keys(files, root_prefix)
        self.fault = ""

    async def refresh(self, files: KeyFiles) -> None:
        """Look once."""
        try:
            fresh = await asyncio.to_thread(read_keys, files, self._root_prefix)
            if fresh != self.current and fresh != await asyncio.to_thread(read_keys, files, self._root_prefix):
                return  # The files are being exchanged: a new user with an old password must not come into force.
        except ConfigError as error:
            if str(error) != self.fault:
                log.error("keys not taken over", extra={"reason": str(error)})
            self.fault = str(error)
            return
        self.fault = ""
        if fresh != self.current:
            self.current = fresh
            log.info("keys changed", extra={"revision": fresh.further.revision})


def _read(
    path: str, field: str, root_prefix: Path | None, faults: list[str], max_size_bytes: int = _MAX_KEY_SIZE_BYTES
) -> str:
    """One key; the newline that editors and `kubectl create secret` leave at the end does not belong to it."""
    try:
        with under_prefix(path, root_prefix).open("rb") as file:
            data = file.read(max_size_bytes + 1)
        if len(data) > max_size_bytes:
            faults.append(f"{field}: {path}: larger than {max_size_bytes} bytes")
        return data.decode().rstrip("\r\n")
    except OSError as error:
        faults.append(f"{field}: {path}: {error.strerror}")
    except UnicodeDecodeError:
        faults.append(f"{field}: {path}: not UTF-8")
    return ""
