"""Ports for those who are told theirs before they listen, or listen anew on the one they had.

What the system gives to who asks for any port, it gives to clients' ends of connections as well: on a busy machine
somebody has such a port by the time it is listened on.  These are none of them.
"""

from __future__ import annotations

import secrets
import socket
from contextlib import closing
from pathlib import Path

_LOWEST = 10_000
_LEAST_COUNT = 10_000
_GIVEN_TO_ANYBODY = Path("/proc/sys/net/ipv4/ip_local_port_range")


def free_port(address: str = "127.0.0.1") -> int:
    """One that nobody listens on at this moment; one of so many that two who look at the same time do not meet."""
    first_given = int(_GIVEN_TO_ANYBODY.read_text().split()[0])
    count = max(first_given - _LOWEST, _LEAST_COUNT)  # where nearly all are given to anybody there is no better choice
    while True:
        port = _LOWEST + secrets.randbelow(count)
        with closing(socket.socket()) as probe:
            try:
                probe.bind((address, port))
            except OSError:
                continue
            return port
