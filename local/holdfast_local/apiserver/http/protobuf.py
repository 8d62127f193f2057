"""Protobuf bodies."""

from typing import Any

from holdfast_local.apiserver import errors

PROTOBUF = "application/vnd.kubernetes.protobuf"


def decode_object(raw: bytes) -> dict[str, Any]:
    raise errors.unsupported_media_type(("application/json", "application/yaml"))
