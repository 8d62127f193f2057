"""Known values, and combining parts equals reading the whole."""

import base64
import hashlib
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast_server.s3.checksums import (
    ALGORITHMS,
    COMPOSITE,
    FULL_OBJECT,
    combine_parts,
    encode_checksum,
    multipart_etag,
    parse_upload_checksum,
)
from holdfast_server.s3.errors import S3Error


def digest_of(name: str, data: bytes) -> bytes:
    digest = ALGORITHMS[name].new()
    digest.update(memoryview(data))
    return digest.digest()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CRC32", "cbf43926"),
        ("CRC32C", "e3069283"),
        ("CRC64NVME", "ae8b14860a799888"),
        ("XXHASH64", "8cb841db40e6ae83"),
    ],
)
def test_check_values_of_the_standards(name, value):
    assert digest_of(name, b"123456789").hex() == value


@settings(max_examples=40, deadline=None)
@given(parts=st.lists(st.binary(max_size=2000), min_size=1, max_size=6))
def test_full_object_checksums_equal_those_of_the_whole(parts):
    for name in ("CRC32", "CRC32C", "CRC64NVME"):
        pairs = [(digest_of(name, part), len(part)) for part in parts]
        whole = encode_checksum(digest_of(name, b"".join(parts)))
        assert combine_parts(ALGORITHMS[name], FULL_OBJECT, pairs) == whole


def test_composite_checksums_cover_the_parts_checksums():
    parts = [(digest_of("SHA256", part), len(part)) for part in (b"one", b"two", b"three")]
    expected = hashlib.sha256(b"".join(digest for digest, _ in parts)).digest()
    assert combine_parts(ALGORITHMS["SHA256"], COMPOSITE, parts) == base64.b64encode(expected).decode() + "-3"


def test_etag_of_a_multipart_object():
    etags = [hashlib.md5(part).hexdigest() for part in (b"a", b"b")]
    assert multipart_etag(etags) == hashlib.md5(b"".join(map(bytes.fromhex, etags))).hexdigest() + "-2"


@pytest.mark.parametrize(
    ("algorithm", "kind", "result"),
    [
        ("CRC32", "", COMPOSITE),
        ("crc32", "FULL_OBJECT", FULL_OBJECT),
        ("CRC64NVME", "", FULL_OBJECT),
        ("CRC64NVME", "COMPOSITE", None),
        ("SHA256", "FULL_OBJECT", None),
        ("SHA256", "composite", COMPOSITE),
        ("CRC9", "", None),
        ("", "COMPOSITE", None),
    ],
)
def test_algorithm_and_type_of_an_upload_must_fit(algorithm, kind, result):
    headers = {"x-amz-checksum-algorithm": algorithm, "x-amz-checksum-type": kind}
    if result is None:
        with pytest.raises(S3Error, match="InvalidRequest"):
            parse_upload_checksum(headers)
    else:
        chosen = parse_upload_checksum(headers)
        assert chosen is not None
        assert chosen == (ALGORITHMS[algorithm.upper()], result)


def test_an_upload_without_checksum_has_none():
    assert parse_upload_checksum({}) is None


@pytest.mark.parametrize("name", ["MD5", "SHA1", "SHA256", "SHA512"])
def test_digests_are_those_of_the_library_also_on_the_way(name):
    data = bytes(range(256)) * 300
    digest, expected = ALGORITHMS[name].new(), hashlib.new(name.lower())
    for start in range(0, len(data), 1000):
        digest.update(memoryview(data)[start : start + 1000])
        expected.update(data[start : start + 1000])
        assert digest.digest() == expected.digest()


@pytest.mark.parametrize("name", ["MD5", "SHA256"])
def test_others_go_on_while_a_digest_is_computed(name):
    """It runs on a thread beside the loop; one that kept the interpreter to itself would stop the pod."""
    digest, data = ALGORITHMS[name].new(), bytearray(64 << 20)
    # A busy machine may let nobody else run for long; with the interpreter kept there is hardly one turn, ever.
    assert any(_turns_beside(digest.update, data) >= 5 for _ in range(20))


def _turns_beside(work, data):
    """How often another thread could do something meanwhile."""
    working = threading.Thread(target=work, args=(data,))
    turns = 0
    working.start()
    while working.is_alive():
        time.sleep(0.001)
        turns += 1
    return turns
