"""The small part of JSONPath that printer columns and scale paths use: fields, indices, filters by equality. Pure."""

import json
import re
from typing import Any

_STEP = re.compile(
    r"\.(?P<field>(?:\\.|[^.\[\]\\])+)"
    r"|\['(?P<quoted>[^']+)'\]"
    r"|\[(?P<index>\d+)\]"
    r"|\[\?\(@\.(?P<key>[^=!<>\s]+)\s*==\s*(?P<value>\"[^\"]*\"|'[^']*'|[^)]+)\)\]"
)


def find(obj: Any, path: str) -> Any:
    """The first value at `path`, such as `.status.conditions[?(@.type=="Ready")].status`; None if there is none."""
    position = 0
    while position < len(path):
        match = _STEP.match(path, position)
        if match is None:
            return None
        obj = _step(obj, match)
        if obj is None:
            return None
        position = match.end()
    return obj


def _step(obj: Any, match: re.Match[str]) -> Any:
    name = match["field"] or match["quoted"]
    if name is not None:
        return obj.get(name.replace("\\.", ".")) if isinstance(obj, dict) else None
    if not isinstance(obj, list):
        return None
    if match["index"] is not None:
        index = int(match["index"])
        return obj[index] if index < len(obj) else None
    text = match["value"].strip()
    wanted = text[1:-1] if text[0] in "'\"" else json.loads(text)
    return next((e for e in obj if isinstance(e, dict) and e.get(match["key"]) == wanted), None)
