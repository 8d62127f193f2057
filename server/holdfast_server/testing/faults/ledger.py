"""What a client may expect of each key after everything it was told: the judge of all fault tests.  Pure.

One key is one register.  At any time exactly one version is *settled* (what the last acknowledged operation left, or
what was seen since), and any number of operations are *undecided*: they ended in 5xx, a time-out or a dead
connection, and may take effect once, whole, at any later moment, or never (promise 3).  So an observation must be
the settled version or one of the undecided ones; an undecided one that is seen becomes the settled one, for good:
what it replaced, and it itself once replaced, must never be seen again.

Versions are unique by their ETag, because every body is different; absence is not, so undecided deletes are counted.
`close_undecided` is for the moment when no coordinator can be alive and every drive holds the same: from then on only
the settled version is right.

The caller keeps operations on one key apart; reads may only run beside a write if they are given to nobody.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass, field

ABSENT = ""
"""The ETag of nothing."""


class PromiseBroken(AssertionError):
    """The store contradicts what it acknowledged or showed."""


@dataclass(frozen=True, slots=True)
class Version:
    """One body that was sent, by what is needed to recognise it."""

    etag: str
    size_bytes: int
    sha256: bytes
    seed: int
    """`make_body(seed, size_bytes)` is the body again, for ranges."""


@dataclass(slots=True)
class KeyState:
    settled: str = ABSENT
    undecided: list[str] = field(default_factory=list)
    retired: set[str] = field(default_factory=set)
    story: list[str] = field(default_factory=list)


def make_body(seed: int, size_bytes: int) -> bytes:
    """Different for every seed, and different in every part."""
    return random.Random(seed).randbytes(size_bytes)


def version_of(seed: int, body: bytes, part_size_bytes: int = 0) -> Version:
    """Of a body made from that seed; with a part size, as a multipart upload: the digest of the parts' digests."""
    if not part_size_bytes:
        etag = hashlib.md5(body).hexdigest()
    else:
        parts = [body[at : at + part_size_bytes] for at in range(0, len(body), part_size_bytes)]
        digests = b"".join(hashlib.md5(part).digest() for part in parts)
        etag = f"{hashlib.md5(digests).hexdigest()}-{len(parts)}"
    return Version(etag, len(body), hashlib.sha256(body).digest(), seed)


class Ledger:
    """See the module."""

    def __init__(self) -> None:
        self.keys: dict[str, KeyState] = {}
        self.versions: dict[str, Version] = {}
        self.acknowledged = self.left_undecided = self.took_effect_late = self.observed = 0

    def state(self, key: str) -> KeyState:
        return self.keys.setdefault(key, KeyState())

    def acknowledge(self, key: str, version: Version | None) -> None:
        """A write (None: a delete) was answered with 2xx."""
        etag = self._known(version)
        self.acknowledged += 1
        self._settle(self.state(key), etag, "acknowledged")

    def leave_undecided(self, key: str, version: Version | None, why: str) -> None:
        """A write that ended without a verdict."""
        etag = self._known(version)
        self.left_undecided += 1
        state = self.state(key)
        state.undecided.append(etag)
        state.story.append(f"undecided {etag or 'absent'} ({why})")

    def observe(self, key: str, etag: str, where: str) -> None:
        """A read, HEAD or listing showed this version (ABSENT: none).  Raises PromiseBroken."""
        self.observed += 1
        state = self.state(key)
        if etag == state.settled:
            return
        if etag in state.undecided:
            state.undecided.remove(etag)
            self.took_effect_late += 1
            self._settle(state, etag, f"seen at {where}")
            return
        was = "never sent" if etag not in self.versions and etag else "gone already" if etag in state.retired else ""
        raise PromiseBroken(
            f"{key}: {where} shows {etag or 'nothing'}{f' ({was})' if was else ''}; it must be "
            f"{state.settled or 'absent'}{' or one of ' + str(state.undecided) if state.undecided else ''}.\n  "
            + "\n  ".join(state.story[-12:])
        )

    def check_content(self, key: str, etag: str, sha256: bytes, size_bytes: int, where: str) -> None:
        """The body that came with an observed version.  Raises PromiseBroken."""
        version = self.versions[etag]
        if (sha256, size_bytes) != (version.sha256, version.size_bytes):
            raise PromiseBroken(
                f"{key}: {where} answered {size_bytes} bytes under ETag {etag}, which are not the "
                f"{version.size_bytes} that were written"
            )

    def close_undecided(self) -> int:
        """Nothing can take effect any more; returns how many operations never did."""
        count = sum(len(state.undecided) for state in self.keys.values())
        for state in self.keys.values():
            state.undecided.clear()
        return count

    def expected(self) -> Iterator[tuple[str, str]]:
        """Every key with its settled ETag."""
        for key, state in self.keys.items():
            yield key, state.settled

    def _known(self, version: Version | None) -> str:
        if version is None:
            return ABSENT
        self.versions[version.etag] = version
        return version.etag

    def _settle(self, state: KeyState, etag: str, how: str) -> None:
        if state.settled:
            state.retired.add(state.settled)
        state.settled = etag
        state.story.append(f"{how} {etag or 'absent'}")
