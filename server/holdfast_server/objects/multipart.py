"""Multipart uploads: an upload, its parts, and the object made of them.

An upload is a register of its own (upload id = version), each part another; both live in the erasure set where
the object's key was written when the upload began, its *home*, and the object is committed there, so completing
moves no data: the object's record names the parts' shard files.  When a pool has joined meanwhile, the home may be
one of the key's older sets; readers look there too (`look_up`).  Parts are always files, never inline.

Completing happens once: it takes the lease of the upload's register, commits the object, and puts a tombstone
on the upload that keeps the result, so that a client that repeats the call (it lost the answer) gets the same
answer.  A crash between the two leaves an open upload and a whole object; completing again makes the same one.
The tombstone, once noted, lets each drive drop the upload's parts; the shards that the object names stay.  Aborting is
conditional on the upload being open, so that it neither takes that answer away nor claims to have ended what was done.

An upload id begins with the moment when the upload began, so that the order of a key's uploads is that of their
beginnings, as S3 lists them, and every page of a listing can go on behind an id.  (Those of before had random ids.)

Drives that missed a part while they were away cannot hold the object's record: where that would cost the
write quorum, their shards are rebuilt first (`refill`); otherwise repair brings them the object later.

Not here: ETags of objects, the rules for part sizes (`api`), expiry of stale uploads (`heal`).
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING

from holdfast_server.clock.port import Clock
from holdfast_server.drives import names
from holdfast_server.drives.port import MAX_SCAN_ENTRIES, Register
from holdfast_server.objects import quorum, record
from holdfast_server.objects.erasure_set import LEASED_ATTEMPTS, RETRY_PAUSE_SECONDS, ErasureSet, Promise, Refill
from holdfast_server.objects.listing import Walk, one_by_one, start_after
from holdfast_server.objects.look_up import Located, Step
from holdfast_server.objects.port import (
    Assemble,
    Attributes,
    Body,
    Condition,
    Conflict,
    Missing,
    ObjectError,
    PartRef,
    Redundancy,
    Unavailable,
    UploadInfo,
    Versioning,
)
from holdfast_server.objects.record import Extent, Geometry, Kind, PartInfo, Record
from holdfast_server.sealing.envelope import Seal, Sealing

if TYPE_CHECKING:
    from holdfast_server.objects.store import ObjectStore

MAX_PARTS = 10_000
COMPLETE_ATTEMPTS = 8
"""About five seconds, as for a write that meets a lease."""

log = logging.getLogger(__name__)


def new_upload_id(began_ms: int, clock: Clock) -> bytes:
    """Sixteen bytes."""
    return began_ms.to_bytes(6, "big") + clock.random_bytes(10)


class Uploads:
    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    async def create(
        self,
        bucket_id: bytes,
        key: str,
        headers: dict[str, str],
        body: bytes,
        sealing: Sealing | None,
        redundancy: Redundancy,
    ) -> bytes:
        began_ms = self._store.clock.now_ms()
        upload_id = new_upload_id(began_ms, self._store.clock)
        register = record.upload_register(bucket_id, key, upload_id)
        home = self._store.set_of(register)
        numbers = self._store.numbers(home, redundancy)
        # All parts are cut alike, whatever the pool says meanwhile.
        cut = Geometry(numbers.data_shards, numbers.parity_shards) if numbers != home.quorums else None
        template = Record(
            Kind.UPLOAD, 0, modified_ms=began_ms, headers=headers, geometry=cut, body=body, sealing=sealing
        )
        await self._store.commit_record(register, template, home=home)
        return upload_id

    async def get(self, bucket_id: bytes, key: str, upload_id: bytes) -> Record | None:
        return await self._store.live(record.upload_register(bucket_id, key, upload_id))

    async def _open(self, bucket_id: bytes, key: str, upload_id: bytes) -> tuple[ErasureSet, Record]:
        """Where an open upload is, and what it is.  Raises Missing."""
        located = await self._store.look_up(record.upload_register(bucket_id, key, upload_id)).read()
        if located.live is None:
            raise Missing(f"no upload {upload_id.hex()}")
        return located.erasure_set, located.live

    async def put_part(
        self, bucket_id: bytes, key: str, upload_id: bytes, number: int, body: Body, seal: Seal | None
    ) -> Record:
        home, upload = await self._open(bucket_id, key, upload_id)
        register = record.part_register(bucket_id, key, upload_id, number)
        return await self._store.write_body(
            register, Kind.PART, body, inline_limit_bytes=0, home=home, seal=seal, number=number, like=upload.geometry
        )

    async def list_parts(
        self, bucket_id: bytes, key: str, upload_id: bytes, after: int = 0, limit: int = 1000
    ) -> tuple[list[tuple[int, Record]], bool]:
        home, _ = await self._open(bucket_id, key, upload_id)
        return await self._parts(home, bucket_id, key, upload_id, after, limit)

    async def _parts(
        self, home: ErasureSet, bucket_id: bytes, key: str, upload_id: bytes, after: int, limit: int
    ) -> tuple[list[tuple[int, Record]], bool]:
        first = record.part_register(bucket_id, key, upload_id, min(after + 1, 0xFFFF))
        walk = Walk(
            first.space,
            key.encode(),
            start=names.start_at(key.encode(), first.version),
            end=names.start_at(key.encode(), upload_id + b"\xff\xff\xff"),
            page_size=max(1, min(limit + 1, MAX_SCAN_ENTRIES)),
        )
        parts: list[tuple[int, Record]] = []
        async with aclosing(one_by_one(self._store.walk(walk, [home]))) as everything:
            async for found in everything:
                register = found.register
                if register.key != key or not register.version.startswith(upload_id) or found.record is None:
                    break
                if len(parts) == limit:
                    return parts, True
                parts.append((int.from_bytes(register.version[len(upload_id) :], "big"), found.record))
        return parts, False

    async def complete(
        self,
        bucket_id: bytes,
        key: str,
        upload_id: bytes,
        parts: Sequence[PartRef],
        assemble: Assemble,
        condition: Condition | None,
    ) -> Record:
        for attempt in range(COMPLETE_ATTEMPTS):
            if attempt:
                # Somebody else completes or aborts it: look again at what came of that.
                await self._store.clock.sleep(RETRY_PAUSE_SECONDS * 2**attempt)
            made = await self._try_complete(bucket_id, key, upload_id, parts, assemble, condition)
            if made is not None:
                return made
        raise Conflict("the upload is being completed or aborted")

    async def _try_complete(
        self,
        bucket_id: bytes,
        key: str,
        upload_id: bytes,
        parts: Sequence[PartRef],
        assemble: Assemble,
        condition: Condition | None,
    ) -> Record | None:
        """The completed object; None where another completion or abort is under way."""
        upload_register = record.upload_register(bucket_id, key, upload_id)
        located = await self._store.look_up(upload_register).read()
        erasure_set, current, upload = located.erasure_set, located.current, located.current.record
        if upload is None:
            raise Missing(f"no upload {upload_id.hex()}")
        if not upload.live:
            return _completed_before(upload, parts)
        stored = dict((await self._parts(erasure_set, bucket_id, key, upload_id, 0, MAX_PARTS))[0])
        asked = [(ref, stored.get(ref.number)) for ref in parts]
        if any(part is None for _, part in asked) and await self.get(bucket_id, key, upload_id) is None:
            return None  # parts go when the upload has ended: somebody has completed or aborted it since it was read
        attributes = assemble(upload, asked)
        chosen = [(ref, part) for ref, part in asked if part is not None]
        template = _object_of(chosen, attributes)
        refill = _Refill(self._store, erasure_set, bucket_id, key, upload_id, [ref.number for ref in parts])
        register = record.object_register(bucket_id, key)

        async def commit() -> Record | None:
            promise = await erasure_set.promise(upload_register, current)
            if promise is None:
                return None
            return await self._complete(
                erasure_set, promise, register, template, refill, condition, attributes.versioning
            )

        # From the promise on it runs to its end: a client that leaves must not leave the lease standing.
        return await self._store.background.shielded(commit())

    async def _complete(
        self,
        erasure_set: ErasureSet,
        promise: Promise,
        register: Register,
        template: Record,
        refill: Refill,
        condition: Condition | None,
        versioning: Versioning,
    ) -> Record:
        try:
            made = await self._store.commit_object(
                register, erasure_set, template, condition, refill, versioning=versioning
            )
        except BaseException:
            erasure_set.release_later(promise)
            raise
        closing = Record(Kind.TOMBSTONE, 0, body=record.encode(made))
        try:
            await erasure_set.commit_promised(promise, self._store.made(closing, erasure_set))
        except ObjectError:
            # The object is whole and acknowledged; the upload stays open until it is completed again,
            # aborted, or expires.
            log.warning("upload of %r is completed but could not be closed", register.key)
        return made

    async def abort(self, bucket_id: bytes, key: str, upload_id: bytes) -> None:
        home, _ = await self._open(bucket_id, key, upload_id)
        register = record.upload_register(bucket_id, key, upload_id)
        tombstone = self._store.made(Record(Kind.TOMBSTONE, 0), home)

        async def plan(located: Located) -> Step:
            if located.live is None:
                # By a completion, perhaps: its tombstone has the answer for whoever asks again, and stays.
                raise Missing(f"upload {upload_id.hex()} has ended")
            return Step(home, tombstone)

        async def commit() -> None:
            with self._store.epochs.writing():
                await self._store.look_up_in(home, register).update(plan, LEASED_ATTEMPTS, spread=True)

        try:
            await self._store.background.shielded(commit())
        except Conflict as error:
            raise Unavailable(str(error)) from error

    async def list_uploads(
        self, bucket_id: bytes, prefix: str, delimiter: str, after: tuple[str, bytes], limit: int
    ) -> tuple[list[UploadInfo], list[str], bool]:
        key, version = after
        start = names.start_at(key.encode(), version + b"\0") if version else start_after(prefix, delimiter, key)
        walk = Walk(
            record.UPLOAD_SPACE + bucket_id,
            prefix.encode(),
            delimiter.encode(),
            start,
            page_size=max(1, min(limit + 1, MAX_SCAN_ENTRIES)),
        )
        uploads: list[UploadInfo] = []
        prefixes: list[str] = []
        async with aclosing(one_by_one(self._store.walk(walk))) as everything:
            async for found in everything:
                if len(uploads) + len(prefixes) == limit:
                    return uploads, prefixes, True
                if found.group:
                    prefixes.append(found.group.decode())
                elif found.record is not None:
                    uploads.append(UploadInfo(found.register.key, found.register.version, found.record))
        return uploads, prefixes, False


def _completed_before(tombstone: Record, parts: Sequence[PartRef]) -> Record:
    """The object that completing made, if the same parts are asked for again.  Raises Missing."""
    if tombstone.body:
        made = record.decode(tombstone.body)
        if [(p.number, p.etag) for p in made.parts] == [(ref.number, ref.etag) for ref in parts]:
            return made
    raise Missing("the upload has ended")


def _object_of(parts: Sequence[tuple[PartRef, Record]], attributes: Attributes) -> Record:
    geometry: Geometry | None = None
    extents = []
    for _, part in parts:
        geometry = geometry or part.geometry
        extents.append(part.extents[0] if part.extents else Extent(b"", 0))
    return Record(
        Kind.OBJECT,
        0,
        modified_ms=attributes.modified_ms,
        size_bytes=sum(part.size_bytes for _, part in parts),
        etag=attributes.etag,
        headers=attributes.headers,
        checksums=attributes.checksums,
        geometry=geometry,
        extents=tuple(extents) if geometry is not None else (),
        parts=tuple(_part_info(ref, part) for ref, part in parts),
        sealing=attributes.sealing,
    )


def _part_info(ref: PartRef, part: Record) -> PartInfo:
    checksum = next((value for name, value in part.checksums.items() if name != "type"), "")
    return PartInfo(ref.number, part.size_bytes, part.etag, checksum)


class _Refill:
    """Rebuilds the shards of parts that some drives missed, so that they can hold the object's record."""

    def __init__(
        self,
        store: ObjectStore,
        erasure_set: ErasureSet,
        bucket_id: bytes,
        key: str,
        upload_id: bytes,
        numbers: Sequence[int],
    ) -> None:
        self._store = store
        self._set = erasure_set
        self._registers: list[Register] = [
            record.part_register(bucket_id, key, upload_id, number) for number in numbers
        ]

    async def __call__(self, positions: Collection[int]) -> Collection[int]:
        good = set(positions)
        for register in self._registers:
            replies = await self._set.query(register)
            decision = quorum.decide_read(self._set.quorums, replies, final=True)
            have = quorum.holders(replies, decision.stamp)
            lacking = [p for p in good if p not in have]
            if lacking and have:
                good -= set(lacking) - await self._store.healer.refill(self._set, lacking, have)
            elif lacking:
                good -= set(lacking)
        return good
