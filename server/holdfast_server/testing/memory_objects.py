"""The object port in memory: one process, no drives, no faults but those a test asks for.

For tests of the layers above (`api/`, `admin/`) and of S3 clients.  It keeps the port's promises that those
layers lean on: a body is fed to its digests stripe by stripe on a worker thread, `finish` is called once and
before anything changes, conditions see the current version, a raised error leaves nothing behind, a reader
keeps serving the version it opened.  `tests/ports` runs the same suite over this and over the real store.

Not here: durability, quorum, stripes on drives, bounded memory.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence

import msgspec

from holdfast_server.clock.port import Clock
from holdfast_server.clock.stamp import HybridClock
from holdfast_server.objects.multipart import new_upload_id
from holdfast_server.objects.object_lock import protects
from holdfast_server.objects.port import (
    Assemble,
    Attributes,
    Body,
    Condition,
    Damaged,
    Listed,
    ListedVersion,
    Listing,
    Locked,
    Missing,
    PartRef,
    Redundancy,
    UploadInfo,
    Versioning,
    VersionListing,
)
from holdfast_server.objects.record import STRIPE_SIZE_BYTES, Extent, Kind, PartInfo, Record, VersionInfo, place_of
from holdfast_server.objects.versions import names
from holdfast_server.sealing.envelope import Seal, Sealing

READ_PIECE_SIZE_BYTES = 256 * 1024
_BEHIND_ALL_IDS = b"\xff" * 17

ObjectKey = tuple[bytes, str]
UploadKey = tuple[bytes, str, bytes]


class _Stored(msgspec.Struct, frozen=True):
    record: Record
    data: bytes = b""
    key: bytes = b""
    """What it is sealed with; the data is kept as it came."""


class MemoryReader:
    def __init__(self, stored: _Stored) -> None:
        self.record = stored.record
        self._data = stored.data
        self._key = stored.key
        self._locked = stored.record.sealing is not None

    def unlock(self, seal: Seal) -> None:
        if seal.key != self._key:
            raise Damaged("another key")
        self._locked = False

    async def chunks(self, start: int, length: int) -> AsyncIterator[bytes | memoryview]:
        if self._locked and length:
            raise Damaged("a sealed version was not unlocked")
        view = memoryview(self._data)[start : start + length]
        for offset in range(0, len(view), READ_PIECE_SIZE_BYTES):
            yield view[offset : offset + READ_PIECE_SIZE_BYTES]
            await asyncio.sleep(0)


class MemoryObjects:
    """`objects.port.Objects` in dictionaries.

    `failure`, while set, is asked before every call with the verb's name and may raise (Unavailable,
    OutOfSpace …), which is how tests see what the layers above make of it.
    """

    def __init__(self, clock: Clock, node: int = 0) -> None:
        self._clock = clock
        self._stamps = HybridClock(node)
        self._versions: dict[ObjectKey, list[_Stored]] = {}
        """Newest first; never empty."""
        self._uploads: dict[UploadKey, Record] = {}
        self._parts: dict[UploadKey, dict[int, _Stored]] = {}
        self._completed: dict[UploadKey, Record] = {}
        self._documents: dict[str, Record] = {}
        self.redundancies: list[Redundancy] = []
        """Of the writes that said one, in order."""
        self.failure: Callable[[str], None] | None = None

    def _enter(self, verb: str) -> None:
        if self.failure is not None:
            self.failure(verb)

    def _stamp(self) -> int:
        return self._stamps.next(self._clock.now_ms())

    # --- objects

    async def put_object(
        self,
        bucket_id: bytes,
        key: str,
        body: Body,
        condition: Condition | None = None,
        seal: Seal | None = None,
        redundancy: Redundancy = Redundancy.FULL,
    ) -> Record:
        self._enter("put_object")
        self.redundancies.append(redundancy)
        data, attributes = await _drain(body)
        if condition is not None:
            condition(self._live(bucket_id, key))
        record = self._object_record(attributes, (len(data),), seal=seal)
        stored = _Stored(record, data, seal.key if seal is not None else b"")
        return self._make_current(bucket_id, key, stored, attributes.versioning)

    def _live(self, bucket_id: bytes, key: str) -> Record | None:
        versions = self._versions.get((bucket_id, key))
        return versions[0].record if versions and versions[0].record.live else None

    def _make_current(self, bucket_id: bytes, key: str, stored: _Stored, versioning: Versioning) -> Record:
        record = stored.record
        if versioning is not Versioning.OFF:
            null = versioning is Versioning.SUSPENDED
            info = VersionInfo(place_of(record.stamp), null, record.marker)
            record = msgspec.structs.replace(record, version=info)
        kept = self._versions.get((bucket_id, key), []) if versioning is not Versioning.OFF else []
        others = [one for one in kept if not (record.null and one.record.null)]
        self._versions[bucket_id, key] = [_Stored(record, stored.data, stored.key), *others]
        return record

    def _find(self, bucket_id: bytes, key: str, version: bytes | None) -> _Stored | None:
        versions = self._versions.get((bucket_id, key), [])
        return next((one for one in versions if version is None or names(version, one.record)), None)

    def _object_record(
        self,
        attributes: Attributes,
        extents: tuple[int, ...],
        parts: tuple[PartInfo, ...] = (),
        seal: Seal | None = None,
    ) -> Record:
        return Record(
            kind=Kind.OBJECT,
            stamp=self._stamp(),
            modified_ms=attributes.modified_ms or self._clock.now_ms(),
            size_bytes=sum(extents),
            etag=attributes.etag,
            headers=attributes.headers,
            checksums=attributes.checksums,
            extents=tuple(Extent(b"", size_bytes) for size_bytes in extents),
            parts=parts,
            sealing=seal.sealing if seal is not None else attributes.sealing,
        )

    async def head_object(self, bucket_id: bytes, key: str, version: bytes | None = None) -> Record | None:
        self._enter("head_object")
        stored = self._find(bucket_id, key, version)
        return stored.record if stored else None

    async def open_object(self, bucket_id: bytes, key: str, version: bytes | None = None) -> MemoryReader | None:
        self._enter("open_object")
        stored = self._find(bucket_id, key, version)
        return MemoryReader(stored) if stored else None

    async def delete_object(
        self,
        bucket_id: bytes,
        key: str,
        condition: Condition | None = None,
        versioning: Versioning = Versioning.OFF,
    ) -> Record | None:
        self._enter("delete_object")
        live = self._live(bucket_id, key)
        if condition is not None:
            condition(live)
        if versioning is Versioning.OFF:
            self._versions.pop((bucket_id, key), None)
            return live
        marker = Record(Kind.OBJECT, self._stamp(), modified_ms=self._clock.now_ms(), version=VersionInfo(marker=True))
        return self._make_current(bucket_id, key, _Stored(marker), versioning)

    async def delete_version(
        self,
        bucket_id: bytes,
        key: str,
        version: bytes,
        condition: Condition | None = None,
        bypass_governance: bool = False,
    ) -> Record | None:
        self._enter("delete_version")
        stored = self._find(bucket_id, key, version)
        if condition is not None:
            condition(stored.record if stored is not None and stored.record.live else None)
        if stored is None:
            return None
        if protects(stored.record, self._clock.now_ms(), bypass_governance):
            raise Locked(f"a version of {key!r} is locked")
        others = [one for one in self._versions.pop((bucket_id, key)) if one is not stored]
        if others:
            self._versions[bucket_id, key] = others
        return stored.record

    async def list_versions(
        self,
        bucket_id: bytes,
        *,
        prefix: str = "",
        delimiter: str = "",
        after: str = "",
        after_version: bytes = b"",
        limit: int = 1000,
    ) -> VersionListing:
        self._enter("list_versions")
        entries: list[ListedVersion] = []
        prefixes: list[str] = []
        for key, versions in self._of_bucket(bucket_id):
            common = _common_prefix(key, prefix, delimiter)
            resumed = bool(after_version) and key == after
            shown: list[ListedVersion | str] = []
            if not key.startswith(prefix) or (key.encode() <= after.encode() and not resumed):
                continue
            if common:
                if common != after and common not in prefixes:
                    shown.append(common)
            else:
                at = next((n for n, one in enumerate(versions) if resumed and names(after_version, one.record)), -1)
                shown += [ListedVersion(key, one.record, n == 0) for n, one in enumerate(versions) if n > at]
            for item in shown:
                if len(entries) + len(prefixes) == limit:
                    return VersionListing(entries, prefixes, True)
                if isinstance(item, ListedVersion):
                    entries.append(item)
                else:
                    prefixes.append(item)
        return VersionListing(entries, prefixes, False)

    def _of_bucket(self, bucket_id: bytes) -> list[tuple[str, list[_Stored]]]:
        mine = [(key, versions) for (bucket, key), versions in self._versions.items() if bucket == bucket_id]
        return sorted(mine, key=lambda item: item[0].encode())

    async def amend_object(
        self,
        bucket_id: bytes,
        key: str,
        change: Callable[[Record], dict[str, str]],
        version: bytes | None = None,
    ) -> Record | None:
        self._enter("amend_object")
        stored = self._find(bucket_id, key, version)
        if stored is None or stored.record.marker:
            return None
        record = msgspec.structs.replace(stored.record, headers=change(stored.record), stamp=self._stamp())
        versions = self._versions[bucket_id, key]
        self._versions[bucket_id, key] = [
            _Stored(record, one.data, one.key) if one is stored else one for one in versions
        ]
        return record

    async def list_objects(
        self, bucket_id: bytes, *, prefix: str = "", delimiter: str = "", after: str = "", limit: int = 1000
    ) -> Listing:
        self._enter("list_objects")
        found = {key: live for key, _ in self._of_bucket(bucket_id) if (live := self._live(bucket_id, key)) is not None}
        return _page(found, prefix, delimiter, after, limit)

    # --- multipart

    async def create_upload(
        self,
        bucket_id: bytes,
        key: str,
        headers: dict[str, str],
        body: bytes,
        sealing: Sealing | None = None,
        redundancy: Redundancy = Redundancy.FULL,
    ) -> bytes:
        self._enter("create_upload")
        self.redundancies.append(redundancy)
        upload_id = new_upload_id(self._clock.now_ms(), self._clock)
        self._uploads[bucket_id, key, upload_id] = Record(
            kind=Kind.UPLOAD,
            stamp=self._stamp(),
            modified_ms=self._clock.now_ms(),
            headers=headers,
            body=body,
            sealing=sealing,
        )
        self._parts[bucket_id, key, upload_id] = {}
        return upload_id

    async def get_upload(self, bucket_id: bytes, key: str, upload_id: bytes) -> Record | None:
        self._enter("get_upload")
        return self._uploads.get((bucket_id, key, upload_id))

    async def put_part(
        self, bucket_id: bytes, key: str, upload_id: bytes, number: int, body: Body, seal: Seal | None = None
    ) -> Record:
        self._enter("put_part")
        if (bucket_id, key, upload_id) not in self._uploads:
            raise Missing("no such upload")
        data, attributes = await _drain(body)
        parts = self._parts.get((bucket_id, key, upload_id))
        if parts is None:
            raise Missing("the upload ended while the part was sent")
        record = msgspec.structs.replace(self._object_record(attributes, (len(data),), seal=seal), kind=Kind.PART)
        parts[number] = _Stored(record, data, seal.key if seal is not None else b"")
        return record

    async def list_parts(
        self, bucket_id: bytes, key: str, upload_id: bytes, after: int = 0, limit: int = 1000
    ) -> tuple[list[tuple[int, Record]], bool]:
        self._enter("list_parts")
        parts = self._parts.get((bucket_id, key, upload_id))
        if parts is None:
            raise Missing("no such upload")
        ordered = [(number, parts[number].record) for number in sorted(parts) if number > after]
        return ordered[:limit], len(ordered) > limit

    async def complete_upload(
        self,
        bucket_id: bytes,
        key: str,
        upload_id: bytes,
        parts: Sequence[PartRef],
        assemble: Assemble,
        condition: Condition | None = None,
    ) -> Record:
        self._enter("complete_upload")
        where = (bucket_id, key, upload_id)
        upload = self._uploads.get(where)
        if upload is None:
            completed = self._completed.get(where)
            if completed is not None and _same_parts(completed, parts):
                return completed
            raise Missing("no such upload")
        stored = [self._parts[where].get(part.number) for part in parts]
        attributes = assemble(
            upload, [(ref, each.record if each else None) for ref, each in zip(parts, stored, strict=True)]
        )
        if condition is not None:
            condition(self._live(bucket_id, key))
        taken = [each for each in stored if each is not None]
        record = self._object_record(
            attributes,
            tuple(each.record.size_bytes for each in taken),
            tuple(_part_info(ref, each.record) for ref, each in zip(parts, taken, strict=True)),
        )
        whole = _Stored(record, b"".join(each.data for each in taken), taken[0].key)
        record = self._make_current(bucket_id, key, whole, attributes.versioning)
        self._completed[where] = record
        del self._uploads[where], self._parts[where]
        return record

    async def abort_upload(self, bucket_id: bytes, key: str, upload_id: bytes) -> None:
        self._enter("abort_upload")
        if self._uploads.pop((bucket_id, key, upload_id), None) is None:
            raise Missing("no such upload")
        del self._parts[bucket_id, key, upload_id]

    async def list_uploads(
        self,
        bucket_id: bytes,
        *,
        prefix: str = "",
        delimiter: str = "",
        after: tuple[str, bytes] = ("", b""),
        limit: int = 1000,
    ) -> tuple[list[UploadInfo], list[str], bool]:
        self._enter("list_uploads")
        uploads: list[UploadInfo] = []
        prefixes: list[str] = []
        last = ""
        after_key, after_id = after
        passed = after_key if after_key and _common_prefix(after_key, prefix, delimiter) == after_key else None
        behind = (after_key.encode(), after_id or _BEHIND_ALL_IDS) if after_key else (b"", b"")
        mine = [(key, upload, record) for (bucket, key, upload), record in self._uploads.items() if bucket == bucket_id]
        for key, upload_id, record in sorted(mine, key=lambda entry: (entry[0].encode(), entry[1])):
            common = _common_prefix(key, prefix, delimiter)
            if not key.startswith(prefix) or (key.encode(), upload_id) <= behind:
                continue
            if (passed is not None and key.startswith(passed)) or (common and common == last):
                continue
            if len(uploads) + len(prefixes) == limit:
                return uploads, prefixes, True
            last = common
            if common:
                prefixes.append(common)
            else:
                uploads.append(UploadInfo(key, upload_id, record))
        return uploads, prefixes, False

    # --- documents

    async def get_document(self, name: str) -> Record | None:
        self._enter("get_document")
        return self._documents.get(name)

    async def put_document(self, name: str, body: bytes, condition: Condition | None = None) -> Record:
        self._enter("put_document")
        if condition is not None:
            condition(self._documents.get(name))
        record = Record(kind=Kind.DOCUMENT, stamp=self._stamp(), modified_ms=self._clock.now_ms(), body=body)
        self._documents[name] = record
        return record

    async def delete_document(self, name: str, condition: Condition | None = None) -> None:
        self._enter("delete_document")
        if condition is not None:
            condition(self._documents.get(name))
        self._documents.pop(name, None)

    async def list_documents(self, prefix: str, after: str = "", limit: int = 1000) -> Listing:
        self._enter("list_documents")
        return _page(self._documents, prefix, "", after, limit)


async def _drain(body: Body) -> tuple[bytes, Attributes]:
    """The whole payload, fed to the digests as the real store does it: by stripes, in order, on a thread."""
    taken = bytearray()
    fed = 0

    def feed(stripe: bytes) -> None:
        for digest in body.digests:
            digest.update(stripe)

    async for chunk in _in_place(body) if body.filler is not None and body.size_bytes else body.chunks():
        taken += chunk
        while len(taken) - fed >= STRIPE_SIZE_BYTES:
            await asyncio.to_thread(feed, bytes(taken[fed : fed + STRIPE_SIZE_BYTES]))
            fed += STRIPE_SIZE_BYTES
    if fed < len(taken):
        await asyncio.to_thread(feed, bytes(taken[fed:]))
    return bytes(taken), body.finish()


async def _in_place(body: Body) -> AsyncIterator[bytes | memoryview]:
    """As the real store receives large ones: into a few pieces of memory at a time."""
    assert body.filler is not None
    assert body.size_bytes is not None
    left = body.size_bytes
    while left:
        stripe = memoryview(bytearray(min(left, STRIPE_SIZE_BYTES)))
        third = len(stripe) // 3
        await body.filler.fill([view for view in (stripe[:third], stripe[third:]) if len(view)], lambda: True)
        left -= len(stripe)
        yield stripe


def _part_info(ref: PartRef, record: Record) -> PartInfo:
    checksum = next((value for name, value in record.checksums.items() if name != "type"), "")
    return PartInfo(ref.number, record.size_bytes, record.etag, checksum)


def _same_parts(completed: Record, parts: Sequence[PartRef]) -> bool:
    return [(part.number, part.etag) for part in completed.parts] == [(part.number, part.etag) for part in parts]


def _common_prefix(key: str, prefix: str, delimiter: str) -> str:
    if not delimiter:
        return ""
    end = key.find(delimiter, len(prefix))
    return key[: end + len(delimiter)] if end >= 0 else ""


def _page(found: dict[str, Record], prefix: str, delimiter: str, after: str, limit: int) -> Listing:
    entries: list[Listed] = []
    prefixes: list[str] = []
    last = ""
    passed = after if after and _common_prefix(after, prefix, delimiter) == after else None
    for key in sorted(found, key=str.encode):
        common = _common_prefix(key, prefix, delimiter)
        if not key.startswith(prefix) or key.encode() <= after.encode():
            continue
        if (passed is not None and key.startswith(passed)) or (common and common == last):
            continue
        if len(entries) + len(prefixes) == limit:
            return Listing(entries, prefixes, last or None)
        last = common or key
        if common:
            prefixes.append(common)
        else:
            entries.append(Listed(key, found[key]))
    return Listing(entries, prefixes, None)
