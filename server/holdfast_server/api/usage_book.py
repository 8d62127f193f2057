"""What buckets hold, as one pod knows it: the last counts, and what was written since.  Pure: no I/O, no clock.

The walk over buckets counts what each erasure set holds of each bucket (`heal.bucket_walk`), so a *place* is a bucket
in a set.  Before it counts a place it *begins* a generation there; from then on every pod adds up what it writes for
that generation, beside the one that is still in use.  The count, when it comes, stands for everything before it began,
and each pod's sum for everything after; what was written while the count went on is in both, never in neither.

    usage = the last count + for each pod, what it has written since that count began

Sums are replaced as a whole by whoever made them, so a message may be lost or come twice.  What a pod had written stays
known to the others when it dies, until the next count.  A pod that missed that a count began goes on with the sum it
has, which is greater.  So what is known may be too much, until the next count, and too little only by what other pods
have written and not told yet.

Not here: telling and asking (`quotas`), which buckets have a quota.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import NamedTuple

import msgspec

from holdfast_server.contract.healing import BucketUsage


class Place(NamedTuple):
    bucket_id: bytes
    set_name: str


class Sum(msgspec.Struct):
    """Written in one place since a generation began; parts of uploads and replaced versions are in it."""

    generation: int
    size_bytes: int = 0
    versions: int = 0


class Counted(msgspec.Struct, frozen=True):
    generation: int
    usage: BucketUsage
    counted_ms: int


class Used(NamedTuple):
    """Of one bucket in all sets."""

    size_bytes: int
    """Of objects, of versions, and of parts of open uploads."""
    versions: int
    """Objects, replaced versions, delete markers."""
    objects: int
    """As of the last count."""
    parts: int
    counted_ms: int
    """When the oldest of the counts was made."""
    known: bool
    """Every set has been counted."""


class UsageBook:
    def __init__(self) -> None:
        self._counts: dict[Place, Counted] = {}
        self._own: dict[Place, list[Sum]] = {}
        """By place, oldest first; two at the most."""
        self._others: dict[str, dict[Place, list[Sum]]] = {}
        """By a pod's life."""

    # ---------------------------------------------------------------- what this pod does

    def add(self, place: Place, size_bytes: int, versions: int) -> None:
        """This pod has written, or (less than 0) deleted."""
        counted = self._counts.get(place)
        sums = self._own.setdefault(place, [Sum(counted.generation if counted is not None else 0)])
        for one in sums:
            one.size_bytes += size_bytes
            one.versions += versions

    def begin(self, place: Place, generation: int) -> None:
        """A count of the place begins."""
        counted = self._counts.get(place)
        in_use = counted.generation if counted is not None else 0
        sums = [one for one in self._own.get(place, [Sum(in_use)]) if one.generation == in_use] or [Sum(in_use)]
        if generation > in_use:
            self._own[place] = [*sums, Sum(generation)]

    def counted(self, place: Place, counted: Counted) -> None:
        """A count has come; an older one than is known is passed over."""
        known = self._counts.get(place)
        if known is not None and counted.generation <= known.generation:
            return
        self._counts[place] = counted
        sums = self._own.get(place)
        if sums:
            kept = [one for one in sums if one.generation >= counted.generation] or sums[:1]
            kept[0].generation = counted.generation
            self._own[place] = kept
        for of_pod in self._others.values():
            if place in of_pod:
                of_pod[place] = [one for one in of_pod[place] if one.generation >= counted.generation]

    # ---------------------------------------------------------------- what others say

    def told(self, life: str, sums: Iterable[tuple[Place, Sum]]) -> None:
        """All sums of another pod for the places named, instead of what it told of them before."""
        by_place: dict[Place, list[Sum]] = {}
        for place, one in sums:
            by_place.setdefault(place, []).append(one)
        self._others.setdefault(life, {}).update(by_place)

    def forget_lives(self, but: Iterable[str]) -> None:
        """Of pods that are gone, those of which nothing is in use any more."""
        kept = set(but)
        for life in [one for one in self._others if one not in kept]:
            if not any(self._in_use(place, sums) for place, sums in self._others[life].items()):
                del self._others[life]

    def forget_buckets(self, but: set[bytes]) -> None:
        """Those that are gone."""
        self._counts = {place: one for place, one in self._counts.items() if place.bucket_id in but}
        self._own = {place: sums for place, sums in self._own.items() if place.bucket_id in but}
        for life, of_pod in self._others.items():
            self._others[life] = {place: sums for place, sums in of_pod.items() if place.bucket_id in but}

    # ---------------------------------------------------------------- what is known

    def own_sums(self, places: Iterable[Place]) -> list[tuple[Place, Sum]]:
        return [(place, one) for place in places for one in self._own.get(place, ())]

    def own_places(self, buckets: Collection[bytes]) -> list[Place]:
        return [place for place in self._own if place.bucket_id in buckets]

    def generation(self, place: Place) -> int:
        """The greatest that is known of the place."""
        counted = self._counts.get(place)
        sums = self._own.get(place, [])
        return max((counted.generation if counted is not None else 0, *(one.generation for one in sums)))

    def counts(self) -> Iterator[tuple[Place, Counted]]:
        return iter(self._counts.items())

    def used(self, bucket_id: bytes, sets: Iterable[str]) -> Used:
        """What a bucket holds, in these erasure sets."""
        size_bytes = versions = objects = parts = 0
        counted_ms: int | None = None
        known = True
        for set_name in sets:
            place = Place(bucket_id, set_name)
            counted = self._counts.get(place)
            if counted is None:
                known = False
            else:
                usage = counted.usage
                size_bytes += usage.size_bytes + usage.parts_size_bytes
                versions += usage.versions
                objects += usage.objects
                parts += usage.parts
                counted_ms = min(counted_ms, counted.counted_ms) if counted_ms is not None else counted.counted_ms
            for sums in (self._own.get(place, []), *(of_pod.get(place, []) for of_pod in self._others.values())):
                since = self._in_use(place, sums)
                if since is not None:
                    size_bytes += since.size_bytes
                    versions += since.versions
        return Used(max(0, size_bytes), max(0, versions), objects, parts, counted_ms or 0, known)

    def _in_use(self, place: Place, sums: list[Sum]) -> Sum | None:
        counted = self._counts.get(place)
        generation = counted.generation if counted is not None else 0
        return next((one for one in sums if one.generation == generation), None)
