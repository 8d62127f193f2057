"""How many failed authentications a source may cause, without keeping out who is known to come from there.

A *source* is the address that the pod sees (of IPv6 its /64): behind a proxy or a NAT many clients share one, good ones
among them.  Each source has a bucket of failures that refills with time.  While it is empty, nothing of that source is
looked at any more (no signature, no look-up of an unknown key: 503, which clients repeat), but for access keys that
have proven themselves from there: those have a bucket of their own, for each source.  So

- who guesses keys or secrets, from one address, gets `SOURCE_PER_SECOND` tries, and of one key that is in use from that
  address `KEY_PER_SECOND`;
- a fleet with a wrong secret does not keep out its neighbours behind the same proxy;
- a good client that is new to the address waits, while the failures go on, until it meets a moment in which the bucket
  has something; nobody is kept out longer than about `1 / rate` seconds after the failures end;
- the one good client that does suffer shares both its address and its access key with who guesses.

Both tables are bounded, the oldest go; who has gone begins anew with a full bucket.  Each pod counts for itself.

Not here: what counts as a failure (the caller says), quotas of requests that succeed.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict

SOURCE_BURST = 200.0
SOURCE_PER_SECOND = 20.0
KEY_BURST = 20.0
KEY_PER_SECOND = 2.0
MAX_SOURCES = 4096
MAX_KNOWN_KEYS = 16384
"""Pairs of a source and an access key."""
MAX_KEY_SIZE = 128
"""Longer ones are no access keys and never become known."""


class _Bucket:
    __slots__ = ("at", "left")

    def __init__(self, left: float, at: float) -> None:
        self.left, self.at = left, at

    def refill(self, burst: float, per_second: float, now: float) -> float:
        self.left = min(burst, self.left + max(0.0, now - self.at) * per_second)
        self.at = now
        return self.left


class FailureLimits:
    """Of one pod.  Times are seconds of a clock that only goes forward."""

    def __init__(self) -> None:
        self._sources: OrderedDict[str, _Bucket] = OrderedDict()
        """Those that have failed lately."""
        self._keys: OrderedDict[tuple[str, str], _Bucket | None] = OrderedDict()
        """Known keys; with a bucket once they have failed."""

    def admits(self, remote: str, access_key: str, now: float) -> bool:
        """Whether a claim to be that key is to be looked at."""
        if not self._sources:
            return True
        source = source_of(remote)
        bucket = self._sources.get(source)
        if (source, access_key) in self._keys:
            own = self._keys[source, access_key]
            return own is None or own.refill(KEY_BURST, KEY_PER_SECOND, now) >= 1
        return bucket is None or bucket.refill(SOURCE_BURST, SOURCE_PER_SECOND, now) >= 1

    def succeeded(self, remote: str, access_key: str) -> None:
        pair = (source_of(remote), access_key)
        if pair in self._keys or len(access_key) > MAX_KEY_SIZE:
            return
        self._keys[pair] = None
        while len(self._keys) > MAX_KNOWN_KEYS:
            self._keys.popitem(last=False)

    def failed(self, remote: str, access_key: str, now: float) -> None:
        source = source_of(remote)
        if (source, access_key) in self._keys:
            own = self._keys[source, access_key] or _Bucket(KEY_BURST, now)
            own.refill(KEY_BURST, KEY_PER_SECOND, now)
            own.left -= 1
            self._keys[source, access_key] = own
        bucket = self._sources.get(source)
        if bucket is None:
            bucket = self._sources[source] = _Bucket(SOURCE_BURST, now)
            while len(self._sources) > MAX_SOURCES:
                self._sources.popitem(last=False)
        self._sources.move_to_end(source)
        bucket.refill(SOURCE_BURST, SOURCE_PER_SECOND, now)
        if (source, access_key) not in self._keys:
            bucket.left -= 1


def source_of(remote: str) -> str:
    """The address itself, or the /64 that it is in."""
    if ":" not in remote:
        return remote
    try:
        address = ipaddress.IPv6Address(remote.partition("%")[0])
    except ValueError:
        return remote
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.IPv6Address(int(address) >> 64 << 64))
