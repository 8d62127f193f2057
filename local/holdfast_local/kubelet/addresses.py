"""Loopback addresses: 127.77.<slot>.x for pods, 127.78.<slot>.x for Services.

A slot belongs to one running cluster of this machine, whoever started it: it is held by a listening socket on
127.77.<slot>.1, which the system releases even after `kill -9`.  The first choice follows from the state
folder, so that addresses survive a restart and two clusters rarely even try the same slot.  Within the slot
an address stays with its name, on disk too, until more names were seen than there are addresses.
"""

from __future__ import annotations

import json
import socket
import zlib
from collections.abc import Container
from pathlib import Path

POD_NETWORK = "127.77"
SERVICE_NETWORK = "127.78"
SLOT_PORT = 7877
SLOTS = range(1, 255)
HOSTS = range(2, 255)


class AddressesExhausted(Exception):
    """More pods or Services at once than one cluster has addresses."""


class Slot:
    """A claimed slot; released by `close` or the end of the process."""

    def __init__(self, number: int, holder: socket.socket) -> None:
        self.number = number
        self._holder = holder

    @classmethod
    def claim(cls, state_directory: Path) -> Slot:
        """The state folder's usual slot, or the next free one; raises AddressesExhausted."""
        first = zlib.crc32(str(state_directory.resolve()).encode()) % len(SLOTS)
        for offset in range(len(SLOTS)):
            number = SLOTS[(first + offset) % len(SLOTS)]
            holder = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            try:
                holder.bind((f"{POD_NETWORK}.{number}.1", SLOT_PORT))
                holder.listen(1)
            except OSError:
                holder.close()
                continue
            return cls(number, holder)
        raise AddressesExhausted("no free range of loopback addresses: are 254 clusters running here?")

    def close(self) -> None:
        self._holder.close()


class AddressBook:
    """Names and their addresses in one network of a slot, kept in a JSON file."""

    def __init__(self, path: Path, network: str, slot: int) -> None:
        self._path = path
        self._prefix = f"{network}.{slot}."
        self._hosts: dict[str, int] = {}
        try:
            stored = json.loads(path.read_text())
            self._hosts = {str(name): int(host) for name, host in stored.items() if int(host) in HOSTS}
        except (OSError, ValueError, AttributeError):
            pass  # first start, or a file torn by a crash: addresses are chosen anew

    def address(self, name: str, live: Container[str]) -> str:
        """The address of `name`; where none is free, that of a name no longer in `live` is taken over."""
        host = self._hosts.get(name)
        if host is None:
            host = self._free(name, live)
            self._hosts[name] = host
            self._save()
        return f"{self._prefix}{host}"

    def contains(self, address: str) -> bool:
        """True for an address of this network and slot."""
        return address.startswith(self._prefix)

    def _free(self, name: str, live: Container[str]) -> int:
        taken = set(self._hosts.values())
        for host in HOSTS:
            if host not in taken:
                return host
        for other in list(self._hosts):
            if other not in live:
                return self._hosts.pop(other)
        raise AddressesExhausted(f"no address left for {name}: at most {len(HOSTS)} at once")

    def _save(self) -> None:
        fresh = self._path.with_suffix(".new")
        fresh.write_text(json.dumps(self._hosts))
        fresh.rename(self._path)
