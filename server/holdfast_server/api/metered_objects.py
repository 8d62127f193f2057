"""The object layer as the API sees it, where buckets may have a quota: what is written is asked for first, and noted.

In one place for everything that writes (clients, copies, forms, lifecycle rules), so that no door is left open.  A
bucket without a quota costs a look into a dictionary.  With one, a write looks first at what it will replace.

Reserved before the first byte of a body is taken, so a client is refused before it sends.  A body of unknown length is
let in where there is room at all, and noted by what it was.

What goes is taken off once, however many requests at once saw it there and did away with it: of what one client sends
in parallel, or repeats, the sum must not become less than what the bucket holds.

Not here: what fits (`quotas`).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, cast

from holdfast_server.api.bucket_record import BucketRecord
from holdfast_server.api.quotas import Quotas
from holdfast_server.objects.port import Assemble, Attributes, Body, ObjectError, Objects, PartRef, Record, Versioning

PARTS_PER_PAGE = 1000
MAX_GONE = 4096
"""Of what went last this pod knows that it was taken off; more than requests that are under way at once."""


class _MeteredObjects:
    def __init__(self, objects: Objects, quotas: Quotas) -> None:
        self._objects = objects
        self._quotas = quotas
        self._gone: OrderedDict[tuple[bytes, str, int | bytes], None] = OrderedDict()

    def __getattr__(self, verb: str) -> Any:
        if verb.startswith("__"):
            raise AttributeError(verb)
        return getattr(self._objects, verb)

    async def put_object(self, bucket_id: bytes, key: str, body: Body, *rest: Any, **more: Any) -> Record:
        bucket = self._quotas.limited(bucket_id)
        if bucket is None:
            return await self._objects.put_object(bucket_id, key, body, *rest, **more)
        taken = self._quotas.reserve(bucket, key, body.size_bytes or 0, 1)
        size_bytes = versions = 0
        try:
            replaced = await self._replaced(bucket, key)
            written = await self._objects.put_object(bucket_id, key, body, *rest, **more)
            size_bytes, versions = _more(written.size_bytes, self._taken_off(bucket_id, key, replaced))
        finally:
            taken.settle(size_bytes, versions)
        return written

    async def put_part(
        self, bucket_id: bytes, key: str, upload_id: bytes, number: int, body: Body, *rest: Any, **more: Any
    ) -> Record:
        bucket = self._quotas.limited(bucket_id)
        if bucket is None:
            return await self._objects.put_part(bucket_id, key, upload_id, number, body, *rest, **more)
        taken = self._quotas.reserve(bucket, key, body.size_bytes or 0, 0)
        size_bytes = 0
        try:
            written = await self._objects.put_part(bucket_id, key, upload_id, number, body, *rest, **more)
            size_bytes = written.size_bytes
        finally:
            taken.settle(size_bytes, 0)
        return written

    async def create_upload(self, bucket_id: bytes, key: str, *rest: Any, **more: Any) -> bytes:
        bucket = self._quotas.limited(bucket_id)
        if bucket is not None:
            self._quotas.reserve(bucket, key, 0, 1).settle(0, 0)  # there is no point in beginning otherwise
        return await self._objects.create_upload(bucket_id, key, *rest, **more)

    async def complete_upload(
        self,
        bucket_id: bytes,
        key: str,
        upload_id: bytes,
        parts: Sequence[PartRef],
        assemble: Assemble,
        *rest: Any,
        **more: Any,
    ) -> Record:
        """Its bytes were asked for part by part.  A call that is repeated once the upload has ended makes nothing."""
        bucket = self._quotas.limited(bucket_id)
        if bucket is None:
            return await self._objects.complete_upload(bucket_id, key, upload_id, parts, assemble, *rest, **more)
        replaced = await self._replaced(bucket, key)
        taken = self._quotas.entry(bucket_id, key)
        assembled = False

        def noted(upload: Record, stored: Sequence[tuple[PartRef, Record | None]]) -> Attributes:
            nonlocal assembled
            assembled = True
            return assemble(upload, stored)

        written = await self._objects.complete_upload(bucket_id, key, upload_id, parts, noted, *rest, **more)
        if assembled and self._first(bucket_id, key, upload_id):
            taken.settle(*_more(0, self._taken_off(bucket_id, key, replaced)))
        return written

    async def abort_upload(self, bucket_id: bytes, key: str, upload_id: bytes) -> None:
        bucket = self._quotas.limited(bucket_id)
        size_bytes = await self._parts_size_bytes(bucket_id, key, upload_id) if bucket is not None else 0
        await self._objects.abort_upload(bucket_id, key, upload_id)
        if bucket is not None and self._first(bucket_id, key, upload_id):
            self._quotas.entry(bucket_id, key).settle(-size_bytes, 0)

    async def delete_object(
        self,
        bucket_id: bytes,
        key: str,
        condition: Any = None,
        versioning: Versioning = Versioning.OFF,
        *rest: Any,
        **more: Any,
    ) -> Record | None:
        bucket = self._quotas.limited(bucket_id)
        if bucket is None:
            return await self._objects.delete_object(bucket_id, key, condition, versioning, *rest, **more)
        replaced = await self._replaced(bucket, key)
        deleted = await self._objects.delete_object(bucket_id, key, condition, versioning, *rest, **more)
        if versioning is not Versioning.OFF:
            self._quotas.entry(bucket_id, key).settle(0, 1)
        else:
            self._take_off(bucket_id, key, replaced)
        return deleted

    async def delete_version(
        self, bucket_id: bytes, key: str, version: bytes, *rest: Any, **more: Any
    ) -> Record | None:
        deleted = await self._objects.delete_version(bucket_id, key, version, *rest, **more)
        if self._quotas.limited(bucket_id) is not None:
            self._take_off(bucket_id, key, deleted)
        return deleted

    # ---------------------------------------------------------------- what there is before

    def _take_off(self, bucket_id: bytes, key: str, gone: Record | None) -> None:
        gone = self._taken_off(bucket_id, key, gone)
        if gone is not None:
            self._quotas.entry(bucket_id, key).settle(-gone.size_bytes, -1)

    def _taken_off(self, bucket_id: bytes, key: str, gone: Record | None) -> Record | None:
        """What has gone, for who is the first to say so."""
        return gone if gone is not None and self._first(bucket_id, key, gone.stamp) else None

    def _first(self, bucket_id: bytes, key: str, what: int | bytes) -> bool:
        """`what`: a version's stamp, or the id of an upload that has ended."""
        mark = (bucket_id, key, what)
        if mark in self._gone:
            return False
        self._gone[mark] = None
        if len(self._gone) > MAX_GONE:
            self._gone.popitem(last=False)
        return True

    async def _replaced(self, bucket: BucketRecord, key: str) -> Record | None:
        """What a write takes the place of for good.  An answer that does not come makes the sum too great until the
        next count; the write is not held up by it."""
        if bucket.versioning:
            return None
        try:
            found = await self._objects.head_object(bucket.id, key)
        except ObjectError:
            return None
        return found if found is not None and found.live else None

    async def _parts_size_bytes(self, bucket_id: bytes, key: str, upload_id: bytes) -> int:
        size_bytes, after, more = 0, 0, True
        try:
            while more:
                parts, more = await self._objects.list_parts(bucket_id, key, upload_id, after, PARTS_PER_PAGE)
                size_bytes += sum(part.size_bytes for _, part in parts)
                after = parts[-1][0] if parts else after
                more = more and bool(parts)
        except ObjectError:
            return 0
        return size_bytes


def _more(size_bytes: int, replaced: Record | None) -> tuple[int, int]:
    return (size_bytes, 1) if replaced is None else (size_bytes - replaced.size_bytes, 0)


def metered(objects: Objects, quotas: Quotas) -> Objects:
    return cast(Objects, _MeteredObjects(objects, quotas))
