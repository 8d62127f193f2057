"""Changing what is kept beside an object's bytes (tags, grants) without writing a byte of them again.

The current version is committed anew under a higher stamp, with other headers and the same extents: every drive
takes over the shard files it has, and small shards, which travel inside the record, are cut from the bytes again.
The commit is conditional on the version that was read, so that an amendment never brings back what another write
has replaced meanwhile; a drive that missed the shards has them rebuilt where that would cost the write quorum.

Not here: what may be changed, and by whom (`api`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

import msgspec

from holdfast_server.drives.port import Register
from holdfast_server.objects.asking import together
from holdfast_server.objects.erasure_set import RETRY_PAUSE_SECONDS
from holdfast_server.objects.look_up import Located
from holdfast_server.objects.port import Conflict
from holdfast_server.objects.reading import recut_inline
from holdfast_server.objects.record import Record
from holdfast_server.objects.versions import Changed, Version

if TYPE_CHECKING:
    from holdfast_server.objects.store import ObjectStore

AMEND_ATTEMPTS = 6
"""About a second and a half, as often as another write came in between."""

Change = Callable[[Record], dict[str, str]]
"""The headers that a version is to have; may raise to refuse.  Pure, may be called more than once."""


class _Overtaken(Exception):
    """The version that was read is not the current one any more."""


async def amend(
    store: ObjectStore, bucket_id: bytes, key: str, change: Change, version: bytes | None = None
) -> Record | None:
    """The version as it is now; None where there is none, or it is a delete marker.  Raises Unavailable, OutOfSpace,
    Conflict, and what `change` raises."""
    for attempt in range(AMEND_ATTEMPTS):
        if attempt:
            await store.clock.sleep(RETRY_PAUSE_SECONDS * 2**attempt)
        found = await store.versions.find(bucket_id, key, version, with_inline=True)
        if found is None or found.record.marker:
            return None
        headers = change(found.record)
        if headers == found.record.headers:
            return found.record
        amended = msgspec.structs.replace(found.record, headers=headers)
        try:
            if found.current:
                commit = _commit(store, found.register, found.located, found.record, amended)
                return await store.background.shielded(commit)
            return await store.background.shielded(_rewrite(store, found, amended))
        except (_Overtaken, Changed):
            continue
        except Conflict:
            # Others write, or something was left half done, which would be in the way for ever.
            await together(one.clear_way(found.register) for one in store.look_up(found.register).sets)
    raise Conflict(f"other writes of {key!r} are under way")


async def _rewrite(store: ObjectStore, found: Version, amended: Record) -> Record:
    with store.epochs.writing():
        return await store.versions.rewrite(found, amended)


async def _commit(store: ObjectStore, register: Register, located: Located, found: Record, amended: Record) -> Record:
    into, holders = located.erasure_set, located.current.holders

    def unchanged(current: Record | None) -> None:
        if current is None or current.stamp != found.stamp:
            raise _Overtaken

    async def refill(positions: Collection[int]) -> Collection[int]:
        return await store.healer.refill(into, list(positions), holders)

    return await store.commit_object(register, into, amended, unchanged, refill, recut_inline(found, holders))
