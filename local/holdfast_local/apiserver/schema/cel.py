"""CEL rules."""

from typing import Any

from holdfast_local.apiserver.errors import Cause


def compile_error(rule: str) -> str:
    return ""


def validate_rules(obj: Any, old: Any, schema: Any) -> list[Cause]:
    return []
