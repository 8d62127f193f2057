"""The configuration file: read whole, checked whole, followed while it changes.

The operator mounts it as a folder of a ConfigMap, where a change is an exchange of the link `..data`; reading
the file by its own path sees either the old or the new content, never half of one.  A file that cannot be
read or is wrong never replaces what is in force: the fault is kept in `fault` (for health) and logged once.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import yaml

from holdfast_server.contract import config as contract
from holdfast_server.contract.config import ConfigError, ServerConfig

log = logging.getLogger(__name__)

MAX_CONFIG_SIZE_BYTES = 1 << 20
"""What a ConfigMap may hold."""


def parse_config(text: str) -> ServerConfig:
    """YAML (or JSON) to a checked configuration.  Raises ConfigError naming every fault."""
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"not YAML: {_one_line(error)}") from error
    if not isinstance(document, dict):
        raise ConfigError("the document must be a mapping")
    return contract.from_builtins(document)


class ConfigFile:
    """The configuration in force and its file."""

    def __init__(self, path: Path) -> None:
        """Raises ConfigError where the file cannot be used at the start."""
        self._path = path
        self._text = _read_text(path)
        self.current = _checked(path, self._text)
        self.fault = ""
        """Why the file as it is now is not in force; empty if it is."""

    async def changed(self) -> ServerConfig | None:
        """Look once: the new configuration, now in force, or None if nothing changed or it cannot be used."""
        try:
            text = await asyncio.to_thread(_read_text, self._path)
            if text == self._text:
                self.fault = ""
                return None
            fresh = _checked(self._path, text)
            if fresh.tenant.id != self.current.tenant.id:
                raise ConfigError(f"{self._path}: tenant.id: must not change ({self.current.tenant.id!r} is in force)")
        except ConfigError as error:
            if str(error) != self.fault:
                log.error("configuration not taken over", extra={"reason": str(error)})
            self.fault = str(error)
            return None
        self._text, self.current, self.fault = text, fresh, ""
        log.info("configuration changed", extra={"epoch": fresh.epoch})
        return fresh


def _read_text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_CONFIG_SIZE_BYTES + 1)
        if len(data) > MAX_CONFIG_SIZE_BYTES:
            raise ConfigError(f"{path}: larger than {MAX_CONFIG_SIZE_BYTES} bytes")
        return data.decode()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8") from error


def _checked(path: Path, text: str) -> ServerConfig:
    try:
        return parse_config(text)
    except ConfigError as error:
        raise ConfigError("\n".join(f"{path}: {line}" for line in str(error).splitlines())) from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
