"""Keys of objects: bound to what they are for, wrapped so that nothing else opens them."""

from __future__ import annotations

import msgspec
import pytest

from holdfast_server.sealing.chunks import SealBroken
from holdfast_server.sealing.envelope import (
    RANDOM_SIZE_BYTES,
    SSE_C,
    SSE_KMS,
    SSE_S3,
    Seal,
    Sealing,
    check_ties,
    extent_key,
    new_seal,
    open_seal,
    tie_parts,
    ties_key,
)

MASTER = bytes(range(32))
BUCKET = b"B" * 16
RANDOM = bytes(range(100, 100 + RANDOM_SIZE_BYTES))
PARTS = [(1, 5 << 20, b"one"), (2, 5 << 20, b"two"), (5, 100, b"five")]


def made(method: str = SSE_S3, random: bytes = RANDOM, context: str = "") -> Seal:
    return new_seal(Sealing(method, "default.1", context=context), MASTER, BUCKET, "key", random)


def test_the_same_master_key_opens_it() -> None:
    seal = made()
    assert open_seal(seal.sealing, MASTER, BUCKET, "key") == seal


def test_the_objects_key_is_nowhere_in_what_is_stored() -> None:
    seal = made()
    assert seal.key not in msgspec.msgpack.encode(seal.sealing)
    assert seal.key.hex() not in repr(seal) + repr(seal.sealing)


@pytest.mark.parametrize(
    ("master", "bucket", "key", "change"),
    [
        (bytes(32), BUCKET, "key", {}),
        (MASTER, b"C" * 16, "key", {}),
        (MASTER, BUCKET, "other", {}),
        (MASTER, BUCKET, "key", {"method": SSE_KMS}),
        (MASTER, BUCKET, "key", {"master": "default.2"}),
        (MASTER, BUCKET, "key", {"context": "e30="}),
        (MASTER, BUCKET, "key", {"salt": bytes(32)}),
        (MASTER, BUCKET, "key", {"wrapped": bytes(48)}),
        (MASTER, BUCKET, "key", {"wrapped": b""}),
    ],
)
def test_in_any_other_place_it_does_not_open(
    master: bytes, bucket: bytes, key: str, change: dict[str, bytes | str]
) -> None:
    sealing = msgspec.structs.replace(made().sealing, **change)
    with pytest.raises(SealBroken):
        open_seal(sealing, master, bucket, key)


def test_names_and_keys_do_not_run_into_each_other() -> None:
    seal = new_seal(Sealing(SSE_S3, "default"), MASTER, BUCKET, "1key", RANDOM)
    with pytest.raises(SealBroken):
        open_seal(msgspec.structs.replace(seal.sealing, master="default1"), MASTER, BUCKET, "key")


def test_every_extent_has_a_key_of_its_own() -> None:
    keys = {extent_key(MASTER, data_id, number) for data_id in (b"", b"a", b"b") for number in (0, 1, 2)}
    assert len(keys) == 9
    assert MASTER not in keys


def test_only_sse_s3_shows_the_md5() -> None:
    md5 = "d41d8cd98f00b204e9800998ecf8427e"
    assert made(SSE_S3).etag(md5) == md5
    for method in (SSE_KMS, SSE_C):
        shown = made(method).etag(md5)
        assert shown != md5
        assert len(bytes.fromhex(shown)) == 16
        assert shown != made(method, RANDOM[::-1]).etag(md5), "the same content must not show by its ETag"


def tied(parts: list[tuple[int, int, bytes]]) -> Seal:
    seal = made()
    return Seal(msgspec.structs.replace(seal.sealing, ties=tie_parts(ties_key(seal.key), parts)), seal.key)


def test_the_parts_it_was_completed_with_are_its_parts() -> None:
    check_ties(tied(PARTS), PARTS)


@pytest.mark.parametrize(
    "parts",
    [
        PARTS[:2],
        [PARTS[1], PARTS[0], PARTS[2]],
        [*PARTS, (6, 1, b"six")],
        [(1, 5 << 20, b"two"), (2, 5 << 20, b"one"), PARTS[2]],
        [(1, 5 << 20, b"one"), (2, 5 << 20, b"two"), (5, 99, b"five")],
        [],
    ],
)
def test_other_parts_are_noticed(parts: list[tuple[int, int, bytes]]) -> None:
    with pytest.raises(SealBroken):
        check_ties(tied(PARTS), parts)


def test_ties_of_another_object_are_noticed() -> None:
    other = made(random=RANDOM[::-1])
    sealing = msgspec.structs.replace(made().sealing, ties=tie_parts(ties_key(other.key), PARTS))
    with pytest.raises(SealBroken):
        check_ties(Seal(sealing, made().key), PARTS)
