"""Reading of untrusted YAML that goes on after a fault, so that all faults are reported together.

A `Fields` wraps one mapping and knows its path.  Each reading method returns a value of the right type even
when the field is faulty (its default, or an empty one), and notes the fault; the caller throws the result away
if anything was noted.  Nothing here knows what a Tenant is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong with one field; `path` as in `spec.pools[0].servers`."""

    path: str
    message: str
    passed_on: bool = False
    """The value is passed on as it stands all the same, for the API server to refuse."""

    def __str__(self) -> str:
        return f"{self.path}: {self.message}"


class Fields:
    """One mapping of the document; create the outermost with `Fields.of`, nested ones with `child`/`items`."""

    def __init__(self, path: str, values: Mapping[str, Any], faults: list[Fault]) -> None:
        self.path = path
        self._values = values
        self._faults = faults
        self._known: set[str] = set()

    @classmethod
    def of(cls, path: str, value: object, faults: list[Fault]) -> Fields:
        if value is None:
            value = {}
        if not isinstance(value, Mapping):
            faults.append(Fault(path, f"must be a mapping, not {_type_name(value)}"))
            value = {}
        return cls(path, value, faults)

    def fault(self, name: str, message: str, *, passed_on: bool = False) -> None:
        self._faults.append(Fault(f"{self.path}.{name}" if name else self.path, message, passed_on))

    def has(self, name: str) -> bool:
        return self._take(name) is not None

    def text(
        self, name: str, default: str = "", *, required: bool = False, max_size: int = 1024, pattern: str = ""
    ) -> str:
        value = self._take(name)
        if value is None:
            if required:
                self.fault(name, "is required")
            return default
        if not isinstance(value, str):
            self.fault(name, f"must be a string, not {_type_name(value)}")
            return default
        if not value and required:
            self.fault(name, "must not be empty")
        elif len(value) > max_size:
            self.fault(name, f"is {len(value)} characters long, at most {max_size} are allowed")
        elif pattern and not re.fullmatch(pattern, value):
            self.fault(name, f"{value!r} does not match {pattern}")
        return value

    def choice(self, name: str, choices: tuple[str, ...], default: str) -> str:
        value = self.text(name, default)
        if value not in choices:
            self.fault(name, f"{value!r} is none of {', '.join(choices)}")
            return default
        return value

    def integer(self, name: str, default: int | None, *, low: int, high: int) -> int | None:
        """None only where the field is absent and there is no default."""
        value = self._take(name)
        if value is None:
            return default
        if not isinstance(value, int) or isinstance(value, bool):
            self.fault(name, f"must be a whole number, not {_type_name(value)}")
            return default
        if not low <= value <= high:
            self.fault(name, f"{value} is not within {low} to {high}")
            return default
        return value

    def required_integer(self, name: str, *, low: int, high: int) -> int:
        if self._take(name) is None:
            self.fault(name, "is required")
        return self.integer(name, None, low=low, high=high) or 0

    def flag(self, name: str, default: bool = False) -> bool:
        value = self._take(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            self.fault(name, f"must be true or false, not {_type_name(value)}")
            return default
        return value

    def child(self, name: str) -> Fields:
        return Fields.of(f"{self.path}.{name}", self._take(name), self._faults)

    def items(self, name: str, *, max_count: int) -> Iterator[Fields]:
        """The mappings of a list."""
        for index, value in enumerate(self._list(name, max_count)):
            yield Fields.of(f"{self.path}.{name}[{index}]", value, self._faults)

    def texts(self, name: str, default: tuple[str, ...] = (), *, max_count: int) -> tuple[str, ...]:
        values = self._list(name, max_count)
        for index, value in enumerate(values):
            if not isinstance(value, str) or not value:
                self.fault(f"{name}[{index}]", "must be a string that is not empty")
        if not values and self._take(name) is None:
            return default
        return tuple(value for value in values if isinstance(value, str))

    def integers(self, name: str, *, low: int, high: int, max_count: int) -> tuple[int, ...]:
        values = self._list(name, max_count)
        good = []
        for index, value in enumerate(values):
            if not isinstance(value, int) or isinstance(value, bool):
                self.fault(f"{name}[{index}]", f"must be a whole number, not {_type_name(value)}")
            elif not low <= value <= high:
                self.fault(f"{name}[{index}]", f"{value} is not within {low} to {high}")
            else:
                good.append(value)
        return tuple(good)

    def mapping(self, name: str) -> dict[str, Any]:
        """A mapping that is passed on as it stands."""
        value = self._take(name)
        if value is None:
            return {}
        if not isinstance(value, Mapping):
            self.fault(name, f"must be a mapping, not {_type_name(value)}")
            return {}
        return dict(value)

    def text_mapping(self, name: str) -> dict[str, str]:
        value = self.mapping(name)
        for key, text in value.items():
            if not isinstance(text, str):
                self.fault(f"{name}.{key}", f"must be a string, not {_type_name(text)}")
        return {key: text for key, text in value.items() if isinstance(text, str)}

    def mappings(self, name: str, *, max_count: int) -> tuple[dict[str, Any], ...]:
        """A list of mappings that are passed on as they stand."""
        values = self._list(name, max_count)
        for index, value in enumerate(values):
            if not isinstance(value, Mapping):
                self.fault(f"{name}[{index}]", f"must be a mapping, not {_type_name(value)}")
        return tuple(dict(value) for value in values if isinstance(value, Mapping))

    def finish(self) -> None:
        """Report the fields nobody asked for: what is not honoured must not be accepted."""
        for name in self._values:
            if name not in self._known:
                self.fault(str(name), "is not a field this operator knows")

    def _take(self, name: str) -> Any:
        self._known.add(name)
        return self._values.get(name)

    def _list(self, name: str, max_count: int) -> list[Any]:
        value = self._take(name)
        if value is None:
            return []
        if not isinstance(value, list | tuple):
            self.fault(name, f"must be a list, not {_type_name(value)}")
            return []
        if len(value) > max_count:
            self.fault(name, f"has {len(value)} entries, at most {max_count} are allowed")
            return []
        return list(value)


def is_address(text: str) -> bool:
    """Whether it is an IP address."""
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _type_name(value: object) -> str:
    names = {bool: "a boolean", int: "a number", float: "a number", str: "a string", list: "a list"}
    return names.get(type(value), "a mapping" if isinstance(value, Mapping) else type(value).__name__)
