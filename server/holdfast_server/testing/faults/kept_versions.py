"""What a client may expect of the versions of a bucket: beside `ledger`, which judges what is current.  Pure.

A version whose id was handed out with a 2xx is there, with its bytes, until a deletion by that id is sent; from then on
it may be there or not until the deletion is acknowledged, or it is seen to be gone; then it is gone for good.  Versions
whose ids nobody was told (their writes were left undecided) may come at any time, each at most once; what they are is
known by their ETags.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from holdfast_server.testing.faults.ledger import ABSENT, Ledger, PromiseBroken

Listed = Mapping[tuple[str, str], str]
"""(key, version id) → ETag, ABSENT for a delete marker."""


@dataclass(slots=True)
class KeptVersions:
    kept: dict[tuple[str, str], str] = field(default_factory=dict)
    """(key, version id) → ETag, of what must be there."""
    deleting: set[tuple[str, str]] = field(default_factory=set)
    gone: set[tuple[str, str]] = field(default_factory=set)
    maybe_held: set[tuple[str, str]] = field(default_factory=set)
    """A legal hold on them was sent."""
    held: set[tuple[str, str]] = field(default_factory=set)
    """It was acknowledged: nothing deletes them any more."""
    checked: int = 0

    def acknowledge(self, key: str, version_id: str, etag: str) -> None:
        self.kept[key, version_id] = etag

    def delete(self, key: str, version_id: str) -> None:
        """A deletion is about to be sent."""
        self.deleting.add((key, version_id))
        self.kept.pop((key, version_id), None)

    def acknowledge_deletion(self, key: str, version_id: str) -> None:
        self.deleting.discard((key, version_id))
        self.gone.add((key, version_id))

    def acknowledge_hold(self, key: str, version_id: str, etag: str) -> None:
        """A deletion was refused, so a hold that was left undecided stands, and the version stays."""
        self.deleting.discard((key, version_id))
        self.held.add((key, version_id))
        self.kept[key, version_id] = etag

    def of(self, key: str) -> list[tuple[str, str]]:
        """(version id, ETag) of what must be there."""
        return [(version, etag) for (name, version), etag in self.kept.items() if name == key]

    def observe(self, listed: Listed, ledger: Ledger, where: str) -> None:
        """A listing of all versions, made while nobody wrote.  Raises PromiseBroken."""
        self.checked += len(listed)
        for one, etag in self.kept.items():
            if listed.get(one) != etag:
                raise PromiseBroken(
                    f"{one}: {where} shows {listed.get(one)!r}; it must be {etag or 'a delete marker'!r}"
                )
        for one in sorted(set(listed) & self.gone):
            raise PromiseBroken(f"{one}: {where} shows it; it was deleted")
        for one in sorted(self.deleting - set(listed)):
            self.acknowledge_deletion(*one)
        for one, etag in listed.items():
            if etag != ABSENT and etag not in ledger.versions:
                raise PromiseBroken(f"{one}: {where} shows {etag}, which nobody wrote")
            if one not in self.deleting:
                self.kept[one] = etag  # seen once, it stays
