"""Names of pods to addresses, afresh at every dial: a pod that is rescheduled keeps its name, not its address.

A hosts table (a file in the form of /etc/hosts) is looked at first where one is given: that is how pods find
each other where they run as plain processes without a name service.  Everything else goes to the system's
resolver, on a few threads of its own, so that a name service that hangs delays dials and nothing else.
"""

from __future__ import annotations

import asyncio
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

_RESOLVER_THREADS = 2


def look_up(table: str, name: str) -> str | None:
    """The address of a name in the text of a hosts table; the first line that has it wins."""
    for line in table.splitlines():
        address, *names = line.partition("#")[0].split() or [""]
        if name in names:
            return address
    return None


class Resolver:
    """Raises OSError for names nobody knows."""

    def __init__(self, hosts_file: Path | None = None) -> None:
        self._hosts_file = hosts_file
        self._executor = ThreadPoolExecutor(_RESOLVER_THREADS, thread_name_prefix="resolver")

    async def resolve(self, name: str) -> str:
        """One address of the name."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, self._resolve, name)

    def close(self) -> None:
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _resolve(self, name: str) -> str:
        if self._hosts_file is not None:
            address = look_up(self._hosts_file.read_text(), name)
            if address is not None:
                return address
        infos = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
        return str(infos[0][4][0])
