"""How the operator reaches a tenant's pods: plain, or with TLS and what verifies them.

Pods are asked by address, which no certificate names; the name that is verified is the Service's.  Beside the authority
that clients are told of, the very chain that the pods were given is trusted, and for a while the one before: a Secret
as `kubectl create secret tls` makes it has no `ca.crt`, the authority that signed may be a company's own, and pods must
not be out of sight for that.
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
        self._kept: dict[tuple[str, str, str], Reach] = {}

    def with_tls(self, authority: str, chain: str, server_name: str) -> Reach:
        """`authority` in PEM, of the system where empty; `chain`: what pods show, in PEM.  Raises OSError or ValueError
        where they cannot be read."""
        key = (authority, chain, server_name)
        known = self._kept.pop(key, None)
        if known is None:
            context = ssl.create_default_context(cadata=authorities_of(authority) or None)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            context.load_verify_locations(cadata=authorities_of(chain))
            context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
            # Of what a company's own authority makes, not all has every extension; Python asks for them from 3.13 on.
            context.verify_flags &= ~ssl.VERIFY_X509_STRICT
            known = Reach(context, server_name)
        self._kept[key] = known
        if len(self._kept) > MAX_KEPT:
            del self._kept[next(iter(self._kept))]
        return known
