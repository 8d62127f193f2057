"""Comparing one drive with the others of its set, a page of registers at a time.

A page is a run of registers in order: what the drive itself shows, and what R full drives besides it show (any R meet
every write quorum, so that nothing committed is missed).  A register *agrees* if all of them show the same newest
version and the drive itself holds just that one, marked: then it has what it should, and nothing more is asked.
Everything else *differs* and is to be healed.  So the cost of comparing follows the number of keys, not of bytes, and
that of healing what differs.

For a full drive, a mark that may still be on its way is no difference.  For a replacement it is one: an unmarked
version may yet be taken back, and what lies below it must be there before the drive counts.

A place is (space, key, version); a walk goes over all spaces that any of the drives has.

Not here: what is done about differences (`filling`, `scanner`).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from holdfast_server.clock.stamp import stamp_ms
from holdfast_server.drives.port import Drive, DriveError, DriveState, Register, ScanEntry, ScanPage, ScanRequest
from holdfast_server.objects.asking import Answers, ask
from holdfast_server.objects.erasure_set import ErasureSet

NOTES_ON_THEIR_WAY_MS = 10_000
"""A committed version that nobody has marked by then never will be, unless somebody sees to it."""


class Place(msgspec.Struct, frozen=True, array_like=True):
    """Where a walk over all registers of a set goes on."""

    space: bytes = b""
    """Empty: before the first."""
    key: bytes = b""
    version: bytes = b""


@dataclass(slots=True)
class Page:
    """A run of registers of one space."""

    differing: list[Register] = field(default_factory=list)
    own: list[ScanEntry] = field(default_factory=list)
    """What the drive itself shows of them."""
    registers: int = 0
    following: Place | None = None
    """None: that was the last."""


async def compare(erasure_set: ErasureSet, drive: Drive, place: Place, limit: int, now_ms: int) -> Page:
    """The page at `place`.

    Raises DriveError where fewer than R other full drives answer, or the drive itself does not.
    """
    if not place.space:
        first = await _space_after(erasure_set, drive, b"")
        if first is None:
            return Page()
        place = Place(first)
    request = ScanRequest(place.space, start=place.key, start_version=place.version, limit=limit)
    pages = await _scan(erasure_set, drive, request)
    horizon = min(
        (
            (page.next_start, page.next_version)
            for page in pages.values()
            if page.next_start is not None  # else it has shown all there is
        ),
        default=None,
    )
    replacement = pages[drive.position].healing
    page = _merged(pages, drive.position, horizon, 0 if replacement else now_ms - NOTES_ON_THEIR_WAY_MS)
    if horizon is not None:
        page.following = Place(place.space, *horizon)
    else:
        following = await _space_after(erasure_set, drive, place.space)
        page.following = Place(following) if following is not None else None
    return page


def _merged(pages: Answers[ScanPage], own: int, horizon: tuple[bytes, bytes] | None, noted_ms: int) -> Page:
    """`noted_ms`: versions written after this moment may agree unmarked; 0: none."""
    shown: dict[tuple[bytes, bytes], dict[int, ScanEntry]] = {}
    for position, scanned in pages.items():
        for entry in scanned.entries:
            name = (entry.register.key.encode(), entry.register.version)
            if horizon is None or name < horizon:
                shown.setdefault(name, {})[position] = entry
    page = Page(registers=len(shown))
    for _, entries in sorted(shown.items()):
        mine = entries.get(own)
        if mine is not None:
            page.own.append(mine)
        if mine is None or len(entries) < len(pages) or not _agree(mine, entries, noted_ms):
            page.differing.append(next(iter(entries.values())).register)
    return page


def _agree(mine: ScanEntry, entries: dict[int, ScanEntry], noted_ms: int) -> bool:
    if any(entry.newest.stamp != mine.newest.stamp for entry in entries.values()):
        return False
    return mine.settled or bool(noted_ms and stamp_ms(mine.newest.stamp) > noted_ms)


def _others(erasure_set: ErasureSet, drive: Drive) -> dict[int, Drive]:
    """Full drives besides this one, in an order that spreads the load: each drive has other neighbours."""
    size = erasure_set.quorums.set_size
    full = {
        position: other
        for position, other in erasure_set.awake().items()
        if position != drive.position and other.status().state is DriveState.FULL
    }
    return dict(sorted(full.items(), key=lambda item: (item[0] - drive.position) % size))


def _others_wanted(erasure_set: ErasureSet) -> int:
    """R others know of everything that was acknowledged; a drive that is alone missed nothing that anybody has."""
    return min(erasure_set.quorums.read_quorum, erasure_set.quorums.set_size - 1)


async def _scan(erasure_set: ErasureSet, drive: Drive, request: ScanRequest) -> Answers[ScanPage]:
    """The drive's own page and those of R others that are full."""
    wanted = _others_wanted(erasure_set)
    spare = _others(erasure_set, drive)
    pages: Answers[ScanPage] = await ask({drive.position: drive}, lambda _, own: own.scan(request))
    if drive.position not in pages:
        raise pages.errors[drive.position]
    found = 0
    while found < wanted and spare:
        chosen = {position: spare.pop(position) for position in list(spare)[: wanted - found]}
        more = await ask(chosen, lambda _, other: other.scan(request))
        pages.update({position: page for position, page in more.items() if not page.healing})
        pages.errors.update(more.errors)
        found = len(pages) - 1
    if found < wanted:
        raise DriveError(f"{erasure_set.name}: {found} other full drives can be compared with, {wanted} are needed")
    return pages


async def _space_after(erasure_set: ErasureSet, drive: Drive, after: bytes) -> bytes | None:
    """The next space that the drive or any of R full others has anything in."""
    wanted = _others_wanted(erasure_set)
    asked = {drive.position: drive, **_others(erasure_set, drive)}
    lists = await ask(asked, lambda _, other: other.spaces(after, 1))
    if len(lists) - (drive.position in lists) < wanted:
        raise DriveError(f"{erasure_set.name}: too few full drives answer")
    return min((spaces[0] for spaces in lists.values() if spaces), default=None)
