"""How the operator reaches a tenant's pods: plain, or with TLS and what verifies them.

Pods are asked by address, which no certificate names; the name that is verified is the Service's.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from typing import Any

from holdfast_operator.tls.reading import authorities_of

MAX_KEPT = 1024
"""Tenants for which what verifies them is kept, some 20 KB each, and with it the connections that were made; others pay
a handshake with every pod in every pass."""


@dataclass(frozen=True, slots=True)
class Reach:
    """Plain HTTP without a context."""

    context: ssl.SSLContext | None = None
    server_name: str = ""

    @property
    def scheme(self) -> str:
        return "http" if self.context is None else "https"

    def request_options(self) -> dict[str, Any]:
        """What an aiohttp request takes."""
        return {} if self.context is None else {"ssl": self.context, "server_hostname": self.server_name}


PLAIN = Reach()


class Reaches:
    """One per operator."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, str], Reach] = {}

    def with_tls(self, authority: str, server_name: str) -> Reach:
        """`authority` in PEM, of the system where empty.  Raises OSError or ValueError where it cannot be read."""
        known = self._kept.pop((authority, server_name), None)
        if known is None:
            context = ssl.create_default_context(cadata=authorities_of(authority) or None)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            known = Reach(context, server_name)
        self._kept[authority, server_name] = known
        if len(self._kept) > MAX_KEPT:
            del self._kept[next(iter(self._kept))]
        return known
