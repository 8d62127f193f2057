"""Cuts between pods on loopback, made by the kernel's firewall in a network of this process's own.

What a cut swallows is simply gone, as on a broken switch: nobody is told, connections stay open, and either side finds
out by itself.  Only the connections between pods are cut; clients reach every pod.

Needs root and `iptables`; raises `CannotCut`, naming what is missing, so that a test can do without.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from enum import Enum

from holdfast_server.contract.names import PEER_PORT
from holdfast_server.testing.pods import PodProcesses

FIRST_GROUP = 42_000
TIMEOUT_SECONDS = 120
_CLONE_NEWNET = 0x40000000


class CannotCut(Exception):
    """This process may not have a network of its own, or there is no firewall."""


class Way(Enum):
    """What no longer gets through."""

    BOTH = "to and from"
    TO = "to"
    """Calls of the others to the pod; its own to them go on."""
    FROM = "from"
    """Calls of the pod to the others."""


class NetworkCut:
    """The wires of a tenant's pods."""

    def __init__(self, pods: PodProcesses) -> None:
        """Before the first pod is started, and before this process opens any connection that it wants to keep: from
        here on it and what it starts are in a network of their own.  Raises CannotCut."""
        if os.geteuid() != 0 or shutil.which("iptables") is None:
            raise CannotCut("needs root and iptables")
        if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNET):
            raise CannotCut(os.strerror(ctypes.get_errno()))
        _run("ip", "link", "set", "lo", "up")
        _run("iptables", "-N", "cuts")
        _run("iptables", "-A", "OUTPUT", "-j", "cuts")
        self._pods = pods
        pods.first_group = FIRST_GROUP

    def cut(self, pod: int, way: Way) -> None:
        """What is cut already stays cut."""
        if way is not Way.FROM:
            self._drop("-d", self._pods.address(pod), "--dport", str(PEER_PORT))
            self._drop("-s", self._pods.address(pod), "--sport", str(PEER_PORT))
        if way is not Way.TO:
            self._drop("-m", "owner", "--gid-owner", str(self._pods.group(pod)), "--dport", str(PEER_PORT))

    def heal(self) -> None:
        """Everything gets through again."""
        _run("iptables", "-F", "cuts")

    def _drop(self, *which: str) -> None:
        # `-m owner` has to stand before what it is told, `-p` before the ports.
        _run("iptables", "-A", "cuts", "-p", "tcp", *which, "-j", "DROP")


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_SECONDS)
    if done.returncode:
        raise CannotCut(f"{' '.join(command)}: {done.stderr.strip()}")
