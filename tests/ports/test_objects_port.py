"""`objects.port.Objects`: one suite over the real store (on drives in memory) and over the stand-in that tests of
the API use.  What holds for one must hold for the other, or those tests prove nothing."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence

import pytest

from holdfast_server.clock.system import SystemClock
from holdfast_server.objects.object_lock import GOVERNANCE, Retention, with_legal_hold, with_retention
from holdfast_server.objects.port import (
    NULL_VERSION,
    Attributes,
    Locked,
    Missing,
    Objects,
    PartRef,
    Record,
    UploadInfo,
    Versioning,
)
from holdfast_server.testing.memory_cluster import MemoryCluster
from holdfast_server.testing.memory_objects import MemoryObjects

BUCKET = b"a bucket's id 01"
OTHER = b"a bucket's id 02"
MIB = 1 << 20


class Refused(Exception):
    pass


class Counter:
    """A digest that remembers what it was fed."""

    def __init__(self) -> None:
        self.fed = bytearray()

    def update(self, data: memoryview | bytes, /) -> None:
        self.fed += data


class GivenBody:
    def __init__(
        self, data: bytes, piece_size: int = 70_001, refuse: bool = False, versioning: Versioning = Versioning.OFF
    ) -> None:
        self.size_bytes: int | None = len(data)
        self.counter = Counter()
        self.digests = (self.counter,)
        self._data = data
        self._piece_size = piece_size
        self.filler = None
        self._refuse = refuse
        self._versioning = versioning

    async def chunks(self) -> AsyncIterator[bytes]:
        for start in range(0, len(self._data), self._piece_size):
            yield self._data[start : start + self._piece_size]

    def finish(self) -> Attributes:
        assert bytes(self.counter.fed) == self._data
        if self._refuse:
            raise Refused
        return Attributes(
            etag=f"etag-{len(self._data)}",
            headers={"content-type": "x/y"},
            checksums={"CRC32": "AAAA"},
            versioning=self._versioning,
        )


@pytest.fixture(params=["memory", "store"])
async def objects(request: pytest.FixtureRequest) -> AsyncIterator[Objects]:
    if request.param == "memory":
        yield MemoryObjects(SystemClock())
        return
    cluster = MemoryCluster(SystemClock(), sets=2)
    yield cluster.store
    await cluster.settle()
    await cluster.close()


async def read(objects: Objects, key: str, start: int = 0, length: int | None = None) -> bytes | None:
    reader = await objects.open_object(BUCKET, key)
    if reader is None:
        return None
    wanted = reader.record.size_bytes - start if length is None else length
    return b"".join([bytes(chunk) async for chunk in reader.chunks(start, wanted)])


def content(size_bytes: int) -> bytes:
    return random.Random(size_bytes).randbytes(size_bytes)


@pytest.mark.parametrize("size_bytes", [0, 1, 64 * 1024, 64 * 1024 + 1, MIB, 2 * MIB + 17])
async def test_what_was_put_is_read_whole_and_in_ranges(objects: Objects, size_bytes: int) -> None:
    data = content(size_bytes)
    put = await objects.put_object(BUCKET, "k", GivenBody(data))
    head = await objects.head_object(BUCKET, "k")
    for record in (put, head):
        assert record is not None
        assert (record.size_bytes, record.etag) == (size_bytes, f"etag-{size_bytes}")
        assert (record.headers, record.checksums) == ({"content-type": "x/y"}, {"CRC32": "AAAA"})
        assert record.modified_ms > 0
    assert await read(objects, "k") == data
    if size_bytes:
        for start, length in ((0, 1), (size_bytes // 2, size_bytes - size_bytes // 2), (size_bytes - 1, 1)):
            assert await read(objects, "k", start, length) == data[start : start + length]


async def test_a_refused_write_changes_nothing(objects: Objects) -> None:
    await objects.put_object(BUCKET, "k", GivenBody(b"old"))
    for size_bytes in (10, 200_000):
        with pytest.raises(Refused):
            await objects.put_object(BUCKET, "k", GivenBody(content(size_bytes), refuse=True))
    assert await read(objects, "k") == b"old"


async def test_conditions_see_the_current_version_and_decide(objects: Objects) -> None:
    seen: list[Record | None] = []

    def only_absent(current: Record | None) -> None:
        seen.append(current)
        if current is not None:
            raise Refused

    await objects.put_object(BUCKET, "k", GivenBody(b"1"), only_absent)
    with pytest.raises(Refused):
        await objects.put_object(BUCKET, "k", GivenBody(b"22"), only_absent)
    assert seen[0] is None
    assert seen[-1] is not None
    assert seen[-1].etag == "etag-1"
    with pytest.raises(Refused):
        await objects.delete_object(BUCKET, "k", only_absent)
    assert await read(objects, "k") == b"1"
    await objects.delete_object(BUCKET, "k")
    await objects.put_object(BUCKET, "k", GivenBody(b"333"), only_absent)
    assert await read(objects, "k") == b"333"


@pytest.mark.parametrize("size_bytes", [0, 1000, 3 * MIB + 5])
async def test_an_amendment_changes_headers_and_nothing_else(objects: Objects, size_bytes: int) -> None:
    data = content(size_bytes)
    put = await objects.put_object(BUCKET, "a", GivenBody(data))
    amended = await objects.amend_object(BUCKET, "a", lambda found: {**found.headers, "tag": "1"})
    assert amended is not None
    assert amended.stamp > put.stamp
    assert amended.headers == {"content-type": "x/y", "tag": "1"}
    now = await objects.head_object(BUCKET, "a")
    assert now == amended
    assert (now.etag, now.modified_ms, now.checksums) == (put.etag, put.modified_ms, put.checksums)
    assert await read(objects, "a") == data
    assert [entry.record.stamp for entry in (await objects.list_objects(BUCKET)).entries] == [amended.stamp]


async def test_an_amendment_of_nothing_and_a_refused_one_change_nothing(objects: Objects) -> None:
    def refuse(_: Record) -> dict[str, str]:
        raise Refused

    assert await objects.amend_object(BUCKET, "a", lambda found: {}) is None
    put = await objects.put_object(BUCKET, "a", GivenBody(b"abc"))
    with pytest.raises(Refused):
        await objects.amend_object(BUCKET, "a", refuse)
    assert await objects.head_object(BUCKET, "a") == put
    await objects.delete_object(BUCKET, "a")
    assert await objects.amend_object(BUCKET, "a", lambda found: {}) is None


async def test_an_amended_upload_keeps_its_parts(objects: Objects) -> None:
    upload = await objects.create_upload(BUCKET, "m", {}, b"")
    data = content(2 * MIB)
    for number in (1, 2):
        await objects.put_part(BUCKET, "m", upload, number, GivenBody(data))
    refs = [PartRef(number, f"etag-{len(data)}") for number in (1, 2)]
    made = await objects.complete_upload(BUCKET, "m", upload, refs, take)
    amended = await objects.amend_object(BUCKET, "m", lambda found: {"tag": "1"})
    assert amended is not None
    assert amended.parts == made.parts
    assert await read(objects, "m") == data + data


async def test_deleted_and_never_written_are_alike(objects: Objects) -> None:
    await objects.put_object(BUCKET, "k", GivenBody(b"1"))
    for _ in range(2):
        await objects.delete_object(BUCKET, "k")
        for key in ("k", "never"):
            assert await objects.head_object(BUCKET, key) is None
            assert await objects.open_object(BUCKET, key) is None
    assert (await objects.list_objects(BUCKET)).entries == []


async def test_buckets_do_not_see_each_other(objects: Objects) -> None:
    await objects.put_object(BUCKET, "k", GivenBody(b"1"))
    assert await objects.head_object(OTHER, "k") is None
    assert (await objects.list_objects(OTHER)).entries == []


async def list_all(objects: Objects, limit: int, **options: str) -> tuple[list[str], list[str]]:
    keys: list[str] = []
    prefixes: list[str] = []
    after: str | None = ""
    while after is not None:
        page = await objects.list_objects(BUCKET, after=after, limit=limit, **options)
        assert len(page.entries) + len(page.prefixes) <= limit
        keys += [entry.key for entry in page.entries]
        prefixes += page.prefixes
        after = page.next_after
    return keys, prefixes


KEYS = ["a", "a/", "a/1", "a/2/x", "a/2/y", "a/é", "b", "b//c", "z", "é", "￿", "𝄞"]


@pytest.mark.parametrize("limit", [1, 2, 3, 1000])
async def test_listings_are_ordered_and_page_without_loss(objects: Objects, limit: int) -> None:
    for key in reversed(KEYS):
        await objects.put_object(BUCKET, key, GivenBody(b"1"))
    assert await list_all(objects, limit) == (KEYS, [])
    assert await list_all(objects, limit, delimiter="/") == (["a", "b", "z", "é", "￿", "𝄞"], ["a/", "b/"])
    assert await list_all(objects, limit, prefix="a/") == (["a/", "a/1", "a/2/x", "a/2/y", "a/é"], [])
    assert await list_all(objects, limit, prefix="a/", delimiter="/") == (["a/", "a/1", "a/é"], ["a/2/"])
    assert await list_all(objects, limit, prefix="nothing") == ([], [])


@pytest.mark.parametrize(
    ("after", "keys", "prefixes"),
    [("a/", ["b", "z"], ["b/"]), ("a/1", ["b", "z"], ["a/", "b/"]), ("a/￿", ["b", "z"], ["b/"]), ("b/", ["z"], [])],
)
async def test_a_listing_starts_behind_a_key_or_a_common_prefix(
    objects: Objects, after: str, keys: list[str], prefixes: list[str]
) -> None:
    for key in KEYS[:9]:
        await objects.put_object(BUCKET, key, GivenBody(b"1"))
    page = await objects.list_objects(BUCKET, delimiter="/", after=after)
    assert ([entry.key for entry in page.entries], page.prefixes, page.next_after) == (keys, prefixes, None)


def take(upload: Record, parts: Sequence[tuple[PartRef, Record | None]]) -> Attributes:
    if any(record is None or record.etag != ref.etag for ref, record in parts):
        raise Refused
    return Attributes(etag="whole-2", headers=upload.headers)


async def test_an_upload_becomes_one_object_once(objects: Objects) -> None:
    upload = await objects.create_upload(BUCKET, "k", {"content-type": "x/z"}, b"notes")
    assert len(upload) == 16
    found = await objects.get_upload(BUCKET, "k", upload)
    assert found is not None
    assert (found.body, found.headers) == (b"notes", {"content-type": "x/z"})
    sizes = {1: 300_000, 2: 5, 7: 1_200_000}
    for number, size_bytes in sizes.items():
        await objects.put_part(BUCKET, "k", upload, number, GivenBody(content(size_bytes)))
    await objects.put_part(BUCKET, "k", upload, 2, GivenBody(content(9)))
    listed, more = await objects.list_parts(BUCKET, "k", upload, after=1, limit=1)
    assert ([(number, record.size_bytes) for number, record in listed], more) == ([(2, 9)], True)
    assert await objects.head_object(BUCKET, "k") is None
    parts = [PartRef(2, "etag-9"), PartRef(7, "etag-1200000")]
    with pytest.raises(Refused):
        await objects.complete_upload(BUCKET, "k", upload, [*parts, PartRef(9, "none")], take)
    for _ in range(2):
        made = await objects.complete_upload(BUCKET, "k", upload, parts, take)
        assert (made.etag, made.size_bytes) == ("whole-2", 1_200_009)
    assert [(part.number, part.size_bytes) for part in made.parts] == [(2, 9), (7, 1_200_000)]
    assert await read(objects, "k") == content(9) + content(1_200_000)
    assert await read(objects, "k", 5, 100) == (content(9) + content(1_200_000))[5:105]
    assert await objects.get_upload(BUCKET, "k", upload) is None
    with pytest.raises(Missing):
        await objects.put_part(BUCKET, "k", upload, 1, GivenBody(b"1"))
    with pytest.raises(Missing):
        await objects.complete_upload(BUCKET, "k", upload, [PartRef(1, "etag-300000")], take)


async def test_aborted_and_unknown_uploads_are_missing(objects: Objects) -> None:
    upload = await objects.create_upload(BUCKET, "k", {}, b"")
    await objects.put_part(BUCKET, "k", upload, 1, GivenBody(b"1"))
    await objects.abort_upload(BUCKET, "k", upload)
    for upload_id in (upload, bytes(16)):
        assert await objects.get_upload(BUCKET, "k", upload_id) is None
        for refused in (
            objects.abort_upload(BUCKET, "k", upload_id),
            objects.list_parts(BUCKET, "k", upload_id),
            objects.put_part(BUCKET, "k", upload_id, 1, GivenBody(b"1")),
            objects.complete_upload(BUCKET, "k", upload_id, [PartRef(1, "etag-1")], take),
        ):
            with pytest.raises(Missing):
                await refused


@pytest.mark.parametrize("limit", [1, 2, 1000])
async def test_uploads_are_listed_by_key_and_id(objects: Objects, limit: int) -> None:
    made = [(key, await objects.create_upload(BUCKET, key, {}, b"")) for key in ("a", "d/1", "d/2", "b", "a", "é")]
    for delimiter, keys, prefixes in (
        ("", sorted(made, key=lambda upload: (upload[0].encode(), upload[1])), []),
        ("/", sorted(upload for upload in made if "/" not in upload[0]), ["d/"]),
    ):
        uploads: list[tuple[str, bytes]] = []
        groups: list[str] = []
        after, more = ("", b""), True
        while more:
            page, found, more = await objects.list_uploads(BUCKET, delimiter=delimiter, after=after, limit=limit)
            uploads += [(upload.key, upload.upload_id) for upload in page]
            groups += found
            places = [(upload.key.encode(), upload.upload_id) for upload in page]
            places += [(group.encode(), b"") for group in found]
            after = (max(places)[0].decode(), max(places)[1]) if places else after
        assert (uploads, groups) == (keys, prefixes)


async def test_a_keys_uploads_are_listed_in_the_order_of_their_beginnings(objects: Objects) -> None:
    """As AWS documents it, and from page to page."""
    clock, made = SystemClock(), []
    for _ in range(12):
        made.append(await objects.create_upload(BUCKET, "k", {}, b""))
        began_ms = clock.now_ms()
        while clock.now_ms() == began_ms:
            await asyncio.sleep(0)
    found: list[UploadInfo] = []
    more = True
    while more:
        after = ("k", found[-1].upload_id) if found else ("", b"")
        page, _, more = await objects.list_uploads(BUCKET, after=after, limit=5)
        found += page
    assert [upload.upload_id for upload in found] == made
    began = [upload.record.modified_ms for upload in found]
    assert began == sorted(set(began))


async def test_documents_are_kept_listed_and_conditional(objects: Objects) -> None:
    def absent(current: Record | None) -> None:
        if current is not None:
            raise Refused

    assert await objects.get_document("bucket/a") is None
    for name in ("bucket/b", "bucket/a", "user/x"):
        await objects.put_document(name, name.encode(), absent)
    with pytest.raises(Refused):
        await objects.put_document("bucket/a", b"again", absent)
    found = await objects.get_document("bucket/a")
    assert found is not None
    assert found.body == b"bucket/a"
    page = await objects.list_documents("bucket/")
    assert [(entry.key, entry.record.body) for entry in page.entries] == [
        ("bucket/a", b"bucket/a"),
        ("bucket/b", b"bucket/b"),
    ]
    page = await objects.list_documents("bucket/", limit=1)
    assert ([entry.key for entry in page.entries], page.next_after) == (["bucket/a"], "bucket/a")
    await objects.delete_document("bucket/a")
    await objects.delete_document("bucket/a")
    assert await objects.get_document("bucket/a") is None
    await objects.put_document("bucket/a", b"anew", absent)


# -------------------------------------------------------------------- versions


async def put_version(objects: Objects, key: str, data: bytes, suspended: bool = False) -> bytes:
    versioning = Versioning.SUSPENDED if suspended else Versioning.ENABLED
    made = await objects.put_object(BUCKET, key, GivenBody(data, versioning=versioning))
    return version_of(made)


def version_of(record: Record) -> bytes:
    return NULL_VERSION if record.null else record.place


async def versions(objects: Objects, **asked: object) -> list[tuple[str, bytes, bool, bool]]:
    page = await objects.list_versions(BUCKET, **asked)  # type: ignore[arg-type]
    return [(entry.key, version_of(entry.record), entry.record.marker, entry.latest) for entry in page.entries]


async def test_versions_are_kept_marked_deleted_and_shown_again(objects: Objects) -> None:
    await objects.put_object(BUCKET, "k", GivenBody(b"before"))
    first = await put_version(objects, "k", b"first")
    second = await put_version(objects, "k", b"second")
    assert second < first, "ids sort the newest first"
    marker = await objects.delete_object(BUCKET, "k", versioning=Versioning.ENABLED)
    assert marker is not None
    assert await versions(objects) == [
        ("k", version_of(marker), True, True),
        ("k", second, False, False),
        ("k", first, False, False),
        ("k", NULL_VERSION, False, False),
    ]
    current = await objects.head_object(BUCKET, "k")
    assert current is not None
    assert (current.marker, current.live) == (True, False)
    assert (await objects.list_objects(BUCKET)).entries == []
    old = await objects.open_object(BUCKET, "k", first)
    assert old is not None
    assert b"".join([bytes(chunk) async for chunk in old.chunks(0, 5)]) == b"first"
    for version in (version_of(marker), second, NULL_VERSION):
        gone = await objects.delete_version(BUCKET, "k", version)
        assert gone is not None
        assert version_of(gone) == version
        assert await objects.delete_version(BUCKET, "k", version) is None
        assert await objects.head_object(BUCKET, "k", version) is None
    assert await read(objects, "k") == b"first"
    assert await versions(objects) == [("k", first, False, True)]


async def test_a_locked_version_stays_whoever_asks_for_its_deletion(objects: Objects) -> None:
    old = await put_version(objects, "k", b"old")
    current = await put_version(objects, "k", b"current")
    kept = Retention(GOVERNANCE, 1 << 60)
    for version in (old, current):
        await objects.amend_object(BUCKET, "k", lambda found: with_legal_hold(found.headers, True), version)
        with pytest.raises(Locked):
            await objects.delete_version(BUCKET, "k", version, bypass_governance=True)
        await objects.amend_object(BUCKET, "k", lambda found: with_legal_hold(found.headers, False), version)
        await objects.amend_object(BUCKET, "k", lambda found: with_retention(found.headers, kept), version)
        with pytest.raises(Locked):
            await objects.delete_version(BUCKET, "k", version)
    assert [found for _, found, _, _ in await versions(objects)] == [current, old]
    for version in (current, old):
        assert await objects.delete_version(BUCKET, "k", version, bypass_governance=True) is not None
    assert await versions(objects) == []


async def test_there_is_one_null_version(objects: Objects) -> None:
    first = await put_version(objects, "k", b"first")
    await put_version(objects, "k", b"null", suspended=True)
    second = await put_version(objects, "k", b"second")
    await put_version(objects, "k", b"other null", suspended=True)
    shown = [(version, latest) for _, version, _, latest in await versions(objects)]
    assert shown == [(NULL_VERSION, True), (second, False), (first, False)]
    marker = await objects.delete_object(BUCKET, "k", versioning=Versioning.SUSPENDED)
    assert marker is not None
    assert marker.null
    assert [version for _, version, _, _ in await versions(objects)] == [NULL_VERSION, second, first]


async def test_versions_are_listed_by_pages_and_groups(objects: Objects) -> None:
    for key in ("a", "d/1", "d/2", "e"):
        for number in range(3):
            await put_version(objects, key, b"%d" % number)
    await objects.delete_object(BUCKET, "d/1", versioning=Versioning.ENABLED)
    everything = await versions(objects)
    assert [key for key, *_ in everything] == ["a"] * 3 + ["d/1"] * 4 + ["d/2"] * 3 + ["e"] * 3
    found: list[tuple[str, bytes, bool, bool]] = []
    page: list[tuple[str, bytes, bool, bool]] = await versions(objects, limit=2)
    while page:
        found += page
        page = await versions(objects, limit=2, after=found[-1][0], after_version=found[-1][1])
    assert found == everything
    grouped = await objects.list_versions(BUCKET, delimiter="/", limit=4)
    assert ([entry.key for entry in grouped.entries], grouped.prefixes, grouped.truncated) == (["a"] * 3, ["d/"], True)
    behind = await objects.list_versions(BUCKET, delimiter="/", after="d/")
    assert ([entry.key for entry in behind.entries], behind.prefixes, behind.truncated) == (["e"] * 3, [], False)
    assert [key for key, *_ in await versions(objects, prefix="d/2")] == ["d/2"] * 3
