"""Where things are mounted in a storage pod.  Pure constants."""

from __future__ import annotations

CONFIG_FOLDER = "/etc/holdfast/config"
CONFIG_KEY = "config.yaml"
KEYS_FOLDER = "/etc/holdfast/keys"
ENCRYPTION_FOLDER = "/etc/holdfast/encryption"
AUDIT_FOLDER = "/etc/holdfast/audit"
AUDIT_TOKEN_KEY = "token"
DRIVE_PATH = "/data{volume}"


def claim_name(volume: int) -> str:
    return f"data{volume}"


def drive_path(volume: int) -> str:
    return DRIVE_PATH.format(volume=volume)
