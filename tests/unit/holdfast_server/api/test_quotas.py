"""Quotas: what is refused, what is noted of writes and deletes, and what pods tell each other."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec
import pytest
from botocore.exceptions import ClientError

from holdfast_server.api import bucket_record
from holdfast_server.api.bucket_record import BucketRecord, Quota, document_name
from holdfast_server.api.metered_objects import metered
from holdfast_server.api.quotas import RECOUNT_SECONDS, TELL_ALL_SECONDS, USAGE_TOPIC, Quotas
from holdfast_server.api.services import Services
from holdfast_server.clock.system import SystemClock
from holdfast_server.contract.healing import BucketUsage
from holdfast_server.objects.port import Record
from holdfast_server.s3.errors import S3Error
from holdfast_server.testing.boto import served_client
from holdfast_server.testing.manual_clock import ManualClock
from holdfast_server.testing.memory_cluster import BytesBody
from holdfast_server.testing.memory_objects import MemoryObjects
from holdfast_server.testing.memory_services import memory_services

ID = b"i" * 16


def usage(size_bytes: int = 0, versions: int = 0, bucket_id: bytes = ID) -> BucketUsage:
    return BucketUsage(bucket_id=bucket_id.hex(), objects=versions, versions=versions, size_bytes=size_bytes)


def bucket(**quota: int) -> BucketRecord:
    limits = Quota(**quota) if quota else None
    return BucketRecord(id=ID, name="limited", owner="root", region="r", created_ms=1, quota=limits)


# --- one pod, as clients see it


@pytest.fixture
def services() -> Services:
    return memory_services(meter=True)


@pytest.fixture
def s3(services: Services) -> Iterator[Any]:
    with served_client(services) as client:
        yield client


@pytest.fixture
def limit(s3: Any, services: Services) -> Callable[..., Callable[[], tuple[int, int]]]:
    """Makes the bucket with a quota, counted empty; returns what tells of its bytes and versions."""

    def make(versioning: bool = False, **quota: int) -> Callable[[], tuple[int, int]]:
        s3.create_bucket(Bucket="limited")
        if versioning:
            s3.put_bucket_versioning(Bucket="limited", VersioningConfiguration={"Status": "Enabled"})
        name = document_name("limited")
        documents: Any = services.objects
        document = documents._objects._documents[name]
        made = msgspec.structs.replace(bucket_record.decode(document.body), quota=Quota(**quota))
        documents._objects._documents[name] = msgspec.structs.replace(document, body=bucket_record.encode(made))
        services.buckets.forget("limited")
        services.quotas.knows([made])
        services.quotas.counted("", usage(bucket_id=made.id), 1)
        return lambda: services.quotas.used(made.id)[:2]

    return make


def refused(call: Callable[[], Any]) -> None:
    with pytest.raises(ClientError) as error:
        call()
    response = error.value.response
    assert (response["ResponseMetadata"]["HTTPStatusCode"], response["Error"]["Code"]) == (403, "QuotaExceeded")


def test_what_would_be_too_much_is_refused_and_nothing_else(s3: Any, limit: Any) -> None:
    used = limit(size_bytes=10)
    s3.put_object(Bucket="limited", Key="a", Body=b"x" * 6)
    refused(lambda: s3.put_object(Bucket="limited", Key="b", Body=b"x" * 5))
    s3.put_object(Bucket="limited", Key="b", Body=b"x" * 4)
    assert used() == (10, 2)
    refused(lambda: s3.put_object(Bucket="limited", Key="c", Body=b""))
    refused(lambda: s3.copy_object(Bucket="limited", Key="c", CopySource="limited/a"))
    refused(lambda: s3.create_multipart_upload(Bucket="limited", Key="c"))
    assert s3.get_object(Bucket="limited", Key="a")["Body"].read() == b"x" * 6
    s3.delete_object(Bucket="limited", Key="a")
    assert used() == (4, 1)
    s3.put_object(Bucket="limited", Key="c", Body=b"x" * 6)


def test_what_a_write_replaces_makes_room(s3: Any, limit: Any) -> None:
    used = limit(size_bytes=10, objects=2)
    for size in (3, 7, 1, 5):
        s3.put_object(Bucket="limited", Key="a", Body=b"x" * size)
        assert used() == (size, 1)


def test_a_write_that_fails_takes_no_room(s3: Any, limit: Any) -> None:
    used = limit(size_bytes=10)
    s3.put_object(Bucket="limited", Key="a", Body=b"x")
    with pytest.raises(ClientError, match="PreconditionFailed"):
        s3.put_object(Bucket="limited", Key="a", Body=b"y", IfNoneMatch="*")
    assert used() == (1, 1)


def test_versions_and_markers_count_until_they_are_deleted(s3: Any, limit: Any) -> None:
    used = limit(versioning=True, size_bytes=100, objects=3)
    first = s3.put_object(Bucket="limited", Key="a", Body=b"xx")["VersionId"]
    s3.put_object(Bucket="limited", Key="a", Body=b"xxx")
    s3.delete_object(Bucket="limited", Key="a")
    assert used() == (5, 3)
    refused(lambda: s3.put_object(Bucket="limited", Key="a", Body=b"x"))
    s3.delete_object(Bucket="limited", Key="a", VersionId=first)
    assert used() == (3, 2)
    s3.delete_object(Bucket="limited", Key="a")
    s3.delete_object(Bucket="limited", Key="a")
    assert used() == (3, 4), "a delete is never refused"


def test_parts_count_from_when_they_are_uploaded(s3: Any, limit: Any) -> None:
    used = limit(size_bytes=12 << 20)
    upload = {
        "Bucket": "limited",
        "Key": "a",
        "UploadId": s3.create_multipart_upload(Bucket="limited", Key="a")["UploadId"],
    }
    body = b"x" * (5 << 20)
    etags = [s3.upload_part(**upload, PartNumber=number, Body=body)["ETag"] for number in (1, 2)]
    assert used() == (10 << 20, 0)
    refused(lambda: s3.upload_part(**upload, PartNumber=3, Body=body))
    parts = [{"PartNumber": number + 1, "ETag": etag} for number, etag in enumerate(etags)]
    s3.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts})
    assert used() == (10 << 20, 1)
    other = {
        "Bucket": "limited",
        "Key": "b",
        "UploadId": s3.create_multipart_upload(Bucket="limited", Key="b")["UploadId"],
    }
    s3.upload_part(**other, PartNumber=1, Body=b"x" * 100)
    s3.abort_multipart_upload(**other)
    assert used() == (10 << 20, 1)


@pytest.mark.parametrize("versioning", [False, True])
def test_an_upload_that_is_completed_again_changes_nothing(s3: Any, limit: Any, versioning: bool) -> None:
    used = limit(versioning=versioning, size_bytes=100)
    upload = s3.create_multipart_upload(Bucket="limited", Key="big")["UploadId"]
    etag = s3.upload_part(Bucket="limited", Key="big", UploadId=upload, PartNumber=1, Body=bytes(60))["ETag"]
    for _ in range(3):
        s3.complete_multipart_upload(
            Bucket="limited",
            Key="big",
            UploadId=upload,
            MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": etag}]},
        )
        assert used() == (60, 1)


class SlowToTell(MemoryObjects):
    """Several ask what is there before one of them does away with it."""

    async def head_object(self, bucket_id: bytes, key: str, version: bytes | None = None) -> Record | None:
        found = await super().head_object(bucket_id, key, version)
        await asyncio.sleep(0.01)
        return found


@pytest.mark.parametrize("way", ["deleted", "overwritten"])
async def test_what_many_do_away_with_at_once_is_taken_off_once(way: str) -> None:
    clock = SystemClock()
    quotas = Quotas(clock, sets=lambda: [""])
    objects = metered(SlowToTell(clock), quotas)
    quotas.knows([bucket(size_bytes=1000)])
    quotas.counted("", usage(), 1)
    for key, size_bytes in (("kept", 100), ("gone", 50)):
        await objects.put_object(ID, key, BytesBody(bytes(size_bytes)))
    if way == "deleted":
        await asyncio.gather(*(objects.delete_object(ID, "gone") for _ in range(10)))
        assert quotas.used(ID)[:2] == (100, 1)
    else:
        await asyncio.gather(*(objects.put_object(ID, "gone", BytesBody(b"1")) for _ in range(10)))
        size_bytes, versions = quotas.used(ID)[:2]
        assert size_bytes >= 101
        assert versions >= 2


def test_before_a_bucket_was_counted_nothing_is_refused(s3: Any, limit: Any, services: Services) -> None:
    limit(size_bytes=1)
    services.quotas.book._counts.clear()
    s3.put_object(Bucket="limited", Key="a", Body=b"xxx")


# --- several pods


class Tenant:
    """Pods that hear each other, unless they are cut off."""

    def __init__(self, count: int) -> None:
        self.clock = ManualClock()
        self.recounts: list[tuple[int, bytes]] = []
        self.deaf: set[int] = set()
        self.pods: list[Quotas] = []
        for number in range(count):
            self.pods.append(self.make(number))

    def make(self, number: int) -> Quotas:
        async def announce(topic: str, news: Sequence[str]) -> None:
            assert topic == USAGE_TOPIC
            for other, pod in enumerate(self.pods):
                if other != number and other not in self.deaf:
                    pod.on_news(news)

        return Quotas(
            self.clock, announce, lambda: ["s"], lambda bucket_id, key: "s",
            lambda bucket_id: self.recounts.append((number, bucket_id)),
        )  # fmt: skip

    async def tell(self) -> None:
        for _ in range(2):
            for pod in self.pods:
                await pod.tell()

    async def count(self, leader: int, size_bytes: int, versions: int) -> None:
        await self.pods[leader].begin_count("s", ID)
        self.pods[leader].counted("s", usage(size_bytes, versions), self.clock.now_ms())
        await self.tell()


async def test_pods_agree_on_what_a_bucket_holds() -> None:
    tenant = Tenant(3)
    limited = bucket(size_bytes=100)
    for pod in tenant.pods:
        pod.seen(limited)
    await tenant.count(0, 10, 1)
    for number, pod in enumerate(tenant.pods):
        pod.reserve(limited, "k", 10 * (number + 1), 1)
    await tenant.tell()
    assert [pod.used(ID)[:2] for pod in tenant.pods] == [(70, 4)] * 3
    for pod in tenant.pods:
        with pytest.raises(S3Error, match="QuotaExceeded"):
            pod.reserve(limited, "k", 31, 1)
    await tenant.count(1, 70, 4)
    assert [pod.used(ID)[:2] for pod in tenant.pods] == [(70, 4)] * 3


async def test_what_one_pod_accepts_in_the_same_moment_never_exceeds_the_quota() -> None:
    tenant = Tenant(1)
    limited = bucket(size_bytes=100)
    tenant.pods[0].seen(limited)
    await tenant.count(0, 0, 0)
    accepted = 0
    for _ in range(50):
        try:
            tenant.pods[0].reserve(limited, "k", 7, 1)
            accepted += 7
        except S3Error:
            break
    assert accepted == 98


async def test_a_pod_that_missed_news_is_told_again() -> None:
    tenant = Tenant(2)
    for pod in tenant.pods:
        pod.seen(bucket(size_bytes=100))
    tenant.deaf = {1}
    await tenant.count(0, 42, 3)
    tenant.deaf = set()
    assert not tenant.pods[1].used(ID).known
    tenant.pods[0].repeat()
    await tenant.tell()
    assert tenant.pods[1].used(ID)[:2] == (42, 3)
    assert TELL_ALL_SECONDS < RECOUNT_SECONDS


async def test_a_pod_that_has_just_begun_is_told_everything_and_has_it_counted_anew() -> None:
    tenant = Tenant(2)
    for pod in tenant.pods:
        pod.seen(bucket(size_bytes=100))
    await tenant.count(0, 42, 3)
    tenant.pods[1] = tenant.make(1)
    tenant.pods[1].ask()
    await tenant.tell()
    assert tenant.pods[1].used(ID)[:2] == (42, 3)
    assert (0, ID) in tenant.recounts


async def test_a_refusal_by_an_old_count_asks_for_a_new_one_once() -> None:
    tenant = Tenant(2)
    limited = bucket(size_bytes=1)
    tenant.pods[0].seen(limited)
    await tenant.count(1, 5, 1)
    for _ in range(3):
        with pytest.raises(S3Error, match="QuotaExceeded"):
            tenant.pods[0].reserve(limited, "k", 1, 1)
    assert not tenant.recounts, "it was counted just now"
    tenant.clock.advance(RECOUNT_SECONDS + 1)
    for _ in range(3):
        with pytest.raises(S3Error, match="QuotaExceeded"):
            tenant.pods[0].reserve(limited, "k", 1, 1)
    await tenant.tell()
    assert sorted(tenant.recounts) == [(0, ID), (1, ID)]


def test_news_that_make_no_sense_are_passed_over() -> None:
    pod = Tenant(1).pods[0]
    pod.on_news(["", "{}", "[]", '["x",[["zz","s",1]]]', '["x",[],[],[["00",1]]]'])


def test_the_services_hand_news_of_usage_on() -> None:
    heard: list[Sequence[str]] = []
    services = memory_services()
    services = dataclasses.replace(services)
    services.quotas.on_news = heard.append  # type: ignore[method-assign]

    async def hear() -> None:
        await services.on_announce(USAGE_TOPIC, ["x"])

    import asyncio

    asyncio.run(hear())
    assert heard == [["x"]]
