"""Listing all versions: the walk over what is current, and beside it the walk over what rests.

For each key the current version comes first, then those that rest (`versions.rests`), newest first.  A key whose
current register is deleted has no versions, whatever rests of it; a common prefix is one if anything is current below
it, a delete marker too.

Of any key, what rests is read after what is current.  In between a version may come to rest, which is then seen twice
and shown once, or be deleted; it cannot be missed (`versions`: rest before replaced).

Bounds: `limit` current versions at a time, beside what the walks hold.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING

from holdfast_server.drives import names
from holdfast_server.drives.port import MAX_SCAN_ENTRIES
from holdfast_server.objects import record
from holdfast_server.objects.listing import Found, Walk, one_by_one, start_after
from holdfast_server.objects.port import NULL_VERSION, ListedVersion, VersionListing
from holdfast_server.objects.versions import null_rests, rests

if TYPE_CHECKING:
    from holdfast_server.objects.store import ObjectStore

HEADS_AT_ONCE = 256
"""Current versions that are read before what rests beside them."""


async def list_versions(
    store: ObjectStore, bucket_id: bytes, prefix: str, delimiter: str, after: str, after_version: bytes, limit: int
) -> VersionListing:
    """See `objects.port.Objects`.  Raises Unavailable."""
    entries: list[ListedVersion] = []
    prefixes: list[str] = []
    page_size = max(1, min(limit + 1, MAX_SCAN_ENTRIES))
    start = names.start_at(after.encode()) if after_version else start_after(prefix, delimiter, after)
    walk = Walk(
        record.OBJECT_SPACE + bucket_id, prefix.encode(), delimiter.encode(), start, page_size=page_size, hidden=True
    )
    async with aclosing(one_by_one(store.walk(walk))) as heads:
        more = True
        while more:
            batch, more = await _take(heads, min(HEADS_AT_ONCE, limit + 1))
            resumed = bool(after_version and batch and batch[0].register.key == after)
            beyond = _place(after_version, batch[0]) if resumed else b""
            async with aclosing(_versions(store, bucket_id, walk, batch, beyond)) as found:
                async for item in found:
                    if isinstance(item, ListedVersion) and item.key == after and item.record.place <= beyond:
                        continue
                    if len(entries) + len(prefixes) == limit:
                        return VersionListing(entries, prefixes, True)
                    if isinstance(item, ListedVersion):
                        entries.append(item)
                    else:
                        prefixes.append(item)
    return VersionListing(entries, prefixes, False)


def _place(version: bytes, head: Found) -> bytes:
    """Of a version of this key, by its id; empty where there is no `null` any more."""
    current = head.record
    if version != NULL_VERSION or current is None:
        return version
    return current.place if current.null else null_rests(current)


async def _take(heads: AsyncGenerator[Found], count: int) -> tuple[list[Found], bool]:
    batch: list[Found] = []
    while len(batch) < count:
        item = await anext(heads, None)
        if item is None:
            return batch, False
        batch.append(item)
    return batch, True


async def _versions(
    store: ObjectStore, bucket_id: bytes, walk: Walk, batch: list[Found], beyond: bytes
) -> AsyncGenerator[ListedVersion | str]:
    """What is current and what rests, of the keys of a batch, in order; common prefixes as they are.

    `beyond`: what rests of the first key at a lower place may be left out.
    """
    keys = [found.register.key for found in batch if not found.group]
    if not keys:
        for found in batch:
            yield found.group.decode()
        return
    resting = Walk(
        record.VERSION_SPACE + bucket_id, walk.prefix, walk.delimiter, names.start_at(keys[0].encode(), beyond),
        names.start_at(keys[-1].encode() + b"\0"), walk.page_size, hidden=True,
    )  # fmt: skip
    async with aclosing(one_by_one(store.walk(resting))) as beside:
        at = await anext(beside, None)
        for found in batch:
            if found.group:
                yield found.group.decode()
                continue
            key, current = found.register.key, found.record
            assert current is not None
            yield ListedVersion(key, current, True)
            while at is not None and (at.group or at.register.key.encode() <= key.encode()):
                if not at.group and at.register.key == key and at.record is not None and rests(at.record, current):
                    yield ListedVersion(key, at.record, False)
                at = await anext(beside, None)
