"""S3 clients that are not built on botocore, against four erasure-coded pods: each speaks its own dialect.

minio-py signs and frames by itself and composes objects from part copies; obstore (Rust) relies on conditional
writes.  A client that is not installed is skipped.  What every client can do is in `test_client_table`; here is what
these do beyond that.
"""

from __future__ import annotations

import datetime
import io
import random
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from holdfast_server.testing.boto import client_of, endpoint_of
from holdfast_server.testing.pods import PodProcesses

MIB = 1 << 20
KEYS = ["a b/c+d", "fake/1:2:3=4", "ü/日本 🙂", "p%20q%2B", "x~!*'()@&,;$"]
BIG = random.Random(1).randbytes(11 * MIB + 17)


@pytest.fixture
def s3(pods: PodProcesses) -> Iterator[Any]:
    """To make buckets with."""
    with closing(client_of(endpoint_of(pods), attempts=5)) as client:
        yield client


def fetch(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=30) as answer:
        return answer.read()


def test_minio_py(pods: PodProcesses, bucket: str) -> None:
    minio = pytest.importorskip("minio", reason="minio-py is not installed")
    from minio.commonconfig import ComposeSource, CopySource
    from minio.deleteobjects import DeleteObject

    host = pods.endpoint(1).removeprefix("http://")
    client = minio.Minio(host, access_key=pods.access_key, secret_key=pods.secret_key, secure=False)

    def read(key: str, offset: int = 0, length: int = 0) -> bytes:
        answer = client.get_object(bucket, key, offset=offset, length=length)
        try:
            return answer.read()
        finally:
            answer.close()
            answer.release_conn()

    for key in KEYS:
        client.put_object(bucket, key, io.BytesIO(key.encode()), len(key.encode()))
        assert read(key) == key.encode()
    client.put_object(bucket, "big", io.BytesIO(BIG), -1, part_size=5 * MIB)
    assert read("big") == BIG
    assert read("big", 6 * MIB, 1000) == BIG[6 * MIB : 6 * MIB + 1000]
    client.copy_object(bucket, "copy", CopySource(bucket, KEYS[0]))
    sources = [ComposeSource(bucket, "big"), ComposeSource(bucket, "big", offset=5, length=5 * MIB)]
    client.compose_object(bucket, "composed", sources)
    assert read("composed") == BIG + BIG[5 : 5 + 5 * MIB]
    names = [entry.object_name for entry in client.list_objects(bucket, recursive=True)]
    assert names == sorted([*KEYS, "big", "copy", "composed"])
    assert [entry.object_name for entry in client.list_objects(bucket, recursive=True, use_api_v1=True)] == names
    assert fetch(client.presigned_get_object(bucket, KEYS[1])) == KEYS[1].encode()
    assert not list(client.remove_objects(bucket, [DeleteObject(name) for name in names]))
    client.remove_bucket(bucket)


def test_obstore(pods: PodProcesses, bucket: str) -> None:
    obstore = pytest.importorskip("obstore", reason="obstore is not installed")
    from obstore.exceptions import AlreadyExistsError, PreconditionError

    store = obstore.store.S3Store(
        bucket, endpoint=pods.endpoint(2), region="us-east-1", client_options={"allow_http": True},
        access_key_id=pods.access_key, secret_access_key=pods.secret_key,
    )  # fmt: skip
    for key in KEYS[:3]:
        obstore.put(store, key, key.encode())
        assert bytes(obstore.get(store, key).bytes()) == key.encode()
    obstore.put(store, "big", io.BytesIO(BIG), use_multipart=True, chunk_size=5 * MIB)
    ranges = obstore.get_ranges(store, "big", starts=[0, 9_000_000], ends=[4, 9_000_009])
    assert [bytes(piece) for piece in ranges] == [BIG[:4], BIG[9_000_000:9_000_009]]
    obstore.put(store, "once", b"1", mode="create")
    with pytest.raises(AlreadyExistsError):
        obstore.put(store, "once", b"2", mode="create")
    etag = obstore.head(store, "once")["e_tag"]
    obstore.put(store, "once", b"3", mode={"e_tag": etag})
    with pytest.raises(PreconditionError):
        obstore.put(store, "once", b"4", mode={"e_tag": etag})
    obstore.rename(store, "once", "moved")
    assert fetch(obstore.sign(store, "GET", "moved", datetime.timedelta(minutes=5))) == b"3"
    assert obstore.list_with_delimiter(store)["common_prefixes"] == ["a b", "fake", "ü"]
    obstore.delete(store, [entry["path"] for batch in obstore.list(store) for entry in batch])
    assert not [entry for batch in obstore.list(store) for entry in batch]
