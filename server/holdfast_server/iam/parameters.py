"""The query protocol's requests: a form whose fields are parameters, lists as `Tags.member.1.Key`.  Pure.

Every check names the parameter; nothing is cut to size or guessed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import parse_qsl

from holdfast_server.iam.errors import IamError

MAX_PARAMETERS = 300
MAX_LIST = 100
MAX_PAGE = 1000
DEFAULT_PAGE = 100
MAX_TAGS = 50

_MEMBER = re.compile(r"([A-Za-z]+)\.member\.([1-9][0-9]{0,3})(?:\.([A-Za-z]+))?")
NAME = re.compile(r"[A-Za-z0-9_+=,.@-]+")
PATH = re.compile(r"/|/[!-~]+/")
PATH_PREFIX = re.compile(r"/[!-~]*")
TAG = re.compile(r"[\w _.:/=+\-@]*")


class Parameters:
    def __init__(self, fields: Mapping[str, str]) -> None:
        self._fields = dict(fields)

    @property
    def action(self) -> str:
        return self._fields.get("Action", "")

    def check_known(self, allowed: frozenset[str]) -> None:
        for name in self._fields:
            plain = name.partition(".")[0]
            if plain not in allowed and plain not in ("Action", "Version"):
                raise _invalid(f"The parameter {plain[:128]!r} is not supported here.")

    def text(self, name: str, default: str | None = None, max_size: int = 1 << 20) -> str:
        """Raises ValidationError where it is absent and has no default, or is too long."""
        value = self._fields.get(name, default)
        if value is None:
            raise _invalid(f"The request must contain the parameter {name}.")
        if len(value) > max_size:
            raise _invalid(f"{name}: at most {max_size} characters are allowed.")
        return value

    def has(self, name: str) -> bool:
        return name in self._fields

    def name(self, name: str, max_size: int, default: str | None = None) -> str:
        value = self.text(name, default, max_size)
        if value != default and not NAME.fullmatch(value):
            raise _invalid(f"{name}: must be of alphanumeric characters and +=,.@_- and not be empty.")
        return value

    def path(self, name: str = "Path", default: str | None = "/") -> str:
        value = self.text(name, default, 512)
        if not PATH.fullmatch(value):
            raise _invalid(f"{name}: must begin and end with / and contain printable ASCII only.")
        return value

    def path_prefix(self) -> str:
        value = self.text("PathPrefix", "/", 512)
        if not PATH_PREFIX.fullmatch(value):
            raise _invalid("PathPrefix: must begin with / and contain printable ASCII only.")
        return value

    def number(self, name: str, default: int, low: int, high: int) -> int:
        text = self._fields.get(name)
        if text is None:
            return default
        if not (text.isascii() and text.isdigit() and len(text) < 10 and low <= int(text) <= high):
            raise _invalid(f"{name}: must be a number from {low} to {high}.")
        return int(text)

    def flag(self, name: str) -> bool:
        text = self._fields.get(name, "false").lower()
        if text not in ("true", "false"):
            raise _invalid(f"{name}: must be true or false.")
        return text == "true"

    def choice(self, name: str, allowed: tuple[str, ...], default: str | None = None) -> str:
        text = self.text(name, default)
        if text not in allowed and text != default:
            raise _invalid(f"{name}: must be one of {', '.join(allowed)}.")
        return text

    def members(self, name: str) -> list[dict[str, str]]:
        """A list of structures, in its order; of plain values each under the empty name."""
        found: dict[int, dict[str, str]] = {}
        for field, value in self._fields.items():
            match = _MEMBER.fullmatch(field)
            if match and match[1] == name:
                found.setdefault(int(match[2]), {})[match[3] or ""] = value
        if len(found) > MAX_LIST:
            raise _invalid(f"{name}: at most {MAX_LIST} are allowed.")
        return [found[index] for index in sorted(found)]

    def tags(self) -> dict[str, str]:
        tags: dict[str, str] = {}
        for member in self.members("Tags"):
            key, value = member.get("Key", ""), member.get("Value", "")
            if not 1 <= len(key) <= 128 or len(value) > 256 or not TAG.fullmatch(key) or not TAG.fullmatch(value):
                raise _invalid(
                    "Tags: a key has 1 to 128 characters, a value up to 256, of letters, digits and _.:/=+-@"
                )
            if key in tags:
                raise IamError("InvalidInput", f"Tags: the key {key!r} is given twice.")
            tags[key] = value
        return tags

    def page(self) -> tuple[str, int]:
        """Where the page begins (exclusive), and how many it has."""
        return self.text("Marker", "", 1024), self.number("MaxItems", DEFAULT_PAGE, 1, MAX_PAGE)


def parse_form(body: bytes) -> Parameters:
    """Raises MalformedQueryString."""
    try:
        pairs = parse_qsl(body.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=MAX_PARAMETERS)
    except (UnicodeError, ValueError) as error:
        raise IamError("MalformedQueryString", "The query string cannot be read.") from error
    fields: dict[str, str] = {}
    for name, value in pairs:
        if name in fields:
            raise IamError("MalformedQueryString", f"The parameter {name[:128]!r} is given twice.")
        fields[name] = value
    return Parameters(fields)


def _invalid(message: str) -> IamError:
    return IamError("ValidationError", message)
