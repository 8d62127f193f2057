"""The keys that are there now, by their entries (`contract.encryption_keys`).  Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from holdfast_server.contract.encryption_keys import fingerprint, parse_entry


class UnknownKey(KeyError):
    """No key of that name, or not that generation of it."""


class MasterKey(NamedTuple):
    entry: str
    key: bytes

    def __repr__(self) -> str:
        return f"MasterKey({self.entry!r}, …)"


class KeyRing:
    """Never changed; another takes its place."""

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        """By entry, as `decode_ring` gives them."""
        self._keys = dict(keys)
        self._generations: dict[str, list[MasterKey]] = {}
        for entry, key in keys.items():
            self._generations.setdefault(parse_entry(entry).name, []).append(MasterKey(entry, key))
        for found in self._generations.values():
            found.sort(key=lambda master: parse_entry(master.entry).generation, reverse=True)
        self.fingerprints = tuple(sorted(fingerprint(entry, key) for entry, key in keys.items()))
        """Of all its keys, for the other pods to compare."""

    def __len__(self) -> int:
        return len(self._keys)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, KeyRing) and self._keys == other._keys

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"KeyRing({sorted(self._keys)})"

    @property
    def entries(self) -> list[str]:
        return sorted(self._keys)

    def get(self, entry: str) -> bytes:
        """Raises UnknownKey."""
        try:
            return self._keys[entry]
        except KeyError:
            raise UnknownKey(entry) from None

    def has(self, name: str) -> bool:
        """Whether there is a key of that name, of whatever generation."""
        return name in self._generations

    def newest(self, name: str, is_everywhere: Callable[[bytes], bool] = lambda _: True) -> MasterKey | None:
        """The newest generation of a key that, by its fingerprint, every other pod has too; None if there is none.
        Raises UnknownKey."""
        if name not in self._generations:
            raise UnknownKey(name)
        for master in self._generations[name]:
            if is_everywhere(fingerprint(master.entry, master.key)):
                return master
        return None
